"""Training runs: creating, finding, changing and cancelling them, and their end with a model version."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from app import leases
from app.access.caller import Caller
from app.datasets.contracts.service import require_accepted
from app.datasets.models import DatasetVersion
from app.datasets.tags import MAX_TAGS
from app.db import is_postgresql
from app.errors import Conflict, InputError, InvalidInput, NotFound
from app.events.service import record_event
from app.http.paging import Paging, paginate
from app.leases import Status
from app.registry.models import Model, ModelVersion
from app.registry.service import ensure_model, lock_model
from app.training.algorithms.catalogue import algorithm
from app.training.environment import runs_on_equal_software
from app.training.facts import fact_of
from app.training.models import Fact, TrainingRun
from app.training.roles import check_spec
from app.training.spec import Search, TrainingSpec

CLAIMING = 724662
"""The number of PostgreSQL's lock under which runs are claimed, one at a time."""


def create_run(
    session: Session,
    caller: Caller,
    *,
    model: str,
    data: DatasetVersion,
    spec: TrainingSpec,
    priority: int = 0,
    tags: Mapping[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
    force: bool = False,
) -> TrainingRun:
    """Queue a run; a worker takes it.

    Without ``force`` the answer to an identical request is the run that was made then, be it waiting, running
    or succeeded: identical are the model, the content of the data, the spec, and besides the limits while the
    run has not ended, or the software that its version was fitted with. That run takes the request's tags
    and, while it waits, its priority where that is higher.

    Raises Conflict for data in quarantine, and InvalidInput where the spec cannot fit the data's columns, or
    the tags of both requests are too many.
    """
    require_accepted(data)
    check_spec(data.column_types, spec)
    ensure_model(session, caller, model)
    owner = lock_model(
        session, caller, model
    )  # of two identical requests at once, the second finds the first
    asked = spec.model_dump(mode="json", by_alias=True)
    key = _request_key(owner, data, spec, asked)
    if not force and (identical := _find_identical(session, key, limits or {})) is not None:
        run = get_run(session, identical.id, lock=True)
        higher = max(run.priority, priority) if run.status == Status.QUEUED else run.priority
        return _change(session, caller, run, higher, {**run.tags, **(tags or {})})
    run = TrainingRun(
        model_id=owner.id,
        model=owner.name,
        dataset_version_id=data.id,
        dataset=data.dataset,
        dataset_version=data.number,
        spec=asked,
        request_key=key,
        warm_start=_newest_configuration(session, owner),
        priority=priority,
        tags=dict(tags or {}),
        limits=dict(limits or {}),
    )
    leases.enqueue(session, caller, run, dataset=data.dataset, dataset_version=data.number)
    _record_tags(session, run)
    return run


def _request_key(model: Model, data: DatasetVersion, spec: TrainingSpec, asked: Mapping[str, Any]) -> str:
    """Equal for requests of the same fit, whether they state a parameter's default or leave it open."""
    settled = dict(asked)
    if not spec.searches:  # in a search, what is open is chosen
        settled["params"] = algorithm(spec.algorithm).complete(spec.params)
        settled["preparation"] = spec.preparation.model_dump(mode="json")
    else:
        search = spec.search or Search()
        settled["search"] = search.model_dump(mode="json") | {"trials": search.budget}
    request = json.dumps([model.id, data.content_digest, settled], sort_keys=True)
    return f"sha256:{hashlib.sha256(request.encode()).hexdigest()}"


def _find_identical(session: Session, key: str, limits: Mapping[str, float]) -> TrainingRun | None:
    runs = session.execute(
        select(TrainingRun, ModelVersion)
        .outerjoin(ModelVersion, ModelVersion.id == TrainingRun.model_version_id)
        .where(
            TrainingRun.request_key == key,
            TrainingRun.verifies_id.is_(None),
            TrainingRun.cancel_requested.is_(False) | (TrainingRun.status == Status.SUCCEEDED),
            TrainingRun.status.in_([Status.QUEUED, Status.RUNNING, Status.SUCCEEDED]),
        )
        .order_by(TrainingRun.id.desc())
    )
    for run, version in runs:
        # A run under other limits may fail where this one would not, or take what this one may not.
        ended = run.status == Status.SUCCEEDED
        if runs_on_equal_software(version.environment) if ended else run.limits == limits:
            found: TrainingRun = run
            return found
    return None


def _newest_configuration(session: Session, model: Model) -> dict[str, Any] | None:
    newest = session.scalar(
        select(ModelVersion).filter_by(model_id=model.id).order_by(ModelVersion.number.desc()).limit(1)
    )
    return newest.evaluation.get("configuration") if newest else None


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


def queue_positions(session: Session, runs: Sequence[TrainingRun]) -> dict[int, int]:
    """The places in the queue, from 1, of those of the runs that wait, by id."""
    waiting = [run.id for run in runs if run.status == Status.QUEUED]
    if not waiting:
        return {}
    place = func.row_number().over(order_by=[*_urgency(), TrainingRun.id]).label("place")
    queue = select(TrainingRun.id, place).where(TrainingRun.status == Status.QUEUED).subquery()
    found = session.execute(select(queue.c.id, queue.c.place).where(queue.c.id.in_(waiting)))
    return {row.id: row.place for row in found}


def verified_numbers(session: Session, runs: Sequence[TrainingRun]) -> dict[int, int]:
    """The numbers of the versions that those of the runs verify which do, by the run's id."""
    wanted = {run.verifies_id for run in runs if run.verifies_id is not None}
    if not wanted:
        return {}
    found = session.execute(select(ModelVersion.id, ModelVersion.number).where(ModelVersion.id.in_(wanted)))
    numbers = {row.id: row.number for row in found}
    return {run.id: numbers[run.verifies_id] for run in runs if run.verifies_id is not None}


def _urgency() -> list[ColumnElement[Any]]:
    return [TrainingRun.priority.desc()]


def claim_run(session: Session, worker: Caller, lease: timedelta, *, per_model: int) -> TrainingRun | None:
    """The waiting run of the highest priority, of those the oldest, now held by ``worker``.

    Passed over are runs of models of which ``per_model`` are running. None where nothing else waits.
    """
    if is_postgresql(session):  # on SQLite a writing transaction is the only one
        session.execute(select(func.pg_advisory_xact_lock(CLAIMING)))
    busy = (
        select(TrainingRun.model_id)
        .where(TrainingRun.status == Status.RUNNING)
        .group_by(TrainingRun.model_id)
        .having(func.count() >= per_model)
    )
    free = TrainingRun.model_id.not_in(busy)
    return leases.claim(session, worker, TrainingRun, lease, where=[free], first=_urgency())


def change_run(
    session: Session, caller: Caller, run_id: int, *, priority: int | None, tags: Mapping[str, str | None]
) -> TrainingRun:
    """Change the priority of a run that waits, and the tags of any; a tag of None goes.

    Raises Conflict for the priority of a run that does not wait, and InvalidInput for too many tags.
    """
    run = get_run(session, run_id, lock=True)
    caller.require_model(run.model)
    if priority is not None and run.status != Status.QUEUED:
        raise Conflict(
            "training_run_not_queued",
            f"Training run {run.id} is {run.status}; only that of a queued run can be changed.",
        )
    changed = {name: value for name, value in {**run.tags, **tags}.items() if value is not None}
    return _change(session, caller, run, run.priority if priority is None else priority, changed)


def _change(
    session: Session, caller: Caller, run: TrainingRun, priority: int, tags: dict[str, str]
) -> TrainingRun:
    if len(tags) > MAX_TAGS:
        detail = (
            f"Training run {run.id} would have {len(tags)} tags, and there can be at most {MAX_TAGS}. Remove "
            f"some from it: PATCH /v1/{run.path} takes null for their values."
        )
        raise InvalidInput("too_many_tags", detail, errors=[InputError("/tags", detail)])
    if (priority, tags) != (run.priority, run.tags):
        run.priority, run.tags = priority, tags
        _record_tags(session, run)
        record_event(
            session, caller, "training_run.changed", run.path, model=run.model, priority=priority, tags=tags
        )
    return run


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
    _record(session, held, "metrics", version.metrics)
    _record(session, held, "params", version.params)
    session.add(Fact(run_id=held.id, name="algorithm", text=version.algorithm))
    leases.succeed(session, worker, held, version=version.number)


def _record_tags(session: Session, run: TrainingRun) -> None:
    session.execute(delete(Fact).where(Fact.run_id == run.id, Fact.name.startswith("tags.")))
    _record(session, run, "tags", run.tags)
    session.flush()


def _record(session: Session, run: TrainingRun, kind: str, facts: Mapping[str, Any]) -> None:
    for name, value in _flatten(kind, facts):
        number, text = fact_of(value)
        session.add(Fact(run_id=run.id, name=name, number=number, text=text))


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of nested objects, each with its path: ``params.kernel.length``."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(f"{name}.{key}", inner)
    else:
        yield name, value
