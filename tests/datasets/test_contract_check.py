"""Contracts over tables: what is proposed holds, and what is counted is what a loop in Python counts."""

# ruff: noqa: S608 - queries of this file's own constants

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.columns import Column, ColumnType
from app.datasets.contracts.check import Findings, check_table
from app.datasets.contracts.distance import measure_distance
from app.datasets.contracts.infer import count_reference, infer_contract
from app.datasets.contracts.rules import Contract, DriftMeasure, is_named_like
from tests.tables import SQL_TYPES as SQL_OF
from tests.tables import as_json, words, write_query

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
TYPES = {
    "id": ColumnType.INTEGER,
    "n": ColumnType.INTEGER,
    "x": ColumnType.NUMBER,
    'the "text" é': ColumnType.STRING,
    "code": ColumnType.STRING,
    "flag": ColumnType.BOOLEAN,
    "day": ColumnType.DATE,
    "file_row_number": ColumnType.DATE,
}
SQL_TYPES = {name: SQL_OF[type_] for name, type_ in TYPES.items()}
COLUMNS = [Column(name=name, type=type_, nullable=True) for name, type_ in TYPES.items()]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(0, 10**6),
    "n": st.sampled_from([0, 1, -1, 7, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]),
    "x": st.sampled_from([0.0, -0.5, 0.1, 2.5, 2.0**53, 2.0**63, 1e300, -1e300, 5e-324]) | st.floats(-10, 10),
    'the "text" é': words.map(lambda text: text.replace("\0", "")),
    "code": st.sampled_from(["A1", "B2", "C3"]),
    "flag": st.booleans(),
    "day": st.dates(),
    "file_row_number": st.sampled_from([date(2024, 1, 1), date(2024, 1, 2)]),
}
rows_of_cells = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})
tables = st.lists(rows_of_cells, min_size=1, max_size=12)


def check(rows: list[dict[str, Any]], *rules: dict[str, Any], parts: int = 1) -> Findings:
    """The rules checked over the rows, as a table of so many parts."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        contract = Contract.model_validate({"rules": rules})
        return check_table(written(folder, rows, parts), COLUMNS, contract, {}, now=NOW, spill=folder)


def written(folder: Path, rows: list[dict[str, Any]], parts: int = 1) -> list[Path]:
    paths = []
    size = -(-len(rows) // parts)
    for start in range(0, len(rows), size):
        path, source = folder / f"part[{start}].parquet", folder / "rows.ndjson"
        lines = [json.dumps(row, default=as_json) + "\n" for row in rows[start : start + size]]
        source.write_text("".join(lines))
        write_query(path, f"SELECT * FROM read_json('{source}', columns = {SQL_TYPES})")
        paths.append(path)
    return paths


# ── Counts ───────────────────────────────────────────────────────────────────────────────────────

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
PATTERNS = ["[a-z]+", "A?1?", "x|.", "naïve", r"\s?a", ".*"]

column_names = st.sampled_from(sorted(TYPES))
numbers = st.sampled_from(["n", "x", "id"])


@st.composite
def comparisons(draw: st.DrawFn) -> dict[str, Any]:
    column = draw(column_names)
    match draw(st.sampled_from(["null", "value", "other"])):
        case "null":
            return {"column": column, "op": draw(st.sampled_from(["is null", "is not null"]))}
        case "value":
            value = as_json(draw(VALUES[column]))
            return {"column": column, "op": draw(st.sampled_from(sorted(OPERATORS))), "value": value}
    pairs = [("n", "id"), ("day", "file_row_number"), ("code", 'the "text" é'), ("flag", "flag")]
    column, other = draw(st.sampled_from(pairs))
    return {"column": column, "op": draw(st.sampled_from(sorted(OPERATORS))), "other": other}


conditions = st.recursive(
    comparisons(),
    lambda inner: (
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)})
    ),
    max_leaves=5,
)


@st.composite
def row_rules(draw: st.DrawFn) -> dict[str, Any]:
    match draw(st.sampled_from(["nulls", "range", "allowed", "matches", "unique", "compare"])):
        case "nulls":
            return {"rule": "nulls", "column": draw(column_names)}
        case "range":
            column = draw(st.sampled_from(["n", "x", "id", "day"]))
            bounds = sorted(draw(st.lists(VALUES[column], min_size=2, max_size=2)))
            return {"rule": "range", "column": column, "min": as_json(bounds[0]), "max": as_json(bounds[1])}
        case "allowed":
            column, many = draw(column_names), draw(st.sampled_from([1, 30]))
            values = draw(st.lists(VALUES[column], min_size=1, max_size=5))
            return {"rule": "allowed", "column": column, "values": [as_json(one) for one in values] * many}
        case "matches":
            column = draw(st.sampled_from(["code", 'the "text" é']))
            return {"rule": "matches", "column": column, "pattern": draw(st.sampled_from(PATTERNS))}
        case "unique":
            columns = draw(st.lists(column_names, min_size=1, max_size=2, unique=True))
            return {"rule": "unique", "columns": columns}
    return {"rule": "compare", "that": draw(conditions)}


def holds(condition: dict[str, Any], row: dict[str, Any]) -> bool | None:
    """As SQL has it: None where it hangs on a null."""
    for word, decisive in (("all", False), ("any", True)):
        if word in condition:
            held = [holds(term, row) for term in condition[word]]
            return decisive if decisive in held else None if None in held else not decisive
    value: Any = as_json(row[condition["column"]])
    if condition["op"].startswith("is"):
        return bool((value is None) == (condition["op"] == "is null"))
    other = condition["value"] if "value" in condition else as_json(row[condition["other"]])
    return None if value is None or other is None else OPERATORS[condition["op"]](value, other)


def breaking(rule: dict[str, Any], rows: list[dict[str, Any]]) -> list[int]:
    """The rows that break the rule, from 1."""

    def breaks(row: dict[str, Any]) -> bool:
        value = as_json(row[rule["column"]]) if "column" in rule else None
        match rule["rule"]:
            case "nulls":
                return value is None
            case "range":
                return value is not None and not rule["min"] <= value <= rule["max"]
            case "allowed":
                return value is not None and value not in rule["values"]
            case "matches":
                return value is not None and re.fullmatch(rule["pattern"], value) is None
            case "unique":
                key = tuple(row[name] for name in rule["columns"])
                seen[key] += 1
                return None not in key and seen[key] > 1
        return holds(rule["that"], row) is False

    seen: Counter[tuple[Any, ...]] = Counter()
    return [number for number, row in enumerate(rows, start=1) if breaks(row)]


@settings(deadline=None, max_examples=80)
@given(tables, st.lists(row_rules(), min_size=1, max_size=6), st.integers(1, 3))
def test_counts_and_first_rows_are_those_of_a_loop(
    rows: list[dict[str, Any]], rules: list[dict[str, Any]], parts: int
) -> None:
    found = check(rows, *rules, parts=parts)
    expected = {
        f"/rules/{place}": numbers for place, rule in enumerate(rules) if (numbers := breaking(rule, rows))
    }
    assert {one.pointer: one.count for one in found.violations} == {
        pointer: len(numbers) for pointer, numbers in expected.items()
    }
    assert (found.rows, found.checked, found.unchecked) == (len(rows), len(rules), [])
    for violation in found.violations:
        assert [sample.row for sample in violation.samples] == expected[violation.pointer][:5]
        for sample in violation.samples:
            row = rows[sample.row - 1]
            assert sample.values == {name: as_json(row[name]) for name in violation.columns}


@pytest.mark.parametrize("many", [0, 40])
def test_an_allowed_fraction_lets_no_integer_pass(many: int) -> None:
    rows = [dict.fromkeys(TYPES) | {"n": n} for n in (1, 2, 2**53, 2**53 + 1)]
    rule = {"rule": "allowed", "column": "n", "values": [2**53, 1.5, *range(100, 100 + many)]}
    (violation,) = check(rows, rule).violations
    assert (violation.count, [sample.row for sample in violation.samples]) == (3, [1, 2, 4])
    (violation,) = check(rows, rule | {"values": [1.5]}).violations
    assert violation.count == 4


def test_a_long_text_is_cut_in_a_sample() -> None:
    row = dict.fromkeys(TYPES) | {"code": "x" * 100_000}
    (violation,) = check([row], {"rule": "allowed", "column": "code", "values": ["a"]}).violations
    assert violation.samples[0].values == {"code": "x" * 200 + "…"}


def test_thousands_of_rules_are_checked() -> None:
    rows = [dict.fromkeys(TYPES) | {"n": number} for number in range(20)]
    rules = [{"rule": "range", "column": "n", "max": bound} for bound in range(-1000, 1000)]
    found = check(rows, *rules)
    assert [one.count for one in found.violations] == [20] * 1000 + list(range(19, 0, -1))
    assert sum(bool(one.samples) for one in found.violations) == 200


@pytest.mark.parametrize(
    ("name", "glob", "alike"),
    [
        ("ssn", "ssn", True),
        ("SSN", "ssn", True),
        ("ssn_1", "ssn", False),
        ("user_password_hash", "*password*", True),
        ("p1", "p?", True),
        ("p12", "p?", False),
        ("a[b]", "a[b]", True),
        ("ab", "a[b]", False),
    ],
)
def test_names_are_forbidden_by_glob(name: str, glob: str, alike: bool) -> None:
    assert is_named_like(name, glob) is alike


# ── Proposals ────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=50)
@given(tables, st.sampled_from([1, 20]))
def test_what_is_proposed_accepts_the_version_that_it_came_from(
    rows: list[dict[str, Any]], times: int
) -> None:
    rows = [row | {"id": number} for number, row in enumerate(rows * times)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        parts = written(folder, rows)
        contract = infer_contract(parts, COLUMNS, folder)
        again = Contract.model_validate_json(contract.model_dump_json())
        found = check_table(parts, COLUMNS, again, {}, now=NOW, spill=folder)
    assert again == contract
    assert (found.violations, found.unchecked) == ([], [])
    assert found.checked == len(contract.rules)


# ── Distances ────────────────────────────────────────────────────────────────────────────────────


def reference_and_counts(
    folder: Path, reference: str, live: str, type_: ColumnType, measure: DriftMeasure, limit: float
) -> Findings:
    """A drift rule over column ``v`` of two queries."""
    columns = [Column(name="v", type=type_, nullable=True)]
    for name, query in (("reference", reference), ("live", live)):
        write_query(folder / name, query)
    rule = {"rule": "drift", "column": "v", "reference": 1, "measure": measure, "max": limit}
    contract = Contract.model_validate({"rules": [rule]})
    cells = count_reference([folder / "reference"], columns, {0: contract.rules[0]}, folder)  # type: ignore[dict-item] # it is one
    return check_table([folder / "live"], columns, contract, cells, now=NOW, spill=folder)


EVEN = "SELECT (hash(i) % 1000)::DOUBLE AS v FROM range({rows}) r(i)"
WORDS = "SELECT CASE WHEN hash(i) % 10 < {share} THEN 'a' ELSE 'b' END AS v FROM range({rows}) r(i)"


@pytest.mark.parametrize("measure", list(DriftMeasure))
def test_a_shift_beyond_the_bound_is_drift_and_the_same_distribution_is_none(
    tmp_path: Path, measure: DriftMeasure
) -> None:
    even, more = EVEN.format(rows=5000), EVEN.format(rows=7000).replace("hash(i)", "hash(i + 10000)")
    assert not reference_and_counts(tmp_path, even, more, ColumnType.NUMBER, measure, 0.01).violations
    moved = f"SELECT v + 300 AS v FROM ({more})"
    (violation,) = reference_and_counts(tmp_path, even, moved, ColumnType.NUMBER, measure, 0.1).violations
    assert (violation.rule, violation.columns, violation.count) == ("drift", ["v"], None)
    gone = f"SELECT CASE WHEN v > 500 THEN v END AS v FROM ({even})"
    assert reference_and_counts(tmp_path, even, gone, ColumnType.NUMBER, measure, 0.1).violations


@pytest.mark.parametrize("measure", list(DriftMeasure))
def test_categories_drift_too_and_few_rows_are_no_evidence(tmp_path: Path, measure: DriftMeasure) -> None:
    half, most = WORDS.format(share=5, rows=5000), WORDS.format(share=9, rows=5000)
    assert reference_and_counts(tmp_path, half, most, ColumnType.STRING, measure, 0.1).violations
    few = f"{most} LIMIT 3"
    assert not reference_and_counts(tmp_path, half, few, ColumnType.STRING, measure, 0.1).violations
    new = "SELECT 'c' AS v FROM range(100)"
    assert reference_and_counts(tmp_path, half, new, ColumnType.STRING, measure, 0.5).violations


counts = st.dictionaries(st.integers(-1, 5), st.integers(1, 1000), min_size=1)


@given(counts, counts, st.sampled_from(list(DriftMeasure)))
def test_a_distance_is_symmetric_and_zero_of_the_same_counts(
    one: dict[int, int], other: dict[int, int], measure: DriftMeasure
) -> None:
    assert measure_distance(measure, one, one) == pytest.approx((0.0, 1.0))
    distance, p_value = measure_distance(measure, one, other)
    assert measure_distance(measure, other, one) == pytest.approx((distance, p_value))
    assert distance >= 0
    assert 0 <= p_value <= 1
    if measure is DriftMeasure.JENSEN_SHANNON:
        assert distance <= 1


def test_distances_are_those_of_the_formulas() -> None:
    reference, live = {1: 500_000, 2: 500_000}, {1: 900_000, 2: 100_000}
    index, _ = measure_distance(DriftMeasure.PSI, reference, live)
    assert index == pytest.approx(0.8789, abs=1e-3)  # 0.4 ln 1.8 + 0.4 ln 5
    distance, _ = measure_distance(DriftMeasure.JENSEN_SHANNON, reference, live)
    assert distance == pytest.approx(0.3833, abs=1e-3)  # sqrt of 0.1468 bits
