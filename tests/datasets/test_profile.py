"""The profile of a table: exact where it says so, close where it does not, and true in its words."""

import json
import math
import random
import statistics
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.columns import Column, ColumnType
from app.datasets.profiles.association import Measure
from app.datasets.profiles.profile import Association, ColumnSummary, DataProfile, TargetKind, TargetProfile
from app.datasets.profiles.profiler import (
    MAX_CORRELATED,
    QUANTILES,
    SAMPLE_ROWS,
    build_profile,
    build_target_profile,
)
from app.datasets.reading.ingest import MediaType, ingest
from tests.tables import write_query

MANY = 300_000

Rows = list[dict[str, Any]]


def profiled(rows: Rows, target: str | None = None) -> tuple[DataProfile, TargetProfile | None]:
    with TemporaryDirectory() as folder:
        source, parquet = Path(folder) / "rows.ndjson", Path(folder) / "table.parquet"
        source.write_text("\n".join(map(json.dumps, rows)))
        table = ingest(source, MediaType.NDJSON, parquet)
        profile = build_profile(parquet, table.columns, table.rows, Path(folder))
        told = build_target_profile(parquet, table.columns, profile, target) if target else None
    again = DataProfile.model_validate(json.loads(profile.model_dump_json(), parse_constant=pytest.fail))
    assert again == profile  # nothing is lost on the way into the store and out of it
    return profile, told


def profile_of(rows: Rows) -> DataProfile:
    return profiled(rows)[0]


def column_of(profile: DataProfile, name: str) -> ColumnSummary:
    return next(column for column in profile.columns if column.name == name)


def column(values: list[Any]) -> ColumnSummary:
    return profile_of([{"other": 1, "a": value} for value in values]).columns[1]


def codes(profile: DataProfile) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for finding in profile.findings:
        found.setdefault(finding.code, []).append(finding.columns)
    return found


def target_of(rows: Rows, name: str) -> tuple[TargetProfile, dict[str, Association]]:
    told = profiled(rows, name)[1]
    assert told is not None
    return told, {one.column: one for one in told.associations}


# ── Columns ──────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
kinds: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.5, -0.25]),
    "boolean": st.booleans(),
    "string": texts.map(lambda text: f"x{text}") | st.sampled_from(["", " ", "a"]),
    "date": st.dates().map(str),
    "datetime": st.datetimes().map(lambda moment: f"{moment.replace(microsecond=0).isoformat()}Z"),
}
columns = st.sampled_from(sorted(kinds)).flatmap(
    lambda kind: st.lists(st.none() | kinds[kind], min_size=1, max_size=40)
)


@given(values=columns)
@settings(max_examples=30, deadline=None)
def test_what_is_exact_agrees_with_python(values: list[Any]) -> None:
    found = column(values)
    present = [value for value in values if value is not None]
    counts = Counter(present)
    assert (found.count, found.nulls) == (len(present), len(values) - len(present))
    assert (found.distinct, found.distinct_exact) == (len(counts), True)
    assert found.is_unique == (len(counts) == len(present))
    if found.type is ColumnType.STRING:
        lengths = list(map(len, present))
        assert found.lengths is None or (found.lengths.minimum, found.lengths.maximum) == (
            min(lengths),
            max(lengths),
        )
    elif found.type is not ColumnType.BOOLEAN and present:
        assert (found.minimum, found.maximum) == (min(present), max(present))
        assert type(found.minimum) is type(present[0])
    shown = [(one.value, one.count) for one in found.top]
    assert [count for _, count in shown] == sorted((count for _, count in shown), reverse=True)
    if max(map(len, map(str, present)), default=0) <= 200:
        assert all(counts[value] == count for value, count in shown)
        if len(counts) < len(present):
            assert [count for _, count in shown] == [count for _, count in counts.most_common(10)]


@given(values=columns)
@settings(max_examples=30, deadline=None)
def test_a_histogram_holds_every_value_once(values: list[Any]) -> None:
    found = column(values)
    present = [value for value in values if value is not None]
    if found.type in (ColumnType.STRING, ColumnType.BOOLEAN) or not present:
        assert found.histogram is None
        return
    assert found.histogram is not None
    starts, counts = found.histogram.starts, found.histogram.counts
    assert len(starts) == len(counts) <= 32
    assert sum(counts) == found.count
    assert starts[0] == found.minimum
    assert all(first < second for first, second in pairwise(starts))  # type: ignore[operator]
    if found.type in (ColumnType.INTEGER, ColumnType.NUMBER):
        expected = Counter(
            np.searchsorted(np.array(starts[1:], dtype=object), np.array(present, dtype=object), "right")
        )
        assert counts == [expected[index] for index in range(len(counts))]


@given(
    values=st.lists(st.floats(-1e9, 1e9) | st.integers(-(10**6), 10**6).map(float), min_size=2, max_size=40)
)
@settings(max_examples=30, deadline=None)
def test_mean_and_deviation_are_close(values: list[float]) -> None:
    found = column([*values, 0.5])
    scale = max(1, max(map(abs, values)))
    assert found.mean == pytest.approx(statistics.fmean([*values, 0.5]), abs=1e-9 * scale)
    assert found.std == pytest.approx(statistics.stdev([*values, 0.5]), abs=1e-9 * scale, rel=1e-9)


@given(values=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9), min_size=1, max_size=60))
@settings(max_examples=20, deadline=None)
def test_a_quantile_is_the_first_value_that_its_share_does_not_exceed(values: list[int]) -> None:
    found = column(values)
    assert [quantile.share for quantile in found.quantiles] == list(QUANTILES)
    for quantile in found.quantiles:
        assert quantile.value in values
        assert sum(value <= quantile.value for value in values) >= quantile.share * len(values) - 1e-9
        assert sum(value < quantile.value for value in values) < quantile.share * len(values) + 1e-9


@pytest.mark.parametrize("largest", [1.7e308, 5e-324])
def test_the_largest_and_the_smallest_floats_stay_finite(largest: float) -> None:
    found = column([-largest, largest, 0.0, 0.5, None])
    assert found.mean == pytest.approx(0.125 if largest < 1 else 0, abs=1e290)
    assert (found.minimum, found.maximum) == (-largest, max(largest, 0.5))
    assert found.histogram is not None
    assert sum(found.histogram.counts) == 4


def test_a_column_of_nulls_and_a_table_of_one_row() -> None:
    profile = profile_of([{"a": None, "b": 3, "c": "x", "d": True, "e": "2013-01-01"}])
    a, b, c, d, e = profile.columns
    assert (a.count, a.nulls, a.distinct, a.top, a.histogram, a.lengths) == (0, 1, 0, [], None, None)
    assert (b.minimum, b.mean, b.std, b.histogram and b.histogram.counts) == (3, 3.0, None, [1])
    assert [one.top[0].value for one in (c, d, e)] == ["x", True, "2013-01-01"]
    assert codes(profile) == {"empty": [["a"]]}


def test_long_texts_are_told_apart_and_cut() -> None:
    alike = "x" * 250
    found = column([alike + "1"] * 3 + [alike + "2"] * 2 + ["short"])
    assert found.distinct == 3
    assert [(one.value, one.count) for one in found.top] == [
        ("x" * 200 + "…", 3),
        ("x" * 200 + "…", 2),
        ("short", 1),
    ]


def test_names_may_be_anything() -> None:
    names = [
        '"; DROP TABLE x',
        "c0",
        "count(*)",
        "k1",
        "n0",
        "file_row_number",
        "select",
        "é 日本",
        "a.b",
        "`",
    ]
    rows = [{name: index * number for number, name in enumerate(names, 1)} for index in range(30)]
    profile = profile_of(rows)
    assert [(one.name, one.maximum) for one in profile.columns] == [
        (name, 29 * number) for number, name in enumerate(names, 1)
    ]


# ── Large tables ─────────────────────────────────────────────────────────────────────────────────

LARGE = {
    "row": ColumnType.INTEGER,
    "number": ColumnType.NUMBER,
    "spread": ColumnType.INTEGER,
    "few": ColumnType.STRING,
    "skewed": ColumnType.STRING,
    "text": ColumnType.STRING,
    "flag": ColumnType.BOOLEAN,
    "at": ColumnType.DATETIME,
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> DataProfile:
    """300,000 rows of which a third is sampled, in an order that a periodic sample would fall for."""
    folder = tmp_path_factory.mktemp("large")
    write_query(
        folder / "large.parquet",
        "SELECT i AS row, ((i * 7919) % 300000) / 1000.0::DOUBLE AS number,"
        " 9007199254740993 + (i * 7919) % 150000 AS spread, 'f' || (i % 3) AS few,"
        " CASE WHEN i % 4 = 0 THEN 'often' WHEN i % 10 = 1 THEN 'at times' ELSE 'r' || (i % 50000)"
        " END AS skewed,"
        " md5(i::VARCHAR) AS text, CASE WHEN i % 5 <> 0 THEN i % 2 = 0 END AS flag,"
        " TIMESTAMPTZ '2020-01-01 00:00:00Z' + i * INTERVAL 1 MINUTE AS at FROM range(300000) AS made(i)",
    )
    described = [Column(name=name, type=type_, nullable=True) for name, type_ in LARGE.items()]
    return build_profile(folder / "large.parquet", described, MANY, folder)


def test_of_many_rows_the_counts_are_exact(large: DataProfile) -> None:
    row, number, spread, few, skewed, text, flag, _ = large.columns
    assert (large.rows, {one.count for one in large.columns if one.name != "flag"}) == (MANY, {MANY})
    assert flag.nulls == MANY // 5
    assert (spread.minimum, spread.maximum) == (9007199254740993, 9007199254740993 + 149_999)
    assert number.mean == pytest.approx(statistics.fmean(range(MANY)) / 1000)
    assert number.std == pytest.approx(np.std(np.arange(MANY) / 1000, ddof=1))
    for one in (row, number, spread):
        assert one.histogram is not None
        assert sum(one.histogram.counts) == MANY
        assert max(one.histogram.counts) - min(one.histogram.counts) <= MANY / 32 * 0.01 + 32
    assert [(one.value, one.count) for one in few.top] == [(f"f{index}", MANY // 3) for index in range(3)]
    assert [(one.value, one.count) for one in skewed.top[:2]] == [
        ("often", MANY // 4),
        ("at times", MANY // 10),
    ]
    assert text.lengths is not None
    assert (text.lengths.minimum, text.lengths.mean, text.lengths.maximum) == (32, 32, 32)


def test_of_many_rows_distinct_values_are_exact_where_few_or_all_differ(large: DataProfile) -> None:
    for name, distinct in (("row", MANY), ("text", MANY), ("few", 3), ("flag", 2)):
        found = column_of(large, name)
        assert (found.distinct, found.distinct_exact) == (distinct, True)
    spread = column_of(large, "spread")
    assert not spread.distinct_exact
    assert spread.distinct == pytest.approx(150_000, rel=0.2)


def test_of_many_rows_a_quantile_has_nearly_its_rank(large: DataProfile) -> None:
    bound = rank_bound(large)
    for name, to_rank in (("row", 1), ("number", 1000)):
        for quantile in column_of(large, name).quantiles:
            assert float(quantile.value) * to_rank / MANY == pytest.approx(quantile.share, abs=bound)


def test_of_many_rows_those_that_differ_in_all_are_no_duplicates(large: DataProfile) -> None:
    assert (large.duplicates.rows, large.duplicates.exact) == (0, True)
    assert codes(large)["identifier"] == [["row"], ["text"]]


def rank_bound(profile: DataProfile) -> float:
    """By how much a quantile's rank may be off (see app/datasets/profiles/profiler.py)."""
    assert profile.sampled_rows == pytest.approx(SAMPLE_ROWS, rel=0.02)
    return math.sqrt(math.log(2 / 0.001) / (2 * profile.sampled_rows))


def test_columns_named_as_the_numbers_of_rows_and_files_leave_the_sample_alone(tmp_path: Path) -> None:
    write_query(
        tmp_path / "table.parquet",
        "SELECT 8::BIGINT AS FILE_row_number, 0::BIGINT AS file_index, -i AS position, i AS row"
        " FROM range(300000) AS made(i)",
    )
    names = ("FILE_row_number", "file_index", "position", "row")
    described = [Column(name=name, type=ColumnType.INTEGER, nullable=True) for name in names]
    profile = build_profile(tmp_path / "table.parquet", described, MANY, tmp_path)
    bound = rank_bound(profile)
    for quantile in column_of(profile, "row").quantiles:
        assert float(quantile.value) / MANY == pytest.approx(quantile.share, abs=bound)
    for name, value in (("FILE_row_number", 8), ("file_index", 0)):
        found = column_of(profile, name)
        assert (found.minimum, found.maximum, found.distinct) == (value, value, 1)
        assert [(one.value, one.count) for one in found.top] == [(value, MANY)]


def test_the_sample_takes_other_rows_of_each_part(tmp_path: Path) -> None:
    parts, rows = [tmp_path / f"{number}.parquet" for number in range(100)], MANY // 100
    for part in parts:
        write_query(part, f"FROM range({rows}) AS made(row)")
    described = [Column(name="row", type=ColumnType.INTEGER, nullable=True)]
    profile = build_profile(parts, described, MANY, tmp_path)
    bound = rank_bound(profile) + 1 / rows
    for quantile in profile.columns[0].quantiles:
        assert float(quantile.value) / rows == pytest.approx(quantile.share, abs=bound)


def test_of_many_rows_few_values_tell_what_all_rows_do(tmp_path: Path) -> None:
    """So do nearly few, of which the sample misses some."""
    write_query(
        tmp_path / "table.parquet",
        "SELECT CASE WHEN i = 7 OR i = 9 THEN i END AS hardly,"
        " CASE WHEN i % 3 > 0 THEN (i % 7) / 4::DOUBLE - 1 END AS few,"
        " CASE WHEN i % 1000 = 0 THEN i ELSE 5 END AS rare, DATE '2020-01-01' + (i % 400)::INT AS day,"
        " CASE WHEN i % 7 = 0 THEN 1e300::DOUBLE ELSE 0.5 END AS huge FROM range(300000) AS made(i)",
    )
    types = {
        "hardly": ColumnType.INTEGER,
        "few": ColumnType.NUMBER,
        "rare": ColumnType.INTEGER,
        "day": ColumnType.DATE,
        "huge": ColumnType.NUMBER,
    }
    described = [Column(name=name, type=type_, nullable=True) for name, type_ in types.items()]
    hardly, few, rare, day, huge = build_profile(
        tmp_path / "table.parquet", described, MANY, tmp_path
    ).columns
    assert (hardly.minimum, hardly.maximum, hardly.mean) == (7, 9, 8)
    assert hardly.std == pytest.approx(2**0.5)
    assert (hardly.count, hardly.distinct, len(hardly.top)) == (2, 2, 2)
    values = [index % 7 / 4 - 1 for index in range(MANY) if index % 3]
    assert (few.count, few.nulls, few.distinct, few.distinct_exact) == (len(values), MANY // 3, 7, True)
    assert (few.minimum, few.maximum) == (-1, 0.5)
    assert few.mean == pytest.approx(np.mean(values))
    assert few.std == pytest.approx(np.std(values, ddof=1))
    assert [one.count for one in few.top] == [count for _, count in Counter(values).most_common()]
    values = [5 if index % 1000 else index for index in range(MANY)]
    assert (rare.count, rare.distinct, rare.distinct_exact) == (MANY, 301, True)
    assert (rare.minimum, rare.maximum) == (0, 299_000)
    assert rare.mean == pytest.approx(np.mean(values))
    assert rare.std == pytest.approx(np.std(values, ddof=1))
    assert (rare.top[0].value, rare.top[0].count) == (5, MANY - 300)
    assert (day.distinct, day.minimum, day.maximum, day.mean) == (400, "2020-01-01", "2021-02-03", None)
    assert huge.mean == pytest.approx((MANY // 7 + 1) / MANY * 1e300)
    for one in (few, rare, day, huge):
        assert one.histogram is not None
        assert sum(one.histogram.counts) == one.count


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────


def test_duplicate_rows_are_counted() -> None:
    rows = [{"a": index % 7, "b": None if index % 2 else "x"} for index in range(100)]
    profile = profile_of(rows)
    assert (profile.duplicates.rows, profile.duplicates.exact) == (100 - 14, True)
    assert codes(profile)["duplicate_rows"] == [[]]


def test_rows_that_share_values_in_other_columns_are_no_duplicates() -> None:
    assert profile_of([{"a": 1, "b": None}, {"a": None, "b": 1}, {"a": None, "b": None}]).duplicates.rows == 0


def test_parts_one_behind_the_other_have_the_profile_of_one_table(tmp_path: Path) -> None:
    rows = made(400, seed=12)
    parts = []
    for number, some in enumerate((rows[:150], rows[150:])):
        source, part = tmp_path / f"{number}.ndjson", tmp_path / f"{number}.parquet"
        source.write_text("\n".join(map(json.dumps, some)))
        columns = ingest(source, MediaType.NDJSON, part).columns
        parts.append(part)
    found, expected = build_profile(parts, columns, 400, tmp_path), profile_of(rows)
    assert found.model_dump(exclude={"columns"}) == expected.model_dump(exclude={"columns"})
    for one, other in zip(found.columns, expected.columns, strict=True):
        assert one.model_dump(exclude={"mean", "std"}) == other.model_dump(exclude={"mean", "std"})


# ── Correlations ─────────────────────────────────────────────────────────────────────────────────


def made(rows: int, seed: int) -> Rows:
    source = random.Random(seed)
    table = []
    for index in range(rows):
        x, kind = source.gauss(0, 1), source.choice("abc")
        table.append(
            {
                "x": x,
                "y": None if index % 9 == 0 else x + source.gauss(0, 1),
                "big": 1e300 * x,
                "kind": kind,
                "by_kind": "abc".index(kind) * 5 % 7 + source.gauss(0, 0.1),
                "noise": source.gauss(0, 1),
                "flag": x > 0.3,
                "twin": f"is {kind}",
                "rare": None if x > 0.3 else index,
                "constant": 1,
                "id": f"row {index}",
            }
        )
    return table


def test_each_pair_of_types_has_its_measure() -> None:
    rows = made(600, seed=5)
    _, told = target_of(rows, "flag")
    assert told["x"].measure is Measure.POINT_BISERIAL
    x, flag = [row["x"] for row in rows], [float(row["flag"]) for row in rows]
    assert told["x"].value == pytest.approx(statistics.correlation(x, flag), abs=1e-4)
    assert told["kind"].measure is Measure.CRAMERS_V
    _, told = target_of(rows, "x")
    assert told["y"].measure is Measure.PEARSON
    pairs = [(row["x"], row["y"]) for row in rows if row["y"] is not None]
    assert told["y"].value == pytest.approx(statistics.correlation(*zip(*pairs, strict=True)), abs=1e-4)
    assert told["big"].value == 1.0
    _, told = target_of(rows, "by_kind")
    assert told["kind"].measure is Measure.CORRELATION_RATIO
    assert told["kind"].value == pytest.approx(1, abs=0.01)
    assert told["id"].measure is None


def test_correlations_are_symmetric_and_leave_out_what_cannot_be_compared() -> None:
    correlations = profile_of(made(600, seed=6)).correlations
    assert correlations.columns == ["x", "y", "big", "kind", "by_kind", "noise", "flag", "twin", "rare"]
    values = np.array(correlations.values, dtype=float)
    assert np.array_equal(values, values.T, equal_nan=True)
    assert np.array_equal(np.diag(values), np.ones(9))
    assert values[3, 7] == 1
    assert abs(values[0, 5]) < 0.15


def test_categories_by_chance_tell_nothing() -> None:
    source = random.Random(7)
    rows = [{"k": f"k{source.randrange(100)}", "x": source.gauss(0, 1)} for _ in range(500)]
    value = profile_of(rows).correlations.values[0][1]
    assert value is not None
    assert value < 0.25  # uncorrected it would be about 0.45


def test_a_wide_table_has_its_first_columns_correlated() -> None:
    source = random.Random(8)
    width = MAX_CORRELATED + 30
    rows = [{f"c{index}": source.random() for index in range(width)} for _ in range(20)]
    profile = profile_of(rows)
    assert profile.correlations.columns == [f"c{index}" for index in range(MAX_CORRELATED)]
    assert profile.correlations.left_out == 30
    assert len(profile.columns) == width


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_correlation_with_nulls_is_that_of_the_complete_pairs(data: st.DataObject) -> None:
    values = st.none() | st.integers(-50, 50)
    pairs = data.draw(st.lists(st.tuples(values, values), min_size=3, max_size=40))
    complete = [(x, y) for x, y in pairs if x is not None and y is not None]
    assume(len({x for x, _ in complete}) > 1 and len({y for _, y in complete}) > 1)
    correlations = profile_of([{"x": x, "y": y} for x, y in pairs]).correlations
    expected = statistics.correlation(*zip(*complete, strict=True))
    assert correlations.values[0][1] == pytest.approx(expected, abs=1e-4)


# ── Findings ─────────────────────────────────────────────────────────────────────────────────────


def test_a_person_is_told_what_matters() -> None:
    source = random.Random(9)
    rows = [
        {
            "id": index + 17,
            "name": f"n{index}",
            "empty": None,
            "constant": "always",
            "nearly": 0 if index else 1,
            "sparse": None if index % 4 else index % 3,
            "note": f"note {index // 2 if index % 2 else -index}",
            "carrier": source.choice(["UA", "ua ", "B6"]),
            "miles": index % 13,
            "km": 1.609 * (index % 13),
            "price": round(source.uniform(1, 99), 1),
        }
        for index in range(200)
    ]
    profile = profile_of(rows)
    assert codes(profile) == {
        "identifier": [["id"], ["name"]],
        "empty": [["empty"]],
        "constant": [["constant"]],
        "near_constant": [["nearly"]],
        "many_nulls": [["sparse"]],
        "free_text": [["note"]],
        "spellings": [["carrier"]],
        "same_information": [["miles", "km"]],
    }
    assert profile.findings[0].text == (
        "Column `id` has a different value in every row: a model would learn the rows by heart. Leave it out."
    )
    severities = [finding.severity for finding in profile.findings]
    assert severities == sorted(severities, reverse=True)


def test_a_plain_table_has_no_findings() -> None:
    source = random.Random(10)
    rows = [{"x": source.gauss(0, 1), "k": source.choice("ab"), "n": source.randrange(9)} for _ in range(300)]
    assert profile_of(rows).findings == []


def test_columns_that_give_the_target_away_are_suspects() -> None:
    source = random.Random(11)
    rows = []
    for _ in range(500):
        delay = source.expovariate(1 / 20)
        late = delay > 15
        rows.append(
            {
                "late": late,
                "delay": round(delay, 3),
                "reason": source.choice("abc") if late else None,
                "code": f"{'L' if late else 'E'}{source.randrange(4)}",
                "wind": source.gauss(10, 3) + late,
            }
        )
    told, associations = target_of(rows, "late")
    assert told.kind is TargetKind.CLASSES
    assert {finding.columns[0] for finding in told.findings} == {"delay", "reason", "code"}
    assert {finding.code for finding in told.findings} == {"leak_suspect"}
    assert associations["reason"].nulls == pytest.approx(1, abs=0.01)
    wind = associations["wind"].strength
    assert wind is not None
    assert wind < 0.5
    assert told.associations[0].column in ("delay", "code")


def test_a_number_that_another_determines_without_a_line_is_a_suspect() -> None:
    rows = [{"x": index / 50 - 5, "y": (index / 50 - 5) ** 2} for index in range(500)]
    told, associations = target_of(rows, "y")
    assert told.kind is TargetKind.NUMBER
    assert abs(associations["x"].value or 0) < 0.1
    assert [finding.columns for finding in told.findings] == [["x"]]


def test_a_target_with_a_rare_class_or_nulls_is_told() -> None:
    rows = [
        {"x": index % 17, "y": None if index % 10 == 0 else "rare" if index == 7 else "usual"}
        for index in range(400)
    ]
    told, _ = target_of(rows, "y")
    assert [finding.code for finding in told.findings] == ["rare_class", "target_nulls"]


def test_few_integers_are_classes_and_many_are_numbers() -> None:
    rows = [{"grade": index % 5, "age": index % 70, "x": index} for index in range(350)]
    assert target_of(rows, "grade")[0].kind is TargetKind.CLASSES
    assert target_of(rows, "age")[0].kind is TargetKind.NUMBER


def test_nulls_are_in_no_bin_of_a_large_table_either(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_query(path, "SELECT CASE WHEN i % 20 <> 0 THEN sqrt(i) END AS n FROM range(130000) AS t(i)")
    columns = [Column(name="n", type=ColumnType.NUMBER, nullable=True)]
    (column,) = build_profile(path, columns, 130_000, tmp_path).columns
    assert column.histogram is not None
    assert (column.nulls, sum(column.histogram.counts)) == (6_500, 123_500)
