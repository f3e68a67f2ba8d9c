"""Models in service over HTTP: describing, promoting, rolling back, predicting."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, FailFast, Field, Strict
from sqlalchemy import select
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse

from app.access.route import CallerDep, GuardedRoute
from app.db import Database
from app.http.fields import Moment, Number, StrictNumber
from app.http.paging import Page, PagingDep, paginate
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, SessionDep
from app.registry.models import Model, ModelVersion
from app.registry.router import SIGNATURE_EXAMPLE
from app.registry.service import get_alias, get_model, get_version
from app.registry.signature import Signature
from app.serving import service
from app.serving.live import LiveTable
from app.serving.models import Variant
from app.serving.predicting import Predicting, prediction_not_found

router = APIRouter(prefix="/v1/models", route_class=GuardedRoute)
predictions_router = APIRouter(prefix="/v1/predictions", tags=["predictions"], route_class=GuardedRoute)


def get_predicting(request: Request) -> Predicting:
    predicting: Predicting = request.app.state.predicting
    return predicting


PredictingDep = Annotated[Predicting, Depends(get_predicting)]

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
    example: dict[str, Any] | None = Field(description="A typical row, as `instances` takes it.")


@router.get("", tags=["models"])
def list_models(session: SessionDep, caller: CallerDep, paging: PagingDep) -> Page[ModelSummary]:
    """All models that the key may see, newest first."""
    rows, cursor = paginate(session, select(Model).where(caller.sees(Model.name)), Model.id, paging)
    return Page(items=[ModelSummary(name=row.name, created_at=row.created_at) for row in rows], next=cursor)


@router.get("/{model:segment}", tags=["models"], responses=problem_responses(404))
def describe_model(
    model: str, caller: CallerDep, session: SessionDep, predicting: PredictingDep
) -> ModelInfo:
    """One model: what it takes, and whether it is ready."""
    found = get_model(session, model, caller)
    deployment = service.current_deployment(session, found)
    version = session.get_one(ModelVersion, deployment.slots[0].version_id) if deployment else None
    return ModelInfo(
        name=found.name,
        created_at=found.created_at,
        ready=deployment is not None and predicting.live.failure(model) is None,
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


# ── Predictions ──────────────────────────────────────────────────────────────────────────────────

INSTANCE_EXAMPLE: dict[str, Any] = {"distance": 1400, "carrier": "UA"}
PREDICTION_ID_EXAMPLE = "ag42zdmdhmaaaaabaaaaaai5pgzv4r2tlo3hjqyx"


class PredictRequest(BaseModel):
    """Also the form of KServe V1 and TensorFlow Serving; their further fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"instances": [INSTANCE_EXAMPLE]}]})

    # FailFast: a body of a million wrong rows would take a million error messages.
    instances: Annotated[list[dict[str, Any]], FailFast()] = Field(
        min_length=1, description="Rows: column name to value; null where a nullable column has no value."
    )


class PredictResponse(BaseModel):
    """Predictions in the order of the instances; probabilities and classes for classifiers only."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "predictions": [False],
                    "probabilities": [[0.83, 0.17]],
                    "classes": [False, True],
                    "prediction_ids": [PREDICTION_ID_EXAMPLE],
                    "model": "flight-delays",
                    "version": 1,
                    "variant": "champion",
                }
            ]
        }
    )

    predictions: list[bool | int | float | str]
    probabilities: list[list[float]] | None = None
    classes: list[bool | int | float | str] | None = None
    prediction_ids: list[str] = Field(description="Keep them: feedback is sent by them.")
    model: str
    version: int
    variant: Variant | None = Field(description="Null where a version or alias was asked for by name.")


class PredictionInfo(BaseModel):
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "prediction_id": PREDICTION_ID_EXAMPLE,
                    "at": "2026-11-23T08:00:00Z",
                    "model": "flight-delays",
                    "version": 1,
                    "deployment": 1,
                    "variant": "champion",
                    "caller": "checkout-service",
                    "request_id": "0f9b8c1d2e3f4a5b",
                    "inputs": INSTANCE_EXAMPLE,
                    "prediction": False,
                    "probabilities": [0.83, 0.17],
                }
            ]
        },
    )

    prediction_id: str
    at: datetime
    model: str
    version: int
    deployment: int | None
    variant: Variant | None
    caller: str
    request_id: str | None
    inputs: dict[str, Any]
    prediction: bool | int | float | str
    probabilities: list[float] | None


_predict: dict[str, Any] = {
    "tags": ["predictions"],
    "response_model": PredictResponse,
    "responses": problem_responses(404, 409, 503),
}


@router.post("/{model}:predict", **_predict)
def predict(model: str, body: PredictRequest, caller: CallerDep, predicting: PredictingDep) -> Response:
    """Predict with what is in service. Every row is answered as if it came alone, and recorded."""
    answer = predicting.by_deployment(caller, model, body.instances)
    if not predicting.has_shadow(model):
        return JSONResponse(answer)
    after = BackgroundTask(predicting.score_shadow, caller, model, body.instances)
    return JSONResponse(answer, background=after)


@router.post("/{model}/versions/{version}:predict", **_predict)
def predict_with_version(
    model: str,
    version: Number,
    body: PredictRequest,
    caller: CallerDep,
    database: DatabaseDep,
    predicting: PredictingDep,
) -> Response:
    """Predict with one version, whether or not it is in service."""
    with database.session_scope(write=False) as session:
        found = get_version(session, model, version)
    return JSONResponse(predicting.by_version(caller, found.id, body.instances))


@router.post("/{model}/aliases/{alias}:predict", **_predict)
def predict_with_alias(
    model: str,
    alias: str,
    body: PredictRequest,
    caller: CallerDep,
    database: DatabaseDep,
    predicting: PredictingDep,
) -> Response:
    """Predict with the version that an alias points at."""
    with database.session_scope(write=False) as session:
        _, found = get_alias(session, model, alias)
    return JSONResponse(predicting.by_version(caller, found.id, body.instances))


@predictions_router.get("/{prediction}", responses=problem_responses(404))
def get_prediction(
    prediction: str, caller: CallerDep, database: DatabaseDep, predicting: PredictingDep
) -> PredictionInfo:
    """A recorded prediction: its inputs, output, version and time. Clients see their own.

    A prediction made on another machine can be seen once its journal is sealed (some seconds).
    """
    parsed = predicting.ids.parse(prediction)
    if parsed is None:
        raise prediction_not_found(prediction)
    with database.session_scope(write=False) as session:
        version = session.get(ModelVersion, parsed.version_id)
    if version is None or not caller.may_touch(version.model):
        raise prediction_not_found(prediction)
    record = predicting.recall(caller, prediction, version.model, parsed.at)
    return PredictionInfo.model_validate(record)
