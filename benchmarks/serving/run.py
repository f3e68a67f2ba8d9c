"""Measure the serving path beside its floors and its peers, on this machine, in one run.

    uv run python benchmarks/serving/run.py --markdown table.md

``README.md`` beside this file says what is measured and how.
"""

import os
import platform
import shlex
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from load import Wrk
from measure import Bench
from peers import PEERS
from report import write_markdown
from rich.console import Console
from rich.markup import escape
from sections import MODELS, Run
from servers import BOTH_CORES, CLIENT_CORE, BenchmarkFailed

ModelName = StrEnum("ModelName", list(MODELS))
PeerName = StrEnum("PeerName", [peer.name for peer in PEERS])


class Section(StrEnum):
    """A part of the run."""

    FLOORS = "floors"
    ROUNDHOUSE = "roundhouse"
    ARROW = "arrow"
    PEERS = "peers"
    PROCESSES = "processes"
    PROMOTION = "promotion"


console = Console()


def main(
    *,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each load.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Loads of each kind; the median counts.")] = 3,
    connections: Annotated[int, typer.Option(min=1, help="Connections of the main load.")] = 32,
    only: Annotated[list[Section] | None, typer.Option(help="Only these sections.")] = None,
    models: Annotated[list[ModelName] | None, typer.Option(help="Only these models.")] = None,
    peers: Annotated[list[PeerName] | None, typer.Option(help="Only these peers.")] = None,
    cache: Annotated[Path, typer.Option(help="Where the peers' environments are kept.")] = Path(
        "~/.cache/roundhouse-benchmarks"
    ),
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this file.")] = None,
) -> None:
    """Measure Roundhouse, its floors and its peers; each server on one core, wrk on another."""
    _require_tools()
    os.sched_setaffinity(0, CLIENT_CORE)  # the probes of the promotions run in this process
    began = datetime.now(UTC)
    chosen = [section for section in Section if not only or section in only]
    compared = [peer for peer in PEERS if not peers or peer.name in peers]
    with tempfile.TemporaryDirectory(prefix="roundhouse-benchmark-") as scratch:
        try:
            run = Run(Path(scratch), [str(model) for model in models or MODELS], console)
            with run.serve_floor("bare_asgi") as floor:
                floor.wait_until_answering(run.rows[0])
                bench = Bench(Wrk(CLIENT_CORE, run.folder), floor, run.rows, seconds, rounds, connections)
                measures = {
                    Section.FLOORS: run.measure_floors,
                    Section.ROUNDHOUSE: run.measure_roundhouse,
                    Section.ARROW: run.measure_arrow,
                    Section.PEERS: partial(
                        run.measure_peers, peers=compared, environments=cache.expanduser() / "environments"
                    ),
                    Section.PROCESSES: run.measure_processes,
                    Section.PROMOTION: run.measure_promotion,
                }
                for section in chosen:
                    printed = len(run.tables)
                    measures[section](bench)
                    for table in run.tables[printed:]:
                        table.print(console)
        except BenchmarkFailed as error:
            console.print(f"[red]{escape(str(error))}[/]")
            raise SystemExit(1) from None
    targets = run.targets.table()
    targets.print(console)
    if markdown:
        head = _circumstances(began, connections, seconds, rounds)
        markdown.write_text(write_markdown(head, [*run.tables, targets]))


def _require_tools() -> None:
    missing = [tool for tool in ("wrk", "taskset", "uv") if not shutil.which(tool)]
    if missing:
        console.print(
            f"[red]Not found: {', '.join(missing)}.[/] On Debian and Ubuntu: apt-get install wrk util-linux; "
            "uv: pip install uv."
        )
        raise SystemExit(2)
    if not set(BOTH_CORES) <= os.sched_getaffinity(0):
        console.print("[red]The benchmark needs cores 0 and 1: one for the server, one for the client.[/]")
        raise SystemExit(2)


def _circumstances(began: datetime, connections: int, seconds: int, rounds: int) -> str:
    """When, where, with what and how: the head of the Markdown."""
    packages = ("roundhouse", "uvicorn", "starlette", "fastapi", "msgspec", "scikit-learn", "numpy")
    installed = ", ".join(f"{name} {version(name)}" for name in packages)
    lines = [
        f"`{shlex.join(['uv', 'run', 'python', 'benchmarks/serving/run.py', *sys.argv[1:]])}`",
        f"{began:%Y-%m-%d}, {_processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}; {installed}",
        f"Server on one core, wrk on another; {connections} connections; medians of {rounds} rounds of "
        f"{seconds} s, each beside the bare-ASGI floor in the same round.",
    ]
    return "\n\n".join(lines) + "\n"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    typer.run(main)
