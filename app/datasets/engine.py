"""DuckDB, opened for work on files: bounded memory, no network, UTC."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_LIMIT = "1GB"
WIDE_MEMORY_LIMIT = "4GB"
MAX_THREADS = 4  # each thread buffers row groups of its own
WIDE = 2_000  # columns


def connect(spill: Path | None) -> DuckDBPyConnection:
    """A database in memory that keeps the order of rows, and beyond 1 GB spills to a folder, if given one."""
    from duckdb import connect as connect_duckdb  # a process that reads no table does without its memory

    connection = connect_duckdb(
        config={
            "memory_limit": MEMORY_LIMIT,
            "threads": min(MAX_THREADS, os.cpu_count() or 1),
            "temp_directory": str(spill or ""),
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
    )
    # DuckDB 2.0 pushes TRY_CAST into the CSV reader as CAST, with formats of dates that the reader guesses;
    # and it believes a Parquet file's statistics, which leave out NaN, so that isnan() is always false.
    connection.execute("SET disabled_optimizers = 'type_pushdown,statistics_propagation'")
    connection.execute("SET TimeZone = 'UTC'")  # not in config: the setting comes with the ICU extension
    return connection


def fit_to_width(connection: DuckDBPyConnection, columns: int) -> None:
    """Give a wide table one thread and 4 GB: a thread holds 2,048 rows of every column at each step."""
    if columns > WIDE:
        connection.execute(f"SET threads = 1; SET memory_limit = '{WIDE_MEMORY_LIMIT}'")


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def one_file(path: Path) -> str:
    """The literal by which a DuckDB reader opens this one file, whatever wildcards are in its name."""
    return literal(re.sub(r"([*?[])", r"[\1]", str(path)))
