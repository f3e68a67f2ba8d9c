"""Figures as tables, for the terminal and as Markdown: what all benchmarks print."""

from dataclasses import dataclass, field

import rich.table
from rich.console import Console
from rich.markup import escape


@dataclass
class Table:
    """``rows`` of cells as they are printed; ``notes`` stand below them."""

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
