"""Measure what becomes of data, on this machine: ingest, profile, diff.

    uv run python benchmarks/data/run.py --markdown table.md

``README.md`` beside this file says what is measured and how, and how a section is added.
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
from report import Table
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))  # `app`, of the same working copy


class Section(StrEnum):
    """A part of the run: a module of this name beside this file."""

    INGEST = "ingest"
    PROFILE = "profile"
    DIFF = "diff"


def main(
    *,
    size: Annotated[
        float, typer.Option(min=0.001, help="1 for the sizes of the targets, 0.1 for a tenth.")
    ] = 1,
    only: Annotated[list[Section] | None, typer.Option(help="Only these sections.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this file.")] = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Where files are made; 8 GB for the full size.")
    ] = None,
) -> None:
    """Measure each section in a folder of its own, which goes when the section ends."""
    console = Console()
    began = datetime.now(UTC)
    tables: list[Table] = []
    for section in only or Section:
        with tempfile.TemporaryDirectory(prefix=f"roundhouse-{section}-", dir=scratch) as folder:
            for table in importlib.import_module(section).run(size, Path(folder)):
                table.print(console)
                tables.append(table)
    if markdown is not None:
        markdown.write_text("\n".join([_conditions(began, size), *(table.markdown() for table in tables)]))


def _conditions(began: datetime, size: float) -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{began:%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GB, Python {platform.python_version()}, DuckDB {version('duckdb')}, size {size:g}.\n"
    )


if __name__ == "__main__":
    typer.run(main)
