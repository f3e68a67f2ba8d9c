"""Figures as tables, for the terminal and as Markdown; and the resources that a measured process took."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import NamedTuple

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


class Measured(NamedTuple):
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """The most memory that the process held at once (resident set)."""
    output: str


def measure(module: str, *arguments: str) -> Measured:
    """Run ``python MODULE.py ARGUMENTS`` to its end: a process of its own, so that its peak is its own.

    The seconds are those from start to end, the interpreter's start included; what is to be measured finer
    is printed by the module, and comes back as ``output``. Raises CalledProcessError if the process fails.
    """
    began = time.perf_counter()
    command = [sys.executable, module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        if process.stdout is None:
            raise RuntimeError("the process has no output")
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)
