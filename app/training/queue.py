"""The queue of training runs as workers see it: each transition of a run's status is one function here.

A worker holds a run by a lease that it renews while it works. A lease that runs out means that the worker
is gone, and the run goes back to the queue.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.events.service import record_event
from app.registry.models import ModelVersion
from app.training.models import RunStatus, TrainingRun


class LeaseLost(Exception):
    """The run is not this worker's any more: another took it, or it was ended."""


def claim_run(session: Session, worker: Caller, lease: timedelta) -> TrainingRun | None:
    """The oldest waiting run, now held by ``worker``; None where nothing waits."""
    run = session.scalar(
        select(TrainingRun)
        .filter_by(status=RunStatus.QUEUED)
        .order_by(TrainingRun.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if run is None:
        return None
    run.status, run.step, run.fraction = RunStatus.RUNNING, "starting", 0.0
    run.lease_owner, run.lease_expires_at = worker.name, worker.now + lease
    run.attempts += 1
    run.started_at = run.started_at or worker.now
    session.flush()
    _record(session, worker, run, "started", attempt=run.attempts)
    return run


def renew_lease(
    session: Session, worker: Caller, run_id: int, lease: timedelta, *, fraction: float, step: str
) -> bool:
    """Keep the run and tell how far it is; whether its cancellation has been asked for.

    Raises LeaseLost.
    """
    held = (
        update(TrainingRun)
        .where(TrainingRun.id == run_id, TrainingRun.lease_owner == worker.name)
        .values(lease_expires_at=worker.now + lease, fraction=fraction, step=step)
        .returning(TrainingRun.cancel_requested)
    )
    cancelled = session.scalar(held)
    if cancelled is None:
        raise LeaseLost(run_id)
    return cancelled


def succeed_run(session: Session, worker: Caller, run_id: int, version: ModelVersion) -> None:
    run = _held(session, worker, run_id)
    run.model_version_id, run.model_version = version.id, version.number
    run.fraction = 1.0
    _end(session, worker, run, RunStatus.SUCCEEDED, step="done", version=version.number)


def fail_run(session: Session, worker: Caller, run_id: int, error: dict[str, Any]) -> None:
    """End the run with ``{"code", "detail", "errors"?}``."""
    run = _held(session, worker, run_id)
    run.error = error
    _end(session, worker, run, RunStatus.FAILED, step="failed", error=error)


def cancel_run(session: Session, caller: Caller, run: TrainingRun) -> None:
    """Cancel an unfinished run that this transaction has locked: its worker ends it, if it has one."""
    run.cancel_requested = True
    session.flush()
    _record(session, caller, run, "cancel_requested")
    if run.status == RunStatus.QUEUED:
        _end(session, caller, run, RunStatus.CANCELLED, step="cancelled")


def end_cancelled_run(session: Session, worker: Caller, run_id: int) -> None:
    _end(session, worker, _held(session, worker, run_id), RunStatus.CANCELLED, step="cancelled")


def return_run(session: Session, worker: Caller, run_id: int) -> None:
    """Give an unfinished run back, as a stopping worker does: the attempt does not count."""
    run = _held(session, worker, run_id)
    run.attempts -= 1
    _requeue(session, worker, run, reason="worker_stopped")


def retry_run(
    session: Session, worker: Caller, run_id: int, error: dict[str, Any], max_attempts: int
) -> None:
    """Queue the run again after a fault of the infrastructure; after ``max_attempts`` it fails with it."""
    _retry(session, worker, _held(session, worker, run_id), error, max_attempts)


def recover_lost_runs(session: Session, worker: Caller, max_attempts: int) -> None:
    """Queue the runs again whose worker has been silent for longer than its lease."""
    lost = session.scalars(
        select(TrainingRun)
        .where(TrainingRun.status == RunStatus.RUNNING, TrainingRun.lease_expires_at < worker.now)
        .with_for_update(skip_locked=True)
    ).all()
    for run in lost:
        # A run that loses its worker again and again may be what kills it.
        detail = (
            f"The worker was lost in each of {run.attempts} attempts: the machine may lack memory for this "
            "run. Train on fewer rows or columns, or on a larger machine."
        )
        _retry(session, worker, run, {"code": "worker_lost", "detail": detail}, max_attempts)


def _held(session: Session, worker: Caller, run_id: int) -> TrainingRun:
    run = session.scalar(select(TrainingRun).filter_by(id=run_id, lease_owner=worker.name).with_for_update())
    if run is None:
        raise LeaseLost(run_id)
    return run


def _end(
    session: Session, worker: Caller, run: TrainingRun, status: RunStatus, *, step: str, **detail: Any
) -> None:
    run.status, run.step, run.finished_at = status, step, worker.now
    run.lease_owner = run.lease_expires_at = None
    session.flush()
    _record(session, worker, run, status, **detail)


def _retry(
    session: Session, worker: Caller, run: TrainingRun, error: dict[str, Any], max_attempts: int
) -> None:
    if run.attempts < max_attempts or run.cancel_requested:
        _requeue(session, worker, run, reason=error["code"])
    else:
        run.error = error
        _end(session, worker, run, RunStatus.FAILED, step="failed", error=error)


def _requeue(session: Session, worker: Caller, run: TrainingRun, *, reason: str) -> None:
    if run.cancel_requested:
        _end(session, worker, run, RunStatus.CANCELLED, step="cancelled")
        return
    run.status, run.step, run.fraction = RunStatus.QUEUED, "waiting for a worker", 0.0
    run.lease_owner = run.lease_expires_at = None
    session.flush()
    _record(session, worker, run, "requeued", reason=reason)


def _record(session: Session, caller: Caller, run: TrainingRun, what: str, **detail: Any) -> None:
    record_event(
        session, caller, f"training_run.{what}", f"training-runs/{run.id}", model=run.model, **detail
    )
