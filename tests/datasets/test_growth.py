"""Splits, samples and appended files: exact sizes, order kept, the same draw everywhere."""

# ruff: noqa: S608 - the SQL is the tests' own

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.columns import Column, ColumnType
from app.datasets.engine import identifier
from app.datasets.growth import (
    MAX_PARTS,
    MAX_STRATA,
    allot,
    divide,
    tail_to_merge,
    write_sample,
    write_split,
)
from app.errors import InvalidInput

Row = tuple[int, str | None]

FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

rows_of_table = st.lists(st.sampled_from(["a", "b", "ü", None]), min_size=3, max_size=60).map(
    lambda kinds: list(enumerate(kinds))
)
shares = st.lists(st.integers(1, 20), min_size=1, max_size=4).map(
    lambda weights: [Fraction(weight, sum(weights)) for weight in weights]
)
KIND = Column(name="kind", type=ColumnType.STRING, nullable=True)


def write(path: Path, rows: Sequence[Row]) -> Path:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE data (number BIGINT, kind VARCHAR)")
        connection.executemany("INSERT INTO data VALUES (?, ?)", rows)
        connection.execute(f"COPY data TO '{path}'")
    return path


def read(path: Path) -> list[Row]:
    with duckdb.connect() as connection:
        found: list[Row] = connection.execute(f"SELECT number, kind FROM '{path}'").fetchall()
    return found


def split(
    folder: Path, rows: Sequence[Row], shares: Sequence[Fraction], seed: int, **how: Column
) -> list[list[Row]]:
    targets = [folder / f"part-{number}.parquet" for number in range(len(shares))]
    write_split(
        write(folder / "table.parquet", rows),
        dict(zip(map(str, range(len(targets))), targets, strict=True)),
        shares,
        seed,
        **how,
    )
    return [read(target) for target in targets]


def is_rounded(count: int, exact: Fraction) -> bool:
    return abs(count - exact) < 1


# ── Sizes ────────────────────────────────────────────────────────────────────────────────────────


@given(rows=st.lists(st.integers(0, 1000), min_size=1, max_size=50), shares=shares)
def test_every_stratum_is_divided_whole_and_by_the_shares(rows: list[int], shares: list[Fraction]) -> None:
    divided = divide(rows, shares)
    assert [sum(given) for given in divided] == rows
    for count, given_ in zip(rows, divided, strict=True):
        assert all(is_rounded(one, share * count) for one, share in zip(given_, shares, strict=True))


def test_what_strata_leave_over_goes_to_the_part_that_is_behind() -> None:
    # A share of 0.4 of one row each time: rounding each stratum by itself would leave the second part empty.
    divided = divide([1] * 100, [Fraction(6, 10), Fraction(4, 10)])
    assert [sum(part) for part in zip(*divided, strict=True)] == [60, 40]


@given(rows=st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any), data=st.data())
def test_a_sample_has_its_size_and_each_stratum_its_share(rows: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(1, sum(rows)))
    given_ = allot(rows, total)
    assert sum(given_) == total
    assert all(
        is_rounded(one, Fraction(count * total, sum(rows))) and one <= count
        for one, count in zip(given_, rows, strict=True)
    )


# ── Splitting ────────────────────────────────────────────────────────────────────────────────────


@given(rows=rows_of_table, shares=shares, seed=st.integers(0, 2**63 - 1))
@FEW
def test_a_split_has_every_row_once_in_order_and_exact_sizes(
    tmp_path: Path, rows: list[Row], shares: list[Fraction], seed: int
) -> None:
    (sizes,) = divide([len(rows)], shares)
    if 0 in sizes:
        with pytest.raises(InvalidInput, match="no rows"):
            split(tmp_path, rows, shares, seed)
        return
    parts = split(tmp_path, rows, shares, seed)
    assert [len(part) for part in parts] == sizes
    assert all(part == sorted(part) for part in parts)
    assert sorted(row for part in parts for row in part) == rows


@given(rows=rows_of_table, seed=st.integers(0, 9))
@FEW
def test_groups_stay_together(tmp_path: Path, rows: list[Row], seed: int) -> None:
    shares = [Fraction(1, 2), Fraction(1, 2)]
    if len({kind for _, kind in rows}) == 1:
        with pytest.raises(InvalidInput, match="no rows"):
            split(tmp_path, rows, shares, seed, by=KIND)
        return
    parts = split(tmp_path, rows, shares, seed, by=KIND)
    groups = [{kind for _, kind in part} for part in parts]
    assert groups[0].isdisjoint(groups[1])
    assert sorted(row for part in parts for row in part) == rows
    largest = max(Counter(kind for _, kind in rows).values())
    assert all(abs(len(part) - len(rows) / 2) <= largest / 2 for part in parts)


@given(rows=rows_of_table, shares=st.just([Fraction(1, 2), Fraction(1, 2)]), seed=st.integers(0, 9))
@FEW
def test_a_stratified_split_keeps_the_share_of_every_value(
    tmp_path: Path, rows: list[Row], shares: list[Fraction], seed: int
) -> None:
    parts = split(tmp_path, rows, shares, seed, stratify=KIND)
    held = [Counter(kind for _, kind in part) for part in parts]
    for kind, count in Counter(kind for _, kind in rows).items():
        assert all(is_rounded(part[kind], Fraction(count, 2)) for part in held)
    assert sorted(row for part in parts for row in part) == rows


def test_the_draw_of_a_seed_never_changes(tmp_path: Path) -> None:
    rows: list[Row] = [(number, "abc"[number % 3]) for number in range(10)]
    halves = [Fraction(1, 2), Fraction(1, 2)]
    # Rows by the MD5 of "7:0", "7:1", …; groups by that of "7:=a", "7:=b", "7:=c".
    first, _ = split(tmp_path, rows, halves, 7)
    assert [number for number, _ in first] == [1, 2, 3, 6, 9]
    grouped, _ = split(tmp_path, rows, halves, 7, by=KIND)
    assert {kind for _, kind in grouped} == {"c", "b"}


def test_another_seed_draws_other_rows(tmp_path: Path) -> None:
    rows: list[Row] = [(number, None) for number in range(100)]
    halves = [Fraction(1, 2), Fraction(1, 2)]
    assert split(tmp_path, rows, halves, 1) == split(tmp_path, rows, halves, 1)
    assert split(tmp_path, rows, halves, 1) != split(tmp_path, rows, halves, 2)


@pytest.mark.parametrize("type_", ["BIGINT", "BOOLEAN", "DATE", "TIMESTAMPTZ"])
def test_groups_of_every_type_stay_together(tmp_path: Path, type_: str) -> None:
    value = {
        "BIGINT": "range % 5",
        "BOOLEAN": "range % 2 = 0",
        "DATE": "DATE '2013-01-01' + (range % 5)::INT",
        "TIMESTAMPTZ": "TIMESTAMPTZ '2013-01-01 00:00:00+00' + INTERVAL (range % 5) HOUR",
    }[type_]
    table, targets = tmp_path / "table.parquet", [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    duckdb.execute(f"COPY (SELECT ({value})::{type_} AS kind FROM range(100)) TO '{table}'")
    names = {"BIGINT": "integer", "BOOLEAN": "boolean", "DATE": "date", "TIMESTAMPTZ": "datetime"}
    by = Column(name="kind", type=ColumnType(names[type_]), nullable=False)
    write_split(table, dict(zip("ab", targets, strict=True)), [Fraction(1, 2), Fraction(1, 2)], 3, by=by)
    query = "SELECT DISTINCT CAST(kind AS VARCHAR) FROM '{}'"
    kinds = [duckdb.execute(query.format(target)).fetchall() for target in targets]
    assert set(kinds[0]).isdisjoint(kinds[1])
    assert kinds[0]
    assert kinds[1]


def test_columns_may_be_called_anything(tmp_path: Path) -> None:
    table, target = tmp_path / "table.parquet", tmp_path / "sample.parquet"
    names = ["number", "value", "draw", "rank", "part", "stratum", "source", "assigned", 'a"b']
    values = ", ".join(f"range % {place + 2} AS {identifier(name)}" for place, name in enumerate(names))
    duckdb.execute(f"COPY (SELECT {values} FROM range(100)) TO '{table}'")
    column = Column(name="value", type=ColumnType.INTEGER, nullable=False)
    write_sample(table, target, 50, 1, stratify=column)
    found = duckdb.execute(f"SELECT * FROM '{target}'")
    assert [entry[0] for entry in found.description] == names
    assert Counter(row[1] for row in found.fetchall()) == {0: 17, 1: 17, 2: 16}


def test_a_column_of_too_many_values_does_not_stratify(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    duckdb.execute(f"COPY (SELECT range AS n FROM range({MAX_STRATA + 1})) TO '{table}'")
    column = Column(name="n", type=ColumnType.INTEGER, nullable=False)
    with pytest.raises(InvalidInput, match="Stratify by a column of few values") as refused:
        write_sample(table, tmp_path / "sample.parquet", 5, 1, stratify=column)
    assert refused.value.errors[0].pointer == "/stratify"


# ── Sampling ─────────────────────────────────────────────────────────────────────────────────────


@given(rows=rows_of_table, seed=st.integers(0, 9), data=st.data())
@FEW
def test_a_sample_is_some_of_the_rows_in_order(
    tmp_path: Path, rows: list[Row], seed: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(rows)))
    table, target = write(tmp_path / "table.parquet", rows), tmp_path / "sample.parquet"
    write_sample(table, target, size, seed)
    sample = read(target)
    assert len(sample) == size
    assert sample == [row for row in rows if row in sample]


# ── Appending ────────────────────────────────────────────────────────────────────────────────────


def test_few_files_stay_as_they_are() -> None:
    assert tail_to_merge([1] * MAX_PARTS) == 0


def test_small_appends_leave_the_large_base_alone() -> None:
    assert tail_to_merge([10_000] + [1] * MAX_PARTS) == MAX_PARTS


@given(base=st.integers(1, 10**6), appended=st.lists(st.integers(1, 1000), min_size=1, max_size=400))
def test_a_row_is_copied_as_often_as_the_logarithm_of_the_appends(base: int, appended: list[int]) -> None:
    sizes, copied = [base], 0
    for size in appended:
        sizes.append(size)
        if tail := tail_to_merge(sizes):
            merged = sum(sizes[-tail:])
            copied += merged
            sizes[-tail:] = [merged]
        assert len(sizes) <= MAX_PARTS
    total = base + sum(appended)
    assert sum(sizes) == total
    assert copied <= total * (2 + total.bit_length())
