"""A data version read by a signature gives the numbers that its rows give as JSON."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.columns import ColumnType
from app.registry.matrix import open_table, read_matrix, table_types
from app.registry.signature import Feature, Role, Signature, Task
from tests.tables import as_json, bits, tables, write, write_query


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), st.data())
def test_some_rows_are_what_the_signature_makes_of_their_json(
    tmp_path: Path, table: tuple[Signature, dict[str, ColumnType], list[dict[str, Any]]], data: st.DataObject
) -> None:
    signature, columns, rows = table
    write(tmp_path / "table.parquet", columns, rows)
    start = data.draw(st.integers(0, len(rows) - 1))
    chosen = range(start, data.draw(st.integers(start + 1, len(rows))))
    instances = [
        {name: as_json(value) for name, value in row.items() if name != "target"}
        for row in rows[chosen.start : chosen.stop]
    ]
    matrix = read_matrix(tmp_path / "table.parquet", signature, chosen)
    assert bits(matrix).tolist() == bits(signature.encode(instances)).tolist()


def test_a_column_is_read_by_its_own_type_where_a_feature_takes_several(tmp_path: Path) -> None:
    features = (
        Feature(name="whole", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=False),
        Feature(name="day", type=ColumnType.DATETIME, role=Role.DATETIME, nullable=False),
        Feature(name="moment", type=ColumnType.DATE, role=Role.DATETIME, nullable=False),
    )
    signature = Signature(features=features, target="y", target_type=ColumnType.NUMBER, task=Task.REGRESSION)
    row = {"whole": 3, "day": date(2013, 5, 31), "moment": datetime(2013, 5, 31, 14, 30)}
    types = {"whole": ColumnType.INTEGER, "day": ColumnType.DATE, "moment": ColumnType.DATETIME}
    write(tmp_path / "table.parquet", types, [row])
    as_row = {name: as_json(value) for name, value in row.items()}
    matrix = read_matrix(tmp_path / "table.parquet", signature, range(1))
    assert matrix.tolist() == signature.encode([as_row]).tolist()


def test_rows_in_the_middle_of_a_large_table_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "rows[1].parquet"
    write_query(path, "SELECT i AS x, (i % 7)::VARCHAR AS s FROM range(300000) t(i)")
    categories = ("0", "1", "2", "3", "4", "5")
    signature = Signature(
        features=(
            Feature(
                name="s", type=ColumnType.STRING, role=Role.CATEGORICAL, nullable=False, categories=categories
            ),
            Feature(name="x", type=ColumnType.INTEGER, role=Role.NUMERIC, nullable=False),
        ),
        target="y",
        target_type=ColumnType.INTEGER,
        task=Task.REGRESSION,
    )
    rows = np.arange(120_000, 260_000)
    matrix = read_matrix(path, signature, range(120_000, 260_000))
    assert np.array_equal(matrix[:, 1], rows)
    assert np.array_equal(matrix[:, 0], np.where(rows % 7 == 6, -1, rows % 7))


def test_the_type_of_every_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "types.parquet"
    write_query(
        path,
        "SELECT 1::UTINYINT AS a, 1.5::DECIMAL(4, 1) AS b, true AS c, 'x' AS d, DATE '2013-01-01' AS e, "
        "TIMESTAMPTZ '2013-01-01 00:00:00Z' AS f, TIME '10:00:00' AS g",
    )
    with open_table(path) as connection:
        assert list(table_types(connection).values()) == [*ColumnType, ColumnType.STRING]
