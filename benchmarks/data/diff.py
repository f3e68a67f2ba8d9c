"""Two versions of a table, by key and by whole rows, beside one scan of both."""

# ruff: noqa: S608 - the SQL holds this module's own numbers and paths

import sys
import time
from collections.abc import Callable
from pathlib import Path

from report import Table, measure

ROWS = 10_000_000
CHANGED = 300  # every 300th row is removed, as many are added, and as many changed: 1 % in all
ROUNDS = 3
TARGET = 3.0

COLUMNS = {
    "id": "integer",
    "ordered": "datetime",
    "city": "string",
    "code": "string",
    "note": "string",
    "amount": "number",
    "score": "number",
    "paid": "boolean",
}
TABLE = """
    SELECT range AS id,
        TIMESTAMPTZ '2020-01-01' + to_seconds(range * 11) AS ordered,
        ['Lyon', 'Oslo', 'Porto', 'New York', NULL][1 + (hash(range, 1) % 5)::BIGINT] AS city,
        lpad((hash(range, 2) % 100000)::VARCHAR, 6, '0') AS code,
        'order "' || hash(range, 3) % 1000000 || '", by hand, ' || hash(range, 4) % 1000 AS note,
        CASE WHEN hash(range, 5) % 7 > 0 THEN (hash(range, 6) % 100000) / 100.0 END::DOUBLE AS amount,
        (hash(range, 7) / 1.8e19)::DOUBLE AS score,
        hash(range, 8) % 3 = 0 AS paid
    FROM range({rows})"""
CHANGE = """
    SELECT * REPLACE (if(hash(id, 9) % {changed} = 0, score + 1, score) AS score)
    FROM '{old}' WHERE hash(id, 10) % {changed} > 0
    UNION ALL
    SELECT * REPLACE (id + {rows} AS id) FROM '{old}' WHERE hash(id, 11) % {changed} = 0"""


def run(size: float, folder: Path) -> list[Table]:
    rows = int(ROWS * size)
    old, new = folder / "old.parquet", folder / "new.parquet"
    measure(__file__, "make", str(folder), str(rows))  # a child's memory peak begins with its parent's
    table = Table(
        f"Diff of two versions of {rows:,} rows of {len(COLUMNS)} columns, 1 % changed",
        ("", "seconds", "scans", "memory peak"),
        notes=[
            f"Best of {ROUNDS} rounds in turn, each in a process of its own. A scan: DuckDB reads all "
            "columns of both versions once, and sums the hashes of the rows. The diff: rows added, removed "
            "and changed, with samples, and the test of every column for a shift. Files: "
            f"{(old.stat().st_size + new.stat().st_size) / 1e6:,.0f} MB of Parquet.",
            f"Target: at most {TARGET:g} scans.",
        ],
    )
    figures: dict[str, list[tuple[float, int]]] = {name: [] for name in MEASURED}
    for _ in range(ROUNDS):
        for name, found in figures.items():
            measured = measure(__file__, name, str(folder))
            found.append((float(measured.output), measured.peak_bytes))
    scan = min(seconds for seconds, _ in figures["scan"])
    for name, found in figures.items():
        seconds, peak = min(found)[0], max(peak for _, peak in found)
        table.rows.append((name, f"{seconds:.2f}", f"{seconds / scan:.1f}", f"{peak / 1e6:,.0f} MB"))
    return [table]


def _make(folder: Path, rows: int) -> None:
    from app.datasets.engine import connect

    old, new = folder / "old.parquet", folder / "new.parquet"
    queries = {old: TABLE.format(rows=rows), new: CHANGE.format(old=old, rows=rows, changed=CHANGED)}
    with connect(folder) as connection:
        for path, query in queries.items():
            connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")


def _scan(folder: Path) -> None:
    from app.datasets.engine import connect

    files = f"FROM '{folder}/old.parquet' UNION ALL FROM '{folder}/new.parquet'"
    with connect(folder) as connection:
        connection.execute(f"SELECT sum(hash(rows)) FROM ({files}) AS rows").fetchall()


def _diff(folder: Path, key: list[str]) -> None:
    from app.columns import Column, ColumnType
    from app.datasets.comparison.diff import compare_tables
    from app.datasets.comparison.numbered_rows import TableFiles

    columns = [Column(name=name, type=ColumnType(type_), nullable=True) for name, type_ in COLUMNS.items()]
    old, new = (TableFiles(name, columns, [name], [folder / f"{name}.parquet"]) for name in ("old", "new"))
    compare_tables(old, new, key=key, samples=10, spill=folder)


MEASURED: dict[str, Callable[[Path], None]] = {
    "scan": _scan,
    "diff by key": lambda folder: _diff(folder, ["id"]),
    "diff by whole rows": lambda folder: _diff(folder, []),
}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # `app`, of the same working copy
    import duckdb  # noqa: F401 - what a server has loaded before it is asked
    import scipy.stats  # noqa: F401

    import app.datasets.comparison.diff  # noqa: F401

    command, work = sys.argv[1], Path(sys.argv[2])
    if command == "make":
        _make(work, int(sys.argv[3]))
    else:
        began = time.perf_counter()
        MEASURED[command](work)
        print(time.perf_counter() - began)  # noqa: T201 - read by run()
