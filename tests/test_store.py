"""The object store, in a folder and on a real S3 server."""

import errno
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore, S3Store

from app.owned import LOCK, Scratch
from app.store import ObjectDamaged, ObjectMissing, Store, StoreUnavailable, object_path
from tests.servers import S3Server


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    scratch = Scratch(tmp_path / "scratch")
    yield scratch
    scratch.close()


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: Scratch
) -> Store:
    url = ""
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{s3.bucket}/{tmp_path.name}"
    return Store(url, folder=tmp_path / "objects", scratch=scratch)


@pytest.fixture
def raw(store: Store, request: pytest.FixtureRequest, tmp_path: Path) -> LocalStore | S3Store:
    """The same place without our rules."""
    if "s3" in request.node.callspec.params.values():
        s3: S3Server = request.getfixturevalue("s3")
        return S3Store.from_url(f"s3://{s3.bucket}/{tmp_path.name}")
    return LocalStore(tmp_path / "objects")


def names(raw: LocalStore | S3Store) -> list[str]:
    return sorted(entry["path"] for page in obstore.list(raw) for entry in page)


def test_an_object_is_named_by_the_hash_of_its_bytes(store: Store, raw: LocalStore | S3Store) -> None:
    stored = store.write([b"round", b"house"])
    expected = hashlib.sha256(b"roundhouse").hexdigest()
    assert stored == (f"sha256:{expected}", 10)
    assert store.read(stored.digest) == b"roundhouse"
    assert names(raw) == [object_path(expected)]


def test_the_same_bytes_are_stored_once(store: Store, raw: LocalStore | S3Store) -> None:
    assert store.write([b"same"]) == store.write([b"sa", b"me"])
    assert len(names(raw)) == 1


def test_a_file_that_is_taken_stays_when_its_folder_goes(
    store: Store, raw: LocalStore | S3Store, scratch: Scratch
) -> None:
    expected = hashlib.sha256(b"roundhouse").hexdigest()
    for known in (None, f"sha256:{expected}"):
        began = datetime.now(UTC) - timedelta(seconds=2)
        with scratch.folder() as folder:
            (folder / "upload").write_bytes(b"roundhouse")
            os.utime(folder / "upload", (0, 0))
            assert store.take_file(folder / "upload", known) == (f"sha256:{expected}", 10)
        assert store.read(f"sha256:{expected}") == b"roundhouse"
        assert names(raw) == [object_path(expected)]
        # To the collector of garbage it is as young as its store has it.
        assert not store.list_unused(expected[:2], (), before=began)


def test_a_file_of_another_file_system_is_copied(
    tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    store = Store("", folder=tmp_path / "objects", scratch=scratch)
    (tmp_path / "upload").write_bytes(b"roundhouse")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    stored = store.take_file(tmp_path / "upload")
    (tmp_path / "upload").write_bytes(b"something else")
    assert store.read(stored.digest) == b"roundhouse"


def test_only_what_was_stored_is_held(store: Store) -> None:
    assert store.holds(store.write([b"content"]).digest)
    assert not store.holds("sha256:" + "0" * 64)


def test_an_empty_object_can_be_stored(store: Store) -> None:
    assert store.read(store.write([]).digest) == b""


def test_a_large_object_comes_back_whole(store: Store) -> None:
    chunks = [bytes([number]) * 1_000_000 for number in range(20)]
    assert store.read(store.write(chunks).digest) == b"".join(chunks)


def test_an_interrupted_write_leaves_nothing_behind(store: Store, raw: LocalStore | S3Store) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 6_000_000
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError, match="the client is gone"):
        store.write(broken())
    assert names(raw) == []


def test_a_missing_object_says_so(store: Store) -> None:
    with pytest.raises(ObjectMissing, match="holds no object sha256:00"):
        store.read("sha256:" + "0" * 64)


def test_damaged_bytes_are_never_read(store: Store, raw: LocalStore | S3Store) -> None:
    stored = store.write([b"the truth"])
    obstore.put(raw, object_path(stored.digest.removeprefix("sha256:")), b"the lie")
    with pytest.raises(ObjectDamaged, match=stored.digest), store.open_file(stored.digest):
        pytest.fail("damaged bytes were handed out")


def test_reading_leaves_no_copy_behind(store: Store, tmp_path: Path) -> None:
    store.read(store.write([b"content"]).digest)
    assert [path.name for path in (tmp_path / "scratch").glob("*/*")] == [LOCK]


def test_only_what_a_dead_writer_left_in_the_folder_is_swept(tmp_path: Path, scratch: Scratch) -> None:
    store = Store("", folder=tmp_path / "objects", scratch=scratch)
    kept = store.write([b"kept"])
    temporary = tmp_path / "objects" / "tmp"
    dead, staged, living = (temporary / name for name in ("dead.1", "dead.2#1", f"{scratch.owner}.0"))
    for path in (dead, staged, living):
        path.write_bytes(b"half an obj")
    store.sweep(before=datetime.now(UTC) - timedelta(days=1))
    assert list(temporary.iterdir()) == [living]
    assert store.read(kept.digest) == b"kept"


def test_only_old_temporary_objects_are_swept_from_a_store_by_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server, scratch: Scratch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3.bucket}/{tmp_path.name}"
    store, raw = Store(url, folder=tmp_path, scratch=scratch), S3Store.from_url(url)
    kept = store.write([b"kept"])
    obstore.put(raw, "tmp/dead.1", b"half an obj")
    store.sweep(before=datetime.now(UTC) - timedelta(days=1))
    assert "tmp/dead.1" in names(raw)
    store.sweep(before=datetime.now(UTC) + timedelta(days=1))
    assert names(raw) == [object_path(kept.digest.removeprefix("sha256:"))]


def test_a_store_that_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server, scratch: Scratch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = Store(f"s3://{s3.bucket}", folder=tmp_path, scratch=scratch)
    with pytest.raises(StoreUnavailable, match="The object store did not do what was asked"):
        store.ping()
