"""What is recorded of predictions."""

from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from app.columns import Value


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
    prediction: Value
    probabilities: list[float] | None


class RecordedAnswer(msgspec.Struct, frozen=True):
    """The answer of ``/v1/models/{model}:predict``, whatever protocol it was asked in."""

    predictions: list[Value]
    prediction_ids: list[str]
    model: str
    version: int
    variant: str | None
    probabilities: list[list[float]] | None = None


class Entry(msgspec.Struct, frozen=True):
    """A line of a spool file: one request. ``at`` is in microseconds since 1970, UTC.

    ``inputs`` are its rows, ``answer`` is the answer.
    """

    at: int
    caller: str
    answer: RecordedAnswer
    inputs: list[dict[str, Any]]
    request_id: str | None = None
    client_id: str | None = None
    deployment: int | None = None


Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class StreamSizes(msgspec.Struct, frozen=True):
    """How many bytes stand behind the line of a ``StreamEntry``, before a line end."""

    streams: tuple[Size, Size]


class StreamEntry(StreamSizes, frozen=True, kw_only=True):
    """The line of a request whose rows came as an Arrow stream.

    Behind it stand that stream and the one of its answer, each of one batch of ``rows`` rows.
    """

    rows: int
    at: int
    caller: str
    model: str
    version: int
    variant: str | None
    request_id: str | None = None
    client_id: str | None = None
    deployment: int | None = None


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
