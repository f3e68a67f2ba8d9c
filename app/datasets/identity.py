"""What a table is known by: a digest of its content. ``docs/content-digest.md`` says what it is made of."""

# ruff: noqa: S608 - every name in SQL is quoted by identifier()

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.columns import Column, ColumnType
from app.datasets.engine import Parquet, connect, identifier, one_file, parts_of, rows_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = b"roundhouse-table-1\n"
BATCH_ROWS = 131_072
"""Rows that DuckDB puts into one Arrow batch."""
BATCH_BYTES = 128 * 2**20
"""What a batch of one column may weigh."""
PORTION_BYTES = 24 * 2**20
"""What a batch of several columns may weigh."""
CELL_BYTES = 16
"""What a cell weighs besides its bytes in the file."""

VALUE_TYPES: dict[ColumnType, np.dtype[Any]] = {
    ColumnType.INTEGER: np.dtype("<i8"),
    ColumnType.NUMBER: np.dtype("<f8"),
    ColumnType.DATE: np.dtype("<i4"),
    ColumnType.DATETIME: np.dtype("<i8"),
}


def content_digest(parquet: Parquet, columns: Sequence[Column]) -> str:
    """``sha256:…`` of the columns' names and types and of their values in order.

    It depends neither on how the rows are divided into files and row groups, nor on how those are encoded.
    ``columns`` are those of a canonical table, in order.
    """
    hashed = [_HashedColumn(column.type) for column in columns]
    with connect(spill=None) as connection:
        connection.execute("SET threads = 1")  # more wait for the hashes, and hold rows meanwhile
        connection.execute("SET arrow_large_buffer_size = true")  # offsets of 64 bits
        connection.execute("SET parquet_metadata_cache = true")  # each portion would parse it anew
        for start, stop, batch_rows in _portions(connection, parquet, len(columns)):
            names = [identifier(column.name) for column in columns[start:stop]]
            for arrays in _batches(
                connection, f"SELECT {', '.join(names)} FROM {rows_of(parquet)}", batch_rows
            ):
                for content, array in zip(hashed[start:stop], arrays, strict=True):
                    content.update(array)
    digest = hashlib.sha256(FORMAT)
    digest.update(hashed[0].rows.to_bytes(8, "little"))
    for column, content in zip(columns, hashed, strict=True):
        digest.update(hashlib.sha256(column.name.encode()).digest())
        digest.update(hashlib.sha256(column.type.value.encode()).digest())
        digest.update(content.digest())
    return f"sha256:{digest.hexdigest()}"


def _portions(
    connection: DuckDBPyConnection, parquet: Parquet, columns: int
) -> Iterator[tuple[int, int, int]]:
    """Which columns to read at once, as ranges, and in batches of how many rows."""
    files = ", ".join(map(one_file, parts_of(parquet)))
    weights = connection.execute(
        f"SELECT sum(total_uncompressed_size) / sum(num_values) + {CELL_BYTES}, sum(num_values)::BIGINT"
        f" FROM parquet_metadata([{files}]) GROUP BY column_id ORDER BY column_id"
    ).fetchall()
    rows = min(BATCH_ROWS, weights[0][1])
    start, weight = 0, 0.0
    for stop in range(1, columns + 1):
        weight += weights[stop - 1][0]
        if stop == columns or (weight + weights[stop][0]) * rows > PORTION_BYTES:
            yield start, stop, int(min(BATCH_ROWS, max(1, BATCH_BYTES / weight)))
            start, weight = stop, 0.0


def _batches(connection: DuckDBPyConnection, query: str, batch_rows: int) -> Iterator[list[_ArrowArray]]:
    """The columns of each batch of the query's rows; they are gone when the next batch is asked for."""
    from arro3.core import RecordBatchReader  # a process that reads no table does without its memory

    offset, limit = 0, ""
    while True:
        if batch_rows < BATCH_ROWS:  # the size of a batch cannot be set
            limit = f" LIMIT {batch_rows} OFFSET {offset}"
        rows = 0
        for batch in RecordBatchReader.from_stream(connection.sql(query + limit)):
            rows += batch.num_rows
            _, capsule = batch.__arrow_c_array__()
            table = _ArrowArray.from_address(_address_in(capsule, b"arrow_array"))
            if batch.num_rows:
                yield [table.children[index].contents for index in range(table.n_children)]
            del batch, capsule, table  # before there is another beside it
        offset += rows
        if not limit or rows < batch_rows:
            return


class _HashedColumn:
    """The digests of one column's nulls and values, batch by batch."""

    def __init__(self, type_: ColumnType) -> None:
        self.rows = 0
        self._type = type_
        self._nulls = hashlib.sha256()
        self._values = hashlib.sha256()
        self._strings = hashlib.sha256()

    def update(self, array: _ArrowArray) -> None:
        validity, values, *strings = (array.buffers[index] for index in range(array.n_buffers))
        present: NDArray[np.bool_] | None = None
        if validity and array.null_count:
            present = _bits(validity, array).view(np.bool_)
            self._nulls.update((np.flatnonzero(~present) + self.rows).astype("<u8").data)
        self.rows += array.length
        if self._type is ColumnType.STRING:
            ends = _view(values, np.dtype("<i8"), array.offset, array.length + 1)
            cells: NDArray[Any] = np.diff(ends).astype("<u4")
            # A null has no bytes between its ends: DuckDB writes it so.
            start, stop = int(ends[0]), int(ends[-1])
            self._strings.update(_view(strings[0], np.dtype("u1"), start, stop - start).data)
        elif self._type is ColumnType.BOOLEAN:
            cells = _bits(values, array)
        else:
            cells = _view(values, VALUE_TYPES[self._type], array.offset, array.length)
        self._values.update((cells if present is None else cells[present]).data)

    def digest(self) -> bytes:
        return self._nulls.digest() + self._values.digest() + self._strings.digest()


# ── Arrow's C data interface ─────────────────────────────────────────────────────────────────────


class _ArrowArray(ctypes.Structure):
    """``struct ArrowArray`` of https://arrow.apache.org/docs/format/CDataInterface.html."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_address_in = ctypes.pythonapi.PyCapsule_GetPointer
_address_in.restype = ctypes.c_void_p
_address_in.argtypes = [ctypes.py_object, ctypes.c_char_p]


def _view(address: int | None, dtype: np.dtype[Any], start: int, count: int) -> NDArray[Any]:
    """``count`` items of the buffer from item ``start`` on, without a copy."""
    if not count:
        return np.empty(0, dtype)
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address((address or 0) + start * dtype.itemsize)
    found: NDArray[Any] = np.frombuffer(memoryview(memory), dtype)
    return found


def _bits(address: int | None, array: _ArrowArray) -> NDArray[np.uint8]:
    """The buffer's bits that belong to the array's rows, a byte each."""
    stop = array.offset + array.length
    packed = _view(address, np.dtype("u1"), 0, (stop + 7) // 8)
    return np.unpackbits(packed, count=stop, bitorder="little")[array.offset :]
