"""What a model version takes and gives: its signature, and the encoding of rows that it defines.

Every model of this server sees one float64 matrix. The signature alone decides each cell of it, so a
row's encoding, and with it the row's answer, cannot depend on the batch that it travels in.
"""

import json
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cached_property
from itertools import accumulate, pairwise
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.columns import ColumnType, Value
from app.errors import InputError, InvalidInput, pointer

OTHER_CATEGORY = -1.0
"""The code of a category that the model has not been shown."""

MAX_INPUT_ERRORS = 20

_WORD = re.compile(r"\b\w\w+\b")

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
    TEXT = "text"


class Task(StrEnum):
    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class Feature(BaseModel):
    """One input column: its JSON type, its role, and what the training data held in it.

    ``categories`` are the known values in code order (category ``i`` is encoded as ``float(i)``), and
    ``minimum`` and ``maximum`` the range seen in training: a value outside is accepted. A text is encoded
    as counts: of the known ``tokens``, or of all tokens by the ``buckets`` that they are hashed to. Tokens
    are words and, where ``ngrams`` is 2, pairs of neighbouring words.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    type: ColumnType
    role: Role
    nullable: bool
    categories: tuple[bool | int | str, ...] | None = None
    minimum: float | str | None = None
    maximum: float | str | None = None
    tokens: tuple[str, ...] | None = None
    buckets: int | None = None
    ngrams: int = 1

    @cached_property
    def cell_names(self) -> list[str]:
        """What each of its columns in the matrix stands for: the feature itself, or counts of tokens."""
        if self.role is not Role.TEXT:
            return [self.name]
        if self.buckets is not None:
            return [f"{self.name} in bucket {bucket}" for bucket in range(self.buckets)]
        return [f"{self.name} has {json.dumps(token, ensure_ascii=False)}" for token in self.tokens or ()]

    @property
    def width(self) -> int:
        """How many columns of the matrix it takes."""
        return len(self.cell_names)

    @cached_property
    def codes(self) -> dict[bool | int | str, float]:
        return {category: float(code) for code, category in enumerate(self.categories or ())}

    @cached_property
    def token_places(self) -> dict[str, int]:
        return {token: place for place, token in enumerate(self.tokens or ())}

    def count_tokens(self, text: str) -> NDArray[np.float64]:
        """How often each token, or bucket, is in a text, shape (width,)."""
        counts = np.zeros(self.width)
        for token in split_text(text, self.ngrams):
            if self.buckets is not None:
                counts[zlib.crc32(token.encode("utf-8", "surrogatepass")) % self.buckets] += 1
            elif (place := self.token_places.get(token)) is not None:
                counts[place] += 1
        return counts

    def encode(self, value: Any) -> float | NDArray[np.float64]:
        """The matrix cell of one JSON value, or the cells of a text, shape (width,); null is NaN.

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
        match self.role:
            case Role.CATEGORICAL:
                return self.codes.get(value, OTHER_CATEGORY)
            case Role.TEXT:
                return self.count_tokens(value)
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
    ``classes`` are the labels in the order of the probabilities (classifiers only). ``costs[i][j]`` is what
    it costs to answer class ``j`` where class ``i`` is true; without them the most probable is answered.
    """

    model_config = ConfigDict(frozen=True)

    features: tuple[Feature, ...]
    ignored: tuple[str, ...] = ()
    target: str
    target_type: ColumnType
    task: Task
    classes: tuple[Value, ...] | None = None
    costs: tuple[tuple[float, ...], ...] | None = None

    @cached_property
    def known_columns(self) -> frozenset[str]:
        return frozenset(self.ignored).union(feature.name for feature in self.features)

    @cached_property
    def by_cell(self) -> tuple[Feature, ...]:
        """The feature of each column of the matrix."""
        return tuple(feature for feature in self.features for _ in range(feature.width))

    @cached_property
    def cell_names(self) -> list[str]:
        return [name for feature in self.features for name in feature.cell_names]

    @property
    def width(self) -> int:
        """How many columns the matrix has."""
        return len(self.by_cell)

    @cached_property
    def places(self) -> tuple[int | slice, ...]:
        """The column of each feature in the matrix; of a text the slice of its columns."""
        widths = [feature.width for feature in self.features]
        starts = accumulate(widths, initial=0)
        return tuple(
            slice(start, start + feature.width) if feature.role is Role.TEXT else start
            for feature, start in zip(self.features, starts, strict=False)
        )

    def summarized(self, matrix: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        """A number for each row and feature, shape (n,) each: the cell or, of a text, its known tokens.

        Raises ValueError for a matrix of another width.
        """
        if matrix.shape[1] != self.width:
            raise ValueError(f"the matrix has {matrix.shape[1]} columns, the signature {self.width}")
        for place in self.places:
            cells = matrix[:, place]
            yield cells if cells.ndim == 1 else cells.sum(axis=1)

    def decide(self, scores: NDArray[np.float64]) -> NDArray[Any]:
        """The answers to a scorer's ``scores``, shape (n,): indices of classes, or a regression's values.

        The class is that of the least expected cost (Elkan, The foundations of cost-sensitive learning, 2001)
        or, without costs, the most probable one; of equals the first.
        """
        if self.classes is None:
            return scores[:, 0]
        chosen: NDArray[np.intp] = (
            scores.argmax(axis=1) if self.costs is None else self.losses(scores).argmin(axis=1)
        )
        return chosen

    def losses(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """What it is expected to cost to answer each class, shape (n, classes), given their probabilities.

        Without costs every wrong class costs 1, and what is the same for all is left out.
        """
        if self.costs is None:
            return -scores
        losses = np.zeros_like(scores)
        for actual, costs in enumerate(self.costs):  # a matrix product's order of addition depends on n
            losses += scores[:, actual, None] * costs
        return losses

    @cached_property
    def decision(self) -> str | None:
        """How costs choose the class, in a sentence; None without costs."""
        if self.costs is None or self.classes is None:
            return None
        if self.task is Task.BINARY:
            (true_negative, false_positive), (false_negative, true_positive) = self.costs
            alarm, miss = false_positive - true_negative, false_negative - true_positive
            if min(alarm, miss) >= 0 and alarm + miss > 0:
                other, positive = map(json.dumps, self.classes)
                return (
                    f"By the costs of wrong answers, {positive} is answered where its probability is above "
                    f"{alarm / (alarm + miss):.4g}, else {other}."
                )
        return "The class of the least expected cost is answered, which need not be the most probable one."

    def encode(self, rows: list[Any], *, root: str = "instances") -> NDArray[np.float64]:
        """Encode JSON rows as a float64 matrix of shape (len(rows), width).

        Raises InvalidInput with a pointer to every wrong cell (the first 20 of them): a row that is not
        an object, a column that the model does not know, a missing column that may not be null, a value
        of the wrong type.
        """
        matrix = np.empty((len(rows), self.width))
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
        for place, feature in zip(self.places, self.features, strict=True):
            try:
                if feature.name not in row and not feature.nullable:
                    raise ValueError(f"the column is missing; it must be {type_names[feature.type]}")
                cells[place] = feature.encode(row.get(feature.name))
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


def split_text(text: str, ngrams: int) -> Iterator[str]:
    """The tokens of a text: its words of two letters or more in lower case, and, for 2, pairs of them."""
    words = _WORD.findall(text.lower())
    yield from words
    if ngrams > 1:
        yield from map(" ".join, pairwise(words))


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
