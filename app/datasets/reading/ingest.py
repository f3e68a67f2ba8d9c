"""An uploaded file becomes one canonical Parquet file, exactly or not at all.

The canonical table has the columns and the rows of the file in their order, typed int64, float64 (finite),
boolean, UTF-8 string, date, or timestamp of microseconds in UTC. Nothing is guessed from a sample, rounded
or dropped: what cannot be kept is refused with its place. Files stream through DuckDB and through checks
of bounded size; no table is ever whole in memory.
"""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app.columns import Column, ColumnType
from app.datasets.canonical import Table, describe, write_rows
from app.datasets.engine import connect, fit_to_groups, identifier, literal, one_file, row_bytes_of
from app.datasets.faults import check_names, fault
from app.datasets.reading.infer import (
    SQL_TYPES,
    Cells,
    Kind,
    cast_native,
    cast_to,
    check_fit,
    check_naive,
    without_nulls,
)
from app.datasets.reading.mixed import find_majority, mixed_column
from app.datasets.reading.recipe import Recipe, check_types, unfit_recipe
from app.datasets.reading.scan_csv import scan_csv
from app.datasets.reading.scan_ndjson import MAX_LINE_BYTES, find_duplicate_key, scan_ndjson
from app.datasets.reading.stage_arrow import stage_arrow
from app.datasets.reading.type_csv import read_column
from app.datasets.reading.type_ndjson import infer_times
from app.errors import InvalidInput

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NARROW = 200  # columns
NARROW_MEMORY_LIMIT = "350MB"  # a CSV is read in pieces, and takes no more
BUFFER_BYTES = 4 * 2**20  # of CSV, for each thread
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class MediaType(StrEnum):
    CSV = "text/csv"
    PARQUET = "application/vnd.apache.parquet"
    NDJSON = "application/x-ndjson"
    ARROW_STREAM = "application/vnd.apache.arrow.stream"


def ingest(source: Path, media_type: MediaType, target: Path, recipe: Recipe | None = None) -> Table:
    """Write the canonical Parquet of the file ``source`` to ``target``, and say what is in it.

    The table's recipe says how the file was read: the types of all columns, the null markers that were met
    and taken for null, the time zone if there were times without one, and the form of a CSV.

    Raises InvalidInput whose errors name the data row (from 1) and the column at fault, or the part of the
    recipe that does not fit the file, and leaves no file behind then. The rules of each format stand at
    ``scan_csv`` and ``Kind``, ``scan_ndjson``, and ``cast_native`` (Parquet and Arrow).
    """
    recipe = recipe or Recipe()
    if media_type is not MediaType.CSV:
        _check_not_csv(recipe)
    with (
        TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder,
        connect(Path(folder)) as connection,
    ):
        if recipe.timezone is not None:
            _set_timezone(connection, recipe.timezone)
        written = Path(folder) / "table.parquet"
        match media_type:
            case MediaType.CSV:
                table = _ingest_csv(connection, source, written, recipe)
            case MediaType.NDJSON:
                table = _ingest_ndjson(connection, source, written, recipe)
            case MediaType.PARQUET:
                table = _ingest_parquet(connection, source, written, recipe)
            case MediaType.ARROW_STREAM:
                table = _ingest_arrow(connection, source, written, recipe)
        written.replace(target)
    return table


def _check_not_csv(recipe: Recipe) -> None:
    for part in ("delimiter", "quote", "header"):
        if getattr(recipe, part) is not None:
            raise unfit_recipe(part, f"The recipe's {part} is of CSV files, and this is none. Leave it out.")


def _set_timezone(connection: DuckDBPyConnection, name: str) -> None:
    known = connection.execute("SELECT count(*) FROM pg_timezone_names() WHERE name = ?", [name]).fetchone()
    if known != (1,):
        detail = f"There is no time zone {name!r}. Name one of the IANA database, such as Europe/Berlin."
        raise unfit_recipe("timezone", detail)
    connection.execute(f"SET TimeZone = {literal(name)}")


def _ingest_csv(connection: DuckDBPyConnection, source: Path, target: Path, recipe: Recipe) -> Table:
    layout = scan_csv(source, recipe)
    columns = [
        read_column(name, f"c{number}", facts, recipe)
        for number, (name, facts) in enumerate(zip(layout.names, layout.columns, strict=True))
    ]
    for name, facts in zip(layout.names, layout.columns, strict=True):
        if name not in recipe.types and (majority := find_majority(facts.counts, facts.met)):
            raise _refuse_mixed(source, recipe, name, majority)
    types = ", ".join(f"c{number}: '{column.sql_type}'" for number, column in enumerate(columns))
    buffer = max(BUFFER_BYTES, 4 * layout.longest)
    quote = literal(layout.quote)
    # DuckDB takes the line end from the header's; told that it is CRLF, DuckDB 2.0 reads no rows.
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT * FROM read_csv({one_file(source)}, auto_detect = false,"
        f" columns = {{{types}}}, header = {layout.header}, delim = {literal(layout.delimiter)},"
        f" quote = {quote}, escape = {quote}, nullstr = '', allow_quoted_nulls = false,"
        " compression = 'none', encoding = 'utf-8', strict_mode = true, null_padding = false,"
        f" ignore_errors = false, parallel = {not layout.newline_in_field},"
        f" max_line_size = {buffer // 2}, buffer_size = {buffer})"
    )
    cells = [column.cells if recipe.timezone is None else check_naive(column.cells) for column in columns]
    check_fit(connection, cells)
    if len(cells) <= NARROW:
        connection.execute(f"SET memory_limit = '{NARROW_MEMORY_LIMIT}'")
    table = _write(connection, cells, target, source.stat().st_size // layout.rows, layout.rows)
    return table._replace(
        recipe=Recipe(
            delimiter=layout.delimiter,
            quote=layout.quote,
            header=layout.header,
            nulls=sorted({marker for column in columns for marker in column.nulls}),
            types={column.name: column.type for column in table.columns},
            timezone=_zone_used(recipe, cells),
        )
    )


def _refuse_mixed(source: Path, recipe: Recipe, name: str, majority: Kind) -> InvalidInput:
    """The refusal, for which the file is scanned anew: which values are misfits shows at its end."""
    layout = scan_csv(source, recipe, {name: majority})
    facts = layout.columns[layout.names.index(name)]
    return mixed_column(name, majority, facts.counts, facts.first_misfits, facts.markers)


def _zone_used(recipe: Recipe, cells: Sequence[Cells]) -> str | None:
    return (recipe.timezone or "UTC") if any(cell.naive is not None for cell in cells) else None


def _settle(
    connection: DuckDBPyConnection,
    cells: Sequence[Cells],
    target: Path,
    recipe: Recipe,
    row_bytes: int,
    rows: int | None = None,
) -> Table:
    """Write typed columns as the recipe has them."""
    cells = [cast_to(cell, recipe.types.get(cell.name, cell.type)) for cell in cells]
    cells = [cell if recipe.timezone is None else check_naive(cell) for cell in cells]
    check_fit(connection, cells)
    table = _write(connection, cells, target, row_bytes, rows)
    return table._replace(
        recipe=Recipe(
            nulls=recipe.nulls,
            types={column.name: column.type for column in table.columns},
            timezone=_zone_used(recipe, cells),
        )
    )


def _ingest_ndjson(connection: DuckDBPyConnection, source: Path, target: Path, recipe: Recipe) -> Table:
    import duckdb  # see engine.connect

    layout = scan_ndjson(source)
    check_types(recipe, list(layout.types))
    types = ", ".join(f"{literal(name)}: '{SQL_TYPES[type_]}'" for name, type_ in layout.types.items())
    strings = [name for name, type_ in layout.types.items() if type_ is ColumnType.STRING]
    values = ", ".join(
        f"{without_nulls(identifier(s), recipe.nulls or ())} AS {identifier(s)}" for s in strings
    )
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT *{f' REPLACE ({values})' if recipe.nulls and strings else ''}"
        f" FROM read_json({one_file(source)}, columns = {{{types}}},"
        " format = 'newline_delimited', auto_detect = false, compression = 'none',"
        f" ignore_errors = false, maximum_object_size = {2 * MAX_LINE_BYTES})"
    )
    try:
        times = infer_times(connection, [name for name in strings if name not in recipe.types])
        inferred = {cell.name: cell for cell in times}
        cells = [
            inferred.get(name) or Cells(name, type_, identifier(name)) for name, type_ in layout.types.items()
        ]
        return _settle(connection, cells, target, recipe, source.stat().st_size // layout.rows, layout.rows)
    except duckdb.InvalidInputException:
        # Of what the scan accepts, DuckDB refuses only this.
        if (duplicate := find_duplicate_key(source)) is None:
            raise
        raise duplicate from None


def _ingest_parquet(connection: DuckDBPyConnection, source: Path, target: Path, recipe: Recipe) -> Table:
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
        check_types(recipe, names)
        if recipe.nulls:
            cells = [
                replace(cell, value=without_nulls(cell.value, recipe.nulls))
                if cell.type is ColumnType.STRING
                else cell
                for cell in cells
            ]
        fit_to_groups(connection, source)
        return _settle(connection, cells, target, recipe, row_bytes_of(connection, source))
    except duckdb.Error as error:
        if _is_readable(connection, source):
            raise
        reason = str(error).splitlines()[0].replace(str(source), "the file")
        raise fault(
            "malformed_parquet",
            f"The file cannot be read as Parquet: it is truncated, damaged or something else ({reason}). "
            "Write it again and send it whole.",
        ) from error


def _ingest_arrow(connection: DuckDBPyConnection, source: Path, target: Path, recipe: Recipe) -> Table:
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
    return _ingest_parquet(connection, staged, target, recipe)


def _is_readable(connection: DuckDBPyConnection, parquet: Path) -> bool:
    """Whether a file can be read to its end, metadata and all, with nothing written.

    If so, an error is not the file's.
    """
    import duckdb  # see engine.connect

    try:
        connection.execute("SELECT bit_xor(hash(source)) FROM source").fetchall()
        connection.execute(f"FROM parquet_metadata({one_file(parquet)})").fetchall()
    except duckdb.OutOfMemoryException:
        raise  # which is not the file's fault
    except duckdb.Error:
        return False
    return True


def _write(
    connection: DuckDBPyConnection,
    cells: Sequence[Cells],
    target: Path,
    row_bytes: int,
    rows: int | None = None,
) -> Table:
    """Write the canonical Parquet; ``rows`` is how many the file is known to hold, each of ``row_bytes``."""
    values = ", ".join(f"{cell.value} AS {identifier(cell.name)}" for cell in cells)
    write_rows(connection, f"SELECT {values} FROM source", target, row_bytes)
    columns = [Column(name=cell.name, type=cell.type, nullable=True) for cell in cells]
    table = describe(connection, target, columns)
    if rows is not None and table.rows != rows:
        raise RuntimeError(f"DuckDB read {table.rows} rows of a file that holds {rows}")
    if not table.rows:
        raise fault("empty_table", "The file holds no rows. Send at least one.")
    return table
