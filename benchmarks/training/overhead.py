"""What a run costs beyond the fit that it is about: beside scikit-learn's own in a fresh process."""

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
from extent import Extent
from report import Measured, Table, measure
from roundhouse import Roundhouse, Run

SIZES = {
    10_000: ("hist_gradient_boosting", "random_forest"),
    100_000: ("hist_gradient_boosting", "random_forest"),
    1_000_000: ("hist_gradient_boosting",),
}
COLUMNS = 20
ROUNDS = 3
SHARE, FIXED_SECONDS = 0.15, 2
START_SECONDS = 1
LOADING_SECONDS = 4
"""The worker's next child has loaded its libraries by then."""
HOLDOUT = 0.2
BARE = Path(__file__).with_name("bare_fit.py")
PARAMS: dict[str, dict[str, Any]] = {
    "hist_gradient_boosting": {"max_iter": 100, "early_stopping": False},
    "random_forest": {"n_estimators": 100, "min_samples_leaf": 5},
}


def run(extent: Extent, folder: Path) -> list[Table]:
    title = "A run beside the bare fit"
    header = ("", "rows", "bare fit", "read and fit", "run", "beyond that", "allowed", "claim to start")
    table = Table(title, header)
    starts: list[float] = []
    with Roundhouse(folder) as server:
        for full, algorithms in SIZES.items():
            rows = round(full * extent.size)
            parquet = folder / f"rows-{rows}.parquet"
            write_numbers(parquet, rows)
            server.add_dataset(f"rows-{rows}", parquet)
            for algorithm in algorithms:
                bare, runs = _measure(server, algorithm, parquet)
                starts += [one.start_seconds for one in runs]
                table.rows.append((algorithm, f"{rows:,}", *_figures(bare, runs)))
    reached = "reached" if median(starts) <= START_SECONDS else "missed"
    table.notes.append(
        f"Medians of {ROUNDS} rounds in turn; one thread, {COLUMNS} columns, {HOLDOUT:.0%} of the rows held "
        f"out. Claim to start: median {median(starts):.2f} s, at most {max(starts):.2f} s (wanted ≤ "
        f"{START_SECONDS}: {reached})."
    )
    return [table]


def _measure(server: Roundhouse, algorithm: str, parquet: Path) -> tuple[list[Measured], list[Run]]:
    bare: list[Measured] = []
    runs: list[Run] = []
    spec = {"algorithm": algorithm, "params": PARAMS[algorithm]}
    for number in range(ROUNDS):
        bare.append(measure(str(BARE), algorithm, json.dumps(PARAMS[algorithm]), str(HOLDOUT), str(parquet)))
        time.sleep(LOADING_SECONDS)
        runs.append(server.train(f"{algorithm}-{parquet.stem}-{number}", parquet.stem, "target", **spec))
    return bare, runs


def _figures(bare: list[Measured], runs: list[Run]) -> tuple[str, ...]:
    told = [json.loads(one.output) for one in bare]
    fit, whole = (median(one[name] for one in told) for name in ("fit", "whole"))
    took = median(one.seconds for one in runs)
    beyond, allowed = took - whole, SHARE * whole + FIXED_SECONDS
    return (
        *(f"{seconds:.2f} s" for seconds in (fit, whole, took, beyond)),
        f"{allowed:.2f} s: {'reached' if beyond <= allowed else 'missed'}",
        f"{median(one.start_seconds for one in runs):.2f} s",
    )


def write_numbers(path: Path, rows: int) -> None:
    """A table of numbers, the same each time, and a boolean ``target`` that some of them partly explain."""
    numbers = [
        f"hash(row, {number}) / 18446744073709551616.0::DOUBLE AS n{number}" for number in range(COLUMNS)
    ]
    with duckdb.connect() as tables:
        tables.execute("SET preserve_insertion_order = false")
        tables.execute(
            f"COPY (SELECT *, n0 + n1 * n2 + n3 / 2 > 1 AS target "  # noqa: S608 - our own
            f"FROM (SELECT {', '.join(numbers)} FROM range({rows}) AS made(row))) "
            f"TO '{path}' (FORMAT parquet)"
        )
