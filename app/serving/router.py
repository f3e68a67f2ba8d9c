"""Models in service over HTTP: describing, promoting, rolling back."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, Strict
from sqlalchemy import select

from app.access.route import CallerDep, GuardedRoute
from app.db import Database
from app.http.fields import Moment, Number, StrictNumber
from app.http.paging import Page, PagingDep, paginate
from app.http.problems import problem_responses
from app.http.session import SessionDep
from app.registry.models import Model, ModelVersion
from app.registry.router import SIGNATURE_EXAMPLE
from app.registry.service import get_model, get_version
from app.registry.signature import Signature
from app.serving import service
from app.serving.live import LiveTable
from app.serving.models import Variant

router = APIRouter(prefix="/v1/models", route_class=GuardedRoute)


def get_live(request: Request) -> LiveTable:
    live: LiveTable = request.app.state.live
    return live


LiveDep = Annotated[LiveTable, Depends(get_live)]

# ── Models ───────────────────────────────────────────────────────────────────────────────────────


class ModelSummary(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "flight-delays", "created_at": "2026-11-23T08:00:00Z"}]}
    )

    name: str
    created_at: datetime


class ModelInfo(ModelSummary):
    """What a client needs to know: whether the model answers, what it takes, and a row to start from."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "flight-delays",
                    "created_at": "2026-11-23T08:00:00Z",
                    "ready": True,
                    "version": 1,
                    "deployment": 1,
                    "signature": SIGNATURE_EXAMPLE,
                    "example": {"distance": 1400, "carrier": "UA"},
                }
            ]
        }
    )

    ready: bool = Field(description="Whether `:predict` answers.")
    version: int | None = Field(description="The champion's version.")
    deployment: int | None
    signature: Signature | None = Field(description="The champion's columns and classes.")
    example: dict[str, Any] | None = Field(description="A row of the training data, as `instances` takes it.")


@router.get("", tags=["models"])
def list_models(session: SessionDep, caller: CallerDep, paging: PagingDep) -> Page[ModelSummary]:
    """All models that the key may see, newest first."""
    rows, cursor = paginate(session, select(Model).where(caller.sees(Model.name)), Model.id, paging)
    return Page(items=[ModelSummary(name=row.name, created_at=row.created_at) for row in rows], next=cursor)


@router.get("/{model:segment}", tags=["models"], responses=problem_responses(404))
def describe_model(model: str, caller: CallerDep, session: SessionDep, live: LiveDep) -> ModelInfo:
    """One model: what it takes, and whether it is ready."""
    found = get_model(session, model, caller)
    deployment = service.current_deployment(session, found)
    version = session.get_one(ModelVersion, deployment.slots[0].version_id) if deployment else None
    return ModelInfo(
        name=found.name,
        created_at=found.created_at,
        ready=deployment is not None and live.failure(model) is None,
        version=version.number if version else None,
        deployment=deployment.id if deployment else None,
        signature=Signature.model_validate(version.signature) if version else None,
        example=version.example if version else None,
    )


# ── Deployments ──────────────────────────────────────────────────────────────────────────────────

DEPLOYMENT_EXAMPLE: dict[str, Any] = {
    "id": 3,
    "model": "flight-delays",
    "slots": [{"variant": "champion", "version": 2, "weight": 1.0}],
    "reason": "promote",
    "comment": "beats version 1 on June and July",
    "restores": None,
    "created_by": "eva",
    "created_at": "2026-11-23T08:00:00Z",
}


class Promotion(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"version": 1, "expected_deployment": 0, "comment": "the first one"}]
        },
    )

    version: StrictNumber
    expected_deployment: Annotated[int, Strict()] | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="The deployment you looked at (0: none yet); 409 if it is no longer the current one.",
    )
    canary: float | None = Field(
        None, gt=0, lt=1, description="Beside the champion, answer this share of the requests."
    )
    shadow: bool = Field(
        False, description="Beside the champion, score every request and record it, but never answer."
    )
    comment: str | None = Field(None, max_length=2000)


ROLLBACK_EXAMPLE: dict[str, Any] = {"comment": "complaints from the ground crew"}


class Rollback(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [ROLLBACK_EXAMPLE]})

    to_deployment: StrictNumber | None = Field(
        None, description="Without it: the deployment before the current one."
    )
    comment: str | None = Field(None, max_length=2000)


RollbackBody = Annotated[Rollback | None, Body(examples=[ROLLBACK_EXAMPLE])]


class SlotInfo(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    variant: Variant
    version: int
    weight: float = Field(description="Its share of the answers.")


class DeploymentInfo(BaseModel):
    """What serves the model from its creation until the next one. Never changed."""

    model_config = ConfigDict(
        from_attributes=True, validate_by_name=True, json_schema_extra={"examples": [DEPLOYMENT_EXAMPLE]}
    )

    id: int
    model: str
    slots: list[SlotInfo]
    reason: str
    comment: str | None
    restores: int | None = Field(validation_alias="restores_id", description="What a rollback restored.")
    created_by: str
    created_at: datetime


def load_before_promoting(model: str, body: Promotion, caller: CallerDep, request: Request) -> Iterator[None]:
    """Load the version before the transaction, and serve it right after.

    Declared before the session, this begins before the transaction and ends after its commit.
    """
    live: LiveTable = request.app.state.live
    database: Database = request.app.state.database
    with database.session_scope(write=False) as session:
        version_id = get_version(session, model, body.version, caller).id
    live.load(version_id)
    yield
    live.catch_up()


def load_before_rolling_back(
    model: str, caller: CallerDep, request: Request, body: RollbackBody = None
) -> Iterator[None]:
    """The same for what is rolled back to: a version that cannot be loaded leaves the current in service."""
    live: LiveTable = request.app.state.live
    database: Database = request.app.state.database
    with database.session_scope(write=False) as session:
        to_deployment = body.to_deployment if body else None
        target = service.rollback_target(session, get_model(session, model, caller), to_deployment)
        version_ids = [slot.version_id for slot in target.slots]
    for version_id in version_ids:
        live.load(version_id)
    yield
    live.catch_up()


@router.post(
    "/{model}:promote",
    status_code=201,
    tags=["deployments"],
    responses=problem_responses(404, 409, 503),
    dependencies=[Depends(load_before_promoting, scope="function")],
)
def promote(
    model: str, body: Promotion, caller: CallerDep, session: SessionDep, response: Response
) -> DeploymentInfo:
    """Put a version into service. Every process serves it within a second; no prediction fails meanwhile."""
    deployment = service.promote(
        session,
        caller,
        model,
        version=body.version,
        expected_deployment=body.expected_deployment,
        canary=body.canary,
        shadow=body.shadow,
        comment=body.comment,
    )
    response.headers["location"] = f"/v1/models/{model}/deployments/{deployment.id}"
    return DeploymentInfo.model_validate(deployment)


@router.post(
    "/{model}:rollback",
    status_code=201,
    tags=["deployments"],
    responses=problem_responses(404, 409, 503),
    dependencies=[Depends(load_before_rolling_back, scope="function")],
)
def roll_back(
    model: str, caller: CallerDep, session: SessionDep, response: Response, body: RollbackBody = None
) -> DeploymentInfo:
    """Serve again what an earlier deployment served, as a new deployment."""
    asked = body or Rollback()
    deployment = service.roll_back(
        session, caller, model, to_deployment=asked.to_deployment, comment=asked.comment
    )
    response.headers["location"] = f"/v1/models/{model}/deployments/{deployment.id}"
    return DeploymentInfo.model_validate(deployment)


@router.get("/{model}/deployments", tags=["deployments"], responses=problem_responses(404))
def list_deployments(
    model: str,
    session: SessionDep,
    paging: PagingDep,
    as_of: Annotated[
        Moment | None, Query(description="Only until this time: the first is what served then.")
    ] = None,
) -> Page[DeploymentInfo]:
    """Every deployment of the model, newest first; the first is in service."""
    rows, cursor = service.list_deployments(session, model, paging, as_of)
    return Page(items=[DeploymentInfo.model_validate(row) for row in rows], next=cursor)


@router.get("/{model}/deployments/{deployment}", tags=["deployments"], responses=problem_responses(404))
def get_deployment(model: str, deployment: Number, session: SessionDep) -> DeploymentInfo:
    """One deployment."""
    return DeploymentInfo.model_validate(service.get_deployment(session, model, deployment))
