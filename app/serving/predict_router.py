"""Predicting over HTTP, and what was predicted."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, FailFast, Field
from starlette.concurrency import run_in_threadpool

from app.access.caller import Caller
from app.access.route import CallerDep, GuardedRoute, UploadRoute
from app.columns import Value
from app.http.bodies import limit_body, read_body
from app.http.fields import Number, StrictNumber
from app.http.problems import problem_responses
from app.http.session import DatabaseDep
from app.registry.models import ModelVersion
from app.registry.service import get_alias, get_version
from app.serving.live import Target
from app.serving.models import Variant
from app.serving.predicting import SMALL_BODY, Predicting, prediction_not_found, timed
from app.serving.protocols import bulk
from app.serving.protocols.compression import UnsupportedEncoding, decompress
from app.serving.records import PredictionRecord

# Files are taken in bulk; the smaller limit of JSON stands where that is read.
router = APIRouter(prefix="/v1/models", tags=["predictions"], route_class=UploadRoute)
predictions_router = APIRouter(prefix="/v1/predictions", tags=["predictions"], route_class=GuardedRoute)


async def get_predicting(request: Request) -> Predicting:
    predicting: Predicting = request.app.state.predicting
    return predicting


PredictingDep = Annotated[Predicting, Depends(get_predicting)]

INSTANCE_EXAMPLE: dict[str, Any] = {"distance": 1400, "carrier": "UA"}
PREDICTION_ID_EXAMPLE = bulk.PREDICTION_ID_EXAMPLE


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

    predictions: list[Value]
    probabilities: list[list[float]] | None = None
    classes: list[Value] | None = None
    prediction_ids: list[str] = Field(description="Keep them: feedback is sent by them.")
    model: str
    version: int
    variant: Variant | None = Field(description="Null where a version or alias was asked for by name.")


PREDICTION_EXAMPLE: dict[str, Any] = {
    "prediction_id": PREDICTION_ID_EXAMPLE,
    "at": "2026-11-23T08:00:00Z",
    "model": "flight-delays",
    "version": 1,
    "deployment": 1,
    "variant": "champion",
    "caller": "checkout-service",
    "request_id": "0f9b8c1d2e3f4a5b",
    "client_id": None,
    "inputs": INSTANCE_EXAMPLE,
    "prediction": False,
    "probabilities": [0.83, 0.17],
}


class PredictionInfo(BaseModel):
    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [PREDICTION_EXAMPLE]})

    prediction_id: str
    at: datetime
    model: str
    version: int
    deployment: int | None
    variant: Variant | None
    caller: str
    request_id: str | None
    client_id: str | None = Field(description="The request's `id` in the Open Inference Protocol.")
    inputs: dict[str, Any]
    prediction: Value
    probabilities: list[float] | None


class ReplayRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 2}]})

    version: StrictNumber | None = Field(None, description="Without it: the version that answered.")


ReplayBody = Annotated[ReplayRequest | None, Body(examples=[{"version": 2}])]


class Replay(BaseModel):
    """A row's way through a version: its cells, the prepared features, the scores, the output."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "recorded": PREDICTION_EXAMPLE,
                    "version": 1,
                    "encoded": {"distance": 1400.0, "carrier": 11.0},
                    "features": {"distance": 0.48, 'carrier is "UA"': 1.0},
                    "raw_scores": [-1.59],
                    "prediction": False,
                    "probabilities": [0.83, 0.17],
                    "classes": [False, True],
                    "decision": None,
                    "same": True,
                }
            ]
        }
    )

    recorded: PredictionInfo
    version: int = Field(description="The version that scored the row again.")
    encoded: dict[str, float | None] = Field(
        description="The cells of the model's matrix: numbers, codes of categories (-1: not known), seconds "
        "since 1970, counts of a text's words, null."
    )
    features: dict[str, float] = Field(description="What preprocessing made of them.")
    raw_scores: list[float] = Field(
        description="The scores before the link function; empty where scikit-learn itself serves the version."
    )
    prediction: Value
    probabilities: list[float] | None
    classes: list[Value] | None
    decision: str | None = Field(
        description="How the costs of wrong answers choose the class; null where the most probable one is "
        "answered."
    )
    same: bool = Field(description="Whether the output is the recorded one, to the last bit.")


_predict: dict[str, Any] = {
    "response_model": PredictResponse,
    "responses": {200: {"content": bulk.ANSWERS}, **problem_responses(404, 409, 503)},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/PredictRequest"}},
                **bulk.BODIES,
            },
        }
    },
}


@router.post("/{model}:predict", **_predict)
async def predict(model: str, request: Request, caller: CallerDep, predicting: PredictingDep) -> Response:
    """Predict with what is in service. Every row is answered as if it came alone, and recorded."""
    chosen: Target | None = getattr(request.state, "target", None)  # by the express lane
    target = chosen or await predicting.find_target(caller, model)
    return await _answer(request, caller, predicting, target)


def find_version(model: str, version: Number, caller: CallerDep, database: DatabaseDep) -> ModelVersion:
    """A version by its number, whether or not it is in service. Raises NotFound."""
    with database.session_scope(write=False) as session:
        return get_version(session, model, version, caller)


VersionDep = Annotated[ModelVersion, Depends(find_version)]


def find_alias(model: str, alias: str, database: DatabaseDep) -> int:
    with database.session_scope(write=False) as session:
        return get_alias(session, model, alias)[1].id


@router.post("/{model}/versions/{version}:predict", **_predict)
async def predict_with_version(
    version: VersionDep,
    request: Request,
    caller: CallerDep,
    predicting: PredictingDep,
) -> Response:
    """Predict with one version, whether or not it is in service."""
    return await _answer(request, caller, predicting, await predicting.version_target(version.id))


@router.post("/{model}/aliases/{alias}:predict", **_predict)
async def predict_with_alias(
    version_id: Annotated[int, Depends(find_alias)],
    request: Request,
    caller: CallerDep,
    predicting: PredictingDep,
) -> Response:
    """Predict with the version that an alias points at."""
    return await _answer(request, caller, predicting, await predicting.version_target(version_id))


async def _answer(request: Request, caller: Caller, predicting: Predicting, target: Target) -> Response:
    encoding = request.headers.get("content-encoding", "")
    if bulk.media_type_of(request) in bulk.BULK:
        if encoding:
            raise UnsupportedEncoding(
                "unsupported_encoding", "Content-Encoding is not read in bulk: send the body as it is."
            )
        return await bulk.respond(request, caller, predicting, target)
    limit = request.app.state.settings.max_request_bytes
    read = target.version.reader.read
    with timed(target, "v1"):
        body = await limit_body(request, limit, "ROUNDHOUSE_MAX_REQUEST_BYTES").body()
        if encoding:
            body = await run_in_threadpool(decompress, body, encoding, limit=limit)
        rows = read(body) if len(body) <= SMALL_BODY else await run_in_threadpool(read, body)
        if rows is not None:
            answer = await predicting.answer_rows(target, caller, rows, protocol="v1")
        else:
            asked = await run_in_threadpool(read_body, PredictRequest, body)
            answer = await predicting.answer(target, caller, asked.instances, protocol="v1")
    return await bulk.format_answer(request, answer)


def find_record(
    prediction: str, caller: CallerDep, database: DatabaseDep, predicting: PredictingDep
) -> PredictionRecord:
    parsed = predicting.ids.parse(prediction)
    if parsed is None:
        raise prediction_not_found(prediction)
    with database.session_scope(write=False) as session:
        version = session.get(ModelVersion, parsed.version_id)
    if version is None or not caller.may_touch(version.model):
        raise prediction_not_found(prediction)
    return predicting.recall(caller, prediction, version.model, parsed.at)


RecordDep = Annotated[PredictionRecord, Depends(find_record)]


@predictions_router.get("/{prediction:segment}", responses=problem_responses(404))
def get_prediction(record: RecordDep) -> PredictionInfo:
    """A recorded prediction: its inputs, output, version and time. Clients see their own.

    A prediction made on another machine can be seen once its journal is sealed (some seconds).
    """
    return PredictionInfo.model_validate(record)


@predictions_router.post("/{prediction:segment}:replay", responses=problem_responses(404, 503))
def replay_prediction(
    record: RecordDep, database: DatabaseDep, predicting: PredictingDep, body: ReplayBody = None
) -> Replay:
    """Score a recorded row again, on the version that answered it or on any other, step by step."""
    with database.session_scope(write=False) as session:
        number = (body.version if body else None) or record.version
        version_id = get_version(session, record.model, number).id
    version = predicting.live.load(version_id)
    matrix = version.reader.encode([record.inputs], root="inputs").matrix
    scores, steps = version.scorer.score(matrix), version.scorer.steps(matrix)
    names = version.signature.cell_names
    prediction, probabilities = version.labels(scores)[0], None
    if version.signature.classes is not None:
        probabilities = scores[0].tolist()
    return Replay(
        recorded=PredictionInfo.model_validate(record),
        version=number,
        encoded={name: None if cell != cell else cell for name, cell in zip(names, matrix[0], strict=True)},
        features=steps.features,
        raw_scores=steps.raw,
        prediction=prediction,
        probabilities=probabilities,
        classes=version.signature.classes,
        decision=version.signature.decision,
        same=(prediction, probabilities) == (record.prediction, record.probabilities),
    )
