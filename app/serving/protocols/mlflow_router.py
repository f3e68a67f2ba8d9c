"""MLflow's scoring server, for its clients: every model under its own path, and one at the root."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app.access.caller import Caller
from app.access.route import CallerDep, GuardedRoute
from app.db import Database
from app.errors import AppError, Conflict, InvalidInput
from app.http.problems import problem_responses
from app.http.session import DatabaseDep
from app.serving.live import LiveTable
from app.serving.models import Deployment
from app.serving.predict_router import PREDICTION_ID_EXAMPLE, PredictingDep
from app.serving.predicting import SMALL_BODY, SMALL_ROWS, Predicting, timed
from app.serving.protocols.mlflow import ScoringRequest, bad_request, parse_csv, parse_json

router = APIRouter(tags=["protocols"], route_class=GuardedRoute)

UTF_8 = ("", "utf-8", "utf8")


def _answers(description: str, media_type: str, example: Any) -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {"response_class": Response, "responses": {200: {"description": description, "content": content}}}


# ── The server ───────────────────────────────────────────────────────────────────────────────────

HEALTHY: dict[str, Any] = _answers("Every model in service is loaded.", "text/plain", "\n")
HEALTHY["responses"] |= problem_responses(503)


@router.get("/ping", **HEALTHY)
def ping(request: Request) -> Response:
    """Whether every model in service is loaded; 503 otherwise."""
    live: LiveTable = request.app.state.live
    if live.problems():
        raise AppError(
            "model_not_loaded", "A model in service is not loaded here; /readyz tells why.", status=503
        )
    return Response("\n", media_type="text/plain")


@router.get("/health", **HEALTHY)
def health(request: Request) -> Response:
    """The same as `/ping`."""
    return ping(request)


@router.get("/version", **_answers("The version of this server.", "text/plain", "0.1.0"))
def version(request: Request) -> Response:
    """The version of this server: where MLflow tells its own."""
    return Response(request.app.version, media_type="text/plain")


# ── Scoring ──────────────────────────────────────────────────────────────────────────────────────

EXAMPLE = {"dataframe_split": {"columns": ["distance", "carrier"], "data": [[1400, "UA"]]}}
SCORE: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "Predictions in the order of the rows, and their ids, for feedback.",
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {"predictions": [False], "prediction_ids": [PREDICTION_ID_EXAMPLE]},
                }
            },
        },
        **problem_responses(404, 409, 415),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": EXAMPLE},
                "text/csv": {"schema": {"type": "string"}, "example": "distance,carrier\n1400,UA\n"},
            },
        }
    },
}


@router.post("/v1/models/{model}/invocations", **SCORE)
async def score(model: str, request: Request, caller: CallerDep, predicting: PredictingDep) -> Response:
    """Predict with what is in service, in MLflow's protocol.

    A body is CSV, or JSON with one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`.
    """
    return await _score(request, caller, predicting, model)


@router.post("/invocations", **SCORE)
async def score_default(
    request: Request, caller: CallerDep, predicting: PredictingDep, database: DatabaseDep
) -> Response:
    """The same with the model that `ROUNDHOUSE_DEFAULT_MODEL` names, or else the only one in service."""
    model = request.app.state.settings.default_model
    if not model:
        model = await run_in_threadpool(_only_model, database, caller)
    caller.require_model(model)
    return await _score(request, caller, predicting, model)


def _only_model(database: Database, caller: Caller) -> str:
    query = select(Deployment.model).where(caller.sees(Deployment.model)).distinct().limit(2)
    with database.session_scope(write=False) as session:
        models = session.scalars(query).all()
    if len(models) != 1:
        raise Conflict(
            "no_default_model",
            f"{'Several models are' if models else 'No model is'} in service for this key, and none is the "
            "default. Ask /v1/models/<model>/invocations, or start the server with ROUNDHOUSE_DEFAULT_MODEL.",
        )
    return models[0]


async def _score(request: Request, caller: Caller, predicting: Predicting, model: str) -> Response:
    is_csv = _is_csv(request.headers.get("content-type", ""))
    target = await predicting.find_target(caller, model)
    signature = target.version.signature

    def parse(body: bytes) -> ScoringRequest:
        return parse_csv(body, signature) if is_csv else parse_json(body, signature)

    with timed(target, "mlflow"):
        body = await request.body()
        try:
            asked = parse(body) if len(body) <= SMALL_BODY else await run_in_threadpool(parse, body)
            answer = await predicting.answer(target, caller, asked.rows, protocol="mlflow", root=asked.root)
        except InvalidInput as error:
            raise error if error.status == 400 else bad_request(error) from None

    def write() -> Response:
        content = {"predictions": answer.predictions, "prediction_ids": answer.prediction_ids}
        return Response(msgspec.json.encode(content), 200, None, "application/json", answer.background)

    return write() if len(asked.rows) <= SMALL_ROWS else await run_in_threadpool(write)


def _is_csv(content_type: str) -> bool:
    """Whether the body is CSV and not JSON. Raises AppError (415) for what it cannot be."""
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charset = next((text[8:].strip('"') for text in parameters if text.startswith("charset=")), "")
    if charset not in UTF_8 or media_type.startswith(("application/vnd.", "multipart/", "image/")):
        raise AppError(
            "unsupported_media_type",
            "Bodies are application/json or text/csv, in UTF-8. For Arrow streams and files of millions of "
            "rows there is /v1/models/<model>:predict.",
            status=415,
        )
    return media_type == "text/csv"
