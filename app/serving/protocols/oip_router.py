"""The Open Inference Protocol v2 over HTTP, as Triton, KServe and MLServer speak it."""

from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from app import telemetry
from app.access.caller import Caller
from app.access.route import CallerDep, GuardedRoute
from app.db import Database
from app.errors import Conflict
from app.http.problems import problem_responses
from app.http.session import DatabaseDep
from app.registry.models import ModelVersion
from app.registry.service import get_model, get_version
from app.registry.signature import Signature
from app.serving import service
from app.serving.answers import Answer
from app.serving.live import LiveTable, Target
from app.serving.predict_router import PREDICTION_ID_EXAMPLE, PredictingDep, VersionDep
from app.serving.predicting import SMALL_BODY, SMALL_ROWS, Predicting, timed
from app.serving.protocols import oip
from app.serving.protocols.compression import compress, decompress
from app.serving.protocols.oip_metadata import (
    PLATFORM,
    Statistics,
    describe_config,
    describe_inputs,
    describe_outputs,
    read_statistics,
)

router = APIRouter(prefix="/v2", tags=["protocols"], route_class=GuardedRoute)

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
JSON_LENGTH = "Inference-Header-Content-Length"


def get_live(request: Request) -> LiveTable:
    live: LiveTable = request.app.state.live
    return live


LiveDep = Annotated[LiveTable, Depends(get_live)]


class Described(NamedTuple):
    """A model version, as far as its description needs it."""

    model: str
    number: int
    signature: Signature


def find_champion(model: str, caller: CallerDep, live: LiveDep) -> Described:
    """What is in service. Raises NotFound, Conflict or VersionNotServable."""
    deployment = live.find(model)
    if deployment is None:
        raise live.absence(caller, model)
    version = deployment.slots[0].version
    return Described(version.model, version.number, version.signature)


def describe(version: VersionDep) -> Described:
    return Described(version.model, version.number, Signature.model_validate(version.signature))


ChampionDep = Annotated[Described, Depends(find_champion)]
DescribedDep = Annotated[Described, Depends(describe)]


def _answers(description: str, example: Any, *errors: int) -> dict[str, Any]:
    """The documentation of an operation's good answer, and of the errors that are its own."""
    responses = {200: _answer(description, example)}
    return {"response_class": Response, "responses": {**responses, **problem_responses(*errors)}}


def _answer(description: str, example: Any) -> dict[str, Any]:
    schema = {"type": "array" if isinstance(example, list) else "object"}
    return {
        "description": description,
        "content": {"application/json": {"schema": schema, "example": example}},
    }


# ── The server ───────────────────────────────────────────────────────────────────────────────────


@router.get(
    "",
    **_answers(
        "The server's name, version and extensions of the protocol.",
        {"name": "roundhouse", "version": "0.1.0", "extensions": EXTENSIONS},
    ),
)
def server_metadata(request: Request) -> Response:
    """Who answers here, and which extensions of the protocol it speaks."""
    return JSONResponse({"name": "roundhouse", "version": request.app.version, "extensions": EXTENSIONS})


@router.get("/health/live", **_answers("It answers.", {"live": True}))
def server_live() -> Response:
    """Whether the process answers."""
    return JSONResponse({"live": True})


@router.get(
    "/health/ready",
    response_class=Response,
    responses={
        200: _answer("Every model in service is loaded.", {"ready": True}),
        503: _answer("One of them is not loaded.", {"ready": False}),
    },
)
def server_ready(live: LiveDep) -> Response:
    """Whether every model in service is loaded here; 503 otherwise."""
    ready = not live.problems()
    return JSONResponse({"ready": ready}, 200 if ready else 503)


# ── Statistics ───────────────────────────────────────────────────────────────────────────────────

STATISTICS: dict[str, Any] = _answers(
    "Counts since the server's start, over its processes.",
    {"model_stats": [Statistics(1200, 300, 0.45, 2, 0.001).describe("flight-delays", 1)]},
    404,
    409,
)


# Ahead of /models/{model}, which would take it for a model's name.
@router.get("/models/stats", **STATISTICS)
def all_statistics(caller: CallerDep) -> Response:
    """How many rows every model has answered, in how many requests, and how long that took."""
    found = _read_statistics()
    return _statistics({key: found[key] for key in found if caller.may_touch(key[0])})


@router.get("/models/{model}/stats", **STATISTICS)
def model_statistics(version: ChampionDep) -> Response:
    """The same of one model: of its version in service, and of the others that have answered."""
    none = {(version.model, version.number): Statistics()}
    found = none | _read_statistics()
    return _statistics({key: found[key] for key in found if key[0] == version.model})


@router.get("/models/{model}/versions/{version}/stats", **STATISTICS)
def version_statistics(version: DescribedDep) -> Response:
    """The same of one version."""
    key = version.model, version.number
    return _statistics({key: _read_statistics().get(key, Statistics())})


def _read_statistics() -> dict[tuple[str, int], Statistics]:
    return read_statistics(telemetry.collect_metrics())


def _statistics(of: dict[tuple[str, int], Statistics]) -> Response:
    return JSONResponse(
        {"model_stats": [of[model, number].describe(model, number) for model, number in sorted(of)]}
    )


# ── A model ──────────────────────────────────────────────────────────────────────────────────────

METADATA: dict[str, Any] = _answers(
    "Inputs and outputs; -1 is the number of rows.",
    {
        "name": "flight-delays",
        "versions": ["1"],
        "platform": PLATFORM,
        "inputs": [
            {"name": "distance", "datatype": "INT64", "shape": [-1, 1], "parameters": {"nullable": False}},
        ],
        "outputs": [{"name": "prediction", "datatype": "BOOL", "shape": [-1, 1], "parameters": {}}],
    },
    404,
    409,
)


@router.get("/models/{model}", **METADATA)
def model_metadata(version: ChampionDep, database: DatabaseDep) -> Response:
    """The columns that the model in service takes, and the outputs it gives."""
    with database.session_scope(write=False) as session:
        found = get_model(session, version.model)
        query = select(ModelVersion.number).filter_by(model_id=found.id).order_by(ModelVersion.number)
        return _metadata(version, [str(number) for number in session.scalars(query)])


@router.get("/models/{model}/versions/{version}", **METADATA)
def version_metadata(version: DescribedDep) -> Response:
    """The same of one version."""
    return _metadata(version, [str(version.number)])


def _metadata(version: Described, versions: list[str]) -> Response:
    return JSONResponse(
        {
            "name": version.model,
            "versions": versions,
            "platform": PLATFORM,
            "inputs": describe_inputs(version.signature),
            "outputs": describe_outputs(version.signature),
        }
    )


READY: dict[str, Any] = _answers("It answers.", {"name": "flight-delays", "ready": True}, 404, 409)


@router.get("/models/{model}/ready", **READY)
def model_ready(version: ChampionDep) -> Response:
    """Whether the model answers: 200, or an error that tells why it does not."""
    return JSONResponse({"name": version.model, "ready": True})


@router.get("/models/{model}/versions/{version}/ready", **READY)
def version_ready(version: VersionDep, live: LiveDep) -> Response:
    """Whether one version answers."""
    live.load(version.id)
    return JSONResponse({"name": version.model, "ready": True})


CONFIG: dict[str, Any] = _answers(
    "The configuration, in Triton's words.",
    {
        "name": "flight-delays",
        "platform": PLATFORM,
        "backend": "roundhouse",
        "max_batch_size": 10_000,
        "input": [{"name": "distance", "data_type": "TYPE_INT64", "dims": [1], "optional": False}],
        "output": [{"name": "prediction", "data_type": "TYPE_BOOL", "dims": [1]}],
    },
    404,
    409,
)


@router.get("/models/{model}/config", **CONFIG)
def model_config(version: ChampionDep, request: Request) -> Response:
    """The inputs and outputs once more, as Triton's clients ask for them."""
    return _config(version, request)


@router.get("/models/{model}/versions/{version}/config", **CONFIG)
def version_config(version: DescribedDep, request: Request) -> Response:
    """The same of one version."""
    return _config(version, request)


def _config(version: Described, request: Request) -> Response:
    max_rows = request.app.state.settings.max_instances
    return JSONResponse(describe_config(version.model, version.signature, max_rows))


# ── Inference ────────────────────────────────────────────────────────────────────────────────────

INFER: dict[str, Any] = {
    **_answers(
        "The outputs that were asked for; the ids of the predictions, for feedback, are in `parameters`.",
        {
            "model_name": "flight-delays",
            "model_version": "1",
            "id": "order-17",
            "parameters": {"prediction_ids": [PREDICTION_ID_EXAMPLE]},
            "outputs": [
                {"name": "prediction", "datatype": "BOOL", "shape": [1, 1], "data": [False]},
                {
                    "name": "probabilities",
                    "datatype": "FP64",
                    "shape": [1, 2],
                    "data": [0.83, 0.17],
                    "parameters": {"classes": [False, True]},
                },
            ],
        },
        404,
        409,
        415,
    ),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {
                        "id": "order-17",
                        "inputs": [
                            {"name": "distance", "datatype": "INT64", "shape": [1, 1], "data": [1400]},
                            {"name": "carrier", "datatype": "BYTES", "shape": [1, 1], "data": ["UA"]},
                        ],
                    },
                }
            },
        }
    },
}


@router.post("/models/{model}/infer", **INFER)
async def infer(model: str, request: Request, caller: CallerDep, predicting: PredictingDep) -> Response:
    """Predict with what is in service. Tensors may be JSON or binary, the body gzip or deflate."""
    return await _infer(request, caller, predicting, await predicting.find_target(caller, model))


@router.post("/models/{model}/versions/{version}/infer", **INFER)
async def infer_with_version(
    version: VersionDep,
    request: Request,
    caller: CallerDep,
    predicting: PredictingDep,
) -> Response:
    """Predict with one version, whether or not it is in service."""
    return await _infer(request, caller, predicting, await predicting.version_target(version.id))


async def _infer(request: Request, caller: Caller, predicting: Predicting, target: Target) -> Response:
    signature = target.version.signature
    limit = request.app.state.settings.max_request_bytes
    encoding = request.headers.get("content-encoding", "")

    def read(body: bytes) -> oip.InferRequest:
        content = decompress(body, encoding, limit=limit)
        return oip.parse_infer(content, request.headers.get(JSON_LENGTH), signature)

    with timed(target, "oip"):
        body = await request.body()
        # A small compressed body may be a large one.
        small = len(body) <= SMALL_BODY and not encoding
        asked = read(body) if small else await run_in_threadpool(read, body)
        answer = await predicting.answer(
            target, caller, asked.rows, protocol="oip", root="inputs", client_id=asked.id
        )

    def write() -> Response:
        content, json_length = oip.format_infer(asked, signature, _outcome(answer))
        content, encoding = compress(content, request.headers.get("accept-encoding", ""))
        headers = {"vary": "Accept-Encoding"}
        if json_length is not None:
            headers[JSON_LENGTH] = str(json_length)
        if encoding is not None:
            headers["content-encoding"] = encoding
        media_type = "application/json" if json_length is None else "application/octet-stream"
        return Response(content, 200, headers, media_type, answer.background)

    return write() if len(asked.rows) <= SMALL_ROWS else await run_in_threadpool(write)


def _outcome(answer: Answer) -> oip.Outcome:
    version = answer.target.version
    return oip.Outcome(
        version.model, version.number, answer.predictions, answer.probabilities, answer.prediction_ids
    )


# ── The repository ───────────────────────────────────────────────────────────────────────────────


@router.post(
    "/repository/index",
    **_answers(
        "Every version of every model that the key may see.",
        [{"name": "flight-delays", "version": "1", "state": "READY", "reason": ""}],
    ),
)
async def repository_index(
    request: Request, caller: CallerDep, database: DatabaseDep, live: LiveDep
) -> Response:
    """Which versions there are, and which are in service. `{"ready": true}` leaves the others out."""
    only_ready = oip.parse_index(await request.body())

    def find() -> list[dict[str, str]]:
        query = select(ModelVersion.model, ModelVersion.number).where(caller.sees(ModelVersion.model))
        with database.session_scope(write=False) as session:
            versions = session.execute(query.order_by(ModelVersion.model, ModelVersion.number)).all()
        return [_describe_state(live, model, number) for model, number in versions]

    described = await run_in_threadpool(find)
    return JSONResponse([one for one in described if one["state"] == "READY" or not only_ready])


def _describe_state(live: LiveTable, model: str, number: int) -> dict[str, str]:
    deployment = live.current(model)
    ready = deployment is not None and any(slot.version.number == number for slot in deployment.slots)
    reason = "" if ready else live.failure(model) or "not in service"
    state = "READY" if ready else "UNAVAILABLE"
    return {"name": model, "version": str(number), "state": state, "reason": reason}


@router.post(
    "/repository/models/{model}/load",
    response_class=Response,
    responses={200: {"description": "The model is in service."}, **problem_responses(404, 409)},
    openapi_extra={
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": {"type": "object"}, "example": {}}},
        }
    },
)
async def load_model(
    model: str, request: Request, caller: CallerDep, database: DatabaseDep, live: LiveDep
) -> Response:
    """Put the model into service: its newest version, where none is in service yet.

    Another version is promoted where Triton's `config` asks for it:
    `{"version_policy": {"specific": {"versions": [2]}}}`.
    """
    asked = oip.parse_load(await request.body())
    await run_in_threadpool(_load, database, live, caller, model, asked)
    return Response()


def _load(database: Database, live: LiveTable, caller: Caller, model: str, asked: int | None) -> None:
    with database.session_scope(write=False) as session:
        found = get_model(session, model, caller)
        current = service.current_deployment(session, found)
        served = [slot.version for slot in current.slots] if current else []
        if served and asked in (None, served[0]):
            return
        if asked is None:
            newest = select(func.max(ModelVersion.number)).filter_by(model_id=found.id)
            asked = session.scalar(newest) or 1
        version_id = get_version(session, model, asked).id
    live.load(version_id)
    with database.session_scope() as session:
        service.promote(
            session,
            caller,
            model,
            version=asked,
            expected_deployment=current.id if current else 0,
            comment="loaded by the Open Inference Protocol",
        )
    live.catch_up()


@router.post(
    "/repository/models/{model}/unload",
    response_class=Response,
    responses={200: {"description": "The model is not in service."}, **problem_responses(404, 409)},
)
def unload_model(model: str, caller: CallerDep, database: DatabaseDep) -> Response:
    """Refused for a model in service: it stays there until another version takes its place."""
    with database.session_scope(write=False) as session:
        if service.current_deployment(session, get_model(session, model, caller)) is not None:
            raise Conflict(
                "model_in_service",
                f"Model {model!r} stays in service: a deployment is superseded, never removed. Load another "
                f"version, or POST /v1/models/{model}:rollback.",
            )
    return Response()
