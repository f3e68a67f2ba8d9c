"""The most memory that a large fit holds, beside the matrix that it learns from."""

from pathlib import Path

from extent import Extent
from overhead import COLUMNS, write_numbers
from report import Table
from roundhouse import Roundhouse

ROWS = 5_000_000
ITERATIONS = 20
"""Memory does not grow with them, time does."""
WANTED = 3
MEGABYTE = 1e6


def run(extent: Extent, folder: Path) -> list[Table]:
    rows = round(ROWS * extent.size)
    parquet = folder / "rows.parquet"
    write_numbers(parquet, rows)
    with Roundhouse(folder) as server:
        server.add_dataset("rows", parquet)
        ran = server.train(
            "memory", "rows", "target", algorithm="hist_gradient_boosting", params={"max_iter": ITERATIONS}
        )
    matrix = rows * COLUMNS * 8
    times = ran.peak_bytes / matrix
    table = Table("Memory of a large fit", ("", "MB", "of the matrix"))
    table.rows.append((f"the matrix, {rows:,} x {COLUMNS} numbers", f"{matrix / MEGABYTE:,.0f}", "1"))
    table.rows.append(("the fit's process, at its peak", f"{ran.peak_bytes / MEGABYTE:,.0f}", f"{times:.2f}"))
    table.notes.append(
        f"Histogram gradient boosting, {ITERATIONS} rounds, in {ran.seconds:.0f} s; "
        f"wanted ≤ {WANTED}: {'reached' if times <= WANTED else 'missed'}."
    )
    return [table]
