import math
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.columns import ColumnType
from app.registry.signature import Feature, Role, Signature, Task
from app.training.matrix import open_table, read_examples, table_types

SQL_TYPES = {
    ColumnType.INTEGER: "BIGINT",
    ColumnType.NUMBER: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.STRING: "VARCHAR",
    ColumnType.DATE: "DATE",
    ColumnType.DATETIME: "TIMESTAMP",
}

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
        features.append(Feature(name=name, type=type_, role=role, nullable=True, categories=categories))
    for row in rows:
        row["target"] = draw(st.none() | st.floats(-1e9, 1e9))
    signature = Signature(
        features=tuple(features), target="target", target_type=ColumnType.NUMBER, task=Task.REGRESSION
    )
    columns = {name: type_ for name, (type_, _) in zip(names, kinds, strict=True)}
    return signature, columns | {"target": ColumnType.NUMBER}, rows


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_every_cell_is_what_the_signature_makes_of_the_json_row(
    tmp_path: Path, table: tuple[Signature, dict[str, ColumnType], list[dict[str, Any]]]
) -> None:
    signature, columns, rows = table
    write(tmp_path / "table.parquet", columns, rows)
    labelled = [row for row in rows if row["target"] is not None]
    instances = [
        {name: as_json(value) for name, value in row.items() if name != "target"} for row in labelled
    ]
    examples = read_examples(tmp_path / "table.parquet", signature)
    assert bits(examples.features).tolist() == bits(signature.encode(instances)).tolist()
    assert examples.target.tolist() == [row["target"] for row in labelled]


@pytest.mark.parametrize(
    ("type_", "classes"),
    [
        (ColumnType.BOOLEAN, (False, True)),
        (ColumnType.INTEGER, (-5, 0, 2**53, 2**53 + 1)),
        (ColumnType.NUMBER, (-0.5, 0.0, 0.1)),
        (ColumnType.STRING, ("", "it's", "é")),
    ],
)
def test_the_target_of_a_classifier_is_read_as_class_indices(
    tmp_path: Path, type_: ColumnType, classes: tuple[Any, ...]
) -> None:
    feature = Feature(name="x", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=False)
    signature = Signature(
        features=(feature,), target="y", target_type=type_, task=Task.MULTICLASS, classes=classes
    )
    indices = [index % len(classes) for index in range(9)]
    rows = [{"x": float(index), "y": classes[index]} for index in indices]
    rows.insert(3, {"x": 77.0, "y": None})
    if type_ is ColumnType.NUMBER:
        rows[1]["y"] = -0.0
    write(tmp_path / "table.parquet", {"x": ColumnType.NUMBER, "y": type_}, rows)
    examples = read_examples(tmp_path / "table.parquet", signature)
    assert examples.target.tolist() == indices
    assert examples.target.dtype == np.intp
    assert examples.features[:, 0].tolist() == indices


def test_the_order_is_read_beside_the_features_for_labelled_rows_only(tmp_path: Path) -> None:
    feature = Feature(name="x", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=False)
    signature = Signature(
        features=(feature,), target="y", target_type=ColumnType.NUMBER, task=Task.REGRESSION
    )
    rows = [
        {"x": 1.0, "y": 1.0, "at": datetime(2013, 1, 1)},
        {"x": 2.0, "y": math.nan, "at": datetime(2013, 1, 2)},
        {"x": 3.0, "y": 3.0, "at": datetime(1969, 12, 31, 23, 59, 59, 500_000)},
    ]
    columns = {"x": ColumnType.NUMBER, "y": ColumnType.NUMBER, "at": ColumnType.DATETIME}
    write(tmp_path / "table.parquet", columns, rows)
    examples = read_examples(tmp_path / "table.parquet", signature, order_by="at")
    assert examples.order is not None
    assert examples.order.tolist() == [1356998400.0, -0.5]
    assert examples.features[:, 0].tolist() == [1.0, 3.0]


def test_rows_of_a_large_table_stay_in_line_across_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows[1].parquet"
    write_query(path, "SELECT i AS x, i::VARCHAR AS s, i % 5 AS y FROM range(300000) t(i)")
    categories = tuple(sorted(str(index) for index in range(1000)))
    signature = Signature(
        features=(
            Feature(name="x", type=ColumnType.INTEGER, role=Role.NUMERIC, nullable=False),
            Feature(
                name="s", type=ColumnType.STRING, role=Role.CATEGORICAL, nullable=False, categories=categories
            ),
        ),
        target="y",
        target_type=ColumnType.INTEGER,
        task=Task.REGRESSION,
    )
    examples = read_examples(path, signature)
    assert np.array_equal(examples.features[:, 0], np.arange(300_000))
    assert np.array_equal(examples.target, np.arange(300_000) % 5)
    codes = examples.features[:, 1]
    assert [categories[int(code)] for code in codes[:1000]] == [str(index) for index in range(1000)]
    assert set(codes[1000:]) == {-1.0}


def test_the_type_of_every_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "types.parquet"
    write_query(
        path,
        "SELECT 1::UTINYINT AS a, 1.5::DECIMAL(4, 1) AS b, true AS c, 'x' AS d, DATE '2013-01-01' AS e, "
        "TIMESTAMPTZ '2013-01-01 00:00:00Z' AS f, TIME '10:00:00' AS g",
    )
    with open_table(path) as connection:
        assert list(table_types(connection).values()) == [*ColumnType, ColumnType.STRING]
