"""Measure what training costs and how good its models are, on this machine: quality, overhead, memory.

    uv run python benchmarks/training/run.py --markdown table.md

``README.md`` beside this file says what is measured and how.
"""

import importlib
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))  # `app`, of the same working copy
sys.path.append(str(Path(__file__).parents[1] / "data"))  # `report`: tables, and what a process takes

from extent import Extent
from report import Table
from tables import SOURCES


class Section(StrEnum):
    """A part of the run: a module of this name beside this file."""

    QUALITY = "quality"
    OVERHEAD = "overhead"
    MEMORY = "memory"


def main(
    *,
    size: Annotated[
        float, typer.Option(min=0.001, help="1 for the sizes of the targets, 0.1 for a tenth.")
    ] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="The seeds of the comparison.")] = 5,
    tables: Annotated[list[str] | None, typer.Option(help="Only these tables in the comparison.")] = None,
    only: Annotated[list[Section] | None, typer.Option(help="Only these sections.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this file.")] = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Where files are made; 6 GB for the full size.")
    ] = None,
) -> None:
    """Measure each section in a folder of its own, which goes when the section ends."""
    console = Console()
    began = datetime.now(UTC)
    extent = Extent(size, seeds, tuple(tables or (source.name for source in SOURCES)))
    made: list[Table] = []
    for section in only or Section:
        with tempfile.TemporaryDirectory(prefix=f"roundhouse-{section}-", dir=scratch) as folder:
            for table in importlib.import_module(section).run(extent, Path(folder)):
                table.print(console)
                made.append(table)
    if markdown is not None:
        markdown.write_text("\n".join([_conditions(began, extent), *(table.markdown() for table in made)]))


def _conditions(began: datetime, extent: Extent) -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{began:%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GB, Python {platform.python_version()}, scikit-learn {version('scikit-learn')}, "
        f"Optuna {version('optuna')}, size {extent.size:g}, {extent.seeds} seeds.\n"
    )


if __name__ == "__main__":
    typer.run(main)
