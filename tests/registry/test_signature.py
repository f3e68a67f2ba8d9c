"""The encoding of rows: types, nulls, times, categories, and errors that point to the cell."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from math import isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.columns import ColumnType
from app.errors import InvalidInput, pointer
from app.registry.signature import (
    MAX_INPUT_ERRORS,
    OTHER_CATEGORY,
    Feature,
    Role,
    Signature,
    Task,
    format_time,
    parse_time,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def feature(
    type_: str, role: str = "numeric", *, name: str = "x", nullable: bool = False, **more: Any
) -> Feature:
    return Feature(name=name, type=ColumnType(type_), role=Role(role), nullable=nullable, **more)


def signature(*features: Feature, ignored: tuple[str, ...] = ()) -> Signature:
    return Signature(
        features=features,
        ignored=ignored,
        target="y",
        target_type=ColumnType.NUMBER,
        task=Task.REGRESSION,
    )


def faults(of: Signature, rows: list[Any]) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        of.encode(rows)
    assert caught.value.status == 422
    assert caught.value.code == "invalid_instances"
    return {error.pointer: error.detail for error in caught.value.errors}


@pytest.mark.parametrize(
    ("type_", "role", "value", "cell"),
    [
        ("integer", "numeric", 3, 3.0),
        ("integer", "numeric", 2.0, 2.0),
        ("integer", "numeric", -0.0, 0.0),
        ("integer", "numeric", 2**70, 2.0**70),
        ("number", "numeric", 2.9, 2.9),
        ("number", "numeric", 3, 3.0),
        ("number", "numeric", 5e-324, 5e-324),
        ("boolean", "boolean", True, 1.0),
        ("boolean", "boolean", False, 0.0),
        ("date", "datetime", "1970-01-02", 86400.0),
        ("datetime", "datetime", "1970-01-01T00:00:01", 1.0),
        ("datetime", "datetime", "1970-01-01T02:00:00+02:00", 0.0),
        ("datetime", "datetime", "1970-01-01T00:00:00.5Z", 0.5),
        ("datetime", "datetime", "1969-12-31 23:59:59-00:00", -1.0),
    ],
)
def test_a_value_of_the_columns_type_becomes_its_number(
    type_: str, role: str, value: Any, cell: float
) -> None:
    assert feature(type_, role).encode(value) == cell


@pytest.mark.parametrize(
    ("type_", "value", "wanted"),
    [
        ("integer", 2.9, "be an integer, not the number 2.9"),
        ("integer", True, "be an integer, not the boolean true"),
        ("integer", "3", 'be an integer, not the string "3"'),
        ("number", False, "be a number, not the boolean false"),
        ("number", "far", 'be a number, not the string "far"'),
        ("number", [1], "be a number, not an array"),
        ("number", {}, "be a number, not an object"),
        ("number", float("inf"), "be a finite number"),
        ("number", float("-inf"), "be a finite number"),
        ("number", 10**400, "be a finite number"),
        ("integer", 10**400, "be a finite number"),
        ("boolean", 1, "be true or false, not the integer 1"),
        ("boolean", "true", 'be true or false, not the string "true"'),
        ("string", 1, "be a string, not the integer 1"),
        ("date", 20130531, "be an ISO 8601 date such as 2013-05-31, not the integer 20130531"),
        ("date", "31.05.2013", 'be an ISO 8601 date such as 2013-05-31, not the string "31.05.2013"'),
        ("datetime", "", 'be an ISO 8601 time such as 2013-05-31T14:00:00Z, not the string ""'),
        ("datetime", "2013-02-30T00:00:00Z", "be an ISO 8601 time such as"),
        ("number", None, "not be null"),
        ("number", float("nan"), "not be null"),
        ("date", "x" * 100, "be an ISO 8601 date such as 2013-05-31, not a string"),
        ("boolean", 10**100, "be true or false, not an integer"),
    ],
)
def test_a_value_of_another_type_is_refused_in_words(type_: str, value: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"^must {re.escape(wanted)}"):
        feature(type_).encode(value)


@given(json_values, st.sampled_from(ColumnType), st.booleans())
@settings(deadline=None)
def test_every_json_value_is_encoded_or_refused(value: Any, type_: ColumnType, nullable: bool) -> None:
    column = feature(type_, nullable=nullable)
    missing = value is None or value != value
    cell: Any = None
    with suppress(ValueError):
        cell = column.encode(value)
    if missing:
        assert (cell is not None and isnan(cell)) == nullable
    elif cell is not None:
        assert np.isfinite(cell) or type_ is ColumnType.STRING
        assert (type(value) is bool) == (type_ is ColumnType.BOOLEAN)


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
)
@settings(deadline=None)
def test_a_time_means_the_same_moment_in_every_zone(moment: datetime, minutes: int) -> None:
    utc = moment.replace(tzinfo=UTC)
    zoned = utc.astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_time(zoned.isoformat()) == parse_time(utc.isoformat()) == parse_time(moment.isoformat())
    assert abs(parse_time(format_time(utc.timestamp(), ColumnType.DATETIME)) - utc.timestamp()) < 1e-5
    assert format_time(utc.timestamp(), ColumnType.DATE) == moment.date().isoformat()


CATEGORIES: dict[str, tuple[Any, ...]] = {
    "string": ("", "AA", "B6"),
    "integer": (0, 1, 7),
    "boolean": (False, True),
}


@pytest.mark.parametrize(("type_", "categories"), CATEGORIES.items())
def test_a_known_category_is_its_place_and_any_other_is_unknown(
    type_: str, categories: tuple[Any, ...]
) -> None:
    column = feature(type_, "categorical", nullable=True, categories=categories)
    assert [column.encode(category) for category in categories] == [*range(len(categories))]
    assert isnan(column.encode(None))


@given(st.text() | st.integers(), st.sampled_from(["string", "integer"]))
@settings(deadline=None)
def test_an_unseen_category_is_unknown_and_not_null(value: str | int, type_: str) -> None:
    assume(value not in CATEGORIES[type_])
    assume(isinstance(value, str) == (type_ == "string"))
    assume(isinstance(value, str) or abs(value) < 10**300)
    assert feature(type_, "categorical", categories=CATEGORIES[type_]).encode(value) == OTHER_CATEGORY


def test_an_integer_category_may_be_sent_as_a_whole_number() -> None:
    column = feature("integer", "categorical", categories=(1, 7))
    assert column.encode(7.0) == column.encode(7) == 1.0


FLIGHTS = signature(
    feature("integer", name="distance"),
    feature("string", "categorical", name="carrier", nullable=True, categories=("AA", "B6")),
    feature("number", name="wind", nullable=True),
    ignored=("flight_id",),
)


def test_rows_become_a_matrix_in_the_order_of_the_features() -> None:
    rows = [
        {"wind": 1.5, "carrier": "B6", "distance": 7},
        {"distance": 8, "flight_id": "any single value"},
        {"distance": 9.0, "carrier": None, "wind": float("nan")},
    ]
    expected = [[7, 1, 1.5], [8, np.nan, np.nan], [9, np.nan, np.nan]]
    np.testing.assert_array_equal(FLIGHTS.encode(rows), expected)


flight_rows = st.fixed_dictionaries(
    {"distance": st.integers(-(10**6), 10**6)},
    optional={
        "carrier": st.sampled_from(["AA", "B6", "ZZ", None]),
        "wind": st.none() | st.floats(allow_infinity=False),
        "flight_id": st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    },
)


@given(st.lists(flight_rows, min_size=1, max_size=8))
@settings(deadline=None)
def test_a_rows_encoding_does_not_depend_on_its_batch(rows: list[dict[str, Any]]) -> None:
    together = FLIGHTS.encode(rows)
    alone = np.vstack([FLIGHTS.encode([row]) for row in rows])
    assert together.tobytes() == alone.tobytes()


def test_every_fault_of_the_rows_is_pointed_to() -> None:
    rows: list[Any] = [
        {"distance": "far", "wind": True},
        {"distance": 1, "carrier": "AA", "flight_id": [1]},
        {"carrier": "AA"},
        [1, 2],
        {"distance": None, "gate": 1},
        None,
    ]
    found = faults(FLIGHTS, rows)
    assert list(found) == [
        "/instances/0/distance",
        "/instances/0/wind",
        "/instances/1/flight_id",
        "/instances/2/distance",
        "/instances/3",
        "/instances/4/distance",
        "/instances/4/gate",
        "/instances/5",
    ]
    assert found["/instances/2/distance"] == "the column is missing; it must be an integer"
    assert found["/instances/3"] == "must be an object of column names and values"
    assert found["/instances/4/gate"].endswith("its columns are distance, carrier, wind")


@given(st.text(st.sampled_from("a/~ é01"), min_size=1), st.text(min_size=1, max_size=5))
@settings(deadline=None)
def test_a_pointer_escapes_the_name_of_the_column(name: str, other: str) -> None:
    assume(name != other)
    column = signature(feature("number", name=name))
    escaped = name.replace("~", "~0").replace("/", "~1")
    assert set(faults(column, [{name: "x"}])) == {f"/instances/0/{escaped}"}
    assert pointer("instances", 0, other) in faults(column, [{name: 1, other: 1}])
    (found,) = faults(column, [{name: "x"}])
    assert [step.replace("~1", "/").replace("~0", "~") for step in found.split("/")][1:] == [
        "instances",
        "0",
        name,
    ]


@given(st.integers(1, 60), st.integers(1, 60))
@settings(deadline=None)
def test_only_the_first_faults_are_told(rows: int, columns: int) -> None:
    found = faults(FLIGHTS, [{f"gate {number}": 1 for number in range(columns)}] * rows)
    assert len(found) == min(MAX_INPUT_ERRORS, rows * (columns + 1))


def test_the_root_of_the_pointers_can_be_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        FLIGHTS.encode([{}], root="example")
    assert caught.value.errors[0].pointer == "/example/0/distance"


def test_a_signature_survives_json() -> None:
    assert Signature.model_validate(FLIGHTS.model_dump(mode="json")) == FLIGHTS
    again = Signature.model_validate_json(
        signature(feature("boolean", "categorical", categories=(False, True))).model_dump_json()
    )
    assert again.features[0].categories == (False, True)
    assert type((again.features[0].categories or ())[0]) is bool
