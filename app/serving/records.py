"""What is recorded of predictions."""

from array import array
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One answered row. ``at`` is in UTC; ``inputs`` is the row as it was sent."""

    prediction_id: str
    at: datetime
    model: str
    version: int
    deployment: int | None
    variant: str | None
    caller: str
    request_id: str | None
    client_id: str | None = None
    """The request's id in the client's own words: what the Open Inference Protocol calls ``id``."""
    inputs: dict[str, Any]
    prediction: bool | int | float | str
    probabilities: list[float] | None


class RecordedAnswer(msgspec.Struct, frozen=True):
    """The answer of ``/v1/models/{model}:predict``, whatever protocol it was asked in."""

    predictions: list[bool | int | float | str]
    prediction_ids: list[str]
    model: str
    version: int
    variant: str | None
    probabilities: list[list[float]] | None = None


class RecordedScores(msgspec.Struct, frozen=True):
    """The answer to an Arrow stream, as arrays: to write it out is for those who seal or read it."""

    scores: bytes
    """Float64, row by row: probabilities of the ``classes``, or, without these, values."""
    prediction_ids: str
    """One behind the other, all of one length."""
    model: str
    version: int
    variant: str | None
    classes: list[bool | int | float | str] | None = None

    def answer(self) -> RecordedAnswer:
        """The same as ``:predict`` says it in JSON. Raises ValueError for arrays that do not fit."""
        numbers, text = array("d", self.scores).tolist(), self.prediction_ids
        width = len(self.classes) if self.classes else 1
        count = len(numbers) // width
        if count == 0 or len(numbers) != count * width or len(text) % count or not text:
            raise ValueError("the arrays of an answer do not fit together")
        size = len(text) // count
        rows = [numbers[start : start + width] for start in range(0, len(numbers), width)]
        ids = [text[start : start + size] for start in range(0, len(text), size)]
        if self.classes is None:
            return RecordedAnswer([*numbers], ids, self.model, self.version, self.variant)
        labels = [self.classes[row.index(max(row))] for row in rows]
        return RecordedAnswer(labels, ids, self.model, self.version, self.variant, rows)


class Entry(msgspec.Struct, frozen=True):
    """A line of a spool file: one request. ``at`` is in microseconds since 1970, UTC.

    ``inputs`` are its rows, ``answer`` is the answer; where they came as an Arrow stream, that is kept in
    ``arrow`` instead, and the answer in ``scored``.
    """

    at: int
    caller: str
    answer: RecordedAnswer | None = None
    request_id: str | None = None
    client_id: str | None = None
    deployment: int | None = None
    inputs: list[dict[str, Any]] = []
    arrow: bytes | None = None
    scored: RecordedScores | None = None


class Selection(NamedTuple):
    """Which records are asked for: those in [since, until) of a version, of one id, or of clients' ids."""

    since: datetime | None = None
    until: datetime | None = None
    version: int | None = None
    prediction_id: str | None = None
    client_ids: frozenset[str] | None = None

    def takes(self, record: PredictionRecord) -> bool:
        return (
            (self.since is None or record.at >= self.since)
            and (self.until is None or record.at < self.until)
            and (self.version is None or record.version == self.version)
            and (self.prediction_id is None or record.prediction_id == self.prediction_id)
            and (self.client_ids is None or record.client_id in self.client_ids)
        )

    def condition(self) -> tuple[str, list[Any]]:
        """The same for the rows of segments, as SQL and its parameters."""
        terms = {
            '"at" >= ?': self.since and in_utc(self.since),
            '"at" < ?': self.until and in_utc(self.until),
            "version = ?": self.version,
            "prediction_id = ?": self.prediction_id,
            "list_contains(?, client_id)": self.client_ids and list(self.client_ids),
        }
        given = {term: value for term, value in terms.items() if value is not None}
        return " AND ".join(given) or "true", list(given.values())


def in_utc(at: datetime) -> datetime:
    """As DuckDB's TIMESTAMP has it: without a zone."""
    return at.astimezone(UTC).replace(tzinfo=None)
