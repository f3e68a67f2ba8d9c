"""Tables by column: values in numpy arrays, and their encoding against a signature."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.columns import ColumnType
from app.errors import InputError, InvalidInput, pointer
from app.registry.signature import (
    MAX_INPUT_ERRORS,
    OTHER_CATEGORY,
    Feature,
    Role,
    Signature,
    type_names,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXACT_IN_FLOAT = 2**53
LONGEST_KEY = 256  # bytes of a category that is looked up without a Python object

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

    def __getitem__(self, place: int) -> bool | int | float | str | None:
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


def encode_columns(
    signature: Signature, columns: Mapping[str, Column], rows: int, *, first: int = 0
) -> Floats:
    """The matrix, of shape (rows, features), that ``Signature.encode`` makes of the same values row by row.

    Raises InvalidInput as that does, with pointers such as ``/columns/distance/17``; ``first`` is the number
    of the first row.
    """
    matrix = np.empty((rows, len(signature.features)))
    names = ", ".join(feature.name for feature in signature.features)
    errors = [
        InputError(pointer("columns", name), f"the model has no such column; its columns are {names}")
        for name in columns
        if name not in signature.known_columns
    ]
    for position, feature in enumerate(signature.features):
        at = pointer("columns", feature.name)
        if (column := columns.get(feature.name)) is not None:
            matrix[:, position], faults = _encode_column(feature, column)
            errors += [InputError(f"{at}/{first + row}", detail) for row, detail in faults]
        elif feature.nullable:
            matrix[:, position] = np.nan
        else:
            errors.append(InputError(at, f"the column is missing; it must be {type_names[feature.type]}"))
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
    null = ~values.valid
    cells = np.full(len(values), np.nan)
    unsettled = np.zeros(len(values), np.bool_)
    match feature.type:
        case ColumnType.INTEGER | ColumnType.NUMBER if kind in (Kind.INTEGER, Kind.FLOAT):
            cells = array.astype(np.float64)
            unsettled = ~np.isfinite(cells)
            if feature.type is ColumnType.INTEGER and kind is Kind.FLOAT:
                unsettled |= cells != np.floor(cells)
        case ColumnType.BOOLEAN if kind is Kind.BOOLEAN:
            cells = array.astype(np.float64)
        case ColumnType.DATE | ColumnType.DATETIME if kind in (Kind.DATE, Kind.TIME):
            cells = array / 10**6
            unsettled = np.abs(array) > EXACT_IN_FLOAT  # the quotient would be rounded twice
        case ColumnType.STRING if kind is Kind.TEXT:
            pass
        case _:
            unsettled = ~unsettled
    if feature.role is Role.CATEGORICAL:
        if kind is Kind.TEXT:
            cells = _find_texts(feature.categories or (), values)
            unsettled |= array[:, 1] - array[:, 0] > LONGEST_KEY
        else:
            unsettled |= np.abs(cells) > EXACT_IN_FLOAT
            cells = _find_numbers(feature, cells)
    cells[null] = np.nan
    return cells, unsettled & ~null if feature.nullable else unsettled | null


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


# ── Categories of text ───────────────────────────────────────────────────────────────────────────


class _Texts(NamedTuple):
    """Known texts of at most ``longest`` bytes: their keys, sorted, and the code of each."""

    longest: int
    keys: NDArray[Any]
    codes: Floats


def _find_texts(categories: tuple[bool | int | str, ...], values: Values) -> Floats:
    """The codes of texts of at most ``LONGEST_KEY`` bytes."""
    known = _known_texts(categories)
    if not len(known.keys):
        return np.full(len(values), OTHER_CATEGORY)
    keys = _keys(values.text, values.array, known.longest)
    places = known.keys.searchsorted(keys)
    places[places == len(known.keys)] = 0
    return np.where(known.keys[places] == keys, known.codes[places], OTHER_CATEGORY)


@lru_cache(maxsize=1000)
def _known_texts(categories: tuple[bool | int | str, ...]) -> _Texts:
    codes, texts = [], []
    for code, category in enumerate(categories):
        if isinstance(category, str) and len(text := category.encode()) <= LONGEST_KEY:
            codes.append(float(code))
            texts.append(text)
    lengths = np.array([len(text) for text in texts], np.int64)
    ends = np.cumsum(lengths)
    longest = int(lengths.max(initial=0))
    keys = _keys(b"".join(texts), np.stack((ends - lengths, ends), axis=1), longest)
    order = np.argsort(keys)
    return _Texts(longest, keys[order], np.array(codes)[order])


_FIRST_BYTES = np.array([2 ** (8 * count) - 1 for count in range(9)], np.uint64)


def _keys(text: bytes, bounds: NDArray[np.int64], longest: int) -> NDArray[Any]:
    """A key of each text; those of texts of at most ``longest`` bytes are equal for equal texts only.

    The key holds the text's length and its bytes in words of 8, filled up with zeros: in one integer where
    seven bytes are enough, else in one word of each.
    """
    starts = bounds[:, 0]
    lengths = bounds[:, 1] - starts
    # Every place of the text read as the begin of a word.
    at = np.ndarray((len(text) + 1,), "<u8", text + bytes(8), strides=(1,))
    if longest < 8:
        counts = np.minimum(lengths, 8)
        key: NDArray[np.uint64] = at[starts] & _FIRST_BYTES[np.minimum(counts, 7)]
        key |= counts.view(np.uint64) << 56
        return key
    words = -(-longest // 8)
    keys = np.empty((len(bounds), words + 1), np.uint64)
    keys[:, 0] = lengths
    for word in range(words):
        begins = np.minimum(starts + 8 * word, len(text))
        keys[:, word + 1] = at[begins] & _FIRST_BYTES[np.clip(lengths - 8 * word, 0, 8)]
    return keys.view(np.dtype((np.void, 8 * (words + 1))))[:, 0]
