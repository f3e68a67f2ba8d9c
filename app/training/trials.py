"""The trials and the log of a run: kept while it runs, and read by whoever follows it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app import leases
from app.access.caller import Caller
from app.http.paging import Paging, paginate
from app.training.models import LogLine, TrainingRun, Trial

FIRST_LINES, LAST_LINES = 1000, 4000
"""What is kept of a long log."""
MAX_LINE_CHARACTERS = 2000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TrialReport(BaseModel):
    """A finished trial, as a fit's child tells it, and as the child is told that goes on with the search.

    ``scores`` holds for each metric those of the folds; ``value`` is what the search compares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)

    number: int
    status: Literal["complete", "pruned", "refused", "failed"]
    algorithm: str
    configuration: dict[str, Any]
    scores: dict[str, Any]
    value: float | None
    reason: str | None
    seconds: float


class Position(NamedTuple):
    """How far a reader has come: when the last trial that it knows was kept, and its last line's id."""

    trial_at: datetime
    line: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of the form ``str`` gives: two whole numbers below 10^17 with a hyphen between them."""
        microseconds, _, line = text.partition("-")
        return cls(EPOCH + timedelta(microseconds=int(microseconds)), int(line))

    def __str__(self) -> str:
        return f"{(self.trial_at - EPOCH) // timedelta(microseconds=1)}-{self.line}"


START = Position(EPOCH, 0)


def keep_told(
    session: Session, worker: Caller, run: TrainingRun, trials: Sequence[TrialReport], lines: Sequence[str]
) -> None:
    """Store what the child has told since the last time. A trial that is kept already stays as it is.

    Raises LeaseLost.
    """
    held = leases.lock_held(session, worker, run)
    if lines:
        _keep_lines(session, worker, held, lines)
    kept = set(session.scalars(select(Trial.number).filter_by(run_id=held.id)))
    new = [trial for trial in trials if trial.number not in kept]
    if not new:
        return
    # Every trial has a moment of its own, in the order in which they were kept, whatever the workers' clocks.
    last = session.scalar(select(func.max(Trial.finished_at)).filter_by(run_id=held.id)) or EPOCH
    first = max(worker.now, last + timedelta(microseconds=1))
    for place, trial in enumerate(new):
        told = trial.model_dump() | {"reason": trial.reason and _clean(trial.reason)}
        session.add(Trial(run_id=held.id, finished_at=first + timedelta(microseconds=place), **told))
    held.attempts = 1  # what is counted is attempts without a step forward
    session.flush()


def _keep_lines(session: Session, worker: Caller, run: TrainingRun, lines: Sequence[str]) -> None:
    session.add_all(
        LogLine(run_id=run.id, at=worker.now, text=_clean(line))
        for line in lines[-FIRST_LINES - LAST_LINES :]
    )
    session.flush()
    count = session.scalar(select(func.count()).where(LogLine.run_id == run.id)) or 0
    surplus = count - FIRST_LINES - LAST_LINES
    if surplus > 0:
        ids = select(LogLine.id).filter_by(run_id=run.id).order_by(LogLine.id)
        session.execute(delete(LogLine).where(LogLine.id.in_(ids.offset(FIRST_LINES).limit(surplus))))


def _clean(text: str) -> str:
    """The text without what no database takes, and not too long."""
    return text.encode(errors="replace").decode().replace("\0", "")[:MAX_LINE_CHARACTERS]


def finished_trials(session: Session, run: TrainingRun) -> list[dict[str, Any]]:
    """What the next attempt need not repeat, in the order of their numbers."""
    trials = session.scalars(select(Trial).filter_by(run_id=run.id).order_by(Trial.number))
    return [TrialReport.model_validate(trial).model_dump(mode="json") for trial in trials]


def list_trials(session: Session, run: TrainingRun, paging: Paging) -> tuple[Sequence[Trial], str | None]:
    """The run's trials, the newest (highest number) first."""
    return paginate(session, select(Trial).filter_by(run_id=run.id), Trial.number, paging)


def list_lines(session: Session, run: TrainingRun, paging: Paging) -> tuple[Sequence[LogLine], str | None]:
    """The lines of the run's log, newest first: of a long log the first thousand and the last few."""
    return paginate(session, select(LogLine).filter_by(run_id=run.id), LogLine.id, paging)


def read_news(
    session: Session, run: TrainingRun, since: Position
) -> tuple[Sequence[Trial], Sequence[LogLine]]:
    """The trials and the lines that were kept after ``since``, each in that order."""
    trials = select(Trial).where(Trial.run_id == run.id, Trial.finished_at > since.trial_at)
    lines = select(LogLine).where(LogLine.run_id == run.id, LogLine.id > since.line)
    return (
        session.scalars(trials.order_by(Trial.finished_at)).all(),
        session.scalars(lines.order_by(LogLine.id)).all(),
    )
