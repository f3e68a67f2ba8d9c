"""Rows of JSON, read against a signature: at once where they are as documented, else with an explanation.

The quick reader takes a part of what ``Signature.encode`` takes and reads it alike; whatever it does not
take is for ``Signature.encode`` to read or to refuse.
"""

import re
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.columns import ColumnType, Value
from app.registry.signature import Feature, Role, Signature
from app.serving.kernels import encode_row, encode_rows


class Rows(NamedTuple):
    """``size`` rows that fit a signature, and how they were sent.

    ``cells`` is their float64 matrix, row by row. ``inputs`` is JSON on one line: the array of the rows, or,
    where they came in Arrow, their IPC stream, of one batch.
    """

    size: int
    cells: bytes
    inputs: bytes
    is_arrow: bool = False

    @classmethod
    def of_arrow(cls, matrix: NDArray[np.float64], stream: bytes) -> Self:
        return cls(len(matrix), matrix.tobytes(), stream, is_arrow=True)

    @property
    def matrix(self) -> NDArray[np.float64]:
        return np.frombuffer(self.cells).reshape(self.size, -1)


class _Body(msgspec.Struct, gc=False):
    instances: msgspec.Raw


JSON_TYPES: dict[ColumnType, Any] = {
    ColumnType.NUMBER: float,
    ColumnType.INTEGER: int | float,  # 3.0 is an integer too
    ColumnType.BOOLEAN: bool,
    ColumnType.STRING: str,
    ColumnType.DATE: str,
    ColumnType.DATETIME: str,
}

UNNAMEABLE = re.compile(r'["\\\x00-\x1f]')
"""What the name of a msgspec field must not hold."""

SINGLE = Value | None

_USUAL = b'{"instances":'
_body = msgspec.json.Decoder(_Body)


class RowReader:
    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._coders = tuple(map(_coder, signature.features))
        fields: list[tuple[str, Any, Any]] = []
        for position, feature in enumerate(signature.features):
            type_ = _json_type(feature)
            default = None if feature.nullable else msgspec.NODEFAULT
            fields.append((f"f{position}", type_ | None if feature.nullable else type_, default))
        fields += [(f"i{position}", SINGLE, None) for position in range(len(signature.ignored))]
        names = [feature.name for feature in signature.features] + list(signature.ignored)
        self._decoder: msgspec.json.Decoder[list[Any]] | None = None
        has_text = any(feature.role is Role.TEXT for feature in signature.features)
        if has_text or any(map(UNNAMEABLE.search, names)):
            return
        row = msgspec.defstruct(
            "Row",
            fields,
            rename=dict(zip((field[0] for field in fields), names, strict=True)),
            forbid_unknown_fields=True,
            kw_only=True,
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(list[row])  # type: ignore[valid-type] # made at run time

    def read(self, body: bytes) -> Rows | None:
        """The rows of ``{"instances": [row, …]}``; None for what needs a closer look."""
        if self._decoder is None:
            return None
        try:
            if body.startswith(_USUAL) and body.endswith(b"]}"):  # nothing beside the rows: read them once
                inputs = body[len(_USUAL) : -1]
            else:
                inputs = bytes(_body.decode(body).instances)
            rows = self._decoder.decode(inputs)
            if not rows or (b"\\" in body and b"\\u0000" in body):  # the first look is 20 times the quicker
                return None
            if len(rows) == 1:
                cells = encode_row(msgspec.structs.astuple(rows[0]), self._coders)
            else:
                cells = encode_rows(list(map(msgspec.structs.astuple, rows)), self._coders)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return None
        if b"\n" in inputs or b"\r" in inputs:
            inputs = msgspec.json.format(inputs, indent=-1)
        return Rows(len(rows), cells, inputs)

    def encode(self, rows: list[Any], *, root: str = "instances") -> Rows:
        """JSON values that are read already. Raises InvalidInput as ``Signature.encode`` does."""
        matrix = self._signature.encode(rows, root=root)
        return Rows(len(rows), matrix.tobytes(), msgspec.json.encode(rows))


def _json_type(feature: Feature) -> Any:
    if feature.type is ColumnType.INTEGER and feature.role is Role.CATEGORICAL:
        return int  # a look-up would not see that 2.5 is no integer
    return JSON_TYPES[feature.type]


def _coder(feature: Feature) -> Any:
    """How ``kernels.encode_row`` makes a cell of a value that has the column's JSON type."""
    if feature.type in (ColumnType.DATE, ColumnType.DATETIME):
        return feature.encode
    if feature.role is Role.CATEGORICAL:
        return feature.codes
    return "integer" if feature.type is ColumnType.INTEGER else None
