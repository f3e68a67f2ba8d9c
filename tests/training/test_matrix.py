"""The labelled rows that a model learns from."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from app.columns import ColumnType
from app.registry.signature import Feature, Role, Signature, Task
from app.training.matrix import read_examples
from tests.tables import as_json, bits, tables, write, write_query


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
