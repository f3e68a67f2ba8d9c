"""The quick reader of JSON rows takes a part of what the signature takes, and reads it alike."""

import json
from math import isfinite
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.columns import ColumnType
from app.errors import InvalidInput
from app.registry.signature import Feature, Role, Signature, Task
from app.serving.rows import RowReader

LABELS = ("a", "b", "", "é", "true")
WHOLE = (0, 1, 2, 3, 2**53 + 1, -(2**70))


def feature(name: str, type_: ColumnType, role: Role, *, nullable: bool) -> Feature:
    categories: tuple[Any, ...] | None = None
    if role is Role.CATEGORICAL:
        categories = {
            ColumnType.STRING: LABELS,
            ColumnType.INTEGER: WHOLE,
            ColumnType.BOOLEAN: (False, True),
            ColumnType.DATE: ("2013-05-31", "2013-06-01"),
        }[type_]
    return Feature(name=name, type=type_, role=role, nullable=nullable, categories=categories)


KINDS = [
    (ColumnType.NUMBER, Role.NUMERIC),
    (ColumnType.INTEGER, Role.NUMERIC),
    (ColumnType.INTEGER, Role.CATEGORICAL),
    (ColumnType.BOOLEAN, Role.BOOLEAN),
    (ColumnType.BOOLEAN, Role.CATEGORICAL),
    (ColumnType.STRING, Role.CATEGORICAL),
    (ColumnType.DATE, Role.DATETIME),
    (ColumnType.DATE, Role.CATEGORICAL),
    (ColumnType.DATETIME, Role.DATETIME),
]
names = st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(["f0", "i0", "instances"])
values = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([*WHOLE, 2.5, 3.0, -0.0, 1e300, 5e-324, 2**64, 10**30, float("nan"), float("inf")])
    | st.floats()
    | st.sampled_from([*LABELS, "z", "2013-05-31", "2013-05-31T14:00:00Z", "\x00", "soon", "2013-02-30"])
    | st.just([1])
    | st.just({"a": 1})
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Signature, list[dict[str, Any]]]:
    """A signature, and rows of which most fit it."""
    chosen = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), min_size=1, max_size=5))
    unique = draw(st.lists(names, min_size=len(chosen) + 1, max_size=len(chosen) + 1, unique=True))
    features = [
        feature(name, *kind, nullable=nullable)
        for name, (kind, nullable) in zip(unique, chosen, strict=False)
    ]
    fitting = {
        ColumnType.NUMBER: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
        ColumnType.INTEGER: st.sampled_from(WHOLE) | st.just(3.0),
        ColumnType.BOOLEAN: st.booleans(),
        ColumnType.STRING: st.sampled_from(LABELS) | st.text(max_size=3),
        ColumnType.DATE: st.just("2013-05-31"),
        ColumnType.DATETIME: st.just("2013-05-31T14:00:00+02:00"),
    }
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row: dict[str, Any] = {one.name: draw(fitting[one.type]) for one in features}
        if draw(st.integers(0, 3)) == 0:
            row[draw(st.sampled_from(unique))] = draw(values)
        if draw(st.integers(0, 5)) == 0:
            row.pop(draw(st.sampled_from(sorted(row))))
        rows.append(row)
    signature = Signature(
        features=tuple(features),
        ignored=(unique[-1],),
        target="y",
        target_type=ColumnType.NUMBER,
        task=Task.REGRESSION,
    )
    return signature, rows


@settings(deadline=None, max_examples=400)
@given(asked(), st.sampled_from([None, 2]), st.sampled_from(["\n", "\r", "\r\n"]), st.booleans())
def test_what_the_quick_reader_takes_it_reads_as_the_signature_does(
    asked: tuple[Signature, list[dict[str, Any]]], indent: int | None, line_end: str, ascii_only: bool
) -> None:
    signature, rows = asked
    text = json.dumps({"instances": rows}, indent=indent, ensure_ascii=ascii_only)
    body = text.replace("\n", line_end).encode()
    read = RowReader(signature).read(body)
    try:
        expected = signature.encode(json.loads(body)["instances"])
    except InvalidInput:
        assert read is None, "it took what the signature refuses"
        return
    if read is None:
        odd = [value for row in rows for value in row.values()]
        named = "".join(feature.name for feature in signature.features) + signature.ignored[0]
        unnameable = any(character in '"\\' or character < " " for character in named)
        assert unnameable or b"\\u0000" in body or any(map(is_odd, odd)), "it left aside what is plain"
        return
    assert read.size == len(rows)
    assert read.matrix.tobytes() == expected.tobytes() or np.array_equal(
        read.matrix, expected, equal_nan=True
    )
    assert not set(b"\r\n") & set(read.inputs)
    assert msgspec.json.decode(read.inputs) == msgspec.json.decode(msgspec.json.encode(rows))


def is_odd(value: Any) -> bool:
    """What JSON has no plain form for, or what the quick reader leaves to the other: 3.0 as a category."""
    if isinstance(value, float):
        return not isfinite(value) or value.is_integer()
    return isinstance(value, int) and abs(value) >= 2**63


def test_bodies_of_another_form_are_left_aside() -> None:
    number = feature("x", ColumnType.NUMBER, Role.NUMERIC, nullable=True)
    signature = Signature(features=(number,), target="y", target_type=ColumnType.NUMBER, task=Task.REGRESSION)
    reader = RowReader(signature)
    for body in (
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"instances": []}',
        b'{"instances": null}',
        b'{"instances": {"x": 1}}',
        b'{"instances": [[1]]}',
        b'{"instances": [{"x": 1}]',
        b'{"instances": [{"x": NaN}]}',
        b'{"instances": [{"x": 1, "\\ud800": 1}]}',
        b'{"instances": [{"x": 1, "z": "\xff"}]}',
        b'{"instances": ' + b"[" * 100_000,
    ):
        assert reader.read(body) is None, body
    assert reader.read(b'{"instances": [{"x": 1}, {}], "signature_name": "s"}') is not None
