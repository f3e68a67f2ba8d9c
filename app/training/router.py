"""Training over HTTP."""

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import uvicorn
from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from app.access.caller import Caller
from app.access.route import CallerDep, GuardedRoute
from app.datasets.contract_service import get_newest_accepted
from app.datasets.service import get_version
from app.http.fields import Name, StrictNumber
from app.http.paging import Page, PagingDep
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, SessionDep
from app.leases import Status
from app.registry.runtime import Runtime
from app.registry.signature import Task
from app.training import service
from app.training.catalogue import ALGORITHMS
from app.training.models import TrainingRun
from app.training.spec import TrainingSpec

router = APIRouter(prefix="/v1/training-runs", tags=["training"], route_class=GuardedRoute)
algorithms_router = APIRouter(prefix="/v1/algorithms", tags=["training"], route_class=GuardedRoute)

EVENTS_POLL_SECONDS = 0.5
RunId = Annotated[int, Path(ge=1, le=2**63 - 1)]

SPEC_EXAMPLE: dict[str, Any] = {"target": "late", "algorithm": "auto", "seed": 7}
RUN_EXAMPLE: dict[str, Any] = {
    "id": 1,
    "status": "running",
    "model": "flight-delays",
    "dataset": "flights",
    "dataset_version": 1,
    "spec": SPEC_EXAMPLE,
    "progress": {"fraction": 0.4, "step": "cross-validating random forest, fold 3 of 5"},
    "model_version": None,
    "error": None,
    "attempts": 1,
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:00Z",
    "started_at": "2026-11-23T08:00:01Z",
    "finished_at": None,
}


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
    """A training run. It ends as succeeded (see `model_version`), failed (see `error`) or cancelled."""

    model_config = ConfigDict(json_schema_extra={"examples": [RUN_EXAMPLE]})

    id: int
    status: Status
    model: str
    dataset: str
    dataset_version: int
    spec: dict[str, Any]
    progress: RunProgress
    model_version: int | None
    error: RunError | None
    attempts: int
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def _run_info(run: TrainingRun) -> RunInfo:
    return RunInfo(
        id=run.id,
        status=Status(run.status),
        model=run.model,
        dataset=run.dataset,
        dataset_version=run.dataset_version,
        spec=run.spec,
        progress=RunProgress(fraction=run.fraction, step=run.step),
        model_version=run.model_version,
        error=RunError.model_validate(run.error) if run.error else None,
        attempts=run.attempts,
        created_by=run.created_by,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
    )


@router.post("", status_code=202, responses=problem_responses(404, 409))
def create_run(body: NewTrainingRun, caller: CallerDep, session: SessionDep, response: Response) -> RunInfo:
    """Queue a training run. Follow it at its `Location`; it ends with a model version or an error."""
    caller.require_model(body.model)
    if body.dataset_version is None:
        data = get_newest_accepted(session, body.dataset)
    else:
        data = get_version(session, body.dataset, body.dataset_version)
    run = service.create_run(session, caller, model=body.model, data=data, spec=body.spec())
    response.headers["location"] = f"/v1/training-runs/{run.id}"
    return _run_info(run)


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
    return Page(items=[_run_info(row) for row in rows], next=cursor)


@router.get("/{run:segment}", responses=problem_responses(404))
def get_run(run: RunId, caller: CallerDep, session: SessionDep) -> RunInfo:
    """One training run: its status and progress."""
    return _run_info(_visible_run(session, caller, run))


@router.post("/{run}:cancel", status_code=202, responses=problem_responses(404, 409))
def cancel_run(run: RunId, caller: CallerDep, session: SessionDep) -> RunInfo:
    """Cancel a run. A waiting one is cancelled at once, a running one within seconds."""
    return _run_info(service.cancel_run(session, caller, run))


def _read_run(run: RunId, caller: CallerDep, database: DatabaseDep) -> RunInfo:
    with database.session_scope(write=False) as session:
        return _run_info(_visible_run(session, caller, run))


@router.get("/{run}/events", response_class=EventSourceResponse, responses=problem_responses(404))
async def follow_run(
    run: RunId,
    caller: CallerDep,
    database: DatabaseDep,
    # A dependency, because once the stream has begun there is no other status to answer.
    info: Annotated[RunInfo, Depends(_read_run)],
) -> AsyncIterator[ServerSentEvent]:
    """Follow a run as server-sent events: one `run` event for every change, until it has ended.

    A server that stops ends the stream before; connect again, as an EventSource does by itself.
    """
    yield ServerSentEvent(event="run", data=info)
    while not (info.status.final or _server_is_stopping()):
        await asyncio.sleep(EVENTS_POLL_SECONDS)
        now = await run_in_threadpool(_read_run, run, caller, database)
        if now != info:
            info = now
            yield ServerSentEvent(event="run", data=info)


def _server_is_stopping() -> bool:
    """Whether uvicorn has taken a signal to stop. It waits for open streams then, and does not tell them."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return isinstance(server, uvicorn.Server) and server.should_exit


def _visible_run(session: SessionDep, caller: Caller, run_id: int) -> TrainingRun:
    run = service.get_run(session, run_id)
    caller.require_model(run.model)
    return run


class AlgorithmInfo(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "ridge",
                    "title": "ridge regression",
                    "tasks": ["regression"],
                    "served": "compiled",
                    "parameters": {
                        "type": "object",
                        "properties": {"alpha": {"type": "number", "minimum": 0, "default": 1.0}},
                        "additionalProperties": False,
                    },
                }
            ]
        }
    )

    id: str
    title: str
    tasks: list[Task]
    served: Runtime = Field(
        description="`compiled`: in microseconds, unless a version's `runtime_reason` speaks against it. "
        "`native`: by scikit-learn itself."
    )
    parameters: dict[str, Any] = Field(description="JSON Schema of `params`.")


@algorithms_router.get("")
def list_algorithms() -> Page[AlgorithmInfo]:
    """The catalogue: what `algorithm` can name, for which tasks, with which parameters."""
    items = [
        AlgorithmInfo(
            id=entry.id,
            title=entry.title,
            tasks=list(entry.tasks),
            served=entry.served,
            parameters=entry.parameters_schema(),
        )
        for entry in ALGORITHMS.values()
    ]
    return Page(items=items, next=None)
