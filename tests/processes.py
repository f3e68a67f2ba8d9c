"""The ``roundhouse`` command in processes of its own, as an operator runs it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from tests.client import ADMIN_KEY, PATIENCE_SECONDS, Client

COMMAND = [sys.executable, "-m", "app"]
WORKER = "worker"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def environment_of(home: Path, **settings: str) -> dict[str, str]:
    """``settings`` are ``ROUNDHOUSE_*`` variables without the prefix, and others as they are."""
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return os.environ | {"ROUNDHOUSE_HOME": str(home / "home"), "TMPDIR": str(temporary)} | settings


def run(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment_of(home, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def connect(url: str) -> Client:
    """The first admin's client, which outlives the server of this URL and finds the next one there."""
    return Client(base_url=url, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=PATIENCE_SECONDS)


@contextmanager
def worker_process(client: Client, *arguments: str, **settings: object) -> Iterator[psutil.Popen]:
    """``roundhouse worker`` for the client's server."""
    settings = {"home": client.settings.home, "lease_seconds": 600} | settings
    environment = os.environ | {f"ROUNDHOUSE_{name.upper()}": str(value) for name, value in settings.items()}
    command = [*COMMAND, WORKER, *arguments]
    with psutil.Popen(
        command, env=environment, stdin=subprocess.PIPE if arguments else subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def is_alive(process: psutil.Process) -> bool:
    """Whether it still does anything: one that has ended is listed until its parent takes notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def trainers(worker: psutil.Process) -> list[psutil.Process]:
    """The worker's child processes for fits: those that fit, and one that stands ready."""
    return [
        child for child in worker.children() if is_alive(child) and "app.training.child" in child.cmdline()
    ]


def fits(worker: psutil.Process) -> list[psutil.Process]:
    """Those that fit: each works in a folder of its own."""
    return [child for child in trainers(worker) if "scratch" in Path(child.cwd()).parts]


class Serve:
    """``roundhouse serve`` below the folder ``home``; all its processes are gone after the ``with``."""

    def __init__(self, home: Path, *arguments: str, port: int | None = None, **settings: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = environment_of(home, **{"ROUNDHOUSE_ADMIN_KEY": ADMIN_KEY} | settings)
        if not environment["ROUNDHOUSE_ADMIN_KEY"]:
            del environment["ROUNDHOUSE_ADMIN_KEY"]
        self._log = home / f"serve-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--port", str(self.port), *arguments],
                env=environment,
                stdout=log,
                stderr=log,
            )

        self.client = connect(self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.kill_everything()

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> Client:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            try:
                if self.client.get("/readyz").status_code == httpx.codes.OK:
                    return self.client
            except httpx.TransportError:
                time.sleep(0.02)

    def worker(self) -> psutil.Process:
        """The worker process beside the server, once there is one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            for child in psutil.Process(self.process.pid).children():
                if is_alive(child) and WORKER in child.cmdline():
                    return child
            assert time.monotonic() < deadline, "there is no worker"
            time.sleep(0.02)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the server alone."""
        self.process.kill()
        self.process.wait()

    def kill_everything(self) -> None:
        """SIGKILL to the server and all that it started."""
        family = []
        if self.process.poll() is None:
            server = psutil.Process(self.process.pid)
            family = [*server.children(recursive=True), server]
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family)
        self.process.wait()
