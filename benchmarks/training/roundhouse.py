"""A Roundhouse server of the benchmark's own: data in, training runs, predictions, and what they take."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "the-admin-key-of-the-benchmark"
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.2
ROWS_A_REQUEST = 5_000
CHILD = "app.training.child"


class BenchmarkFailed(Exception):
    """What a person reads in place of a figure."""


@dataclass(frozen=True)
class Run:
    """A training run that has succeeded: ``info`` is what the API says of it.

    ``seconds`` go from the claim to the end, ``start_seconds`` from the claim to the first step that is
    told. The CPU seconds are those of the fit's child and the processes that it starts, loading included;
    ``peak_bytes`` is the most memory that the child held at once (resident set).
    """

    info: dict[str, Any]
    seconds: float
    start_seconds: float
    cpu_seconds: float
    peak_bytes: int


class Roundhouse:
    """``roundhouse serve`` over a new home below ``folder``; its whole family ends with the ``with``."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._log = folder / "serve.log"
        environment = os.environ | {
            "ROUNDHOUSE_HOME": str(self.home),
            "ROUNDHOUSE_ADMIN_KEY": ADMIN_KEY,
            "ROUNDHOUSE_MAX_UPLOAD_BYTES": str(2**34),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each fit would make its bytecode again
        with self._log.open("wb") as output:
            self._process = psutil.Popen(
                [sys.executable, "-m", "app", "serve", "--port", str(port)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
            timeout=10 * PATIENCE_SECONDS,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                if self._client.get("/readyz").status_code == HTTPStatus.OK:
                    return self
            time.sleep(POLL_SECONDS)
        self.__exit__()
        raise BenchmarkFailed(f"the server did not start: {self._log.read_text(errors='replace')[-500:]}")

    def __exit__(self, *_: object) -> None:
        self._client.close()
        with suppress(psutil.NoSuchProcess):
            family = [*self._process.children(recursive=True), self._process]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            _, alive = psutil.wait_procs(family, timeout=10)
            for process in alive:
                process.kill()
            psutil.wait_procs(alive)

    def add_dataset(self, name: str, parquet: Path) -> None:
        self._ask("POST", "/v1/datasets", json={"name": name})
        with parquet.open("rb") as file:
            self._ask(
                "POST",
                f"/v1/datasets/{name}/versions",
                content=file,
                headers={"content-type": "application/vnd.apache.parquet"},
            )

    def train(self, model: str, dataset: str, target: str, **spec: Any) -> Run:
        """Train, and watch the run to its end; raises BenchmarkFailed where it does not succeed."""
        worker = self._worker()
        used = _cpu_seconds(worker)
        wanted = {"model": model, "dataset": dataset, "target": target, **spec}
        info = self._ask("POST", "/v1/training-runs", json=wanted)
        path, peak = f"/v1/training-runs/{info['id']}", 0
        while info["status"] in ("queued", "running"):
            peak = max([peak, *map(_peak_bytes, worker.children())])
            time.sleep(POLL_SECONDS)
            info = self._ask("GET", path)
        if info["status"] != "succeeded":
            raise BenchmarkFailed(f"training run {info['id']} {info['status']}: {info['error']}")
        claimed = datetime.fromisoformat(info["started_at"])
        steps = [line for line in self._log_lines(path) if not line["text"].startswith("taken by")]
        return Run(
            info,
            (datetime.fromisoformat(info["finished_at"]) - claimed).total_seconds(),
            (datetime.fromisoformat(steps[0]["at"]) - claimed).total_seconds(),
            _cpu_seconds(worker) - used,
            peak,
        )

    def version(self, run: Run) -> dict[str, Any]:
        return self._ask("GET", f"/v1/models/{run.info['model']}/versions/{run.info['model_version']}")

    def predict(self, run: Run, instances: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        """The bodies that answer the instances, in order."""
        path = f"/v1/models/{run.info['model']}/versions/{run.info['model_version']}:predict"
        for start in range(0, len(instances), ROWS_A_REQUEST):
            yield self._ask("POST", path, json={"instances": instances[start : start + ROWS_A_REQUEST]})

    def object(self, digest: str) -> Path:
        """The file of a stored object."""
        name = digest.removeprefix("sha256:")
        return self.home / "objects" / "sha256" / name[:2] / name

    def _log_lines(self, path: str) -> list[dict[str, Any]]:
        """The oldest first."""
        lines: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            page = self._ask("GET", f"{path}/logs", params={"cursor": token} if token else None)
            lines += page["items"]
            if not (token := page["next"]):
                return lines[::-1]

    def _worker(self) -> psutil.Process:
        for process in self._process.children(recursive=True):
            if "worker" in process.cmdline():
                return process
        raise BenchmarkFailed("the server has no worker")

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        answer = self._client.request(method, path, **content)
        if answer.is_error:
            raise BenchmarkFailed(f"{method} {path}: {answer.text}")
        body: dict[str, Any] = answer.json()
        return body


def _cpu_seconds(worker: psutil.Process) -> float:
    """Of the children that have ended, and theirs: they count when the worker has waited for them."""
    times = worker.cpu_times()
    return times.children_user + times.children_system


def _peak_bytes(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        if CHILD in process.cmdline():
            status = Path(f"/proc/{process.pid}/status").read_text()
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    return 0
