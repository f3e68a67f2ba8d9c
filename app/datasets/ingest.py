"""An uploaded file becomes one canonical Parquet file, exactly or not at all.

The canonical table has the columns and the rows of the file in their order, typed int64, float64 (finite),
boolean, UTF-8 string, date, or timestamp of microseconds in UTC. Nothing is guessed from a sample, rounded
or dropped: what cannot be kept is refused with its place. Files stream through DuckDB and through checks
of bounded size; no table is ever whole in memory.
"""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from app.columns import Column, ColumnType
from app.datasets.engine import connect, fit_to_width, identifier, literal, one_file
from app.datasets.faults import check_names, fault
from app.datasets.infer import SQL_TYPES, Cells, cast_native, check_fit, infer_text, infer_times
from app.datasets.scan_csv import MAX_RECORD_BYTES, scan_csv
from app.datasets.scan_ndjson import MAX_LINE_BYTES, find_duplicate_key, scan_ndjson
from app.datasets.stage_arrow import stage_arrow

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROW_GROUP_ROWS = 122_880
ROW_GROUP_CELLS = 4_000_000
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class MediaType(StrEnum):
    CSV = "text/csv"
    PARQUET = "application/vnd.apache.parquet"
    NDJSON = "application/x-ndjson"
    ARROW_STREAM = "application/vnd.apache.arrow.stream"


class Table(NamedTuple):
    columns: list[Column]
    rows: int


def ingest(source: Path, media_type: MediaType, target: Path) -> Table:
    """Write the canonical Parquet of the file ``source`` to ``target``, and say what is in it.

    Raises InvalidInput whose errors name the data row (from 1) and the column at fault, and leaves no
    file behind then. The rules of each format stand at ``scan_csv`` and ``infer_text``, ``scan_ndjson``,
    and ``cast_native`` (Parquet and Arrow).
    """
    with (
        TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder,
        connect(Path(folder)) as connection,
    ):
        written = Path(folder) / "table.parquet"
        match media_type:
            case MediaType.CSV:
                table = _ingest_csv(connection, source, written)
            case MediaType.NDJSON:
                table = _ingest_ndjson(connection, source, written)
            case MediaType.PARQUET:
                table = _ingest_parquet(connection, source, written)
            case MediaType.ARROW_STREAM:
                table = _ingest_arrow(connection, source, written)
        written.replace(target)
    return table


def _ingest_csv(connection: DuckDBPyConnection, source: Path, target: Path) -> Table:
    layout = scan_csv(source)
    columns = [f"c{number}" for number in range(len(layout.names))]
    types = ", ".join(f"{column}: 'VARCHAR'" for column in columns)
    # DuckDB takes the line end from the header's; told that it is CRLF, DuckDB 2.0 reads no rows.
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT * FROM read_csv({one_file(source)}, auto_detect = false,"
        f" columns = {{{types}}}, header = true, delim = {literal(layout.delimiter)}, quote = '\"',"
        " escape = '\"', nullstr = '', allow_quoted_nulls = false,"
        " compression = 'none', encoding = 'utf-8', strict_mode = true, null_padding = false,"
        f" ignore_errors = false, parallel = {not layout.newline_in_field},"
        f" max_line_size = {2 * MAX_RECORD_BYTES}, buffer_size = {4 * MAX_RECORD_BYTES})"
    )
    return _write(connection, infer_text(connection, layout.names, columns), target, layout.rows)


def _ingest_ndjson(connection: DuckDBPyConnection, source: Path, target: Path) -> Table:
    import duckdb  # see engine.connect

    layout = scan_ndjson(source)
    types = ", ".join(f"{literal(name)}: '{SQL_TYPES[type_]}'" for name, type_ in layout.types.items())
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT * FROM read_json({one_file(source)}, columns = {{{types}}},"
        " format = 'newline_delimited', auto_detect = false, compression = 'none',"
        f" ignore_errors = false, maximum_object_size = {2 * MAX_LINE_BYTES})"
    )
    strings = [name for name, type_ in layout.types.items() if type_ is ColumnType.STRING]
    try:
        inferred = {cell.name: cell for cell in infer_times(connection, strings)}
        cells = [
            inferred.get(name) or Cells(name, type_, identifier(name)) for name, type_ in layout.types.items()
        ]
        return _write(connection, cells, target, layout.rows)
    except duckdb.InvalidInputException:
        # Of what the scan accepts, DuckDB refuses only this.
        if (duplicate := find_duplicate_key(source)) is None:
            raise
        raise duplicate from None


def _ingest_parquet(connection: DuckDBPyConnection, source: Path, target: Path) -> Table:
    import duckdb  # see engine.connect

    try:
        schema = connection.execute(f"SELECT name FROM parquet_schema({one_file(source)}) OFFSET 1")
        names = [str(name) for (name,) in schema.fetchall()]
        connection.execute(
            f"CREATE TEMP VIEW source AS SELECT * FROM read_parquet({one_file(source)},"
            " hive_partitioning = false)"
        )
        described = connection.execute("DESCRIBE source").fetchall()
        cells = [cast_native(str(name), str(sql_type)) for name, sql_type, *_ in described]
        check_names(names)  # as the file has them: DuckDB has renamed duplicates
        check_fit(connection, cells)
        return _write(connection, cells, target)
    except duckdb.Error as error:
        if _is_readable(connection):
            raise
        reason = str(error).splitlines()[0].replace(str(source), "the file")
        raise fault(
            "malformed_parquet",
            f"The file cannot be read as Parquet: it is truncated, damaged or something else ({reason}). "
            "Write it again and send it whole.",
        ) from error


def _ingest_arrow(connection: DuckDBPyConnection, source: Path, target: Path) -> Table:
    with source.open("rb") as file:
        file.seek(max(0, source.stat().st_size - len(END_OF_STREAM)))
        if file.read() != END_OF_STREAM:
            raise fault(
                "malformed_arrow",
                "The Arrow stream does not end with its end-of-stream marker: it is truncated, or not an "
                "Arrow IPC stream (an IPC file, also called Feather, is another format). Close the writer "
                "before you send the file.",
            )
    staged = target.with_name("staged.parquet")
    check_names(stage_arrow(source, staged))
    return _ingest_parquet(connection, staged, target)


def _is_readable(connection: DuckDBPyConnection) -> bool:
    """Whether ``source`` can be read to its end, with nothing written: if so, an error is not the file's."""
    import duckdb  # see engine.connect

    try:
        connection.execute("SELECT bit_xor(hash(source)) FROM source").fetchall()
    except duckdb.Error:
        return False
    return True


def _write(
    connection: DuckDBPyConnection, cells: Sequence[Cells], target: Path, rows: int | None = None
) -> Table:
    """Write the canonical Parquet; ``rows`` is how many the file is known to hold."""
    values = ", ".join(f"{cell.value} AS {identifier(cell.name)}" for cell in cells)
    fit_to_width(connection, len(cells))
    group = max(2048, min(ROW_GROUP_ROWS, ROW_GROUP_CELLS // len(cells)))
    connection.execute(
        f"COPY (SELECT {values} FROM source) TO {literal(str(target))}"
        f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {group})"
    )
    metadata = connection.execute(
        "SELECT sum(num_values), sum(stats_null_count) FROM"
        f" parquet_metadata({one_file(target)}) GROUP BY column_id ORDER BY column_id"
    ).fetchall()
    written = int(metadata[0][0]) if metadata else 0
    if rows is not None and written != rows:
        raise RuntimeError(f"DuckDB read {written} rows of a file that holds {rows}")
    if not written:
        raise fault("empty_table", "The file holds no rows. Send at least one.")
    columns = [
        Column(name=cell.name, type=cell.type, nullable=nulls > 0)
        for cell, (_, nulls) in zip(cells, metadata, strict=True)
    ]
    return Table(columns, written)
