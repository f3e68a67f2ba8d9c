"""Load by wrk: different bodies in turn over a number of connections."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data import Row
from servers import BenchmarkFailed, Server

SCRIPT = Path(__file__).with_name("cycle.lua")


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second that were answered with 200; latencies in microseconds."""

    rate: float
    p50: float
    p99: float
    failed: int


@dataclass(frozen=True)
class Wrk:
    """wrk on the given cores; ``folder`` holds the bodies that it sends."""

    cores: Sequence[int]
    folder: Path

    def run(self, server: Server, batches: list[list[Row]], *, connections: int, seconds: float) -> Load:
        """Send the batches in turn, each as one request, for so long."""
        bodies = self.folder / "bodies"
        with bodies.open("wb") as file:
            for batch in batches:
                body = server.dialect.encode(batch)
                file.write(b"%d\n%s" % (len(body), body))
        headers = [f"{name}: {value}" for name, value in server.headers.items()]
        finished = subprocess.run(  # noqa: S603 - wrk, with our own arguments
            [
                *("taskset", "--cpu-list", ",".join(map(str, self.cores))),
                *("wrk", "--threads", "1", "--connections", str(connections)),
                *("--duration", f"{seconds:.0f}s", "--timeout", "60s", "--latency"),
                *("--script", str(SCRIPT), server.url, "--", str(bodies), server.dialect.path, *headers),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            raise BenchmarkFailed(f"wrk: {finished.stderr or finished.stdout}")
        told = json.loads(finished.stdout.splitlines()[-1])
        rate = max(told["requests"] - told["failed"], 0) / told["seconds"]
        return Load(rate, told["p50"], told["p99"], told["failed"])
