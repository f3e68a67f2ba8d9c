"""The labelled rows that a model learns from."""

import math
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from app.columns import ColumnType
from app.registry.signature import Feature, Role, Signature, Task
from app.training.matrix import read_outcomes, read_rows
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
    outcomes = read_outcomes(tmp_path / "table.parquet", signature)
    even, odd = read_rows(tmp_path / "table.parquet", signature, outcomes.rows[::2], outcomes.rows[1::2])
    assert bits(even).tolist() == bits(signature.encode(instances[::2])).tolist()
    assert bits(odd).tolist() == bits(signature.encode(instances[1::2])).tolist()
    assert outcomes.target.tolist() == [row["target"] for row in labelled]


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
    outcomes = read_outcomes(tmp_path / "table.parquet", signature)
    assert outcomes.target.tolist() == indices
    assert outcomes.target.dtype == np.intp
    (matrix,) = read_rows(tmp_path / "table.parquet", signature, outcomes.rows)
    assert matrix[:, 0].tolist() == indices


def test_the_order_and_the_groups_are_read_for_labelled_rows_only(tmp_path: Path) -> None:
    feature = Feature(name="x", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=False)
    signature = Signature(
        features=(feature,), target="y", target_type=ColumnType.NUMBER, task=Task.REGRESSION
    )
    rows = [
        {"x": 1.0, "y": 1.0, "at": datetime(2013, 1, 1), "who": "it's b"},
        {"x": 2.0, "y": math.nan, "at": datetime(2013, 1, 2), "who": "a"},
        {"x": 3.0, "y": 3.0, "at": datetime(1969, 12, 31, 23, 59, 59, 500_000), "who": None},
        {"x": 4.0, "y": 3.0, "at": datetime(1970, 1, 1), "who": "it's b"},
        {"x": 5.0, "y": 3.0, "at": datetime(1970, 1, 1), "who": None},
    ]
    columns = {
        "x": ColumnType.NUMBER,
        "y": ColumnType.NUMBER,
        "at": ColumnType.DATETIME,
        "who": ColumnType.STRING,
    }
    write(tmp_path / "table.parquet", columns, rows)
    outcomes = read_outcomes(tmp_path / "table.parquet", signature, order_by="at", group_by="who")
    assert outcomes.order is not None
    assert outcomes.order.tolist() == [1356998400.0, -0.5, 0.0, 0.0]
    assert outcomes.groups is not None
    assert outcomes.groups.tolist() == [1, 0, 1, 0]
    assert outcomes.rows.tolist() == [0, 2, 3, 4]


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
    outcomes = read_outcomes(path, signature, group_by="s")
    assert np.array_equal(outcomes.target, np.arange(300_000) % 5)
    assert outcomes.groups is not None
    assert np.unique(outcomes.groups).size == 300_000
    (matrix,) = read_rows(path, signature, outcomes.rows)
    assert np.array_equal(matrix[:, 0], np.arange(300_000))
    codes = matrix[:, 1]
    assert [categories[int(code)] for code in codes[:1000]] == [str(index) for index in range(1000)]
    assert set(codes[1000:]) == {-1.0}


def test_of_a_long_table_only_the_texts_asked_for_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "texts.parquet"
    write_query(
        path, "SELECT CASE WHEN i % 7 > 0 THEN 'w' || i % 500 END AS t, i AS y FROM range(20000) t(i)"
    )
    tokens = tuple(sorted(f"w{number}" for number in range(500)))
    signature = Signature(
        features=(Feature(name="t", type=ColumnType.STRING, role=Role.TEXT, nullable=True, tokens=tokens),),
        target="y",
        target_type=ColumnType.INTEGER,
        task=Task.REGRESSION,
    )
    wanted = [np.array([19_998, 3, 7]), np.array([12_345])]
    tracemalloc.start()
    some, one = read_rows(path, signature, *wanted)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * 2**20, "20,000 rows of 500 counts are 40 MB"
    assert [tokens[row.argmax()] for row in (some[0], some[1], one[0])] == ["w498", "w3", "w345"]
    assert np.isnan(some[2]).all()
    assert np.nansum(some) == 2
