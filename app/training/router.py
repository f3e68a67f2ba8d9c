"""Training runs over HTTP. What they tell while they run is in ``follow_router``."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, Strict, StrictInt
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.route import CallerDep, GuardedRoute
from app.datasets.contracts.service import get_newest_accepted
from app.datasets.router import TAG_NAME
from app.datasets.service import get_rows_of
from app.datasets.tags import MAX_TAGS
from app.errors import InputError, InvalidInput
from app.http.fields import Name, StrictNumber
from app.http.paging import Page, PagingDep
from app.http.problems import problem_responses
from app.http.session import SessionDep
from app.leases import Status
from app.settings import Settings
from app.training import service
from app.training.models import TrainingRun
from app.training.spec import TrainingSpec
from app.training.verification.receipts import read_receipt
from app.training.verification.verification import Result

router = APIRouter(prefix="/v1/training-runs", tags=["training"], route_class=GuardedRoute)

RunId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Priority = Annotated[StrictInt, Field(ge=-100, le=100)]
TagName = Annotated[str, Field(pattern=f"^{TAG_NAME}$")]
TagValue = Annotated[str, Field(max_length=256)]

SPEC_EXAMPLE: dict[str, Any] = {"target": "late", "algorithm": "auto", "seed": 7}
RUN_EXAMPLE: dict[str, Any] = {
    "id": 1,
    "status": "running",
    "model": "flight-delays",
    "dataset": "flights",
    "dataset_version": 1,
    "spec": SPEC_EXAMPLE,
    "priority": 0,
    "tags": {"team": "operations"},
    "limits": {"seconds": 600, "memory_bytes": None},
    "queue_position": None,
    "progress": {"fraction": 0.4, "step": "cross-validating random forest, fold 3 of 5"},
    "model_version": None,
    "verifies": None,
    "result": None,
    "receipt": None,
    "verification": None,
    "error": None,
    "warm_start": None,
    "attempts": 1,
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:00Z",
    "started_at": "2026-11-23T08:00:01Z",
    "finished_at": None,
}


class RunLimits(BaseModel):
    """Where a run is to end as failed before it reaches the limits of the server."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"seconds": 600}]})

    seconds: Annotated[float, Strict()] | None = Field(None, gt=0)
    memory_bytes: StrictInt | None = Field(
        None, gt=0, description="Of the fit's processes together, as the server counts it."
    )

    def check(self, settings: Settings) -> None:
        """Raises InvalidInput for what the server does not allow."""
        allowed = {
            "seconds": settings.run_time_limit_seconds,
            "memory_bytes": settings.run_memory_limit_bytes,
        }
        for name, most in allowed.items():
            if (getattr(self, name) or 0) > most:
                detail = f"The limit of this server is {most}; ask for no more, or leave {name} out."
                raise InvalidInput("limit_too_high", detail, errors=[InputError(f"/limits/{name}", detail)])


class NewTrainingRun(TrainingSpec):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"model": "flight-delays", "dataset": "flights", **SPEC_EXAMPLE}]},
    )

    model: Name = Field(description="The model that gets the version; it is created where there is none.")
    dataset: str
    dataset_version: StrictNumber | None = Field(
        None, description="Default: the newest that is accepted; the run's `dataset_version` says which."
    )
    priority: Priority = Field(0, description="Runs of a higher priority start before those of a lower.")
    tags: dict[TagName, TagValue] = Field({}, max_length=MAX_TAGS, examples=[{"team": "operations"}])
    limits: RunLimits = Field(RunLimits(), description="Default: those of the server.")
    force: bool = Field(
        False,
        description="Run even where an identical run waits, runs, or has made a version: identical in the "
        "model, the content of the data, the spec, and the limits, or for a version the software that it was "
        "fitted with.",
    )

    def spec(self) -> TrainingSpec:
        return TrainingSpec.model_validate(self.model_dump(include=set(TrainingSpec.model_fields)))


class RunProgress(BaseModel):
    fraction: float = Field(description="From 0 to 1.")
    step: str


class RunError(BaseModel):
    code: str
    detail: str
    errors: list[dict[str, str]] = []


class RunInfo(BaseModel):
    """A training run. It ends as succeeded (see `model_version`), failed (see `error`) or cancelled.

    One that verifies a version succeeds with a `result` and makes none.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [RUN_EXAMPLE]})

    id: int
    status: Status
    model: str
    dataset: str
    dataset_version: int
    spec: dict[str, Any]
    priority: int
    tags: dict[str, str]
    limits: RunLimits
    queue_position: int | None = Field(
        description="The place in the queue while it waits, from 1. A run whose model has as many running as "
        "it may (see `ROUNDHOUSE_RUNS_PER_MODEL`) lets others pass."
    )
    progress: RunProgress
    model_version: int | None
    verifies: int | None = Field(description="The model's version that the run fits again and compares with.")
    result: Result | None = Field(description="How the two compare: see `POST …:verify`.")
    receipt: str | None = Field(
        description="What was found, as a compact JWS: the keys of `GET /v1/signing-keys` prove it."
    )
    verification: dict[str, Any] | None = Field(description="What the receipt says.")
    error: RunError | None
    warm_start: dict[str, Any] | None = Field(
        description="The configuration of the model's version before, from which a search begins."
    )
    attempts: int = Field(description="Since the last finished trial.")
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunChanges(BaseModel):
    """Changes to a run: what is left out stays, and a tag of null goes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"priority": 10, "tags": {"team": None}}]}
    )

    priority: Priority | None = Field(None, description="Of a queued run only.")
    tags: dict[TagName, TagValue | None] = Field({}, max_length=MAX_TAGS)


def run_infos(session: Session, runs: Sequence[TrainingRun]) -> list[RunInfo]:
    places = service.queue_positions(session, runs)
    verified = service.verified_numbers(session, runs)
    return [_run_info(run, places.get(run.id), verified.get(run.id)) for run in runs]


def run_info(session: Session, run: TrainingRun) -> RunInfo:
    (info,) = run_infos(session, [run])
    return info


def _run_info(run: TrainingRun, queue_position: int | None, verifies: int | None) -> RunInfo:
    return RunInfo(
        id=run.id,
        status=Status(run.status),
        model=run.model,
        dataset=run.dataset,
        dataset_version=run.dataset_version,
        spec=run.spec,
        priority=run.priority,
        tags=run.tags,
        limits=RunLimits.model_validate(run.limits),
        queue_position=queue_position,
        progress=RunProgress(fraction=run.fraction, step=run.step),
        model_version=run.model_version,
        verifies=verifies,
        result=Result(run.result) if run.result else None,
        receipt=run.receipt,
        verification=read_receipt(run.receipt) if run.receipt else None,
        error=RunError.model_validate(run.error) if run.error else None,
        warm_start=run.warm_start,
        attempts=run.attempts,
        created_by=run.created_by,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
    )


FOUND: dict[int | str, dict[str, Any]] = {
    200: {"model": RunInfo, "description": "An identical run has made the version that the answer names."}
}


@router.post("", status_code=202, responses=FOUND | problem_responses(404, 409))
def create_run(
    body: NewTrainingRun, caller: CallerDep, session: SessionDep, request: Request, response: Response
) -> RunInfo:
    """Queue a training run. Follow it at its `Location`; it ends with a model version or an error.

    Where an identical run waits, runs or has succeeded, the answer is that one, unless `force` is set. It
    takes this request's `tags` beside its own, and its `priority` where it waits and that is higher.
    """
    caller.require_model(body.model)
    body.limits.check(request.app.state.settings)
    number = body.dataset_version or get_newest_accepted(session, body.dataset).number
    data = get_rows_of(session, caller, body.dataset, number)
    run = service.create_run(
        session,
        caller,
        model=body.model,
        data=data,
        spec=body.spec(),
        priority=body.priority,
        tags=body.tags,
        limits=body.limits.model_dump(exclude_none=True),
        force=body.force,
    )
    response.headers["location"] = f"/v1/training-runs/{run.id}"
    if run.status == Status.SUCCEEDED:
        response.status_code = 200
    return run_info(session, run)


@router.get("")
def list_runs(
    session: SessionDep,
    caller: CallerDep,
    paging: PagingDep,
    model: str | None = None,
    status: Annotated[Status | None, Query()] = None,
) -> Page[RunInfo]:
    """Training runs, newest first."""
    rows, cursor = service.list_runs(session, caller, paging, model=model, status=status)
    return Page(items=run_infos(session, rows), next=cursor)


@router.get("/{run:segment}", responses=problem_responses(404))
def get_run(run: RunId, caller: CallerDep, session: SessionDep) -> RunInfo:
    """One training run: its status and progress."""
    return run_info(session, visible_run(session, caller, run))


@router.patch("/{run:segment}", responses=problem_responses(404, 409))
def change_run(run: RunId, body: RunChanges, caller: CallerDep, session: SessionDep) -> RunInfo:
    """Change a run's tags, or its priority while it waits."""
    changed = service.change_run(session, caller, run, priority=body.priority, tags=body.tags)
    return run_info(session, changed)


@router.post("/{run}:cancel", status_code=202, responses=problem_responses(404, 409))
def cancel_run(run: RunId, caller: CallerDep, session: SessionDep) -> RunInfo:
    """Cancel a run. A waiting one is cancelled at once, a running one within seconds."""
    return run_info(session, service.cancel_run(session, caller, run))


def visible_run(session: Session, caller: Caller, run_id: int) -> TrainingRun:
    run = service.get_run(session, run_id)
    caller.require_model(run.model)
    return run
