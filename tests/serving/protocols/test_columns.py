"""Arrow streams are encoded as the same rows in JSON, bit for bit; damaged ones are refused."""

import io
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pytest
from arro3.core import Array, DataType, Table
from arro3.io import read_ipc_stream, write_ipc_stream
from hypothesis import example, given
from hypothesis import strategies as st

from app.columns import ColumnType
from app.errors import InvalidInput
from app.registry.signature import MAX_INPUT_ERRORS, Feature, Role, Signature, Task
from app.serving.protocols.arrow_ipc import Batch, BatchReader, write_stream
from app.serving.protocols.arrow_rows import BatchEncoder
from app.serving.protocols.columns import encode_columns

EPOCH = datetime(1970, 1, 1)
LONG = "a category of more than eight bytes"
CARRIERS = ("", "AA", "B6", "é")


def feature(name: str, type_: str, role: Role, *, nullable: bool = True, **more: Any) -> Feature:
    return Feature(name=name, type=ColumnType(type_), role=role, nullable=nullable, **more)


SIGNATURE = Signature(
    features=(
        feature("distance", "integer", Role.NUMERIC, nullable=False),
        feature("wind", "number", Role.NUMERIC),
        feature("carrier", "string", Role.CATEGORICAL, categories=CARRIERS),
        feature("airport", "string", Role.CATEGORICAL, categories=(*CARRIERS, LONG, LONG + "!", "x" * 300)),
        feature("gate", "integer", Role.CATEGORICAL, categories=(-1, 0, 7, 2**62)),
        feature("open", "boolean", Role.BOOLEAN),
        feature("late", "boolean", Role.CATEGORICAL, categories=(False, True)),
        feature("said", "string", Role.TEXT, tokens=("aa", "aa aa"), ngrams=2),
        feature("told", "string", Role.TEXT, buckets=3),
        feature("day", "date", Role.DATETIME),
        feature("at", "datetime", Role.DATETIME),
    ),
    ignored=("note",),
    target="y",
    target_type=ColumnType.NUMBER,
    task=Task.REGRESSION,
)

TEXTS = st.sampled_from([*CARRIERS, LONG, LONG + "!", LONG[:-1], "AA\u0001", "B", "x" * 300, "y" * 300])
TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))


RANGES: dict[str, st.SearchStrategy[Any]] = {
    **{f"int{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    "float32": st.floats(width=32),
    "float64": st.floats() | st.integers(-9, 9).map(float),
}

Cells = list[Any]
Kind = tuple[st.SearchStrategy[Any], Callable[[Cells], Array]]
"""Values, and how a list of them becomes an Arrow array."""


def of_type(values: st.SearchStrategy[Any], type_: DataType) -> Kind:
    return values, lambda cells: Array(cells, type_)


def of_ticks(values: st.SearchStrategy[Any], tick: timedelta, ticks: DataType, type_: DataType) -> Kind:
    """Dates or times, counted in ticks since 1970."""

    def make(cells: Cells) -> Array:
        since = [
            cell and (datetime(cell.year, cell.month, cell.day, *cell.timetuple()[3:6]) - EPOCH)
            for cell in cells
        ]
        parts = [getattr(cell, "microsecond", 0) for cell in cells]
        counts = [
            None if past is None else (past + timedelta(microseconds=part)) // tick
            for past, part in zip(since, parts, strict=True)
        ]
        return Array(counts, ticks).cast(type_)

    return values, make


def numbers(*types: str) -> list[Kind]:
    return [of_type(RANGES[name], getattr(DataType, name)()) for name in types]


TEXT = [of_type(TEXTS, type_) for type_ in (DataType.utf8(), DataType.large_utf8(), DataType.string_view())]
BOOLEAN = [of_type(st.booleans(), DataType.bool())]
INTEGER = numbers(*[name for name in RANGES if "int" in name])
NUMBER = numbers(*RANGES)
MICROSECOND = timedelta(microseconds=1)
DATE = [of_ticks(st.dates(), timedelta(days=1), DataType.int32(), DataType.date32())]
TIME = [
    of_ticks(TIMES, MICROSECOND, DataType.int64(), DataType.timestamp("us")),
    of_ticks(
        TIMES.map(lambda at: at.replace(tzinfo=UTC)),
        MICROSECOND,
        DataType.int64(),
        DataType.timestamp("us", tz="UTC"),
    ),
]
ISO = [
    of_type(TIMES.map(datetime.isoformat) | st.sampled_from(["2013-05-31"] * 20 + ["noon"]), DataType.utf8())
]
KINDS: dict[str, list[Kind]] = {
    "distance": INTEGER * 5 + NUMBER,
    "wind": NUMBER * 5 + BOOLEAN,
    "carrier": TEXT,
    "airport": TEXT,
    "gate": INTEGER * 5 + NUMBER,
    "open": BOOLEAN * 50 + INTEGER,
    "late": BOOLEAN,
    "day": DATE + TIME + ISO,
    "at": TIME + DATE + ISO,
    "said": TEXT,
    "told": TEXT + INTEGER,
    "note": TEXT + INTEGER,
}


@st.composite
def tables(draw: st.DrawFn, names: Sequence[str] = tuple(KINDS)) -> tuple[list[dict[str, Any]], bytes]:
    """Rows as JSON has them, and the Arrow stream of the same."""
    size = draw(st.integers(1, 6))
    columns: dict[str, Array] = {}
    rows: list[dict[str, Any]] = [{} for _ in range(size)]
    left_out = draw(st.sets(st.sampled_from(names), max_size=2))
    for name in names:
        if name in left_out:
            continue
        values, make = draw(st.sampled_from(KINDS[name]))
        values = values if name == "distance" else values | st.none()
        cells = draw(st.lists(values, min_size=size, max_size=size))
        column = make(cells)
        if column.type in (DataType.utf8(), DataType.int64()) and draw(st.booleans()):
            column = column.cast(DataType.dictionary(DataType.int8(), column.type))
        columns[name] = column
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell.isoformat() if isinstance(cell, date) else cell
    return rows, stream(columns)


def stream(columns: Mapping[str, Any]) -> bytes:
    written = io.BytesIO()
    write_ipc_stream(Table.from_pydict(dict(columns)), written, compression=None)
    return written.getvalue()


def batches_of(content: bytes, piece: int = 2**20) -> list[Batch]:
    found = unread_batches_of(content, piece)
    assert all(batch.columns.keys() for batch in found)
    return found


def unread_batches_of(content: bytes, piece: int = 2**20) -> list[Batch]:
    reader = BatchReader(max_batch_bytes=2**22, max_batch_rows=10**6)
    found = [batch for at in range(0, len(content), piece) for batch in reader.feed(content[at : at + piece])]
    reader.end()
    return found


def faults(error: InvalidInput) -> set[tuple[str, str]]:
    """The place (row and column, in either order) and the reason of every fault."""
    return {("/".join(sorted(fault.pointer.split("/")[2:])), fault.detail) for fault in error.errors}


PLAIN_FEATURES = ("distance", "wind", "carrier", "airport", "open", "day", "at")
PLAIN_SIGNATURE = SIGNATURE.model_copy(
    update={"features": tuple(one for one in SIGNATURE.features if one.name in PLAIN_FEATURES)}
)
QUICK = BatchEncoder(PLAIN_SIGNATURE)


@given(tables())
def test_columns_are_encoded_as_the_same_rows_in_json(table: tuple[list[dict[str, Any]], bytes]) -> None:
    rows, content = table
    (batch,) = batches_of(content)
    expected, refusal = outcome(lambda: SIGNATURE.encode(rows))
    found, own_refusal = outcome(lambda: encode_columns(SIGNATURE, batch.columns, batch.rows))
    assert found == expected
    if refusal and own_refusal and len(refusal.errors) < MAX_INPUT_ERRORS and "distance" in rows[0]:
        assert own_refusal.code == refusal.code
        assert faults(own_refusal) == faults(refusal)


@given(tables((*PLAIN_FEATURES, "note")))
def test_what_is_encoded_at_once_is_encoded_alike(table: tuple[list[dict[str, Any]], bytes]) -> None:
    rows, content = table
    (batch,), (closer,) = (unread_batches_of(content) for _ in range(2))
    matrix = QUICK.encode_plain(batch)
    expected, _ = outcome(lambda: encode_columns(PLAIN_SIGNATURE, closer.columns, closer.rows))
    if matrix is not None:
        assert matrix.tobytes() == expected == PLAIN_SIGNATURE.encode(rows).tobytes()
        ours, theirs = (read_ipc_stream(io.BytesIO(one.stream)).read_all() for one in (batch, closer))
        assert ours == theirs


@pytest.mark.parametrize("distance", [DataType.int8(), DataType.uint64(), DataType.float64()])
@pytest.mark.parametrize("text", [DataType.utf8(), DataType.large_utf8()])
def test_plain_columns_are_encoded_at_once(distance: DataType, text: DataType) -> None:
    days, ticks = Array([15_856, None, 0], DataType.int32()), Array([-1, None, 2**53], DataType.int64())
    columns = {
        "note": Array(["é", None, ""], text),
        "at": ticks.cast(DataType.timestamp("us")),
        "day": days.cast(DataType.date32()),
        "airport": Array(["é", None, LONG], text),
        "carrier": Array(["AA", "é", "unknown"], text),
        "open": Array([True, None, False], DataType.bool()),
        "distance": Array([1, 2, 100], distance),
    }
    (batch,) = batches_of(stream(columns))
    matrix = QUICK.encode_plain(batch)
    assert matrix is not None
    nan = float("nan")
    expected = [
        [1, nan, 1, 3, 1, 15_856 * 86_400, -1e-6],
        [2, nan, 3, nan, nan, nan, nan],
        [100, nan, -1, 4, 0, 0, 2**53 / 1e6],
    ]
    np.testing.assert_array_equal(matrix, expected)
    assert batch.stream


def outcome(encode: Callable[[], Any]) -> tuple[bytes | None, InvalidInput | None]:
    try:
        return encode().tobytes(), None
    except InvalidInput as refusal:
        return None, refusal


@given(tables(), st.integers(1, 64))
def test_a_stream_is_read_and_written_alike_in_any_pieces(
    table: tuple[list[dict[str, Any]], bytes], piece: int
) -> None:
    _, content = table
    (whole,), (pieced,) = batches_of(content), batches_of(content, piece)
    columns = {name: column.plain() for name, column in whole.columns.items()}
    written = write_stream(columns, {"model": "m"})
    (again,) = batches_of(written)
    for name, values in columns.items():
        cells = [values[row] for row in range(whole.rows)]
        for other in (pieced, again):
            plain = other.columns[name].plain()
            assert [plain[row] for row in range(other.rows)] == cells
    by_arrow = read_ipc_stream(io.BytesIO(written)).read_all()
    assert by_arrow.schema.metadata_str == {"model": "m"}
    assert by_arrow.num_rows == whole.rows
    if whole.stream:
        copied = read_ipc_stream(io.BytesIO(whole.stream)).read_all()
        assert [copied.column(name).to_pylist() for name in columns] == [
            by_arrow.column(name).to_pylist() for name in columns
        ]


def test_a_batch_of_plain_types_is_copied_and_no_other() -> None:
    (plain,) = batches_of(stream(PLAIN))
    again = read_ipc_stream(io.BytesIO(plain.stream)).read_all()
    assert {name: again.column(name).to_pylist() for name in PLAIN} == {
        name: column.to_pylist() for name, column in PLAIN.items()
    }
    for other in (
        Array([1.5], DataType.float32()),  # JSON shows its digits otherwise
        Array([float("nan")], DataType.float64()),  # a null
        Array(["a"], DataType.string_view()),
        Array(["a"], DataType.utf8()).cast(DataType.dictionary(DataType.int8(), DataType.utf8())),
        Array([1], DataType.int64()).cast(DataType.timestamp("s")),
        Array(["a" * 3_000_000], DataType.utf8()),
    ):
        (batch,) = batches_of(stream({"distance": Array([1], DataType.int64()), "other": other}))
        assert batch.stream == b""


def test_parts_of_a_batch_are_read_as_the_whole() -> None:
    carrier = Array(["AA", None, "B6", "AA", "é"], DataType.utf8())
    columns = {
        "distance": Array([1, 2, 3, 4, 5], DataType.int16()),
        "carrier": carrier.cast(DataType.dictionary(DataType.int32(), DataType.utf8())),
        "airport": carrier,
    }
    (batch,) = batches_of(stream(columns))
    whole = encode_columns(SIGNATURE, batch.columns, 5)
    for rows in (slice(0, 2), slice(2, 5)):
        part = {name: column.part(rows) for name, column in batch.columns.items()}
        np.testing.assert_array_equal(encode_columns(SIGNATURE, part, rows.stop - rows.start), whole[rows])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit_mean_the_same(unit: Literal["s", "ms", "us", "ns"]) -> None:
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    at = datetime(2013, 5, 31, 14, 15, tzinfo=UTC)
    column = Array([int(at.timestamp()) * ticks], DataType.int64()).cast(DataType.timestamp(unit))
    (batch,) = batches_of(stream({"distance": Array([1], DataType.int64()), "at": column}))
    assert encode_columns(SIGNATURE, batch.columns, 1)[0, -1] == at.timestamp()


@pytest.mark.parametrize("days", [-719_163, 2_932_897])
def test_a_date_that_json_cannot_name_is_refused(days: int) -> None:
    column = Array([0, days], DataType.int32()).cast(DataType.date32())
    with pytest.raises(InvalidInput, match="not in the years 1 to 9999") as caught:
        batches_of(stream({"day": column}))
    assert caught.value.errors[0].pointer == "/columns/day/1"


def test_finer_than_microseconds_is_cut_off_as_in_json() -> None:
    for nanoseconds, seconds in ((1_999, 1e-6), (-1, -1e-6)):
        column = Array([nanoseconds], DataType.int64()).cast(DataType.timestamp("ns"))
        (batch,) = batches_of(stream({"distance": Array([1], DataType.int64()), "at": column}))
        assert encode_columns(SIGNATURE, batch.columns, 1)[0, -1] == seconds


def test_unused_entries_of_a_dictionary_are_not_judged() -> None:
    names = Array(["noon", "2013-05-31"], DataType.utf8()).cast(
        DataType.dictionary(DataType.int8(), DataType.utf8())
    )
    (batch,) = batches_of(stream({"distance": Array([1], DataType.int64()), "day": names.slice(1, 1)}))
    day = datetime(2013, 5, 31, tzinfo=UTC).timestamp()
    assert encode_columns(SIGNATURE, batch.columns, 1)[0, -2] == day


def test_an_unknown_and_a_missing_column_are_named() -> None:
    (batch,) = batches_of(stream({"gates/": Array([1], DataType.int64())}))
    with pytest.raises(InvalidInput) as caught:
        encode_columns(SIGNATURE, batch.columns, 1)
    assert [fault.pointer for fault in caught.value.errors] == ["/columns/gates~1", "/columns/distance"]


# ── Damage ───────────────────────────────────────────────────────────────────────────────────────

EVERYTHING = stream(
    {
        "i": Array([1, None, 3], DataType.int32()),
        "u": Array([1, 2, 3], DataType.uint64()),
        "f": Array([1.5, None, 2.5], DataType.float32()),
        "b": Array([True, None, False], DataType.bool()),
        "s": Array(["é", None, "abc"], DataType.utf8()),
        "v": Array(["short", None, "more than twelve bytes"], DataType.string_view()),
        "d": Array(["p", None, "q"], DataType.utf8()).cast(
            DataType.dictionary(DataType.int8(), DataType.utf8())
        ),
        "day": Array([15_856, None, 0], DataType.int32()).cast(DataType.date32()),
    }
)


PLAIN = {
    "i": Array([1, None, 3], DataType.int32()),
    "u": Array([1, 2, 3], DataType.uint64()),
    "f": Array([1.5, None, 2.5], DataType.float64()),
    "b": Array([True, None, False], DataType.bool()),
    "s": Array(["é", None, "abc"], DataType.utf8()),
    "l": Array(["é", None, "abc"], DataType.large_utf8()),
    "day": Array([15_856, None, 0], DataType.int32()).cast(DataType.date32()),
    "at": Array([15_856, None, 0], DataType.int64()).cast(DataType.timestamp("us")),
}


DAMAGED = PLAIN_SIGNATURE.model_copy(
    update={
        "features": (
            feature("i", "integer", Role.NUMERIC),
            feature("u", "number", Role.NUMERIC),
            feature("f", "number", Role.NUMERIC),
            feature("b", "boolean", Role.BOOLEAN),
            feature("s", "string", Role.CATEGORICAL, categories=CARRIERS),
            feature("l", "string", Role.CATEGORICAL, categories=("abc",)),
            feature("day", "date", Role.DATETIME),
        ),
        "ignored": ("at",),
    }
)


@pytest.mark.parametrize(
    "whole", [EVERYTHING, stream(PLAIN)], ids=["of all types", "of types that are copied"]
)
@given(source=st.randoms(use_true_random=False))
def test_a_damaged_stream_is_refused_or_read_and_nothing_else(whole: bytes, source: random.Random) -> None:
    content = bytearray(whole)
    for _ in range(source.choice([1, 1, 2, 5])):
        at = source.randrange(len(content) - 8)
        match source.randrange(4):
            case 0:
                content[at] = source.choice([0, 1, 2, 0x7F, 0x80, 0xFF])
            case 1:
                content[at : at + 8] = source.choice([-1, 2**31, 2**62, 2**63 - 1, 8]).to_bytes(
                    8, "little", signed=True
                )
            case 2:
                del content[at : at + source.randrange(1, 9)]
            case 3:
                content[at:at] = source.randbytes(source.randrange(1, 9))
    encoder = BatchEncoder(DAMAGED)
    with suppress(InvalidInput):
        for batch in unread_batches_of(bytes(content)):
            if (matrix := encoder.encode_plain(batch)) is not None:  # what is encoded at once is sound
                assert read_ipc_stream(io.BytesIO(batch.stream)).read_all().num_rows == batch.rows
                expected, _ = outcome(lambda: encode_columns(DAMAGED, batch.columns, batch.rows))  # noqa: B023 - called at once
                assert matrix.tobytes() == expected
            for column in batch.columns.values():
                values = column.plain()
                assert len([values[row] for row in range(batch.rows)]) == batch.rows
            if batch.stream:  # Arrow libraries trust what they read
                assert read_ipc_stream(io.BytesIO(batch.stream)).read_all().num_rows == batch.rows


@given(st.binary(max_size=200))
@example(b"\xff\xff\xff\xff\0\0\0\0")
def test_garbage_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput):
        batches_of(content)


@pytest.mark.parametrize(
    ("rows", "batches", "refused"), [(1, 1000, False), (1, 1001, True), (100, 1001, False)]
)
def test_a_stream_of_very_many_very_small_batches_is_refused(
    rows: int, batches: int, *, refused: bool
) -> None:
    batch = Table.from_pydict({"distance": Array.from_numpy(np.arange(rows))}).to_batches()[0]
    written = io.BytesIO()
    write_ipc_stream(Table.from_batches([batch] * batches), written, compression=None)
    reader = BatchReader(max_batch_bytes=2**20, max_batch_rows=10**6)
    if refused:
        with pytest.raises(InvalidInput, match="Join them"):
            reader.feed(written.getvalue())
    else:
        assert sum(read.rows for read in reader.feed(written.getvalue())) == rows * batches
