"""Work that waits in a table, and the lease by which one worker at a time holds a piece of it.

Each transition of a piece's status is one function here. A worker renews its lease while it works. A
lease that runs out means that the worker is gone, and its work goes back to the queue.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

from sqlalchemy import CheckConstraint, ColumnElement, Index, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.schema import SchemaItem

from app.access.caller import Caller
from app.errors import Conflict
from app.events.service import record_event

WAITING = "waiting for a worker"


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING)


class Leased:
    """The columns of a table of work, to be mixed into its class.

    ``lease_owner`` is the worker that holds the row until ``lease_expires_at``; a running row has both.
    """

    KIND: ClassVar[str]
    """Its name in events and, with hyphens, in paths, such as ``training_run``."""
    REMEDY: ClassVar[str]
    """A sentence: what helps where the work takes more memory than there is."""

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str]
    status: Mapped[str]
    fraction: Mapped[float]
    step: Mapped[str]
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int]
    cancel_requested: Mapped[bool]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @property
    def path(self) -> str:
        return f"{self.KIND.replace('_', '-')}s/{self.id}"

    @property
    def fraction_kept(self) -> float:
        """The fraction at which the next attempt begins: 0, unless a kind keeps what is finished."""
        return 0.0


def lease_rules() -> tuple[SchemaItem, ...]:
    """What the database holds every table of work to, for its ``__table_args__``."""
    return (
        CheckConstraint(f"status IN ({', '.join(repr(status.value) for status in Status)})", name="status"),
        CheckConstraint("(status = 'running') = (lease_owner IS NOT NULL)", name="lease"),
        Index(None, "status", "id"),
    )


Work = TypeVar("Work", bound=Leased)


class LeaseLost(Exception):
    """The work is not this worker's any more: another took it, or it was ended."""


def enqueue(session: Session, caller: Caller, work: Leased, **detail: Any) -> None:
    """Add new work to the queue; ``detail`` is for the event of its creation."""
    work.status, work.fraction, work.step = Status.QUEUED, 0.0, WAITING
    work.attempts, work.cancel_requested = 0, False
    work.created_by, work.created_at = caller.name, caller.now
    session.add(work)
    session.flush()
    _record(session, caller, work, "created", **detail)


def claim(
    session: Session,
    worker: Caller,
    kind: type[Work],
    lease: timedelta,
    *,
    where: Sequence[ColumnElement[bool]] = (),
    first: Sequence[ColumnElement[Any]] = (),
) -> Work | None:
    """The oldest waiting work of a kind, now held by ``worker``; None where nothing waits.

    ``where`` narrows down what may be taken; ``first`` is an order that goes before the age.
    """
    work = session.scalar(
        select(kind)
        .where(kind.status == Status.QUEUED, *where)
        .order_by(*first, kind.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if work is None:
        return None
    work.status, work.step, work.fraction = Status.RUNNING, "starting", work.fraction_kept
    work.lease_owner, work.lease_expires_at = worker.name, worker.now + lease
    work.attempts += 1
    work.started_at = work.started_at or worker.now
    session.flush()
    _record(session, worker, work, "started", attempt=work.attempts)
    return work


def renew(
    session: Session, worker: Caller, work: Leased, lease: timedelta, *, fraction: float, step: str
) -> bool:
    """Keep the work and tell how far it is; whether its cancellation has been asked for.

    Raises LeaseLost.
    """
    kind = type(work)
    held = (
        update(kind)
        .where(kind.id == work.id, kind.lease_owner == worker.name)
        .values(lease_expires_at=worker.now + lease, fraction=fraction, step=step)
        .returning(kind.cancel_requested)
    )
    cancelled = session.scalar(held)
    if cancelled is None:
        raise LeaseLost(work.path)
    return cancelled


def lock_held(session: Session, worker: Caller, work: Work) -> Work:
    """The work as it is now, locked until the transaction ends. Raises LeaseLost."""
    kind = type(work)
    held = session.scalar(
        select(kind).where(kind.id == work.id, kind.lease_owner == worker.name).with_for_update()
    )
    if held is None:
        raise LeaseLost(work.path)
    return held


def succeed(session: Session, worker: Caller, held: Leased, **detail: Any) -> None:
    """End what ``lock_held`` returned; ``detail`` is for the event."""
    held.fraction = 1.0
    _end(session, worker, held, Status.SUCCEEDED, step="done", **detail)


def fail(session: Session, worker: Caller, work: Leased, error: dict[str, Any]) -> None:
    """End the work with ``{"code", "detail", "errors"?}``. Raises LeaseLost, as do the functions below."""
    _fail(session, worker, lock_held(session, worker, work), error)


def end_cancelled(session: Session, worker: Caller, work: Leased) -> None:
    _end(session, worker, lock_held(session, worker, work), Status.CANCELLED, step="cancelled")


def give_back(session: Session, worker: Caller, work: Leased) -> None:
    """Return unfinished work to the queue, as a stopping worker does: the attempt does not count."""
    held = lock_held(session, worker, work)
    held.attempts -= 1
    _requeue(session, worker, held, reason="worker_stopped")


def retry(session: Session, worker: Caller, work: Leased, error: dict[str, Any], max_attempts: int) -> None:
    """Queue the work again after a fault of the infrastructure; after ``max_attempts`` it fails with it."""
    _retry(session, worker, lock_held(session, worker, work), error, max_attempts)


def cancel(session: Session, caller: Caller, work: Leased) -> None:
    """Cancel work that this transaction has locked: its worker ends it, if it has one.

    Raises Conflict for work that has ended.
    """
    if Status(work.status).final:
        title = work.KIND.replace("_", " ").capitalize()
        detail = f"{title} {work.id} has ended ({work.status}) and cannot be cancelled."
        raise Conflict(f"{work.KIND}_ended", detail)
    work.cancel_requested = True
    session.flush()
    _record(session, caller, work, "cancel_requested")
    if work.status == Status.QUEUED:
        _end(session, caller, work, Status.CANCELLED, step="cancelled")


def recover_lost(session: Session, worker: Caller, kind: type[Leased], max_attempts: int) -> None:
    """Queue the work again whose worker has been silent for longer than its lease."""
    lost = session.scalars(
        select(kind)
        .where(kind.status == Status.RUNNING, kind.lease_expires_at < worker.now)
        .with_for_update(skip_locked=True)
    ).all()
    for work in lost:
        # Work that loses its worker again and again may be what kills it.
        attempts = f"each of {work.attempts} attempts"
        detail = f"The worker was lost in {attempts}: the machine may lack memory. {kind.REMEDY}"
        _retry(session, worker, work, {"code": "worker_lost", "detail": detail}, max_attempts)


def _retry(session: Session, worker: Caller, work: Leased, error: dict[str, Any], max_attempts: int) -> None:
    if work.attempts < max_attempts or work.cancel_requested:
        _requeue(session, worker, work, reason=error["code"])
    else:
        _fail(session, worker, work, error)


def _requeue(session: Session, worker: Caller, work: Leased, *, reason: str) -> None:
    if work.cancel_requested:
        _end(session, worker, work, Status.CANCELLED, step="cancelled")
        return
    work.status, work.step, work.fraction = Status.QUEUED, WAITING, work.fraction_kept
    work.lease_owner = work.lease_expires_at = None
    session.flush()
    _record(session, worker, work, "requeued", reason=reason)


def _fail(session: Session, worker: Caller, work: Leased, error: dict[str, Any]) -> None:
    work.error = error
    _end(session, worker, work, Status.FAILED, step="failed", error=error)


def _end(session: Session, worker: Caller, work: Leased, status: Status, *, step: str, **detail: Any) -> None:
    work.status, work.step, work.finished_at = status, step, worker.now
    work.lease_owner = work.lease_expires_at = None
    session.flush()
    _record(session, worker, work, status, **detail)


def _record(session: Session, caller: Caller, work: Leased, what: str, **detail: Any) -> None:
    record_event(session, caller, f"{work.KIND}.{what}", work.path, model=work.model, **detail)
