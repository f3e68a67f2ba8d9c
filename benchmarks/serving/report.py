"""Figures as tables, for the terminal and as Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import rich.table
from measure import Figures
from rich.console import Console
from rich.markup import escape

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


@dataclass
class Table:
    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def print(self, console: Console) -> None:
        table = rich.table.Table(title=escape(self.title), title_justify="left")
        for index, name in enumerate(self.header):
            table.add_column(name, justify="right" if index else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(escape, row))
        console.print(table)
        for note in self.notes:
            console.print(f"  {escape(note)}")

    def markdown(self) -> str:
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.header, rule, *self.rows)]
        notes = [f"\n{' '.join(note.split())}" for note in self.notes]
        return "\n".join([f"### {self.title}\n", *lines, *notes, ""])


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
