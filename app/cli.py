"""The ``roundhouse`` command."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import ArgumentError, OperationalError

from app.access.caller import Caller
from app.access.policy import Role
from app.access.route import is_loopback
from app.db import Database
from app.errors import AppError
from app.keys.service import create_key, ensure_admin_key
from app.owned import Scratch
from app.retention import Garbage, collect_garbage, find_garbage
from app.settings import Settings
from app.store import Store
from app.telemetry import MULTIPROCESS_FOLDER, configure_logging
from app.worker import run_worker

cli = typer.Typer(
    help="Roundhouse: one server for the whole life of a tabular model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
cli.add_typer(keys, name="keys")
console = Console(stderr=True, soft_wrap=True)

WORKER_RESTART_SECONDS = 1.0
SHOWN_ENTRIES = 50  # rows of gc's table; --json has no bound
WIDTH_OF_ENTRIES = 110  # columns of it at least, also in a pipe: a digest is 71 wide and must not be broken
MOST_HOURS = 24 * 365 * 100  # now less a hundred years is still a date; less any number of hours it is not
HEALTH_CHECK_SECONDS = 60  # a server process on a busy machine takes its time to start


def main() -> None:
    """Run the command; what the caller can mend is one line, without a trace."""
    try:
        cli()
    except ValidationError as error:
        for fault in error.errors():
            name = str(fault["loc"][0]).upper()
            given = "" if name.endswith("_KEY") else f", not {fault['input']!r}"  # a key is not to be shown
            _complain(f"ROUNDHOUSE_{name}: {fault['msg']}{given}.")
        raise SystemExit(2) from None
    except SettingsError as error:
        _complain(f"A setting is not the JSON that it should be: {error}.")
        raise SystemExit(2) from None
    except ArgumentError as error:
        _complain(f"ROUNDHOUSE_DATABASE_URL is not a database's URL: {error}")
        raise SystemExit(2) from None
    except AppError as error:
        _complain(error.detail)
        raise SystemExit(1) from None
    except OperationalError as error:
        _complain(f"The database did not answer: {' '.join(str(error.orig).split())}")
        raise SystemExit(1) from None
    except OSError as error:
        _complain(f"{error.filename or 'The system'}: {error.strerror}.")
        raise SystemExit(1) from None


def _memory() -> Path | None:
    """A folder in memory, where the system has one: the metrics that processes share are memory-mapped, and
    a full disk under such a file ends its process.
    """
    shared = Path("/dev/shm")  # noqa: S108 - Scratch makes a folder of its own there, for this user only
    return shared / f"roundhouse-{os.getuid()}" if os.access(shared, os.W_OK) else None


def _complain(text: str) -> None:
    console.print(f"[red]{escape(text)}[/]")


@cli.command()
def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Server processes.")] = 1,
    worker: Annotated[bool, typer.Option(help="Also run a worker.")] = True,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no key. For exploration, on loopback only.")
    ] = False,
) -> None:
    """Serve the API, with a worker beside it."""
    if no_auth:
        os.environ["ROUNDHOUSE_NO_AUTH"] = "true"  # the server processes read it as their setting
    settings = Settings()
    if settings.no_auth and not is_loopback(host):
        _complain(f"--no-auth works on a loopback address only, not on {host}.")
        raise SystemExit(2)
    _require_free(host, port)
    configure_logging(settings.log_format)
    # At its end uvicorn raises the SIGTERM that ended it once more: this unwinds the stack, and exits with 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _ready_database(settings) as database:
        if not settings.no_auth:
            _announce_first_key(settings, database)
    with ExitStack() as stack:
        if workers > 1:
            scratch = stack.enter_context(closing(Scratch(_memory() or settings.scratch)))
            os.environ[MULTIPROCESS_FOLDER] = str(stack.enter_context(scratch.folder()))
        if worker:
            stack.callback(WorkerBeside().stop)
        uvicorn.run(
            "app.asgi:create_app",
            factory=True,
            http="app.serving.wire:ExpressProtocol",
            host=host,
            port=port,
            workers=workers,
            access_log=False,
            log_config=None,
            # Nothing is made of a caller's address, except without keys: there it is the only gate.
            proxy_headers=settings.no_auth,
            server_header=False,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.shutdown_seconds,
            timeout_worker_healthcheck=HEALTH_CHECK_SECONDS,
        )


@cli.command()
def worker(
    *, with_parent: Annotated[bool, typer.Option(hidden=True, help="End when standard input closes.")] = False
) -> None:
    """Run a worker: as many as you like, on any machine that reaches database and store."""
    run_worker(Settings(), with_parent=with_parent)


@cli.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="An Alembic revision.")] = "head",
) -> None:
    """Bring the database's schema to this version's."""
    from alembic.util import CommandError  # takes long to load

    database = Database(Settings().sqlalchemy_url)
    try:
        database.migrate(revision)
    except CommandError as error:
        _complain(f"The schema was not changed: {error}")
        raise SystemExit(1) from None
    database.dispose()
    console.print("The schema is current.")


@cli.command()
def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; tell what would be.")] = False,
    older_than: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_HOURS,
            metavar="HOURS",
            help="Spare what was written since: no upload or run takes longer. 0 is for stopped servers.",
        ),
    ] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every object.")] = False,
) -> None:
    """Remove the objects that nothing refers to, beside running servers."""
    settings, caller, grace = Settings(), _caller(), timedelta(hours=older_than)
    with _ready_database(settings) as database, closing(Scratch(settings.scratch)) as scratch:
        store = Store(settings.store_url, folder=settings.home / "objects", scratch=scratch)
        if dry_run:
            garbage = find_garbage(database, store, now=caller.now, older_than=grace)
        else:
            garbage = collect_garbage(database, store, caller, older_than=grace)
    if as_json:
        print(json.dumps(_as_json(garbage, dry_run=dry_run), indent=2))  # noqa: T201 - for scripts
    else:
        _show(garbage, dry_run=dry_run)


def _as_json(garbage: Garbage, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "bytes": garbage.size,
        "objects": [
            {"digest": entry.digest, "bytes": entry.size, "last_modified": entry.last_modified.isoformat()}
            for entry in garbage.objects
        ],
        "temporary": [{"path": entry.path, "bytes": entry.size} for entry in garbage.temporary],
        "idempotency_records": garbage.idempotency_records,
    }


def _show(garbage: Garbage, *, dry_run: bool) -> None:
    out = Console(width=max(Console().width, WIDTH_OF_ENTRIES))
    entries = [(entry.digest, entry) for entry in garbage.objects]
    entries += [(entry.path, entry) for entry in garbage.temporary]
    if entries:
        table = Table("object", "last written", box=None, pad_edge=False)
        table.add_column("size", justify="right")
        for name, entry in entries[:SHOWN_ENTRIES]:
            table.add_row(name, f"{entry.last_modified:%Y-%m-%d %H:%M} UTC", decimal(entry.size))
        out.print(table)
    if len(entries) > SHOWN_ENTRIES:
        out.print(f"… and {len(entries) - SHOWN_ENTRIES} more: --json prints all.")
    out.print(
        f"{'Would remove' if dry_run else 'Removed'} {len(garbage.objects)} objects and "
        f"{len(garbage.temporary)} temporary files, {decimal(garbage.size)} in all, and "
        f"{garbage.idempotency_records} idempotency records."
    )


@cli.command()
def demo(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    end: Annotated[bool, typer.Option("--exit", help="Stop the server at the end.")] = False,
) -> None:
    """Carry a model on real data through its whole life, over HTTP."""
    from app.demo.stage import perform  # the demo's modules are for this command only

    _require_free("127.0.0.1", port)
    raise SystemExit(perform(port, stay=not end))


@keys.command("create")
def create(
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    models: Annotated[str | None, typer.Option(help="Only models of this name pattern.")] = None,
) -> None:
    """Make an API key and print it, this once."""
    with _ready_database(Settings()) as database, database.session_scope() as session:
        _, secret = create_key(session, _caller(), name=name, role=role, models=models)
    print(secret)  # noqa: T201 - to standard output, for scripts


@contextmanager
def _ready_database(settings: Settings) -> Iterator[Database]:
    """The database with its schema current: SQLite is migrated, of PostgreSQL it is demanded."""
    database = Database(settings.sqlalchemy_url)
    try:
        if not settings.database_url:
            if not settings.sqlite_file.exists() or not database.schema_is_current():
                database.migrate()
        elif not database.schema_is_current():
            _complain("The database's schema is not this version's. Run `roundhouse migrate` first.")
            raise SystemExit(1)
        yield database
    finally:
        database.dispose()


def _require_free(host: str, port: int) -> None:
    """The server would say it too, but only after all else has started."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            _complain(f"Port {port} of {host} cannot be had: {error.strerror}. Choose another with --port.")
            raise SystemExit(1) from None


def _announce_first_key(settings: Settings, database: Database) -> None:
    given = settings.admin_key.get_secret_value() if settings.admin_key else None
    with database.session_scope() as session:
        made = ensure_admin_key(session, _caller(), given)
    if made:
        console.print(f"\nThe admin key, shown this once:  [bold]{made}[/]\n")


def _caller() -> Caller:
    return Caller("cli", Role.ADMIN, datetime.now(UTC))


class WorkerBeside:
    """A worker process beside the server, started again when it dies."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep_running, name="worker-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the worker return its run to the queue, and wait for its end."""
        self._stopping.set()
        self._process.terminate()
        self._thread.join()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "app", "worker", "--with-parent"],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for the server, which then stops this
        )

    def _keep_running(self) -> None:
        while True:
            self._process.wait()
            if self._stopping.wait(WORKER_RESTART_SECONDS):
                return
            console.print("[yellow]The worker ended; starting another.[/]")
            self._process = self._start()
            if self._stopping.is_set():  # stop() may have met the process before
                self._process.terminate()
