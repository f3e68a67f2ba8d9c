"""Figures as tables, for the terminal and as Markdown."""

import sys
from collections.abc import Iterable
from pathlib import Path

from measure import Figures

sys.path.insert(0, str(Path(__file__).parents[1]))  # what all benchmarks share

from table import Table

HEADER = (
    "server",
    "req/s",
    "floor",
    "of it",
    "p50",
    "p99",
    "p50, 1 conn.",
    "p99, 1 conn.",
    "rows/s in 1000s",
    "wrong",
    "failed",
)


class Targets:
    """What the serving path is to reach, and whether it did."""

    def __init__(self) -> None:
        self._table = Table("Targets", ("target", "wanted", "measured", ""))

    def at_least(self, name: str, measured: float, wanted: float) -> None:
        self._add(name, f"≥ {wanted:g}", measured, reached=measured >= wanted)

    def at_most(self, name: str, measured: float, wanted: float) -> None:
        self._add(name, f"≤ {wanted:g}", measured, reached=measured <= wanted)

    def _add(self, name: str, wanted: str, measured: float, *, reached: bool) -> None:
        self._table.rows.append((name, wanted, number(measured), "reached" if reached else "missed"))

    def table(self) -> Table:
        return self._table


def figures_row(title: str, figures: Figures) -> tuple[str, ...]:
    """A line under HEADER."""
    wrong = f"{figures.wrong} / {figures.wrong_bulk} of {figures.checked}" if figures.checked else ""
    return (
        title,
        number(figures.rate),
        number(figures.floor),
        f"{figures.ratio:.3f}",
        duration(figures.p50),
        duration(figures.p99),
        duration(figures.alone_p50),
        duration(figures.alone_p99),
        "" if figures.bulk is None else number(figures.bulk),
        wrong,
        f"{figures.failed:,}",
    )


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(microseconds: float) -> str:
    return f"{microseconds:.0f} µs" if microseconds < 10_000 else f"{microseconds / 1000:.0f} ms"


def write_markdown(head: str, tables: Iterable[Table]) -> str:
    return "\n".join([head, *(table.markdown() for table in tables)])
