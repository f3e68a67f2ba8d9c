"""The canonical Parquet file of a table: how it is written, and what its metadata tell."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.columns import Column
from app.datasets.engine import Parquet, fit_to_rows, fit_to_width, literal, one_file, parts_of
from app.datasets.reading.recipe import Recipe

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COMPRESSION_LEVEL = 1  # a fifth faster than DuckDB's 3 and 2 % larger, on a mixed table
ENCODINGS = "v2"  # those of Parquet 2: a tenth smaller, written a seventh and read a third faster
ROW_GROUP_CELLS = 4_000_000
MAX_DICTIONARY = 10_000  # values: looking for more, as DuckDB does, costs an eighth of the writing


class Table(NamedTuple):
    columns: list[Column]
    rows: int
    recipe: Recipe = Recipe()
    """How the file was read, with all that was found out."""


def write_rows(connection: DuckDBPyConnection, query: str, target: Path, row_bytes: int) -> None:
    """Write the rows of a query, of so many bytes each, to a canonical file."""
    width = len(connection.execute(f"DESCRIBE {query}").fetchall())
    fit_to_width(connection, width)
    group = min(max(2048, ROW_GROUP_CELLS // width), fit_to_rows(connection, row_bytes))
    dictionary = min(MAX_DICTIONARY, group // 5)
    connection.execute(
        f"COPY ({query}) TO {literal(str(target))} (FORMAT parquet, PARQUET_VERSION {ENCODINGS},"
        f" COMPRESSION zstd, COMPRESSION_LEVEL {COMPRESSION_LEVEL}, ROW_GROUP_SIZE {group},"
        f" DICTIONARY_SIZE_LIMIT {dictionary})"
    )


def describe(connection: DuckDBPyConnection, parquet: Parquet, columns: Sequence[Column]) -> Table:
    """The facts of a canonical table whose columns have these names and types, from its files' metadata."""
    files = ", ".join(map(one_file, parts_of(parquet)))
    counted = connection.execute(
        f"SELECT sum(num_values), sum(stats_null_count) FROM parquet_metadata([{files}])"
        " GROUP BY column_id ORDER BY column_id"
    ).fetchall()
    if not counted:
        return Table(list(columns), 0)
    described = [
        column.model_copy(update={"nullable": nulls > 0})
        for column, (_, nulls) in zip(columns, counted, strict=True)
    ]
    return Table(described, int(counted[0][0]))
