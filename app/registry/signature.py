"""What a model version takes and gives: its signature, and the encoding of rows that it defines.

Every model of this server sees one float64 matrix. The signature alone decides each cell of it, so a
row's encoding, and with it the row's answer, cannot depend on the batch that it travels in.
"""

import json
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cached_property
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.columns import ColumnType
from app.errors import InputError, InvalidInput, pointer

OTHER_CATEGORY = -1.0
"""The code of a category that the model has not been shown."""

MAX_INPUT_ERRORS = 20

type_names = {
    ColumnType.INTEGER: "an integer",
    ColumnType.NUMBER: "a number",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.STRING: "a string",
    ColumnType.DATE: "an ISO 8601 date such as 2013-05-31",
    ColumnType.DATETIME: "an ISO 8601 time such as 2013-05-31T14:00:00Z",
}


class Role(StrEnum):
    """How a feature enters the model."""

    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    CATEGORICAL = "categorical"
    DATETIME = "datetime"


class Task(StrEnum):
    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class Feature(BaseModel):
    """One input column: its JSON type, its role, and what the training data held in it.

    ``categories`` are the known values in code order (category ``i`` is encoded as ``float(i)``), and
    ``minimum`` and ``maximum`` the range seen in training: a value outside is accepted.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    type: ColumnType
    role: Role
    nullable: bool
    categories: tuple[bool | int | str, ...] | None = None
    minimum: float | str | None = None
    maximum: float | str | None = None

    @cached_property
    def codes(self) -> dict[bool | int | str, float]:
        return {category: float(code) for code, category in enumerate(self.categories or ())}

    def encode(self, value: Any) -> float:
        """The matrix cell of one JSON value; null is NaN.

        Raises ValueError, with a sentence for the caller, where the value is not of the column's type.
        """
        if value is None or (isinstance(value, float) and value != value):  # a NaN token means null
            if not self.nullable:
                raise ValueError(
                    "must not be null: the training data held no null in this column. Send a value, or "
                    'train with "nullable": true for this feature.'
                )
            return nan
        number = self._parse(value)
        if self.role is Role.CATEGORICAL:
            return self.codes.get(value, OTHER_CATEGORY)
        return number

    def _parse(self, value: Any) -> float:
        match self.type:
            case ColumnType.NUMBER | ColumnType.INTEGER if type(value) in (int, float):
                try:
                    number = float(value)
                except OverflowError:
                    number = float("inf")
                if not isfinite(number):
                    raise ValueError("must be a finite number")
                if self.type is ColumnType.NUMBER or number.is_integer():
                    return number
            case ColumnType.BOOLEAN if type(value) is bool:
                return float(value)
            case ColumnType.STRING if type(value) is str:
                return nan
            case ColumnType.DATE | ColumnType.DATETIME if type(value) is str:
                try:
                    return parse_time(value)
                except (ValueError, OverflowError):
                    pass
        raise ValueError(f"must be {type_names[self.type]}, not {shown(value)}")


class Signature(BaseModel):
    """The columns a model version takes, in matrix order, and the target it answers with.

    ``ignored`` are columns of the training data that the model does not use: a row may carry a value of them.
    ``classes`` are the labels in the order of the probabilities (classifiers only).
    """

    model_config = ConfigDict(frozen=True)

    features: tuple[Feature, ...]
    ignored: tuple[str, ...] = ()
    target: str
    target_type: ColumnType
    task: Task
    classes: tuple[bool | int | float | str, ...] | None = None

    @cached_property
    def known_columns(self) -> frozenset[str]:
        return frozenset(self.ignored).union(feature.name for feature in self.features)

    def encode(self, rows: list[Any], *, root: str = "instances") -> NDArray[np.float64]:
        """Encode JSON rows as a float64 matrix of shape (len(rows), len(features)).

        Raises InvalidInput with a pointer to every wrong cell (the first 20 of them): a row that is not
        an object, a column that the model does not know, a missing column that may not be null, a value
        of the wrong type.
        """
        matrix = np.empty((len(rows), len(self.features)))
        errors: list[InputError] = []
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                errors.append(
                    InputError(pointer(root, index), "must be an object of column names and values")
                )
            else:
                self._encode_row(row, matrix[index], (root, index), errors)
            if len(errors) >= MAX_INPUT_ERRORS:
                break
        if errors:
            first = errors[0]
            raise InvalidInput(
                "invalid_instances",
                f"The rows do not fit the model's signature. {first.pointer}: {first.detail}",
                errors=errors[:MAX_INPUT_ERRORS],
            )
        return matrix

    def _encode_row(
        self,
        row: dict[str, Any],
        cells: NDArray[np.float64],
        at: tuple[str, int],
        errors: list[InputError],
    ) -> None:
        for position, feature in enumerate(self.features):
            try:
                if feature.name not in row and not feature.nullable:
                    raise ValueError(f"the column is missing; it must be {type_names[feature.type]}")
                cells[position] = feature.encode(row.get(feature.name))
            except ValueError as error:
                errors.append(InputError(pointer(*at, feature.name), str(error)))
        errors.extend(
            InputError(pointer(*at, name), f"must be a single value, not {shown(row[name])}")
            for name in self.ignored
            if isinstance(row.get(name), list | dict)
        )
        if not row.keys() <= self.known_columns:
            names = ", ".join(feature.name for feature in self.features)
            errors.extend(
                InputError(pointer(*at, name), f"the model has no such column; its columns are {names}")
                for name in row
                if name not in self.known_columns
            )


def parse_time(text: str) -> float:
    """Seconds since 1970-01-01T00:00:00Z of an ISO 8601 date or time; without a zone it is UTC.

    Raises ValueError where the text is neither.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def format_time(seconds: float, type_: ColumnType) -> str:
    """The ISO 8601 text of ``seconds`` since 1970: a date or a UTC time, as the column's type asks."""
    moment = datetime.fromtimestamp(seconds, UTC)
    if type_ is ColumnType.DATE:
        return date.isoformat(moment.date())
    return moment.isoformat().replace("+00:00", "Z")


def shown(value: Any) -> str:
    """A value's type, and the value where it is short: for error messages."""
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    kind = kinds.get(type(value), "object")
    text = json.dumps(value, ensure_ascii=False) if kind in ("boolean", "string") else repr(value)
    if len(text) <= 40 and not isinstance(value, list | dict):
        return f"the {kind} {text}"
    return f"an {kind}" if kind[0] in "aio" else f"a {kind}"
