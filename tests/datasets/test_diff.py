"""The difference of two tables, against an obvious one in Python."""

# ruff: noqa: S608 - the SQL holds the tests' own names and numbers

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.columns import Column, ColumnType
from app.datasets.comparison import numbered_rows
from app.datasets.comparison.diff import RowChanges, compare_tables
from app.datasets.comparison.numbered_rows import TableFiles
from app.datasets.comparison.row_sketch import BUCKETS
from app.datasets.reading.infer import SQL_TYPES
from app.errors import InvalidInput

Row = dict[str, Any]

# Few values, so that rows repeat and meet.
POOLS: dict[ColumnType, list[Any]] = {
    ColumnType.INTEGER: [None, 0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)],
    ColumnType.NUMBER: [None, 0.0, -0.0, 1.0, 0.1, 5e-324, 1e300, float(2**53), 9223372036854775808.0],
    ColumnType.BOOLEAN: [None, True, False],
    ColumnType.STRING: [None, "", "a", "A", "it's", 'say "x"', "null", "日本", "a" * 30],
    ColumnType.DATE: [None, date(1, 1, 1), date(2026, 2, 28), date(9999, 12, 31)],
    ColumnType.DATETIME: [
        None,
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(1900, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    ],
}
NAMES = ["a", "it's", 'a "b"', "file_row_number", "position", "é"]


class Drawn:
    """A table: its types by column, and the rows of its parts."""

    def __init__(self, types: dict[str, ColumnType], parts: list[list[Row]]) -> None:
        self.types, self.parts = types, parts

    @property
    def rows(self) -> list[Row]:
        return [row for part in self.parts for row in part]

    def __repr__(self) -> str:
        return f"Drawn({self.types}, {self.parts})"


@st.composite
def drawn_pairs(draw: st.DrawFn) -> tuple[Drawn, Drawn]:
    """Two tables with columns and rows in common, in different orders; the newer one may share parts."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    types = {name: draw(st.sampled_from(list(ColumnType))) for name in names}
    old = Drawn(types, draw(st.lists(_rows(types), min_size=1, max_size=2)))
    if draw(st.booleans()):
        kept = draw(st.lists(st.sampled_from(old.parts), max_size=3))
        return old, Drawn(types, [*kept, *draw(st.lists(_rows(types), min_size=1, max_size=2))])
    swapped = {ColumnType.INTEGER: ColumnType.NUMBER, ColumnType.NUMBER: ColumnType.INTEGER}
    changed = {
        name: swapped.get(type_, type_) if draw(st.booleans()) else type_ for name, type_ in types.items()
    }
    other = draw(st.permutations([*changed.items(), ("only new", ColumnType.BOOLEAN)]))
    others = dict(other[draw(st.integers(0, 1)) :])
    return old, Drawn(others, draw(st.lists(_rows(others), min_size=1, max_size=2)))


def _rows(types: dict[str, ColumnType]) -> st.SearchStrategy[list[Row]]:
    row = st.fixed_dictionaries({name: st.sampled_from(POOLS[type_]) for name, type_ in types.items()})
    return st.lists(row, min_size=1, max_size=8)


def write(folder: Path, table: Drawn) -> TableFiles:
    """The table's parts as files; parts of the same rows are the same file."""
    paths = []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for part in table.parts:
            path = folder / f"{abs(hash(repr((table.types, part))))}.parquet"
            columns = ", ".join(
                f'"{name.replace(chr(34), 2 * chr(34))}" {SQL_TYPES[type_]}'
                for name, type_ in table.types.items()
            )
            connection.execute(f"CREATE OR REPLACE TABLE part ({columns})")
            for row in part:
                marks = ", ".join("?" * len(row))
                cells = in_columns(row, list(table.types))
                values = [str(cell) if isinstance(cell, date) else cell for cell in cells]
                connection.execute(f"INSERT INTO part VALUES ({marks})", values)
            connection.table("part").to_parquet(str(path))
            paths.append(path)
    columns_of = [Column(name=name, type=type_, nullable=True) for name, type_ in table.types.items()]
    return TableFiles("a version", columns_of, [path.name for path in paths], paths)


def compare(old: Drawn, new: Drawn, key: Sequence[str] = (), samples: int = 1000) -> RowChanges | None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows, _ = compare_tables(
            write(folder, old), write(folder, new), key=key, samples=samples, spill=folder
        )
        return rows


def common(old: Drawn, new: Drawn) -> list[str]:
    numbers = (ColumnType.INTEGER, ColumnType.NUMBER)
    return [
        name
        for name, type_ in old.types.items()
        if name in new.types
        and (type_ is new.types[name] or (type_ in numbers and new.types[name] in numbers))
    ]


def as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def in_columns(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def json_rows(rows: list[Row], names: Sequence[str]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(as_json(row[name]) for name in names) for row in rows)


# With few buckets, rows that do not differ are compared by value, too.
machinery = st.tuples(st.sampled_from([2, 3, 2_000_000]), st.sampled_from([1, 3, BUCKETS]))


@given(drawn_pairs(), machinery, st.sampled_from([0, 1, 1000]))
@settings(max_examples=40, deadline=None)
def test_whole_rows_are_compared_as_multisets(
    tables: tuple[Drawn, Drawn], machine: tuple[int, int], samples: int
) -> None:
    old, new = tables
    names = common(old, new)
    with (
        patch.object(numbered_rows, "BATCH_ROWS", machine[0]),
        patch.object(numbered_rows, "BUCKETS", machine[1]),
    ):
        rows = compare(old, new, samples=samples)
    if not names:
        assert rows is None
        return
    before = Counter(in_columns(row, names) for row in old.rows)
    after = Counter(in_columns(row, names) for row in new.rows)
    removed, added = before - after, after - before
    assert rows is not None
    assert rows.compared == names
    assert (rows.removed, rows.added) == (removed.total(), added.total())
    assert (rows.unchanged, rows.changed) == ((before & after).total(), None)
    for found, table, expected in (
        (rows.samples.removed, old, removed),
        (rows.samples.added, new, added),
    ):
        assert len(found) == min(samples, len(expected))
        assert json_rows(found, list(table.types)) <= json_rows(table.rows, list(table.types))
        told = Counter(tuple(row[name] for name in names) for row in found)
        assert told <= Counter(dict.fromkeys((tuple(map(as_json, row)) for row in expected), 1))


@given(drawn_pairs(), machinery, st.data())
@settings(max_examples=40, deadline=None)
def test_rows_are_matched_by_key(
    tables: tuple[Drawn, Drawn], machine: tuple[int, int], data: st.DataObject
) -> None:
    old, new = tables
    names = common(old, new)
    if not names:
        return
    key = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    before = {in_columns(row, key): row for row in old.rows}
    after = {in_columns(row, key): row for row in new.rows}
    with (
        patch.object(numbered_rows, "BATCH_ROWS", machine[0]),
        patch.object(numbered_rows, "BUCKETS", machine[1]),
    ):
        if len(before) < len(old.rows) or len(after) < len(new.rows):
            with pytest.raises(InvalidInput, match="no key of a version: several rows have"):
                compare(old, new, key)
            return
        rows = compare(old, new, key)
    assert rows is not None
    changes = {
        value: {name for name in names if before[value][name] != after[value][name]}
        for value in before.keys() & after.keys()
    }
    changed = {value: columns for value, columns in changes.items() if columns}
    removed, added = before.keys() - after.keys(), after.keys() - before.keys()
    assert (rows.removed, rows.added) == (len(removed), len(added))
    assert (rows.changed, rows.unchanged) == (len(changed), len(changes) - len(changed))
    assert rows.changed_by_column == {
        name: sum(name in columns for columns in changed.values()) for name in names if name not in key
    }
    all_old, all_new = list(old.types), list(new.types)
    assert json_rows(rows.samples.removed, all_old) == json_rows([before[one] for one in removed], all_old)
    assert json_rows(rows.samples.added, all_new) == json_rows([after[one] for one in added], all_new)
    told = {
        tuple(row.key[name] for name in key): {
            name: (change.old, change.new) for name, change in row.changes.items()
        }
        for row in rows.samples.changed
    }
    assert told == {
        tuple(map(as_json, value)): {
            name: (as_json(before[value][name]), as_json(after[value][name])) for name in columns
        }
        for value, columns in changed.items()
    }


def test_rows_of_hundreds_of_columns_are_matched_by_key() -> None:
    types = {f"x{n}": list(ColumnType)[n % len(ColumnType)] for n in range(250)}

    def row(number: int, shift: int) -> Row:
        pools = [POOLS[type_] for type_ in types.values()]
        cells = [
            pool[(number + n + (shift if (7 * number + n) % 90 == 0 else 0)) % len(pool)]
            for n, pool in enumerate(pools)
        ]
        return {"id": number} | dict(zip(types, cells, strict=True))

    types_with_id = {"id": ColumnType.INTEGER} | types
    before, after = {n: row(n, 0) for n in range(10)}, {n: row(n, 1) for n in range(2, 13)}
    rows = compare(
        Drawn(types_with_id, [list(before.values())]),
        Drawn(dict(reversed(types_with_id.items())), [list(after.values())]),
        key=["id"],
        samples=4,
    )
    assert rows is not None
    changes = {
        n: {name for name in types if before[n][name] != after[n][name]} for n in before.keys() & after.keys()
    }
    assert all(changes.values())
    assert len(set.union(*changes.values())) < len(types)
    assert (rows.added, rows.removed, rows.changed, rows.unchanged) == (3, 2, 8, 0)
    assert rows.changed_by_column == {
        name: sum(name in names for names in changes.values()) for name in types
    }
    assert [changed.key for changed in rows.samples.changed] == [{"id": n} for n in range(2, 6)]
    for n, changed in enumerate(rows.samples.changed, start=2):
        assert {name: (change.old, change.new) for name, change in changed.changes.items()} == {
            name: (as_json(before[n][name]), as_json(after[n][name])) for name in changes[n]
        }
    assert rows.samples.removed == [
        {name: as_json(value) for name, value in before[n].items()} for n in range(2)
    ]
    assert rows.samples.added == [
        {name: as_json(value) for name, value in after[n].items()} for n in range(10, 13)
    ]


def numbers(values: Sequence[int | None]) -> Drawn:
    return Drawn({"id": ColumnType.INTEGER}, [[{"id": value} for value in values]])


@pytest.mark.parametrize(
    "values", [[1, 2, 2], [1, 2, 3, 3], [1, 2, 3, 2], [2, 1, 2], [None, None], [1, None, 2, None]]
)
def test_a_key_that_repeats_is_found_wherever_its_rows_are(values: list[int | None]) -> None:
    with patch.object(numbered_rows, "BATCH_ROWS", 2):
        for tables in ((numbers(values), numbers([1])), (numbers([1]), numbers(values))):
            with pytest.raises(InvalidInput, match=r"\(2 rows\)") as refused:
                compare(*tables, key=["id"])
            assert refused.value.code == "key_not_unique"


def test_many_rows_that_all_differ_are_counted_exactly() -> None:
    with TemporaryDirectory() as name, duckdb.connect() as connection:
        tables = []
        for number, first in enumerate((0, 150_000)):
            path = Path(name) / f"{number}.parquet"
            connection.sql(f"SELECT range // 2 AS x FROM range({first}, {first + 300_000})").to_parquet(
                str(path)
            )
            columns = [Column(name="x", type=ColumnType.INTEGER, nullable=False)]
            tables.append(TableFiles("a version", columns, [str(number)], [path]))
        rows, _ = compare_tables(*tables, key=[], samples=2, spill=Path(name))
    assert rows is not None
    assert (rows.added, rows.removed, rows.unchanged) == (150_000, 150_000, 150_000)
    assert [row["x"] for row in rows.samples.removed] == [0, 1]
    assert [row["x"] for row in rows.samples.added] == [150_000, 150_001]
