"""The profile of 1,000,000 rows of 20 columns, beside ydata-profiling's minimal one of the same table."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pydantic import TypeAdapter
from report import Measured, Table, measure

sys.path.insert(0, str(Path(__file__).parents[2]))  # `app`, of the same working copy

from app.columns import Column
from app.datasets.engine import connect, literal
from app.datasets.profiles.profiler import build_profile
from app.datasets.reading.ingest import MediaType, ingest

ROWS = 1_000_000
ROUNDS = 3
TARGET = 20
MEGABYTE = 1024 * 1024
PYTHON = "3.11"
PEER = Path(__file__).with_name("profile_peer.py")
ENVIRONMENT = Path("~/.cache/roundhouse-benchmarks/environments/profile_peer").expanduser()


def _uniform(number: int) -> str:
    """SQL of random numbers from 0 to 1, the same each time."""
    return f"(hash(made.row, {number}) / 18446744073709551616.0::DOUBLE)"


def _normal(number: int) -> str:
    """Of the standard normal distribution (Box and Muller)."""
    return f"sqrt(-2 * ln(1 - {_uniform(2 * number)})) * cos(2 * pi() * {_uniform(2 * number + 1)})"


COLUMNS = [
    "made.row AS id",
    *(f"{_normal(number)} * {number} AS n{number}" for number in range(1, 9)),
    f"CASE WHEN {_uniform(20)} > 0.1 THEN round({_uniform(21)} * 1000, 2) END AS price",
    f"floor({_uniform(22)} * 100)::BIGINT AS age",
    f"floor({_uniform(23)} * 1e9)::BIGINT AS amount",
    f"floor({_uniform(24)} * 5)::BIGINT AS rating",
    f"'c' || floor({_uniform(25)} * 4)::BIGINT AS carrier",
    f"'city ' || floor({_uniform(26)} * 500)::BIGINT AS city",
    "md5(made.row::VARCHAR) AS code",
    f"CASE WHEN {_uniform(27)} > 0.7 THEN 'note ' || floor({_uniform(28)} * 100000)::BIGINT END AS note",
    f"{_uniform(29)} < 0.3 AS late",
    "strftime(TIMESTAMP '2020-01-01' + made.row * INTERVAL 37 SECOND, '%Y-%m-%dT%H:%M:%SZ') AS scheduled",
    f"DATE '2020-01-01' + floor({_uniform(30)} * 1000)::INTEGER AS day",
]


def run(size: float, folder: Path) -> list[Table]:
    """Profile the table in processes of their own, in turn; the median of the rounds counts."""
    rows = round(ROWS * size)
    source, parquet = folder / "table.csv", folder / "table.parquet"
    write_tables(rows, source, parquet)
    python = install_peer()
    ours: list[Measured] = []
    peers: list[Measured] = []
    for _ in range(ROUNDS):
        ours.append(measure(__file__, str(parquet), str(rows)))
        peers.append(measure(__file__, python, str(PEER), str(source)))
    seconds, peer_seconds = (statistics.median(float(one.output) for one in kind) for kind in (ours, peers))
    times = peer_seconds / seconds
    return [
        Table(
            f"Profile of {rows:,} rows of {len(COLUMNS)} columns",
            ("", "seconds", "memory peak"),
            [
                ("Roundhouse, with correlations and duplicate rows", f"{seconds:.2f}", _peak(ours)),
                ("ydata-profiling, minimal", f"{peer_seconds:.2f}", _peak(peers)),
            ],
            [
                f"{times:.0f} times as fast; the target is {TARGET}: "
                f"{'reached' if times >= TARGET else 'missed'}."
            ],
        )
    ]


def write_tables(rows: int, source: Path, parquet: Path) -> None:
    """The same table for both: a CSV for the peer, and what an arrival makes of it for Roundhouse."""
    with connect(source.parent) as connection:
        connection.execute(
            f"COPY (SELECT {', '.join(COLUMNS)} FROM range({rows}) AS made(row))"  # noqa: S608 - our own
            f" TO {literal(str(source))} (FORMAT csv, HEADER)"
        )
    columns = ingest(source, MediaType.CSV, parquet).columns
    parquet.with_suffix(".json").write_bytes(TypeAdapter(list[Column]).dump_json(columns))


def install_peer() -> str:
    """The interpreter of the peer's environment, which is made once for each text of its requirements."""
    wanted = PEER.with_suffix(".txt")
    python, installed = ENVIRONMENT / "bin" / "python", ENVIRONMENT / wanted.name
    if not (installed.exists() and installed.read_text() == wanted.read_text()):
        for command in (
            ["uv", "venv", "--quiet", "--clear", "--python", PYTHON, str(ENVIRONMENT)],
            ["uv", "pip", "install", "--quiet", "--python", str(python), "-r", str(wanted)],
        ):
            subprocess.run(command, check=True)  # noqa: S603 - commands of this file alone
        installed.write_text(wanted.read_text())
    return str(python)


def _peak(runs: list[Measured]) -> str:
    return f"{max(one.peak_bytes for one in runs) / MEGABYTE:.0f} MB"


def _profile(parquet: Path, rows: int) -> None:
    columns = TypeAdapter(list[Column]).validate_json(parquet.with_suffix(".json").read_bytes())
    began = time.perf_counter()
    build_profile(parquet, columns, rows, parquet.parent).model_dump_json()
    print(time.perf_counter() - began)  # noqa: T201 - what run() reads


if __name__ == "__main__":
    if len(sys.argv) == 3:
        _profile(Path(sys.argv[1]), int(sys.argv[2]))
    else:  # -P: beside the peer's file this module would hide the standard library's of its name
        python, *arguments = sys.argv[1:]
        quiet = os.environ | {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
        os.execve(python, [python, "-P", *arguments], quiet)  # noqa: S606 - as run() names it
