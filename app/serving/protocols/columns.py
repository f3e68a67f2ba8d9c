"""Tables by column: values in numpy arrays, and their encoding against a signature."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.columns import ColumnType, Value
from app.errors import InputError, InvalidInput, pointer
from app.registry.signature import (
    MAX_INPUT_ERRORS,
    OTHER_CATEGORY,
    Feature,
    Role,
    Signature,
    type_names,
)
from app.serving.kernels import TextCodes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXACT_IN_FLOAT = 2**53

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Places = NDArray[np.int64]


class Kind(StrEnum):
    NULL = "null"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    TEXT = "text"
    DATE = "date"
    TIME = "time"


@dataclass(frozen=True)
class Values:
    """Values, one after the other; where ``valid`` is False they are null, and ``array`` holds anything.

    ``array`` holds numbers, booleans, or the microseconds since 1970 of dates and times. Of text it holds,
    in the shape (n, 2), where in the UTF-8 bytes ``text`` each value begins and ends.
    """

    kind: Kind
    valid: Flags
    array: NDArray[Any]
    text: bytes = b""

    def __len__(self) -> int:
        return len(self.valid)

    @property
    def text_size(self) -> int:
        """How many bytes the texts have together, one that several values share as often as they do."""
        if self.kind is not Kind.TEXT:
            return 0
        return int((self.array[:, 1] - self.array[:, 0]).sum(where=self.valid))

    def __getitem__(self, place: int) -> Value | None:
        """One value as JSON has it; dates and times are in ISO 8601."""
        if not self.valid[place]:
            return None
        if self.kind is Kind.TEXT:
            start, end = self.array[place]
            return self.text[start:end].decode()
        value: bool | int | float = self.array[place].item()
        if self.kind in (Kind.DATE, Kind.TIME):
            moment = EPOCH + timedelta(microseconds=value)
            return str(moment.date()) if self.kind is Kind.DATE else moment.isoformat()
        return value


class Column(NamedTuple):
    """A column: its rows' values, or, dictionary-encoded, the place in ``values`` of each row's."""

    values: Values
    places: Places | None = None

    def part(self, rows: slice) -> "Column":
        if self.places is not None:
            return Column(self.values, self.places[rows])
        values = self.values
        return Column(Values(values.kind, values.valid[rows], values.array[rows], values.text))

    def plain(self) -> Values:
        """The values row by row."""
        values, places = self
        if places is None:
            return values
        return Values(values.kind, values.valid[places], values.array[places], values.text)


class Coder(NamedTuple):
    """How ``kernels.encode_batch`` makes cells of a column of Arrow."""

    format: str
    """Of the values' type, in Arrow's C data interface."""
    place: int
    """The column of the matrix, or -1 for values that are only checked."""
    code: Literal["integer"] | TextCodes | None
    nullable: bool


def coder_of(feature: Feature, place: int, kind: Kind, format_: str) -> Coder | None:
    """The coder of a feature's values where arithmetic or a look-up of texts is all that they take."""
    code: Literal["integer"] | TextCodes | None = None
    match feature.role, feature.type, kind:
        case Role.CATEGORICAL, ColumnType.STRING, Kind.TEXT:
            code = _text_codes(feature.categories or ())
        case Role.CATEGORICAL | Role.TEXT, _, _:
            return None
        case _, ColumnType.INTEGER, Kind.FLOAT:
            code = "integer"
        case _, ColumnType.INTEGER | ColumnType.NUMBER, Kind.INTEGER | Kind.FLOAT:
            pass
        case _, ColumnType.BOOLEAN, Kind.BOOLEAN:
            pass
        case _, ColumnType.DATE | ColumnType.DATETIME, Kind.DATE | Kind.TIME:
            pass
        case _:
            return None
    return Coder(format_, place, code, feature.nullable)


def encode_columns(
    signature: Signature, columns: Mapping[str, Column], rows: int, *, first: int = 0
) -> Floats:
    """The matrix, of shape (rows, width), that ``Signature.encode`` makes of the same values row by row.

    Raises InvalidInput as that does, with pointers such as ``/columns/distance/17``; ``first`` is the number
    of the first row.
    """
    matrix = np.empty((rows, signature.width))
    errors = []
    if unknown := columns.keys() - signature.known_columns:
        names = ", ".join(feature.name for feature in signature.features)
        told = f"the model has no such column; its columns are {names}"
        errors = [InputError(pointer("columns", name), told) for name in columns if name in unknown]
    for place, feature in zip(signature.places, signature.features, strict=True):
        if (column := columns.get(feature.name)) is not None:
            matrix[:, place], faults = _encode_column(feature, column)
            errors += [
                InputError(pointer("columns", feature.name, first + row), detail) for row, detail in faults
            ]
        elif feature.nullable:
            matrix[:, place] = np.nan
        else:
            told = f"the column is missing; it must be {type_names[feature.type]}"
            errors.append(InputError(pointer("columns", feature.name), told))
        if len(errors) >= MAX_INPUT_ERRORS:
            break
    for name in columns.keys() & set(signature.ignored):
        values = columns[name].values
        if values.kind is Kind.FLOAT and np.isinf(values.array[values.valid]).any():
            errors.append(InputError(pointer("columns", name), "must hold finite numbers"))
    if errors:
        told = f"{errors[0].pointer}: {errors[0].detail}"
        raise InvalidInput(
            "invalid_instances",
            f"The columns do not fit the model's signature. {told}",
            errors=errors[:MAX_INPUT_ERRORS],
        )
    return matrix


def _encode_column(feature: Feature, column: Column) -> tuple[Floats, list[tuple[int, str]]]:
    """The cells of a column, and the first rows at fault with what is wrong in each."""
    values, places = column
    cells, unsettled = _encode_quickly(feature, values)
    if places is None and not unsettled.any():
        return cells, []
    faults: dict[int, str] = {}
    for place in np.flatnonzero(unsettled).tolist():
        try:
            cells[place] = feature.encode(values[place])
        except ValueError as error:
            faults[place] = str(error)
            if places is None and len(faults) >= MAX_INPUT_ERRORS:
                break
    if places is None:
        return cells, list(faults.items())
    rows = np.flatnonzero(np.isin(places, list(faults)))[:MAX_INPUT_ERRORS].tolist() if faults else []
    return cells[places], [(row, faults[int(places[row])]) for row in rows]


def _encode_quickly(feature: Feature, values: Values) -> tuple[Floats, Flags]:
    """The cells as far as arithmetic tells them, and where ``feature.encode`` must look at the value."""
    kind, array = values.kind, values.array
    if feature.role is Role.TEXT:
        unsettled = values.valid if feature.nullable else np.ones(len(values), np.bool_)
        return np.full((len(values), feature.width), np.nan), unsettled
    match feature.type:
        case ColumnType.INTEGER | ColumnType.NUMBER if kind in (Kind.INTEGER, Kind.FLOAT):
            cells = array.astype(np.float64)
            settled = np.isfinite(cells)
            if feature.type is ColumnType.INTEGER and kind is Kind.FLOAT:
                settled &= cells == np.floor(cells)
        case ColumnType.BOOLEAN if kind is Kind.BOOLEAN:
            cells = array.astype(np.float64)
            settled = np.ones(len(values), np.bool_)
        case ColumnType.DATE | ColumnType.DATETIME if kind in (Kind.DATE, Kind.TIME):
            cells = array / 10**6
            settled = np.abs(array) <= EXACT_IN_FLOAT  # else the quotient is rounded twice
        case ColumnType.STRING if kind is Kind.TEXT:
            cells = np.empty(len(values))
            settled = np.ones(len(values), np.bool_)
        case _:
            cells = np.empty(len(values))
            settled = np.zeros(len(values), np.bool_)
    if feature.role is Role.CATEGORICAL:
        if kind is Kind.TEXT:
            _text_codes(feature.categories or ()).find(values.text, np.ascontiguousarray(array), cells)
        else:
            settled &= np.abs(cells) <= EXACT_IN_FLOAT
            cells = _find_numbers(feature, cells)
    np.putmask(cells, ~values.valid, np.nan)
    return cells, values.valid > settled if feature.nullable else ~(values.valid & settled)


def _find_numbers(feature: Feature, numbers: Floats) -> Floats:
    """The codes of integers and booleans, of at most 53 bits."""
    known = np.array(
        sorted(
            (float(category), code) for category, code in feature.codes.items() if type(category) is not str
        )
    ).reshape(-1, 2)
    if not len(known):
        return np.full(len(numbers), OTHER_CATEGORY)
    places = np.minimum(np.searchsorted(known[:, 0], numbers), len(known) - 1)
    return np.where(known[places, 0] == numbers, known[places, 1], OTHER_CATEGORY)


@lru_cache(maxsize=1000)
def _text_codes(categories: tuple[bool | int | str, ...]) -> TextCodes:
    return TextCodes(
        tuple(category.encode() if isinstance(category, str) else None for category in categories)
    )
