"""The tensors of the Open Inference Protocol: their datatypes, and their elements in JSON and binary form."""

import base64
from collections.abc import Callable, Iterable
from itertools import chain
from math import inf, prod
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from app.columns import ColumnType
from app.errors import InvalidInput
from app.registry.signature import Feature

INTEGERS = {
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}
FLOATS = {f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)}
BINARY_FORMS = {"BOOL": "<u1", **INTEGERS, **FLOATS}
"""The numpy type of each datatype's elements in binary form; BYTES have a form of their own."""

JSON_TYPES: dict[str, tuple[frozenset[type], str]] = {
    "BOOL": (frozenset({bool, type(None)}), "true or false"),
    **dict.fromkeys(INTEGERS, (frozenset({int, type(None)}), "integers")),
    **dict.fromkeys(FLOATS, (frozenset({int, float, type(None)}), "numbers")),
    "BYTES": (frozenset({str, type(None)}), "strings"),
}
"""What the elements of a datatype are in JSON, null being a missing value."""

NUMERIC = frozenset({*INTEGERS, *FLOATS})
DATATYPES: dict[ColumnType, frozenset[str]] = {
    ColumnType.INTEGER: NUMERIC,
    ColumnType.NUMBER: NUMERIC,
    ColumnType.BOOLEAN: frozenset({"BOOL"}),
    ColumnType.STRING: frozenset({"BYTES"}),
    ColumnType.DATE: frozenset({"BYTES"}),
    ColumnType.DATETIME: frozenset({"BYTES"}),
}
"""The datatypes that a column can be sent in."""

Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Shape = Annotated[list[Size], msgspec.Meta(max_length=8)]


class Parameters(msgspec.Struct):
    binary_data_size: Size | None = None
    binary_data: bool | None = None
    binary_data_output: bool | None = None
    content_type: str | None = None
    classification: Any = None
    shared_memory_region: Any = None


class InputTensor(msgspec.Struct):
    name: str
    shape: Shape
    datatype: str
    data: list[Any] | None = None
    parameters: Parameters | None = None


class Column(NamedTuple):
    """The flat elements of an input, None where they are missing."""

    name: str
    shape: list[int]
    datatype: str
    content_type: str | None
    values: list[Any]


class OutputTensor(NamedTuple):
    name: str
    datatype: str
    shape: list[int]
    values: Iterable[Any]
    parameters: dict[str, Any] = {}


def datatype_of(feature: Feature) -> str:
    """The datatype that tells every value of the column: a nullable integer is FP64, for it may be NaN."""
    match feature.type:
        case ColumnType.INTEGER if not feature.nullable:
            return "INT64"
        case ColumnType.INTEGER | ColumnType.NUMBER:
            return "FP64"
        case ColumnType.BOOLEAN:
            return "BOOL"
    return "BYTES"


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────


def read_input(tensor: InputTensor, binary: memoryview) -> tuple[Column, memoryview]:
    """The input's elements, and what is left of the binary data."""
    parameters = tensor.parameters or Parameters()
    if tensor.datatype not in JSON_TYPES:
        raise refused(
            f"Input {tensor.name!r} has the datatype {tensor.datatype!r}; it must be one of "
            f"{', '.join(JSON_TYPES)}."
        )
    if parameters.shared_memory_region is not None:
        raise refused(f"Input {tensor.name!r} is in shared memory, which is not read here; send its data.")
    size = parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise refused(f"Input {tensor.name!r} must have either data or binary_data_size.")
    if size is None:
        values = _read_elements(tensor, tensor.data or [])
    else:
        if len(binary) < size:
            raise refused(
                f"Input {tensor.name!r} has binary_data_size {size}, but only {len(binary)} bytes are left "
                "after the JSON, whose length Inference-Header-Content-Length must tell."
            )
        values = _read_binary(tensor, binary[:size])
        binary = binary[size:]
    if tensor.datatype in FLOATS and (inf in values or -inf in values):
        raise refused(
            f"Input {tensor.name!r} holds an infinite number; send null or NaN where one is missing."
        )
    if tensor.datatype == "BYTES":
        values = _read_texts(tensor.name, parameters.content_type, values)
    return Column(tensor.name, tensor.shape, tensor.datatype, parameters.content_type, values), binary


def _read_elements(tensor: InputTensor, data: list[Any]) -> list[Any]:
    """The elements of ``data``, which may be flat or nested as its shape says."""
    values = data
    if data and isinstance(data[0], list):
        depth = [len(data)]
        for size in tensor.shape[1:]:
            if not all(isinstance(value, list) and len(value) == size for value in values):
                raise _misshapen(tensor, "its data is nested otherwise")
            depth.append(size)
            values = list(chain.from_iterable(values))
        if depth != tensor.shape:
            raise _misshapen(tensor, f"its data has {len(data)} rows")
    if len(values) != prod(tensor.shape):
        raise _misshapen(tensor, f"its data has {len(values)} elements")
    types, told = JSON_TYPES[tensor.datatype]
    if not types.issuperset(map(type, values)):
        place = next(place for place, value in enumerate(values) if type(value) not in types)
        raise refused(
            f"Input {tensor.name!r} has the datatype {tensor.datatype}, whose elements are {told} or null; "
            f"element {place} is not."
        )
    if tensor.datatype in INTEGERS:
        _check_range(tensor, [value for value in values if value is not None])
    return values


def _check_range(tensor: InputTensor, numbers: list[int]) -> None:
    bounds = np.iinfo(INTEGERS[tensor.datatype])
    if numbers and not bounds.min <= min(numbers) <= max(numbers) <= bounds.max:
        raise refused(
            f"Input {tensor.name!r} holds integers beyond {bounds.min} to {bounds.max}, the range of "
            f"{tensor.datatype}."
        )


def _read_binary(tensor: InputTensor, content: memoryview) -> list[Any]:
    count = prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return _read_bytes_elements(tensor, content, count)
    form = np.dtype(BINARY_FORMS[tensor.datatype])
    if len(content) != count * form.itemsize:
        raise _misshapen(
            tensor, f"its binary data has {len(content)} bytes, not {count} elements of {form.itemsize}"
        )
    values = np.frombuffer(content, form)
    if tensor.datatype == "BOOL":
        if values.size and values.max() > 1:
            raise refused(f"Input {tensor.name!r} is BOOL; its bytes must be 0 or 1.")
        values = values.astype(bool)
    return list(values.tolist())


def _read_bytes_elements(tensor: InputTensor, content: memoryview, count: int) -> list[str]:
    """Each element is its length in 4 bytes, little-endian, and then as many bytes of UTF-8."""
    texts: list[str] = []
    start = 0
    while start < len(content):
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        if end > len(content) or start + 4 > len(content):
            raise refused(f"Input {tensor.name!r}: the binary data of element {len(texts)} is cut short.")
        try:
            texts.append(str(content[start + 4 : end], "utf-8"))
        except UnicodeDecodeError:
            raise refused(f"Input {tensor.name!r}: element {len(texts)} is not UTF-8 text.") from None
        start = end
    if len(texts) != count:
        raise _misshapen(tensor, f"its binary data has {len(texts)} elements")
    return texts


def _read_texts(name: str, content_type: str | None, texts: list[str | None]) -> list[Any]:
    """The elements of a BYTES input, read as MLServer's codec of that content type wrote them."""
    if content_type not in CONTENT_TYPES:
        raise refused(
            f"Input {name!r} has the content type {content_type!r}; those of BYTES read here are "
            f"{', '.join(filter(None, CONTENT_TYPES))}."
        )
    decode = CONTENT_TYPES[content_type]
    values: list[Any] = list(texts)
    if decode is not None:
        for place, text in enumerate(texts):
            try:
                values[place] = None if text is None else decode(text)
            except (ValueError, RecursionError):  # binascii's and msgspec's errors are ValueErrors
                raise refused(f"Input {name!r}: element {place} is not {content_type}.") from None
    if any("\0" in value for value in values if isinstance(value, str)):
        raise refused(f"Input {name!r} holds a text with U+0000, which cannot be stored.")
    return values


def _decode_base64(text: str) -> str:
    return base64.b64decode(text.encode("ascii"), validate=True).decode()


CONTENT_TYPES: dict[str | None, Callable[[str], Any] | None] = {
    None: None,
    "str": None,
    "np": None,
    "pd": None,
    "datetime": None,
    "base64": _decode_base64,
    "pd_json": msgspec.json.Decoder(str | float | int | bool | None).decode,
}


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────


def write_binary(tensor: OutputTensor) -> bytes:
    if tensor.datatype == "BYTES":
        texts = [text.encode() for text in tensor.values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.array(tensor.values, BINARY_FORMS[tensor.datatype]).tobytes()


def _misshapen(tensor: InputTensor, found: str) -> InvalidInput:
    return refused(f"Input {tensor.name!r} has the shape {tensor.shape}, but {found}.")


def refused(detail: str) -> InvalidInput:
    return InvalidInput("invalid_inference_request", detail)
