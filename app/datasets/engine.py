"""DuckDB, opened for work on files: bounded memory, no network, UTC."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import AppError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Parquet = Path | Sequence[Path]
"""A table as one Parquet file, or as the files of its parts, one behind the other."""

MEMORY_LIMIT = "1GB"
WIDE_MEMORY_LIMIT = "4GB"
MAX_THREADS = 4  # each thread buffers row groups of its own
WIDE = 2_000  # columns
LONG_ROW, VERY_LONG_ROW = 500, 4_000  # bytes
ROW_GROUP_ROWS = 122_880
ROW_GROUP_BYTES = 64 * 2**20
LARGE_GROUP_BYTES = 32 * 2**20


class TableTooLarge(AppError):
    """A table needs more memory than work on one may take (507)."""

    status = 507


@contextmanager
def connect(spill: Path | None) -> Iterator[DuckDBPyConnection]:
    """A database in memory that keeps the order of rows, and beyond 1 GB spills to a folder, if given one.

    Raises TableTooLarge where what cannot be spilled does not fit.
    """
    import duckdb  # a process that reads no table does without its memory

    instance = _take_instance()
    try:
        with instance.cursor() as connection:
            # What the last use of the instance may have set, all that `SET` sets anywhere in the application.
            settings = {
                "memory_limit": MEMORY_LIMIT,
                "threads": min(MAX_THREADS, os.cpu_count() or 1),
                "temp_directory": spill or "",
                "arrow_large_buffer_size": False,
                "parquet_metadata_cache": False,
                "TimeZone": "UTC",
            }
            sets = (f"SET {name} = {literal(str(value))}" for name, value in settings.items())
            connection.execute("; ".join([*sets, "ATTACH ':memory:' AS work", "USE work"]))
            yield connection
        instance.execute("DETACH work")
    except duckdb.OutOfMemoryException as error:
        instance.close()
        raise TableTooLarge(
            "table_too_large",
            "The table needs more memory than work on one may take. Shorten its longest texts, or split "
            "it into versions of fewer rows or columns.",
        ) from error
    except BaseException:
        instance.close()
        raise
    _keep_instance(instance)


_idle: list[DuckDBPyConnection] = []
"""Instances between two uses: to make one takes longer than most of what is asked of it."""
MAX_IDLE, MAX_IDLE_BYTES = 2, 2**24


def _take_instance() -> DuckDBPyConnection:
    import duckdb

    try:
        return _idle.pop()
    except IndexError:
        config: dict[str, str | bool | int | float | list[str]] = {
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            # DuckDB 2.0 pushes TRY_CAST into the CSV reader as CAST, with formats of dates that the reader
            # guesses; and it believes a Parquet file's statistics, which leave out NaN: isnan() is always
            # false.
            "disabled_optimizers": "type_pushdown,statistics_propagation",
        }
        return duckdb.connect(config=config)


def _keep_instance(instance: DuckDBPyConnection) -> None:
    """Keep it for the next use, unless it holds on to memory or to the folder where it has spilled."""
    import duckdb

    held = instance.execute("SELECT sum(memory_usage_bytes)::BIGINT FROM duckdb_memory()").fetchall()
    try:
        instance.execute("SET temp_directory = ''")
        spilled = False
    except duckdb.NotImplementedException:  # its folder cannot be changed any more
        spilled = True
    if spilled or held > [(MAX_IDLE_BYTES,)] or len(_idle) >= MAX_IDLE:
        instance.close()
    else:
        _idle.append(instance)


def fit_to_rows(connection: DuckDBPyConnection, row_bytes: int) -> int:
    """Give a table of long rows memory, and of very long ones one thread; the most rows for a row group.

    At each step a thread holds 2,048 rows, whatever their length.
    """
    if row_bytes > VERY_LONG_ROW:
        connection.execute(f"SET threads = 1; SET memory_limit = '{WIDE_MEMORY_LIMIT}'")
    elif row_bytes > LONG_ROW:
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    return max(64, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES // max(1, row_bytes)))


def row_bytes_of(connection: DuckDBPyConnection, parquet: Parquet) -> int:
    """How long the rows of a table are on average, in the row group where they are longest."""
    files = ", ".join(map(one_file, parts_of(parquet)))
    ((longest,),) = connection.execute(
        "SELECT max(bytes // greatest(rows, 1))::BIGINT FROM (SELECT sum(total_uncompressed_size) AS bytes,"  # noqa: S608 - quoted
        f" max(row_group_num_rows) AS rows FROM parquet_metadata([{files}]) GROUP BY file_name, row_group_id)"
    ).fetchall()
    return longest or 0


def fit_to_groups(connection: DuckDBPyConnection, parquet: Path) -> None:
    """Read a foreign file of large row groups in one thread: each holds a group and more of its own."""
    ((largest,),) = connection.execute(
        "SELECT max(bytes)::BIGINT FROM (SELECT sum(total_uncompressed_size) AS bytes"  # noqa: S608 - quoted
        f" FROM parquet_metadata({one_file(parquet)}) GROUP BY row_group_id)"
    ).fetchall()
    if (largest or 0) > LARGE_GROUP_BYTES:
        connection.execute(f"SET threads = 1; SET memory_limit = '{WIDE_MEMORY_LIMIT}'")


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


def parts_of(parquet: Parquet) -> Sequence[Path]:
    return [parquet] if isinstance(parquet, Path) else parquet


def rows_of(parquet: Parquet) -> str:
    """The SQL of the rows of a table, in order."""
    return f"read_parquet([{', '.join(map(one_file, parts_of(parquet)))}], hive_partitioning = false)"


def numbered_rows_of(connection: DuckDBPyConnection, parquet: Parquet) -> tuple[str, str]:
    """The SQL of the rows of a table with their positions, from 0 over all parts, and that column's name.

    Columns named as DuckDB's own numbers of files and rows would hide these, so all get other names first.
    """
    names = [name for name, *_ in connection.execute(f"DESCRIBE FROM {rows_of(parquet)}").fetchall()]
    taken, position = {name.casefold() for name in names}, "position"
    while position in taken:
        position += "_"
    number = "file_row_number"
    if len(parts := parts_of(parquet)) > 1:
        metadata = (f"FROM parquet_file_metadata({one_file(part)})" for part in parts)
        sizes = [connection.sql(one).fetchnumpy()["num_rows"].item() for one in metadata]
        before = ", ".join(map(str, accumulate(sizes[:-1], initial=0)))
        number = f"[{before}][file_index::BIGINT + 1] + file_row_number"
    columns = ", ".join(f"c{index} AS {identifier(name)}" for index, name in enumerate(names))
    renamed = ", ".join(f"c{index}" for index in range(len(names)))
    rows = f"(FROM {rows_of(parquet)} AS renamed({renamed}) SELECT {columns}, {number} AS {position})"
    return rows, position
