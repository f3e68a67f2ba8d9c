"""The labelled rows of a data version as numbers: what a model learns from."""

# ruff: noqa: S608 - every name in SQL is quoted by identifier()

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.datasets.engine import Parquet
from app.registry.matrix import (
    Column,
    cells,
    open_table,
    present,
    read_columns,
    read_features,
    table_types,
)
from app.registry.signature import Signature

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What came true in the labelled rows of a table, in the table's order.

    All arrays have shape (n,). ``rows`` are places in the table, from 0; ``target`` holds class indices
    (intp) for classifiers, float64 values for regression; ``order`` the values of the column that the rows
    were asked to be ordered by (seconds since 1970 for times); ``groups`` codes from 0 of the values, or
    null, of the column that they were asked to be grouped by.
    """

    rows: NDArray[np.intp]
    target: NDArray[np.intp] | NDArray[np.float64]
    order: NDArray[np.float64] | None
    groups: NDArray[np.intp] | None


def read_outcomes(
    parquet: Parquet, signature: Signature, *, order_by: str | None = None, group_by: str | None = None
) -> Outcomes:
    """Read the target of the labelled rows, with the columns ``order_by`` and ``group_by``."""
    with open_table(parquet) as connection:
        outcome = Column(signature.target, signature.target_type, signature.classes)
        target = dict(read_columns(connection, [outcome]))[signature.target]
        rows = np.flatnonzero(~np.isnan(target))
        order = groups = None
        if order_by is not None:
            moments = Column(order_by, table_types(connection)[order_by])
            order = dict(read_columns(connection, [moments]))[order_by][rows]
        if group_by is not None:
            groups = np.unique(_codes(connection, group_by)[rows], return_inverse=True)[1]
    target = target[rows]
    return Outcomes(rows, target.astype(np.intp) if signature.classes else target, order, groups)


def read_rows(
    parquet: Parquet, signature: Signature, *selections: NDArray[np.intp]
) -> list[NDArray[np.float64]]:
    """A matrix of shape (len(rows), width) for each selection of rows, which are places in the table.

    The table must have every column of the signature, each of a type that it takes. Memory: the matrices,
    and one batch of columns beside them.
    """
    rows = np.concatenate(selections)
    matrix = np.empty((len(rows), signature.width))
    with open_table(parquet) as connection:
        for place, cells in read_features(connection, signature, rows):
            matrix[:, place] = cells
    return np.split(matrix, np.cumsum([len(selection) for selection in selections])[:-1])


def _codes(connection: DuckDBPyConnection, name: str) -> NDArray[np.int64]:
    """A code for each row of the table, shape (rows,): equal for equal values, 0 for null."""
    value = present(name, table_types(connection)[name])
    found = connection.execute(
        f"SELECT row, coalesce(code, 0) AS code FROM ({cells([value])}) LEFT JOIN "
        "(SELECT value, row_number() OVER (ORDER BY value) AS code "
        f"FROM (SELECT DISTINCT {value} AS value FROM data) WHERE value IS NOT NULL) USING (value)"
    ).fetchnumpy()
    codes = np.empty(len(found["row"]), np.int64)
    codes[found["row"]] = found["code"]
    return codes
