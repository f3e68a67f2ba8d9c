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

from app.datasets.engine import connect, fit_to_width, identifier, literal, one_file
from app.datasets.ingest import MediaType

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def preview(parquet: Path, limit: int, offset: int = 0) -> list[dict[str, Any]]:
    """At most ``limit`` rows from row ``offset`` (from 0) on, as JSON-ready values.

    Dates are as 2013-05-31 and times, in UTC, as 2013-05-31T14:00:00Z, with a fraction where there is one.
    """
    with connect(spill=None) as connection:
        names, query = _query(connection, parquet)
        rows = connection.execute(f"{query} LIMIT ? OFFSET ?", [limit, offset]).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def export(parquet: Path, media_type: MediaType, target: Path) -> None:
    """Write the table to ``target``, streaming; no file is left where that fails.

    CSV follows RFC 4180 with a header; an unquoted empty field is null and a quoted one an empty string.
    Read again, every format gives the same table, save that CSV and NDJSON do not tell a string column
    whose every value reads as another type (CSV: any; NDJSON: date or time) from a column of that type.
    """
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        written = Path(folder) / "content"
        with connect(Path(folder)) as connection:
            match media_type:
                case MediaType.CSV:
                    _export_csv(connection, parquet, written)
                case MediaType.NDJSON:
                    query = _query(connection, parquet)[1]
                    connection.execute(f"COPY ({query}) TO {literal(str(written))} (FORMAT json)")
                case MediaType.PARQUET:
                    shutil.copyfile(parquet, written)
                case MediaType.ARROW_STREAM:
                    from arro3.core import RecordBatchReader  # see engine.connect
                    from arro3.io import write_ipc_stream

                    rows = connection.sql(f"SELECT * FROM read_parquet({one_file(parquet)})")
                    reader = RecordBatchReader.from_stream(rows)
                    write_ipc_stream(reader, str(written), compression=None)
        written.replace(target)


def concatenate(parts: Sequence[Path], target: Path) -> None:
    """Write the rows of Parquet files of the same columns to one, in order and streaming."""
    files = ", ".join(one_file(part) for part in parts)
    with connect(target.parent) as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_parquet([{files}], hive_partitioning = false))"
            f" TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)"
        )


def _export_csv(connection: DuckDBPyConnection, parquet: Path, target: Path) -> None:
    names, query = _query(connection, parquet)
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


def _query(connection: DuckDBPyConnection, parquet: Path) -> tuple[list[str], str]:
    """The table's column names, and the query of its rows with dates and times as ISO 8601 text."""
    table = f"read_parquet({one_file(parquet)})"
    columns = [
        (str(name), str(sql_type))
        for name, sql_type, *_ in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()
    ]
    fit_to_width(connection, len(columns))
    values = ", ".join(f"{_json_ready(name, sql_type)} AS {identifier(name)}" for name, sql_type in columns)
    return [name for name, _ in columns], f"SELECT {values} FROM {table}"


def _json_ready(name: str, sql_type: str) -> str:
    column = identifier(name)
    if sql_type == "DATE":
        return f"strftime({column}, '%Y-%m-%d')"
    if sql_type == "TIMESTAMP WITH TIME ZONE":
        return (
            f"strftime({column}, CASE WHEN microsecond({column}) % 1000000 = 0"
            " THEN '%Y-%m-%dT%H:%M:%SZ' ELSE '%Y-%m-%dT%H:%M:%S.%fZ' END)"
        )
    return column
