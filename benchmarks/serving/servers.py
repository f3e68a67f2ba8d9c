"""A server under test: its processes on given cores, and the way to ask it."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Self

import httpx
import psutil
from data import Row

SERVER_CORE, CLIENT_CORE = (0,), (1,)
BOTH_CORES = SERVER_CORE + CLIENT_CORE

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.005
WRONG_REQUEST = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
TOLERANCE = 1e-6
"""A probability further than this from scikit-learn's is a wrong answer."""


class BenchmarkFailed(Exception):
    """What a person reads in place of a figure."""


@dataclass(frozen=True)
class Dialect:
    """How a server is asked, and how its answer is read: the positive class's probability, row by row."""

    path: str
    encode: Callable[[list[Row]], bytes]
    decode: Callable[[bytes], list[float]]
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class Server:
    """``command``, which listens on ``port``, on the given cores; its whole family ends with the ``with``."""

    def __init__(
        self,
        command: Sequence[str],
        dialect: Dialect,
        *,
        port: int,
        cores: Sequence[int],
        log: Path,
        headers: Mapping[str, str] | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.dialect = dialect
        self.url = f"http://127.0.0.1:{port}"
        self.headers = {**dialect.headers, **(headers or {})}
        self._log = log
        own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with log.open("wb") as output:
            self.process = psutil.Popen(
                ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],
                cwd=folder,
                env={**own, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        family = self._family()
        for process in family:
            process.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive)

    @property
    def resident_bytes(self) -> int:
        """Resident memory of all the server's processes."""
        return sum(process.memory_info().rss for process in self._family())

    def _family(self) -> list[psutil.Process]:
        try:
            return [*self.process.children(recursive=True), self.process]
        except psutil.NoSuchProcess:
            return []

    def ask(self, client: httpx.Client, rows: list[Row]) -> httpx.Response:
        return client.post(
            self.url + self.dialect.path, content=self.dialect.encode(rows), headers=self.headers
        )

    def wait_until_answering(self, row: Row) -> None:
        """Return after the first 200 to a prediction; raises BenchmarkFailed with what the server said."""
        self._wait(lambda client: self.ask(client, [row]))

    def wait_until_ready(self, path: str) -> None:
        """Return after the first 200 to GET ``path``; raises BenchmarkFailed with what the server said."""
        self._wait(lambda client: client.get(self.url + path))

    def _wait(self, ask: Callable[[httpx.Client], httpx.Response]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        said = ""
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            while self.process.poll() is None and time.monotonic() < deadline:
                try:
                    response = ask(client)
                    if response.status_code == HTTPStatus.OK:
                        return
                    said = f"{response.status_code}: {response.text[:300]}"
                    if response.status_code in WRONG_REQUEST:
                        raise BenchmarkFailed(said)
                except httpx.TransportError as error:
                    said = said or str(error)
                time.sleep(POLL_SECONDS)
        if self.process.poll() is None:
            raise BenchmarkFailed(f"no answer in {PATIENCE_SECONDS} s; the last: {said}")
        raise BenchmarkFailed(f"it ended: {self._log.read_text(errors='replace')[-500:]}")

    def count_wrong(self, rows: list[Row], expected: Sequence[float], *, together: int) -> int:
        """How many rows, asked for so many at a time, are not answered as scikit-learn answers them."""
        wrong = 0
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            for start in range(0, len(rows), together):
                asked, right = rows[start : start + together], expected[start : start + together]
                response = self.ask(client, asked)
                if response.status_code == HTTPStatus.OK:
                    answered = self.dialect.decode(response.content)
                    wrong += sum(
                        not abs(one - other) <= TOLERANCE for one, other in zip(answered, right, strict=True)
                    )
                else:
                    wrong += len(asked)
        return wrong


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
