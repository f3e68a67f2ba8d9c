"""Arrow IPC streams, read and written with numpy; what is read is checked before it is followed.

Arrow libraries trust what they read: some damaged streams end the whole process. Here damage is a 422.
What a model's columns need is read: flat columns of numbers, booleans, text, dates and timestamps, plain or
dictionary-encoded, in little-endian batches that are not compressed.

The layout is Arrow's (https://arrow.apache.org/docs/format/Columnar.html, Message.fbs and Schema.fbs for the
metadata), in FlatBuffers (https://flatbuffers.dev/internals/).
"""

import io
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.datasets.faults import NULL_CHARACTER, fault
from app.errors import InvalidInput
from app.serving.kernels import encode_batch
from app.serving.protocols.columns import Coder, Column, Flags, Kind, Values

CONTINUATION = 0xFFFFFFFF
PREFIX = struct.Struct("<Ii")
END_OF_STREAM = PREFIX.pack(CONTINUATION, 0)
SMALL_BATCH, MAX_SMALL_BATCHES = 100, 1000
"""Rows; a batch is scored and recorded by itself, which for a few rows is slow."""
MAX_METADATA_BYTES = 4 * 2**20
MAX_COPIED_BYTES = 2 * 2**20
"""A batch of at most so many bytes is written by copying the buffers that it was read from."""

DAMAGE = (ValueError, IndexError, OverflowError, struct.error)
"""What reading bytes raises that are not as they say."""

FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799  # of the years 1 to 9999


class Type(NamedTuple):
    """``dtype`` is that of the values, of text's offsets, or empty for text in views."""

    kind: Kind
    dtype: str = ""
    seconds: int = 1
    """A tick of a time is ``seconds / parts`` seconds."""
    parts: int = 1


class Field(NamedTuple):
    name: str
    type: Type
    places: str | None = None
    """The dtype of the places in its dictionary, where the column is dictionary-encoded."""
    dictionary: int = 0

    @property
    def format(self) -> str | None:
        """As Arrow's C data interface writes the type, where values are written as they are read."""
        return None if self.places or self.type not in _COPIED_TYPES else _COPIED_TYPES[self.type].format


class Batch:
    """One record batch of ``rows`` rows; its columns may be damaged until they are read or encoded."""

    def __init__(
        self, record: "_Record", fields: tuple[Field, ...], dictionaries: Mapping[int, Values], max_bytes: int
    ) -> None:
        self.rows = record.rows
        self.fields = fields
        self._record = record
        self._dictionaries = dictionaries
        self._max_bytes = max_bytes
        self._checked: tuple[_Pairs, _Pairs] | None = None
        """Its nodes and places, of values that are as ``write_stream`` writes them."""

    def encode(self, coders: tuple[Coder, ...], width: int) -> bytes | None:
        """What ``kernels.encode_batch`` makes of it, unless ``stream`` is no copy."""
        _, nodes, places, _, body = self._record
        if len(body) > MAX_COPIED_BYTES:
            return None
        cells = encode_batch(body, nodes, places, self.rows, coders, width)
        if cells is not None:
            self._checked = nodes, places
        return cells

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns by name. Raises InvalidInput."""
        buffers = _Buffers(self._record, self._max_bytes)
        try:
            columns = {field.name: self._read_column(buffers, field) for field in self.fields}
        except DAMAGE as error:
            raise _malformed(str(error)) from None
        if buffers.is_plain:
            self._checked = buffers.read_nodes, buffers.read_places
        return columns

    @property
    def stream(self) -> bytes:
        """What ``write_stream`` makes of the columns; nothing where that takes more than a copy.

        Its metadata is made here: who reads the stream sees no byte of the sender's that was not checked.
        Raises InvalidInput.
        """
        schema, body = _copied_schema(self.fields), self._record.body
        if schema is None or len(body) > MAX_COPIED_BYTES:
            return b""
        if self._checked is None:
            _ = self.columns  # to read them is to check them
        if self._checked is None:
            return b""
        padding = bytes(-len(body) % 8)
        head = _batch_message(self.rows, *self._checked, len(body) + len(padding))
        return b"".join((schema, head, body, padding, END_OF_STREAM))

    def _read_column(self, buffers: "_Buffers", field: Field) -> Column:
        if field.places is None:
            return Column(buffers.read(field))
        indices = buffers.read(Field(field.name, Type(Kind.INTEGER, field.places)))
        values = self._dictionaries.get(field.dictionary)
        if values is None:
            raise ValueError(f"the dictionary of column {field.name!r} is missing")
        used = indices.array[indices.valid]
        if len(used) and not (used.min() >= 0 and used.max() < len(values)):
            raise ValueError(f"column {field.name!r} points beyond its dictionary")
        if len(used) < len(indices):  # a null row points to a null that is put behind all values
            padding = [(0, 1), *[(0, 0)] * (values.array.ndim - 1)]
            values = Values(
                values.kind, np.append(values.valid, False), np.pad(values.array, padding), values.text
            )
        return Column(values, np.where(indices.valid, indices.array, len(values) - 1).astype(np.int64))


class BatchReader:
    """Takes a stream in pieces and gives its record batches, each as soon as it is whole.

    Raises InvalidInput for a stream that is damaged, holds what is not read here, or has a message of more
    than ``max_batch_bytes`` or ``max_batch_rows``.
    """

    def __init__(self, *, max_batch_bytes: int, max_batch_rows: int) -> None:
        self._max_bytes = max_batch_bytes
        self._max_rows = max_batch_rows
        self._rest = bytearray()
        self._wanted = PREFIX.size
        self._ended = False
        self._batches = self._rows = 0
        self._fields: tuple[Field, ...] | None = None
        self._dictionaries: dict[int, Values] = {}

    def feed(self, piece: bytes) -> list[Batch]:
        if self._rest:
            self._rest += piece
            if len(self._rest) < self._wanted:
                return []
            piece = bytes(self._rest)
            self._rest.clear()
        rest, batches = memoryview(piece), []
        try:
            while len(rest) >= self._wanted:
                message, size = self._next_message(rest)
                rest = rest[size:]
                if message is not None and (batch := self._read(message)) is not None:
                    batches.append(batch)
                    self._count(batch)
        except DAMAGE as error:
            raise _malformed(str(error)) from None
        self._rest += rest
        return batches

    def _count(self, batch: Batch) -> None:
        self._batches += 1
        self._rows += batch.rows
        if self._batches > MAX_SMALL_BATCHES and self._rows < self._batches * SMALL_BATCH:
            raise fault(
                "too_many_batches",
                f"More than {MAX_SMALL_BATCHES} record batches have less than {SMALL_BATCH} rows on average. "
                "Join them before you send (pyarrow: Table.combine_chunks).",
            )

    def end(self) -> list[Batch]:
        if not self._ended:
            raise _malformed("it does not end with its end-of-stream marker. Close the writer before sending")
        return []

    def _next_message(self, rest: memoryview) -> "tuple[_Message | None, int]":
        """The message at the front and its bytes; None where more bytes are wanted first."""
        if self._ended:
            raise ValueError("bytes follow its end-of-stream marker")
        marker, size = PREFIX.unpack_from(rest)
        if marker != CONTINUATION or not 0 <= size <= MAX_METADATA_BYTES:
            raise ValueError("it is not in the IPC streaming format (Feather, the file format, is another)")
        if size == 0:
            if self._fields is None:
                raise ValueError("it has no schema")
            self._ended = True
            self._wanted = 1
            return None, PREFIX.size
        self._wanted = body = PREFIX.size + size
        if len(rest) < body:
            return None, 0
        head = _Table.root(bytes(rest[PREFIX.size : body]))
        body_size = head.number(3, "<q")
        if not 0 <= body_size <= self._max_bytes:
            raise fault(
                "batch_too_large",
                f"A record batch of the stream has {body_size} bytes, of at most {self._max_bytes}. "
                "Write it in smaller batches (pyarrow: max_chunksize).",
            )
        self._wanted = end = body + body_size
        if len(rest) < end:
            return None, 0
        self._wanted = PREFIX.size
        return _Message(head.number(1, "<B"), head.table(2), rest[body:end]), end

    def _read(self, message: "_Message") -> Batch | None:
        if message.type == 1:
            if self._fields is not None:
                raise ValueError("it has two schemas")
            self._fields = _read_schema(message.header.data.tobytes())
        elif self._fields is None:
            raise ValueError("it does not begin with a schema")
        elif message.type == 2:
            self._read_dictionary(message, self._fields)
        elif message.type == 3:
            record = _Record.read(message.header, message.body, self._max_rows)
            return Batch(record, self._fields, self._dictionaries.copy(), self._max_bytes)
        else:
            raise ValueError("it holds messages other than record batches")
        return None

    def _read_dictionary(self, message: "_Message", fields: tuple[Field, ...]) -> None:
        number = message.header.number(0, "<q")
        if message.header.number(2, "<?"):
            raise ValueError("a dictionary is sent in parts (deltas). Write each whole")
        field = next((field for field in fields if field.places and field.dictionary == number), None)
        if field is None:
            raise ValueError("a dictionary belongs to no column")
        record = _Record.read(message.header.table(1), message.body, self._max_rows)
        self._dictionaries[number] = _Buffers(record, self._max_bytes).read(field)


def _malformed(why: str) -> InvalidInput:
    return fault("malformed_arrow", f"The body cannot be read as an Arrow IPC stream: {why}.")


# ── Metadata ─────────────────────────────────────────────────────────────────────────────────────


class _Table(NamedTuple):
    """A FlatBuffers table: its fields are numbered, and one that is absent has its default."""

    data: memoryview
    at: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(memoryview(data), 0)._follow(0)

    def number(self, field: int, form: str, default: int = 0) -> int:
        at = self._place(field)
        value: int = struct.unpack_from(form, self.data, at)[0] if at else default
        return value

    def table(self, field: int) -> "_Table":
        if not (at := self._place(field)):
            raise ValueError("its metadata lacks a field")
        return self._follow(at)

    def has(self, field: int) -> bool:
        return bool(self._place(field))

    def vector(self, field: int, dtype: Any) -> NDArray[Any]:
        """A vector of numbers or structs; empty where it is absent."""
        if not (at := self._place(field)):
            return np.empty(0, dtype)
        start = self._follow(at).at
        count: int = struct.unpack_from("<I", self.data, start)[0]
        return _array(self.data[start + 4 :], dtype, count)

    def tables(self, field: int) -> Iterator["_Table"]:
        if at := self._place(field):
            start = self._follow(at).at + 4
            for item in range(len(self.vector(field, "<u4"))):
                yield self._follow(start + 4 * item)

    def text(self, field: int) -> str:
        return self.vector(field, np.uint8).tobytes().decode()

    def _place(self, field: int) -> int:
        """Where the field stands, or 0."""
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        slot = 4 + 2 * field
        if vtable < 0 or slot >= struct.unpack_from("<H", self.data, vtable)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self.data, vtable + slot)[0]
        return self.at + offset if offset else 0

    def _follow(self, at: int) -> "_Table":
        return _Table(self.data, at + struct.unpack_from("<I", self.data, at)[0])


class _Message(NamedTuple):
    type: int
    header: _Table
    body: memoryview


NOT_READ = {
    4: "binary", 7: "decimal", 9: "time of day", 11: "interval", 12: "list", 13: "struct", 14: "union",
    15: "fixed-size binary", 16: "fixed-size list", 17: "map", 18: "duration", 19: "binary", 21: "list",
    22: "run-end encoded", 23: "binary", 25: "list", 26: "list",
}  # fmt: skip


@lru_cache(maxsize=16)
def _read_schema(metadata: bytes) -> tuple[Field, ...]:
    schema = _Table.root(metadata).table(2)
    if schema.number(0, "<h"):
        raise ValueError("it is big-endian")
    fields: dict[str, Field] = {}
    for table in schema.tables(1):
        field = _read_field(table)
        if field.name in fields:
            raise ValueError(f"two columns have the name {field.name!r}")
        fields[field.name] = field
    return tuple(fields.values())


def _read_field(field: _Table) -> Field:
    name, number = field.text(0), field.number(2, "<B")
    if number in NOT_READ:
        raise fault(
            "unsupported_type",
            f"Column {name!r} has the Arrow type {NOT_READ[number]}, which no column of a model has. "
            "Convert it to integers, floats, booleans, strings, dates or timestamps, or leave it out.",
            "columns",
            name,
        )
    type_ = Type(Kind.NULL) if number == 1 else _read_type(number, field.table(3))
    if not field.has(4):
        return Field(name, type_)
    encoding = field.table(4)
    places = _integer_dtype(encoding.table(1)) if encoding.has(1) else "<i4"
    return Field(name, type_, places, encoding.number(0, "<q"))


def _read_type(number: int, details: _Table) -> Type:
    match number:
        case 2:
            return Type(Kind.INTEGER, _integer_dtype(details))
        case 3:
            return Type(Kind.FLOAT, ("<f2", "<f4", "<f8")[details.number(0, "<h")])
        case 5:
            return Type(Kind.TEXT, "<i4")
        case 20:
            return Type(Kind.TEXT, "<i8")
        case 24:
            return Type(Kind.TEXT)
        case 6:
            return Type(Kind.BOOLEAN)
        case 8 if details.number(0, "<h", default=1) == 0:
            return Type(Kind.DATE, "<i4", seconds=86_400)
        case 8:
            return Type(Kind.DATE, "<i8", parts=10**3)
        case 10:
            return Type(Kind.TIME, "<i8", parts=(1, 10**3, 10**6, 10**9)[details.number(0, "<h")])
    raise ValueError("a column has an unknown type")


def _integer_dtype(details: _Table) -> str:
    signed, size = details.number(1, "<?"), details.number(0, "<i") // 8
    if size not in (1, 2, 4, 8):
        raise ValueError("a column of integers has an unknown width")
    return f"<{'i' if signed else 'u'}{size}"


# ── Buffers ──────────────────────────────────────────────────────────────────────────────────────


_PAIR = np.dtype([("first", "<i8"), ("second", "<i8")])
_Pairs = NDArray[np.void]


class _Record(NamedTuple):
    """What the metadata of a record batch says, and its body."""

    rows: int
    nodes: _Pairs
    """How many values each column has, and how many of them are null."""
    places: _Pairs
    """Where in the body each buffer begins, and its size."""
    view_buffers: NDArray[np.int64]
    body: memoryview

    @classmethod
    def read(cls, batch: _Table, body: memoryview, max_rows: int) -> "_Record":
        if batch.has(3):
            raise ValueError("its batches are compressed. Write them without compression")
        rows = batch.number(0, "<q")
        if not 0 <= rows <= max_rows:
            raise fault(
                "batch_too_large",
                f"A record batch of the stream has {rows} rows, of at most {max_rows}. "
                "Write it in smaller batches (pyarrow: max_chunksize).",
            )
        return cls(rows, batch.vector(1, _PAIR), batch.vector(2, _PAIR), batch.vector(4, "<i8"), body)


class _Buffers:
    """Reads the buffers of one record batch, column by column."""

    def __init__(self, record: _Record, max_bytes: int) -> None:
        self.rows = record.rows
        self._body = record.body
        self._max_bytes = max_bytes
        self._nodes = iter(record.nodes.tolist())
        self._places = iter(record.places.tolist())
        self._view_buffers = iter(record.view_buffers.tolist())
        self._read_nodes: list[tuple[int, int]] = []
        self._read_places: list[tuple[int, int]] = []
        self.is_plain = True
        """Whether ``write_stream`` would write the values as they were read."""

    @property
    def read_nodes(self) -> _Pairs:
        return np.array(self._read_nodes, _PAIR)

    @property
    def read_places(self) -> _Pairs:
        return np.array(self._read_places, _PAIR)

    def read(self, field: Field) -> Values:
        """The values of the next column, which the field describes; a dictionary's own are its ``type``'s."""
        rows, nulls = _next(self._nodes)
        if rows != self.rows:
            raise ValueError(f"column {field.name!r} is longer or shorter than its batch")
        kind = field.type.kind
        if kind is Kind.NULL:
            nothing = np.broadcast_to(np.False_, rows)  # such a column sends no bytes, and takes none
            return Values(kind, nothing, nothing)
        bitmap = self._take()
        if nulls:
            valid = _bits(bitmap, rows)
            nulls = rows - int(np.count_nonzero(valid))
        else:
            valid = np.ones(rows, np.bool_)
            self._read_places[-1] = (0, 0)
        self._read_nodes.append((rows, nulls))
        match kind:
            case Kind.TEXT:
                text, array = self._read_text(field.type, valid)
                values = Values(kind, valid, array, text)
                _check_text(field, values)
                return values
            case Kind.BOOLEAN:
                return Values(kind, valid, _bits(self._take(), rows))
            case Kind.DATE | Kind.TIME:
                array = _array(self._take(), field.type.dtype, rows)
                return Values(kind, valid, _microseconds(field, array, valid))
        array = _array(self._take(), field.type.dtype, rows)
        if kind is Kind.FLOAT:
            array = array.astype(np.float64, copy=False)  # not every reader knows the 16 bits
            missing = np.isnan(array)
            if missing.any():  # null, as in JSON
                valid &= ~missing
                self.is_plain = False
        return Values(kind, valid, array)

    def _take(self) -> memoryview:
        start, size = _next(self._places)
        if start < 0 or size < 0 or start + size > len(self._body):
            raise ValueError("a buffer lies outside of its batch")
        self._read_places.append((start, size))
        return self._body[start : start + size]

    def _read_text(self, type_: Type, valid: Flags) -> tuple[bytes, NDArray[np.int64]]:
        if not type_.dtype:
            return self._read_views(valid)
        offsets, text = self._take(), bytes(self._take())
        if not len(valid):
            return b"", np.empty((0, 2), np.int64)
        bounds = _array(offsets, type_.dtype, len(valid) + 1)
        pairs = np.empty((len(valid), 2), np.int64)
        pairs[:, 0], pairs[:, 1] = bounds[:-1], bounds[1:]
        if bounds[0] < 0 or bounds[-1] > len(text) or (pairs[:, 1] < pairs[:, 0]).any():
            raise ValueError("the offsets of a text column are wrong")
        return text, pairs

    def _read_views(self, valid: Flags) -> tuple[bytes, NDArray[np.int64]]:
        """A view holds up to 12 bytes itself; a longer text stands in one of the buffers that follow."""
        views = _array(self._take(), "<i4", 4 * len(valid)).reshape(-1, 4)
        buffers = [bytes(self._take()) for _ in range(_next(self._view_buffers))]
        lengths = np.where(valid, views[:, 0], 0).astype(np.int64)
        if (lengths < 0).any() or lengths.sum() > self._max_bytes:  # many views may show one long text
            raise ValueError("the views of a text column are wrong, or show more text than a batch may have")
        short = lengths <= 12
        own = views[:, 1:].view(np.uint8)[np.arange(12) < np.where(short, lengths, 0)[:, None]].tobytes()
        starts = np.cumsum(np.where(short, lengths, 0)) - lengths
        bases = np.cumsum([len(own), *map(len, buffers)])
        of, offset, size = views[~short, 2], views[~short, 3].astype(np.int64), lengths[~short]
        if ((of < 0) | (of >= len(buffers)) | (offset < 0)).any():
            raise ValueError("the views of a text column are wrong")
        starts[~short] = bases[of] + offset
        if (starts[~short] + size > bases[of + 1]).any():
            raise ValueError("the views of a text column are wrong")
        return own + b"".join(buffers), np.stack((starts, starts + lengths), axis=1)


def _next(items: Iterator[Any]) -> Any:
    try:
        return next(items)
    except StopIteration:
        raise ValueError("a batch has fewer buffers than its columns need") from None


def _array(data: bytes | memoryview, dtype: Any, count: int) -> NDArray[Any]:
    size = np.dtype(dtype).itemsize * count
    if size > len(data):
        raise ValueError("a buffer is shorter than what it should hold")
    return np.frombuffer(data[:size], dtype) if size else np.empty(0, dtype)


def _bits(data: memoryview, count: int) -> Flags:
    return np.unpackbits(_array(data, np.uint8, -(-count // 8)), count=count, bitorder="little").view(
        np.bool_
    )


def _check_text(field: Field, values: Values) -> None:
    """Raises ValueError unless each value is UTF-8, InvalidInput where one holds U+0000."""
    text = values.text
    if not text.isascii():
        text.decode()
        inside = np.append(np.frombuffer(text, np.uint8) & 0xC0 == 0x80, False)
        if inside[values.array].any():
            raise ValueError("a text begins or ends inside a character")
    if b"\0" in text:
        for row in np.flatnonzero(values.valid).tolist():
            if "\0" in str(values[row]):
                raise _cell_fault(field, row, NULL_CHARACTER)


def _microseconds(field: Field, ticks: NDArray[Any], valid: Flags) -> NDArray[np.int64]:
    """Microseconds since 1970; finer parts are cut off, as they are of the digits of a time in JSON."""
    parts = field.type.parts
    times = np.where(valid, ticks, 0).astype(np.int64) * field.type.seconds
    if parts > 10**6:  # 64 bits of nanoseconds reach from 1677 to 2262
        return times // (parts // 10**6)
    wrong = (times < FIRST_SECOND * parts) | (times >= (LAST_SECOND + 1) * parts)
    if wrong.any():
        what = "the time is not in the years 1 to 9999. Send another or null."
        raise _cell_fault(field, int(wrong.argmax()), what)
    return times * (10**6 // parts)


def _cell_fault(field: Field, row: int, what: str) -> InvalidInput:
    detail = f"Column {field.name!r}, row {row}: {what}"
    return fault("value_out_of_range", detail, "columns", field.name, row)


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────


class Written(NamedTuple):
    """A column as the body of a record batch has it: behind its bitmap, which is empty without nulls."""

    nulls: int
    buffers: Sequence[bytes]


def write_start(types: Mapping[str, str], metadata: Mapping[str, str] | None = None) -> bytes:
    """The begin of a stream: its schema, of columns and the constructors of their types in arro3."""
    return _write_schema(tuple(types.items()), tuple((metadata or {}).items()))


def write_batch(rows: int, columns: Iterable[Written]) -> bytes:
    """A record batch of so many rows."""
    nodes, places, size = [], [], 0
    body: list[bytes] = []
    for nulls, buffers in columns:
        nodes.append((rows, nulls))
        for buffer in buffers:
            places.append((size, len(buffer)))
            padding = bytes(-len(buffer) % 8)
            body += (buffer, padding)
            size += len(buffer) + len(padding)
    return b"".join((_batch_message(rows, np.array(nodes, _PAIR), np.array(places, _PAIR), size), *body))


def write_stream(columns: Mapping[str, Values], metadata: Mapping[str, str] | None = None) -> bytes:
    """A whole stream of one batch, of columns of one length."""
    types = {name: arrow_type(values) for name, values in columns.items()}
    rows = max(map(len, columns.values()), default=0)
    batch = write_batch(rows, map(write_column, columns.values()))
    return write_start(types, metadata) + batch + END_OF_STREAM


def write_column(values: Values) -> Written:
    """A column of the type that ``write_stream`` gives such values."""
    if values.kind is Kind.NULL:
        return Written(len(values), ())
    nulls = len(values) - int(np.count_nonzero(values.valid))
    bitmap = np.packbits(values.valid, bitorder="little").tobytes() if nulls else b""
    return Written(nulls, (bitmap, *_write_values(values)))


def arrow_type(values: Values) -> str:
    """The name of the type's constructor in arro3."""
    match values.kind:
        case Kind.INTEGER | Kind.FLOAT:
            return values.array.dtype.name
        case Kind.DATE:
            return "date32"
        case Kind.BOOLEAN:
            return "bool"
        case Kind.TEXT:
            return "large_utf8"
    return str(values.kind)


class _Names(NamedTuple):
    """What others call a type: arro3 its constructor, and Arrow's C data interface."""

    constructor: str
    format: str


_COPIED_TYPES = {
    **{Type(Kind.INTEGER, f"<{letter}{size}"): _Names(f"{name}{8 * size}", format_)
       for letter, name, formats in (("i", "int", "csil"), ("u", "uint", "CSIL"))
       for size, format_ in zip((1, 2, 4, 8), formats, strict=True)},
    Type(Kind.FLOAT, "<f8"): _Names("float64", "g"),
    Type(Kind.BOOLEAN): _Names("bool", "b"),
    Type(Kind.TEXT, "<i4"): _Names("utf8", "u"),
    Type(Kind.TEXT, "<i8"): _Names("large_utf8", "U"),
    Type(Kind.DATE, "<i4", seconds=86_400): _Names("date32", "tdD"),
    Type(Kind.TIME, "<i8", parts=10**6): _Names(str(Kind.TIME), "tsu:"),
}  # fmt: skip
"""Types whose values are written as they are read."""


@lru_cache(maxsize=16)
def _copied_schema(fields: tuple[Field, ...]) -> bytes | None:
    """The begin of a stream of columns of such types."""
    if not all(field.format for field in fields):
        return None
    return _write_schema(tuple((field.name, _COPIED_TYPES[field.type].constructor) for field in fields), ())


@lru_cache(maxsize=1000)
def _write_schema(types: tuple[tuple[str, str], ...], metadata: tuple[tuple[str, str], ...]) -> bytes:
    from arro3.core import DataType, Schema  # for those few who ask in Arrow
    from arro3.core import Field as ArrowField
    from arro3.io import write_ipc_stream

    fields = [
        ArrowField(name, DataType.timestamp("us") if type_ == Kind.TIME else getattr(DataType, type_)())
        for name, type_ in types
    ]
    written = io.BytesIO()
    write_ipc_stream(Schema(fields, metadata=dict(metadata)).empty_table(), written, compression=None)
    return written.getvalue()[: -len(END_OF_STREAM)]


def _write_values(values: Values) -> list[bytes]:
    array = values.array
    match values.kind:
        case Kind.BOOLEAN:
            return [np.packbits(array, bitorder="little").tobytes()]
        case Kind.DATE:
            return [(array // (86_400 * 10**6)).astype("<i4").tobytes()]
        case Kind.TEXT:
            starts, ends = array[:, 0], array[:, 1]
            if len(array) and (starts[1:] == ends[:-1]).all():
                bounds = np.append(starts, ends[-1])
                return [(bounds - bounds[0]).tobytes(), values.text[bounds[0] : bounds[-1]]]
            lengths = np.where(values.valid, ends - starts, 0)
            bounds = np.append(0, np.cumsum(lengths))
            # The place of each byte: those of a value follow its start.
            places = np.arange(bounds[-1]) + np.repeat(starts - bounds[:-1], lengths)
            return [bounds.tobytes(), np.frombuffer(values.text, np.uint8)[places].tobytes()]
    return [array.tobytes()]


def _batch_message(rows: int, nodes: _Pairs, places: _Pairs, body_size: int) -> bytes:
    """The metadata of a record batch, as ``_Record`` has it.

    Two tables, each behind its vtable, then the two vectors. The numbers in a comment are places.
    """
    head = struct.pack(
        "<I6H iIqHBx 5H2x iIqII",
        16,  # 0: the root is the table at 16
        12, 20, 16, 18, 4, 8,  # 4: the message's vtable: its size, its table's, the fields' places in that
        16 - 4, 48 - 20, body_size, 4, 3,  # 16: the message: header (at 20), body's size, V5, record batch
        10, 20, 8, 4, 16,  # 36: the batch's vtable
        48 - 36, 68 - 52, rows, 76 + 16 * len(nodes) - 64, len(nodes),  # 48: the batch; 68: its nodes
    )  # fmt: skip
    metadata = b"".join((head, nodes.tobytes(), bytes(4), struct.pack("<I", len(places)), places.tobytes()))
    return PREFIX.pack(CONTINUATION, len(metadata)) + metadata
