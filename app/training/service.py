"""Training runs: creating, finding and cancelling them, and their end with a model version."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import leases
from app.access.caller import Caller
from app.columns import ColumnType
from app.datasets.contract_service import require_accepted
from app.datasets.models import DatasetVersion
from app.errors import NotFound
from app.http.paging import Paging, paginate
from app.leases import Status
from app.registry.models import ModelVersion
from app.registry.service import ensure_model
from app.training.models import TrainingRun
from app.training.roles import check_spec
from app.training.spec import TrainingSpec


def create_run(
    session: Session, caller: Caller, *, model: str, data: DatasetVersion, spec: TrainingSpec
) -> TrainingRun:
    """Queue a run; a worker takes it.

    Raises Conflict for data in quarantine, and InvalidInput where the spec cannot fit the data's columns.
    """
    require_accepted(data)
    check_spec({column["name"]: ColumnType(column["type"]) for column in data.columns}, spec)
    owner = ensure_model(session, caller, model)
    run = TrainingRun(
        model_id=owner.id,
        model=owner.name,
        dataset_version_id=data.id,
        dataset=data.dataset,
        dataset_version=data.number,
        spec=spec.model_dump(mode="json"),
    )
    leases.enqueue(session, caller, run, dataset=data.dataset, dataset_version=data.number)
    return run


def get_run(session: Session, run_id: int, *, lock: bool = False) -> TrainingRun:
    """The run, if asked for as it is now and locked until the transaction ends. Raises NotFound."""
    run = session.get(TrainingRun, run_id, with_for_update=lock or None, populate_existing=lock)
    if run is None:
        raise NotFound(
            "training_run_not_found", f"There is no training run {run_id}. GET /v1/training-runs lists them."
        )
    return run


def list_runs(
    session: Session,
    caller: Caller,
    paging: Paging,
    *,
    model: str | None = None,
    status: Status | None = None,
) -> tuple[Sequence[TrainingRun], str | None]:
    """Runs of the caller's models, newest first."""
    query = select(TrainingRun).where(caller.sees(TrainingRun.model))
    if model is not None:
        query = query.filter_by(model=model)
    if status is not None:
        query = query.filter_by(status=status)
    return paginate(session, query, TrainingRun.id, paging)


def cancel_run(session: Session, caller: Caller, run_id: int) -> TrainingRun:
    """Cancel a run: at once while it waits; its worker ends it within a second or two while it runs.

    Raises Conflict for a run that has ended.
    """
    run = get_run(session, run_id, lock=True)
    caller.require_model(run.model)
    leases.cancel(session, caller, run)
    return run


def succeed_run(session: Session, worker: Caller, run: TrainingRun, version: ModelVersion) -> None:
    """End the run with the version that it made. Raises LeaseLost."""
    held = leases.lock_held(session, worker, run)
    held.model_version_id, held.model_version = version.id, version.number
    leases.succeed(session, worker, held, version=version.number)
