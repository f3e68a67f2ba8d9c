"""A data version's canonical Parquet as numbers: cell for cell what ``Signature.encode`` makes of its rows.

DuckDB does the work a column at a time; no cell ever becomes a Python object.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from app.columns import ColumnType
from app.registry.signature import Feature, Role, Signature

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


@dataclass(frozen=True, slots=True)
class Examples:
    """The labelled rows of a table, in the table's order.

    ``features`` has shape (n, features of the signature); ``target`` shape (n,): class indices (intp) for
    classifiers, float64 values for regression; ``order`` shape (n,): the values of the column that the
    rows were asked to be ordered by (seconds since 1970 for times), or None.
    """

    features: NDArray[np.float64]
    target: NDArray[np.intp] | NDArray[np.float64]
    order: NDArray[np.float64] | None


def open_table(parquet: Path) -> duckdb.DuckDBPyConnection:
    """A connection to an in-memory database whose view ``data`` is the Parquet file; the caller closes it."""
    connection = duckdb.connect()
    # The rows of separate queries, one a column, must line up.
    connection.execute("SET preserve_insertion_order = true")
    connection.read_parquet(glob.escape(str(parquet)), hive_partitioning=False).create_view("data")
    return connection


def table_types(connection: duckdb.DuckDBPyConnection) -> dict[str, ColumnType]:
    """The type of every column of ``data``; a column of any other type is read as its text."""
    described = connection.execute("DESCRIBE data").fetchall()
    return {name: _TYPES.get(kind.split("(")[0], ColumnType.STRING) for name, kind, *_ in described}


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def present(name: str, type_: ColumnType) -> str:
    """The SQL expression of a column's value, in which NaN is null as it is in JSON rows."""
    column = quoted(name)
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


def read_examples(parquet: Path, signature: Signature, *, order_by: str | None = None) -> Examples:
    """Read the labelled rows of ``parquet`` by the signature, with the values of the column ``order_by``.

    Memory: the matrix, and one column of the table beside it.
    """
    with open_table(parquet) as connection:
        target = _read_target(connection, signature)
        labelled = ~np.isnan(target)
        features = np.empty((int(labelled.sum()), len(signature.features)))
        for position, feature in enumerate(signature.features):
            features[:, position] = _read_feature(connection, feature)[labelled]
        order = None
        if order_by is not None:
            type_ = table_types(connection)[order_by]
            order = _read_cells(connection, number(order_by, type_))[labelled]
    target = target[labelled]
    return Examples(features, target.astype(np.intp) if signature.classes else target, order)


def _read_target(connection: duckdb.DuckDBPyConnection, signature: Signature) -> NDArray[np.float64]:
    if signature.classes is None:
        return _read_cells(connection, number(signature.target, signature.target_type))
    return _read_codes(connection, signature.target, signature.target_type, signature.classes)


def _read_feature(connection: duckdb.DuckDBPyConnection, feature: Feature) -> NDArray[np.float64]:
    if feature.role is Role.CATEGORICAL:
        return _read_codes(connection, feature.name, feature.type, feature.categories or ())
    return _read_cells(connection, number(feature.name, feature.type))


def _read_codes(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    type_: ColumnType,
    values: Sequence[bool | int | float | str],
) -> NDArray[np.float64]:
    """The position in ``values`` of each cell of a column: -1 where it is not there, NaN where null."""
    value = present(name, type_)
    if not values:
        return _read_cells(connection, f"CASE WHEN {value} IS NOT NULL THEN -1.0 END")
    found = connection.execute(
        f"SELECT row, CASE WHEN cell IS NULL THEN 'NaN'::DOUBLE ELSE coalesce(code, -1) END AS code "  # noqa: S608
        f"FROM (SELECT {value} AS cell, row_number() OVER () - 1 AS row FROM data) "
        "LEFT JOIN (SELECT unnest($values) AS value, unnest($codes) AS code) ON cell = value",
        {"values": list(values), "codes": [float(code) for code in range(len(values))]},
    ).fetchnumpy()
    codes = np.empty(len(found["row"]))
    codes[found["row"]] = found["code"]
    return codes


def _read_cells(connection: duckdb.DuckDBPyConnection, expression: str) -> NDArray[np.float64]:
    cells: NDArray[np.float64] = connection.execute(
        f"SELECT coalesce({expression}, 'NaN'::DOUBLE) AS cells FROM data"  # noqa: S608 - names are quoted
    ).fetchnumpy()["cells"]
    return cells
