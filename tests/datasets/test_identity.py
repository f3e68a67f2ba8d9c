"""The digest of a table's content: the same for the same table, whatever it came in, and for no other."""

# ruff: noqa: S608 - the SQL is the tests' own

import json
from datetime import UTC
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.columns import Column, ColumnType
from app.datasets import identity
from app.datasets.identity import content_digest
from app.datasets.reading.ingest import MediaType, ingest
from app.datasets.table import export
from app.owned import Scratch
from app.store import ObjectDamaged, Store

SQL_TYPES = {
    ColumnType.INTEGER: "BIGINT",
    ColumnType.NUMBER: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.STRING: "VARCHAR",
    ColumnType.DATE: "DATE",
    ColumnType.DATETIME: "TIMESTAMPTZ",
}
Table = dict[str, list[Any]]
"""Columns, each named by its type."""

DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "content-digest.md").read_text()
DOCUMENTED: dict[str, Any] = {}
exec(DOCUMENTATION.partition("```python\n")[2].partition("```")[0], DOCUMENTED)  # noqa: S102 - the project's own text

HASH_EVERYTHING = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def described(table: Table) -> str:
    """The digest as the documentation computes it."""
    found: str = DOCUMENTED["content_digest"]([(name, name, cells) for name, cells in table.items()])
    return found


def columns_of(table: Table) -> list[Column]:
    return [Column(name=name, type=ColumnType(name), nullable=None in cells) for name, cells in table.items()]


def written(folder: Path, table: Table, parts: list[int], row_group: int = 122_880) -> list[Path]:
    """The table's rows in files of so many rows each."""
    paths = []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        start = 0
        for number, rows in enumerate(parts):
            rowwise = list(zip(*(cells[start : start + rows] for cells in table.values()), strict=True))
            types = ", ".join(f'"{name}" {SQL_TYPES[ColumnType(name)]}' for name in table)
            connection.execute(f"CREATE OR REPLACE TABLE part ({types})")
            connection.executemany(f"INSERT INTO part VALUES ({', '.join('?' * len(table))})", rowwise)
            paths.append(folder / f"part-{number}.parquet")
            connection.execute(f"COPY part TO '{paths[-1]}' (FORMAT parquet, ROW_GROUP_SIZE {row_group})")
            start += rows
    return paths


def digest(folder: Path, table: Table) -> str:
    return content_digest(written(folder, table, [len(next(iter(table.values())))]), columns_of(table))


cells: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.just(-0.0),
    "boolean": st.booleans(),
    "string": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    "date": st.dates(),
    "datetime": st.datetimes(timezones=st.just(UTC)),
}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    names = draw(st.lists(st.sampled_from(sorted(cells)), min_size=1, unique=True))
    rows = draw(st.integers(1, 12))
    return {name: draw(st.lists(st.none() | cells[name], min_size=rows, max_size=rows)) for name in names}


def test_the_digest_is_that_of_the_documented_example(tmp_path: Path) -> None:
    columns = [
        Column(name=name, type=ColumnType(type_), nullable=True) for name, type_, _ in DOCUMENTED["EXAMPLE"]
    ]
    (path,) = written(tmp_path, {type_: cells for _, type_, cells in DOCUMENTED["EXAMPLE"]}, [3])
    renamed = tmp_path / "renamed.parquet"
    names = ", ".join(f'"{column.type}" AS "{column.name}"' for column in columns)
    duckdb.execute(f"COPY (SELECT {names} FROM '{path}') TO '{renamed}'")
    assert content_digest(renamed, columns) in DOCUMENTATION


@given(table=tables())
@HASH_EVERYTHING
def test_the_digest_is_what_its_description_says(tmp_path: Path, table: Table) -> None:
    assert digest(tmp_path, table) == described(table)


@given(table=tables(), data=st.data())
@HASH_EVERYTHING
def test_the_division_into_files_row_groups_and_batches_does_not_matter(
    tmp_path: Path, table: Table, data: st.DataObject
) -> None:
    rows = len(next(iter(table.values())))
    cuts = sorted(data.draw(st.sets(st.integers(1, rows), max_size=3)) | {0, rows})
    parts = [stop - start for start, stop in pairwise(cuts)]
    paths = written(tmp_path, table, parts, row_group=data.draw(st.sampled_from([2048, 122_880])))
    with pytest.MonkeyPatch.context() as patch:
        # Portions of a few columns, and batches of a few rows: what only wide and heavy tables need.
        patch.setattr(identity, "BATCH_BYTES", data.draw(st.sampled_from([1, 100, identity.BATCH_ROWS * 40])))
        assert content_digest(paths, columns_of(table)) == described(table)


def test_row_groups_and_batches_of_a_large_table_do_not_matter(tmp_path: Path) -> None:
    query = (
        "SELECT range AS integer, CASE WHEN range % 7 > 0 THEN 'é' || range END AS string FROM range(300000)"
    )
    columns = columns_of({"integer": [0], "string": [None]})
    digests = set()
    for group in (2048, 100_000, 300_000):
        path = tmp_path / "table.parquet"
        duckdb.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE {group})")
        digests.add(content_digest(path, columns))
    numbers = range(300_000)
    whole: Table = {"integer": list(numbers), "string": [f"é{n}" if n % 7 else None for n in numbers]}
    assert digests == {described(whole)}


@given(table=tables(), data=st.data())
@HASH_EVERYTHING
def test_any_change_changes_the_digest(tmp_path: Path, table: Table, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(table)))
    row = data.draw(st.integers(0, len(table[name]) - 1))
    before = table[name][row]
    changed = data.draw(
        (st.none() | cells[name]).filter(lambda cell: repr(cell) != repr(before)), label="another cell"
    )
    other = table | {name: [*table[name][:row], changed, *table[name][row + 1 :]]}
    longer = {column: [*values, values[row]] for column, values in table.items()}
    narrower = {column: values for column, values in table.items() if column != name}
    reordered = dict(reversed(table.items()))
    first = digest(tmp_path, table)
    assert first != digest(tmp_path, other)
    assert first != digest(tmp_path, longer)
    if narrower:
        assert first != digest(tmp_path, narrower)
        assert first != digest(tmp_path, reordered)


def test_names_and_types_are_part_of_the_content(tmp_path: Path) -> None:
    paths = {}
    for sql, name, type_ in [
        ("0::BIGINT AS a", "a", ColumnType.INTEGER),
        ("0::BIGINT AS b", "b", ColumnType.INTEGER),
        ("0::DOUBLE AS a", "a", ColumnType.NUMBER),
        ("TIMESTAMPTZ '1970-01-01 00:00:00+00' AS a", "a", ColumnType.DATETIME),
    ]:
        path = tmp_path / "table.parquet"
        duckdb.execute(f"COPY (SELECT {sql}) TO '{path}'")
        paths[sql] = content_digest(path, [Column(name=name, type=type_, nullable=False)])
    assert len(set(paths.values())) == len(paths)


def test_what_stands_where_a_value_is_null_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    # A view of longer strings, of which some are hidden: their bytes may still be in the buffers.
    duckdb.execute(
        "COPY (SELECT CASE WHEN range % 3 = 0 THEN repeat('x', 40 + range) END AS string FROM range(9)) TO"
        f" '{path}'"
    )
    strings = [None if number % 3 else "x" * (40 + number) for number in range(9)]
    assert content_digest(path, columns_of({"string": strings})) == described({"string": strings})


@pytest.mark.parametrize("media_type", list(MediaType))
def test_a_table_is_the_same_content_in_every_format(tmp_path: Path, media_type: MediaType) -> None:
    rows = [
        {"n": 1, "f": 0.5, "b": True, "s": "a", "d": "2013-05-31", "t": "2013-05-31T14:00:00Z"},
        {"n": None, "f": None, "b": None, "s": None, "d": None, "t": None},
        {"n": -(2**63), "f": -0.0, "b": False, "s": "é\n", "d": "0001-01-01", "t": "2013-05-31T14:00:00.5Z"},
    ]
    source, table = tmp_path / "rows.ndjson", tmp_path / "table.parquet"
    source.write_text("\n".join(map(json.dumps, rows)))
    first = ingest(source, MediaType.NDJSON, table)
    sent, again = tmp_path / "sent", tmp_path / "again.parquet"
    export(table, media_type, sent)
    second = ingest(sent, media_type, again)
    assert content_digest(again, second.columns) == content_digest(table, first.columns)


def test_a_part_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    """Integrity is verified at every read: the store does it, whoever reads."""
    scratch = Scratch(tmp_path / "scratch")
    store = Store("", folder=tmp_path / "objects", scratch=scratch)
    (part,) = written(tmp_path, {"integer": [1, None, 3]}, [3])
    stored = store.write_file(part)
    (path,) = (tmp_path / "objects").rglob(stored.digest.removeprefix("sha256:"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ObjectDamaged), store.open_files([stored.digest]):
        pass
    scratch.close()
