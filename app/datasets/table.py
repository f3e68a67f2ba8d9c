"""The canonical Parquet of a data version: its rows as JSON values, and as a file of any format."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from app.datasets.canonical import write_rows
from app.datasets.engine import (
    Parquet,
    connect,
    fit_to_width,
    identifier,
    literal,
    parts_of,
    row_bytes_of,
    rows_of,
)
from app.datasets.reading.ingest import MediaType
from app.datasets.selection import Selection

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def preview(parquet: Parquet, limit: int, offset: int = 0) -> list[dict[str, Any]]:
    """At most ``limit`` rows from row ``offset`` (from 0) on, as JSON-ready values.

    Dates are as 2013-05-31 and times, in UTC, as 2013-05-31T14:00:00Z, with a fraction where there is one.
    """
    with connect(spill=None) as connection:
        names, query = _query(connection, parquet)
        rows = connection.execute(f"{query} LIMIT ? OFFSET ?", [limit, offset]).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def export(parquet: Parquet, media_type: MediaType, target: Path, selection: Selection | None = None) -> None:
    """Write the table, or what is asked for of it, to ``target``, streaming; no file is left on failure.

    CSV follows RFC 4180 with a header; an unquoted empty field is null and a quoted one an empty string.
    A text that a spreadsheet would take for a formula stands as it is: the file is data, exactly.
    Read again, every format gives the same table, save that CSV and NDJSON do not tell a string column
    whose every value reads as another type (CSV: any; NDJSON: date or time) from a column of that type.
    """
    parts = parts_of(parquet)
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        written = Path(folder) / "content"
        with connect(Path(folder)) as connection:
            match media_type:
                case MediaType.CSV:
                    _export_csv(connection, *_query(connection, parquet, selection), written)
                case MediaType.NDJSON:
                    _, query = _query(connection, parquet, selection)
                    connection.execute(f"COPY ({query}) TO {literal(str(written))} (FORMAT json)")
                case MediaType.PARQUET if len(parts) == 1 and selection is None:
                    shutil.copyfile(parts[0], written)
                case MediaType.PARQUET:
                    query, longest = _select(parquet, selection), row_bytes_of(connection, parquet)
                    write_rows(connection, query, written, longest)
                case MediaType.ARROW_STREAM:
                    from arro3.core import RecordBatchReader  # see engine.connect
                    from arro3.io import write_ipc_stream

                    rows = connection.sql(_select(parquet, selection))
                    reader = RecordBatchReader.from_stream(rows)
                    write_ipc_stream(reader, str(written), compression=None)
        written.replace(target)


def concatenate(parts: Sequence[Path], target: Path) -> None:
    """Write the rows of Parquet files of the same columns to one, in order and streaming."""
    with connect(target.parent) as connection:
        write_rows(connection, f"SELECT * FROM {rows_of(parts)}", target, row_bytes_of(connection, parts))


def _export_csv(connection: DuckDBPyConnection, names: list[str], query: str, target: Path) -> None:
    body = target.with_name("body")
    connection.execute(
        f"COPY ({query}) TO {literal(str(body))}"
        " (FORMAT csv, HEADER false, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '')"
    )
    header = io.StringIO(newline="")
    # DuckDB leaves a name such as a;b without quotes, and a reader would take the semicolon for delimiter.
    csv.writer(header, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(names)
    with target.open("wb") as file, body.open("rb") as rows:
        file.write(header.getvalue().encode())
        shutil.copyfileobj(rows, file)


def _select(parquet: Parquet, selection: Selection | None) -> str:
    if selection is None:
        return f"SELECT * FROM {rows_of(parquet)}"
    names = ", ".join(identifier(column.name) for column in selection.columns)
    where = f" WHERE {' AND '.join(selection.conditions)}" if selection.conditions else ""
    limit = "" if selection.limit is None else f" LIMIT {selection.limit}"
    return f"SELECT {names} FROM {rows_of(parquet)}{where}{limit}"


def _query(
    connection: DuckDBPyConnection, parquet: Parquet, selection: Selection | None = None
) -> tuple[list[str], str]:
    """The table's column names, and the query of its rows with dates and times as ISO 8601 text."""
    query = _select(parquet, selection)
    columns = [
        (str(name), str(sql_type))
        for name, sql_type, *_ in connection.execute(f"DESCRIBE {query}").fetchall()
    ]
    fit_to_width(connection, len(columns))
    values = ", ".join(f"{json_ready(name, sql_type)} AS {identifier(name)}" for name, sql_type in columns)
    return [name for name, _ in columns], f"SELECT {values} FROM ({query})"


def json_ready(name: str, sql_type: str) -> str:
    column = identifier(name)
    if sql_type == "DATE":
        return f"strftime({column}, '%Y-%m-%d')"
    if sql_type == "TIMESTAMP WITH TIME ZONE":
        return (
            f"strftime({column}, CASE WHEN microsecond({column}) % 1000000 = 0"
            " THEN '%Y-%m-%dT%H:%M:%SZ' ELSE '%Y-%m-%dT%H:%M:%S.%fZ' END)"
        )
    return column
