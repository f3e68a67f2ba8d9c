"""A data version's canonical Parquet as numbers: cell for cell what ``Signature.encode`` makes of its rows.

DuckDB does the work, many short columns or a few long ones at a time; no cell becomes a Python object.
"""

# ruff: noqa: S608 - every name in SQL is quoted by identifier(), every value is bound

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.columns import ColumnType, Value
from app.datasets.engine import Parquet, connect, fit_to_width, identifier, rows_of
from app.registry.signature import Feature, Role, Signature

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TYPES = {
    "BOOLEAN": ColumnType.BOOLEAN,
    "FLOAT": ColumnType.NUMBER,
    "DOUBLE": ColumnType.NUMBER,
    "DECIMAL": ColumnType.NUMBER,
    "DATE": ColumnType.DATE,
    **dict.fromkeys(
        ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
        ColumnType.INTEGER,
    ),
    **dict.fromkeys(
        ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"),
        ColumnType.DATETIME,
    ),
}

EXACT_INTEGERS = 2**53
"""A float64 holds every integer up to here."""

BATCH_TEXTS = 2_000
BATCH_COLUMNS = 250
BATCH_CELLS = 500_000
"""At most so many share a query: each looks at the whole schema, and is planned in quadratic time."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column to read: as positions in ``values``, or as numbers where that is None."""

    name: str
    type: ColumnType
    values: Sequence[Value] | None = None


@contextmanager
def open_table(parquet: Parquet, rows: range | None = None) -> Iterator[DuckDBPyConnection]:
    """A connection to an in-memory database whose view ``data`` is the table, or some of its rows."""
    with TemporaryDirectory() as spill, connect(Path(spill)) as connection:
        table = rows_of(parquet)
        if rows is not None:
            table += f" LIMIT {len(rows)} OFFSET {rows.start}"  # row groups before it are not read
        connection.execute(f"CREATE VIEW data AS SELECT * FROM {table}")
        fit_to_width(connection, len(table_types(connection)))
        yield connection


def table_types(connection: DuckDBPyConnection) -> dict[str, ColumnType]:
    """The type of every column of ``data``; a column of any other type is read as its text."""
    described = connection.execute("DESCRIBE data").fetchall()
    return {name: _TYPES.get(kind.split("(")[0], ColumnType.STRING) for name, kind, *_ in described}


def present(name: str, type_: ColumnType) -> str:
    """The SQL expression of a column's value, in which NaN is null as it is in JSON rows."""
    column = identifier(name)
    match type_:
        case ColumnType.NUMBER:
            return f"nullif({column}::DOUBLE, 'NaN'::DOUBLE)"
        case ColumnType.STRING:
            return f"{column}::VARCHAR"
        case ColumnType.DATE | ColumnType.DATETIME:
            return f"CASE WHEN isfinite({column}) THEN {column} END"  # DuckDB has a time "infinity"
        case _:
            return column


def number(name: str, type_: ColumnType) -> str:
    """The SQL expression of a column as a nullable DOUBLE: times are seconds since 1970, UTC."""
    column = present(name, type_)
    match type_:
        case ColumnType.BOOLEAN:
            return f"{column}::TINYINT::DOUBLE"
        case ColumnType.DATE:
            return f"epoch({column})"
        case ColumnType.DATETIME:
            moment = f"epoch_us({column})"
            # Microseconds that a double does not hold exactly would be rounded twice.
            return (
                f"CASE WHEN abs({moment}) <= {EXACT_INTEGERS} THEN {moment} / 1e6 "
                f"ELSE {moment} // 1000000 + ({moment} % 1000000) / 1e6 END"
            )
        case _:
            return f"{column}::DOUBLE"


def batches(connection: DuckDBPyConnection, columns: Mapping[str, ColumnType]) -> Iterator[list[str]]:
    """The names of the columns in lists of one type each, short enough for one query each."""
    (rows,) = connection.execute("SELECT count(*) FROM data").fetchall()[0]
    size = max(1, min(BATCH_COLUMNS, BATCH_CELLS // max(1, rows)))
    for type_ in sorted(set(columns.values())):
        names = [name for name in columns if columns[name] is type_]
        yield from (names[start : start + size] for start in range(0, len(names), size))


def cells(values: Sequence[str]) -> str:
    """The query of the cells of several SQL expressions of one type over ``data``.

    Its columns are ``row`` (from 0), ``position`` in ``values`` and ``value``.
    """
    if len(values) == 1:  # the same without the cost of a list for every row
        return f"SELECT row_number() OVER () - 1 AS row, 0 AS position, {values[0]} AS value FROM data"
    return (
        f"SELECT row, unnest(range({len(values)})) AS position, unnest(cells) AS value "
        f"FROM (SELECT row_number() OVER () - 1 AS row, [{', '.join(values)}] AS cells FROM data)"
    )


def read_matrix(parquet: Parquet, signature: Signature, rows: range) -> NDArray[np.float64]:
    """The matrix of some rows of the table, of shape (len(rows), width of the signature).

    The table must have every column of the signature, each of a type that it takes. Memory: the matrix, and
    one batch of columns beside it.
    """
    matrix = np.empty((len(rows), signature.width))
    with open_table(parquet, rows) as connection:
        for place, cells in read_features(connection, signature, np.arange(len(rows))):
            matrix[:, place] = cells
    return matrix


def read_features(
    connection: DuckDBPyConnection, signature: Signature, rows: NDArray[np.integer]
) -> Iterator[tuple[int | slice, NDArray[np.floating]]]:
    """The place of each feature in the matrix and its cells, in any order of features.

    ``rows`` are places in ``data``, in any order. Cells have shape (len(rows),) or, of a text, (len(rows),
    width of the feature).
    """
    types = table_types(connection)
    places = dict(zip((feature.name for feature in signature.features), signature.places, strict=True))
    columns = [
        Column(
            feature.name,
            types[feature.name],
            feature.categories or () if feature.role is Role.CATEGORICAL else None,
        )
        for feature in signature.features
        if feature.role is not Role.TEXT
    ]
    for name, cells in read_columns(connection, columns):
        yield places[name], cells[rows]
    for feature in signature.features:
        if feature.role is Role.TEXT:
            yield places[feature.name], _read_counts(connection, feature, types[feature.name], rows)


def _read_counts(
    connection: DuckDBPyConnection, feature: Feature, type_: ColumnType, rows: NDArray[np.integer]
) -> NDArray[np.float32]:
    """The counts of a text's tokens, which float32 holds exactly in half the memory; NaN where it is null."""
    connection.register("wanted", {"row": rows, "place": np.arange(len(rows))})
    texts = f"SELECT row_number() OVER () - 1 AS row, {present(feature.name, type_)} AS text FROM data"
    found = connection.execute(f"SELECT place, text FROM wanted JOIN ({texts}) USING (row)")
    counts = np.empty((len(rows), feature.width), np.float32)
    while batch := found.fetchmany(BATCH_TEXTS):
        for place, text in batch:
            counts[place] = np.nan if text is None else feature.count_tokens(text)
    return counts


def read_texts(connection: DuckDBPyConnection, name: str, type_: ColumnType) -> Iterator[str | None]:
    """The values of a column, one after the other."""
    found = connection.execute(f"SELECT {present(name, type_)} FROM data")
    while rows := found.fetchmany(BATCH_TEXTS):
        yield from (text for (text,) in rows)


def read_columns(
    connection: DuckDBPyConnection, columns: Sequence[Column]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """The name and the cells of each column, of shape (rows of the table,), in any order of columns."""
    coded = {column.name: column for column in columns if column.values}
    plain = {column.name: column for column in columns if not column.values}
    for names in batches(connection, {name: column.type for name, column in plain.items()}):
        yield from zip(names, _read_numbers(connection, [plain[name] for name in names]), strict=True)
    for names in batches(connection, {name: column.type for name, column in coded.items()}):
        yield from zip(names, _read_codes(connection, [coded[name] for name in names]), strict=True)


def _read_numbers(connection: DuckDBPyConnection, columns: Sequence[Column]) -> list[NDArray[np.float64]]:
    """The columns as numbers; -1 in each cell that is not null where no value is known."""
    expressions = [
        number(column.name, column.type)
        if column.values is None
        else f"CASE WHEN {present(column.name, column.type)} IS NOT NULL THEN -1.0 END"
        for column in columns
    ]
    selected = ", ".join(
        f"coalesce({expression}, 'NaN'::DOUBLE) AS c{position}"
        for position, expression in enumerate(expressions)
    )
    return list(connection.execute(f"SELECT {selected} FROM data").fetchnumpy().values())


def _read_codes(connection: DuckDBPyConnection, columns: Sequence[Column]) -> NDArray[np.float64]:
    """The position of each cell in its column's ``values``: -1 where it is not there, NaN where null.

    Shape (columns, rows of the table); the columns are of one type and have values.
    """
    known = [
        (position, value, float(code))
        for position, column in enumerate(columns)
        for code, value in enumerate(column.values or ())
    ]
    positions, values, codes = (list(part) for part in zip(*known, strict=True))
    found = connection.execute(
        "SELECT row, position, "
        "CASE WHEN value IS NULL THEN 'NaN'::DOUBLE ELSE coalesce(code, -1) END AS code "
        f"FROM ({cells([present(column.name, column.type) for column in columns])}) LEFT JOIN "
        "(SELECT unnest($positions) AS position, unnest($values) AS value, unnest($codes) AS code) "
        "USING (position, value)",
        {"positions": positions, "values": values, "codes": codes},
    ).fetchnumpy()
    read = np.empty((len(columns), len(found["row"]) // len(columns)))
    read[found["position"], found["row"]] = found["code"]
    return read
