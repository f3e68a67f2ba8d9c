"""Typed tables: as Parquet files, and as strategies for hypothesis with the signatures that fit them."""

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from hypothesis import strategies as st

from app.columns import ColumnType
from app.registry.signature import Feature, Role, Signature, Task

SQL_TYPES = {
    ColumnType.INTEGER: "BIGINT",
    ColumnType.NUMBER: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.STRING: "VARCHAR",
    ColumnType.DATE: "DATE",
    ColumnType.DATETIME: "TIMESTAMP",
}

TOKENS = ("it", "it say", "naïve", "null", "日本")

TEXT_ENCODINGS: tuple[dict[str, Any], ...] = (
    {"tokens": TOKENS, "ngrams": 2},
    {"tokens": TOKENS},
    {"buckets": 3, "ngrams": 2},
)

words = st.sampled_from(
    ["", "a", "A", "it's", 'say "x"', "naïve", "日本", "🛫", "null", "nan", " a", "\t", "x\0y"]
)
big = st.integers(-(2**63), 2**63 - 1)
values: dict[tuple[ColumnType, Role], st.SearchStrategy[Any]] = {
    (ColumnType.INTEGER, Role.NUMERIC): big,
    (ColumnType.INTEGER, Role.CATEGORICAL): st.sampled_from([0, 1, -1, 7, 2**53 + 1, 2**53, -(2**63)]),
    (ColumnType.NUMBER, Role.NUMERIC): st.floats(allow_infinity=False, allow_nan=True) | st.just(-0.0),
    (ColumnType.BOOLEAN, Role.BOOLEAN): st.booleans(),
    (ColumnType.BOOLEAN, Role.CATEGORICAL): st.booleans(),
    (ColumnType.STRING, Role.CATEGORICAL): words,
    (ColumnType.STRING, Role.TEXT): st.lists(words | st.sampled_from(TOKENS)).map(" ".join),
    (ColumnType.DATE, Role.DATETIME): st.dates(),
    (ColumnType.DATETIME, Role.DATETIME): st.datetimes(),
}


def write(path: Path, columns: dict[str, ColumnType], rows: list[dict[str, Any]]) -> None:
    with duckdb.connect() as connection:
        described = ", ".join(
            '"{}" {}'.format(name.replace('"', '""'), SQL_TYPES[kind]) for name, kind in columns.items()
        )
        connection.execute(f"CREATE TABLE data ({described})")
        table = connection.table("data")
        for row in rows:
            table.insert(list(row.values()))
        table.to_parquet(str(path))


def write_query(path: Path, query: str) -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE data AS " + query)
        connection.table("data").to_parquet(str(path))


def as_json(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return value


def bits(matrix: np.ndarray) -> np.ndarray:
    """The matrix with one NaN for all: then -0.0 and 0.0 differ, and NaN equals NaN."""
    return np.where(np.isnan(matrix), np.nan, matrix).view(np.uint64)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Signature, dict[str, ColumnType], list[dict[str, Any]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=6))
    names = [f'column "{index}" é' for index in range(len(kinds))]
    size = draw(st.integers(1, 8))
    rows = [{} for _ in range(size)]  # type: list[dict[str, Any]]
    features = []
    for name, (type_, role) in zip(names, kinds, strict=True):
        cells = draw(st.lists(st.none() | values[type_, role], min_size=size, max_size=size))
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
        known = sorted({cell for cell in cells if cell is not None}) if role is Role.CATEGORICAL else None
        # Not every category is known: those that are not have the code -1.
        known = known[: draw(st.integers(0, len(known)))] if known else known
        categories = None if known is None else tuple(known)
        text = draw(st.sampled_from(TEXT_ENCODINGS)) if role is Role.TEXT else {}
        features.append(
            Feature(name=name, type=type_, role=role, nullable=True, categories=categories, **text)
        )
    for row in rows:
        row["target"] = draw(st.none() | st.floats(-1e9, 1e9))
    signature = Signature(
        features=tuple(features), target="target", target_type=ColumnType.NUMBER, task=Task.REGRESSION
    )
    columns = {name: type_ for name, (type_, _) in zip(names, kinds, strict=True)}
    return signature, columns | {"target": ColumnType.NUMBER}, rows
