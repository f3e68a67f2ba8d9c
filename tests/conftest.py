"""What the tests stand on: the real application on a real server, real databases, stores and workers."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from xdist.scheduler import LoadScopeScheduling

from app.db import Database
from app.main import create_app
from app.owned import Scratch
from app.serving.wire import ExpressProtocol
from app.settings import Settings
from app.store import Store
from app.worker import Worker
from tests.client import ADMIN_KEY, Client
from tests.servers import S3Server, create_database, postgres_server, s3_server
from tests.versions import register, train_here

# A developer's own settings and credentials stay out of the tests.
for name in [name for name in os.environ if name.startswith(("ROUNDHOUSE_", "AWS_"))]:
    del os.environ[name]
# Many processes start here: bytecode that is not kept would be made again by each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Nobody waits for these runs to start: a process that stands ready would take more time than it saves.
os.environ["ROUNDHOUSE_WORKER_SPARE"] = "false"


class ByServer(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist is not typed
    """Gives the tests of one shared server to one process, and every other test to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        server = re.search(r"[\[-](laptop|production)[\]-]", nodeid)
        return server[1] if server else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    return ByServer(config, log)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    return create_database(request.getfixturevalue("postgres"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database, once on each engine."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.dispose()


@contextmanager
def running_server(settings: Settings) -> Iterator[str]:
    """The application under uvicorn in a thread; its URL."""
    database = Database(settings.sqlalchemy_url)
    database.migrate()
    database.dispose()
    config = uvicorn.Config(
        create_app(settings),
        http=ExpressProtocol,
        port=0,
        log_config=None,
        access_log=False,
        timeout_keep_alive=settings.keep_alive_seconds,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended while it started"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def running_worker(settings: Settings) -> Iterator[None]:
    """A worker in a thread, with real child processes."""
    database = Database(settings.sqlalchemy_url)
    scratch = Scratch(settings.scratch)
    store = Store(settings.store_url, folder=settings.home / "objects", scratch=scratch)
    worker = Worker(settings, database, store, scratch)
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()
        scratch.close()
        database.dispose()


def make_settings(home: Path, **changes: Any) -> Settings:
    return Settings(home=home, admin_key=ADMIN_KEY, journal_seal_seconds=0.5, log_format="json", **changes)


Start = Callable[..., Client]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers over a home of the test's own: ``start(worker=True, max_instances=5)``."""
    with ExitStack() as stack:

        def begin(*, worker: bool = False, **changes: Any) -> Client:
            settings = make_settings(tmp_path / "home", **changes)
            client = stack.enter_context(Client.of(stack.enter_context(running_server(settings)), settings))
            if worker:
                stack.enter_context(running_worker(settings))
            return client

        yield begin


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    used = slice(1) if metafunc.definition.get_closest_marker("sqlite_alone") else slice(2)
    if "shared" in metafunc.fixturenames:
        metafunc.parametrize("shared", ["laptop", "production"][used], indirect=True, scope="session")
    if "database_url" in metafunc.fixturenames:
        metafunc.parametrize("database_url", ["sqlite", "postgresql"][used], indirect=True)


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One server with a worker, for tests that make objects of their own and leave the others' alone.

    Once over SQLite and a folder, once over PostgreSQL and S3, and only the first for tests that are marked
    ``sqlite_alone``.
    """
    changes: dict[str, Any] = {}
    if request.param == "production":
        s3: S3Server = request.getfixturevalue("s3")
        os.environ.update(s3.environment)
        changes["database_url"] = create_database(request.getfixturevalue("postgres"))
        changes["store_url"] = f"s3://{s3.bucket}/roundhouse"
    settings = make_settings(tmp_path_factory.mktemp("home"), **changes)
    with running_server(settings) as url, running_worker(settings), Client.of(url, settings) as client:
        yield client


@pytest.fixture(scope="session")
def flights(shared: Client) -> str:
    """A dataset on the shared server that a binary model can learn from."""
    shared.add_dataset("flights", shared.table(rows=400, seed=1))
    return "flights"


@pytest.fixture(scope="session")
def delays(shared: Client, flights: str) -> str:
    """A model on the shared server with two versions, the first one promoted."""
    shared.train("delays", flights, algorithm="logistic_regression")
    shared.train("delays", flights, algorithm="hist_gradient_boosting", params={"max_iter": 10})
    answer = shared.post("/v1/models/delays:promote", json={"version": 1})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return "delays"


@pytest.fixture(scope="session")
def constant(shared: Client, flights: str) -> dict[str, Any]:
    """A trained baseline, to be registered as versions for which any answer will do."""
    return train_here(shared, flights, algorithm="dummy")


@pytest.fixture
def model(shared: Client, constant: dict[str, Any]) -> str:
    """A new model on the shared server with three versions and no deployment."""
    name = f"model-{uuid4().hex[:8]}"
    register(shared, name, constant, constant, constant)
    return name
