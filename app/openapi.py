"""What the server tells of itself: its OpenAPI document, one of each model, and the page that shows them."""

import json
import re
from collections.abc import Iterator, Sequence
from heapq import nlargest
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from app.access.caller import Caller, Forbidden, Unauthorized
from app.access.policy import POLICY, Permission, roles_with
from app.access.route import CallerDep, GuardedRoute, authorize
from app.http.problems import PROBLEM_TYPE, problem_responses, protocol_error
from app.http.session import DatabaseDep
from app.registry.models import ModelVersion
from app.registry.service import get_model
from app.registry.signature import Signature
from app.serving.models import Deployment
from app.serving.openapi import ModelDescription, ServedVersion, describe_model
from app.serving.predict_router import PREDICTION_ID_EXAMPLE, PredictingDep
from app.serving.predicting import Predicting
from app.serving.service import current_deployment

SUMMARY = "One self-hosted server for the whole life of a tabular machine-learning model."
DESCRIPTION = """
Upload a data version → train → evaluate → promote → predict → send feedback → watch for drift → retrain →
promote, or roll back. Follow the sections below from top to bottom to run the loop by hand: press
**Authorize**, paste your key, and use *Try it out*.

With a key, this document also has an operation for each model in service that the key may see (for the
most used of many), with the model's own columns, categories, classes and an example that can be sent:
see *models in service*. `GET /v1/models/{model}/openapi.json` gives a document of any one model, to read
or to generate a client from.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Lists are pages: pass `next` as
`cursor`. Any POST that creates may carry an `Idempotency-Key` and then be repeated safely.
"""

IN_SERVICE = "models in service"

TAGS = {
    "datasets": "1 · Upload data. A version is immutable, and known by its content.",
    "training": "2 · Train a model on a data version, and follow the run.",
    "models": "3 · See what came out: versions, their signature and their evaluation.",
    "deployments": "4 · Promote a version into service, or roll back. Nothing is overwritten.",
    "predictions": "5 · Predict. Every row is recorded under an id.",
    IN_SERVICE: "5 · The same for each promoted model that your key may see, with its columns and classes.",
    "feedback": "6 · Tell what came true.",
    "monitoring": "7 · Watch drift and performance; then train again on newer data.",
    "protocols": "The same predictions for clients of other servers: they only change their base URL.",
    "events": "Who changed what, and when.",
    "keys": "API keys and their roles.",
    "operations": "For those who run the server.",
}

REFERENCE = "#/components/schemas/"
PREDICT, FEEDBACK = "/v1/models/{model}:predict", "/v1/feedback"

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=GuardedRoute)


def add_documentation(app: FastAPI) -> None:
    """Serve ``/docs``, ``/openapi.json`` and each model's own document, of all routes that ``app`` has."""
    app.include_router(router)
    # Swagger UI comes from a package, not from a CDN: the docs work without the internet.
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    app.add_route("/docs", _show_page, include_in_schema=False)
    app.add_route("/openapi.json", _show_document, include_in_schema=False)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign] # FastAPI's documented way


# ── The page ─────────────────────────────────────────────────────────────────────────────────────

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Roundhouse</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="docs/assets/favicon.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script>
// The document shows the models that its reader's key may see: it is asked for with the key, and again
// whenever that changes.
let key = () => undefined;
const readWithKey = (system) => {
  key = () => system.authSelectors.authorized().getIn(["key", "value"]);
  const thenReload = (original) => (payload) => {
    original(payload);
    system.specActions.download();
  };
  return { statePlugins: { auth: { wrapActions: { authorize: thenReload, logout: thenReload } } } };
};
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: true,
  plugins: [readWithKey],
  requestInterceptor: (request) => {
    if (request.loadSpec && key()) request.headers.Authorization = `Bearer ${key()}`;
    return request;
  },
});
</script>
</body>
</html>
"""


async def _show_page(_request: Request) -> Response:
    return HTMLResponse(PAGE)


# ── The server's document ────────────────────────────────────────────────────────────────────────


async def _show_document(request: Request) -> Response:
    """The server's document. It is public; the models in it are those that the request's key may see."""
    caller, refusal = None, ""
    if request.app.state.settings.no_auth or request.headers.get("authorization"):
        try:
            caller = await authorize(request, (Permission.DESCRIBE,))
        except (Unauthorized, Forbidden) as refused:
            # The page stays readable with a key that the browser remembers and that has been revoked since.
            refusal = f"\n**No model in service is shown.** {refused.detail}\n"
    return await run_in_threadpool(_render_document, request, caller, refusal)


def _render_document(request: Request, caller: Caller | None, refusal: str) -> Response:
    state, document = request.app.state, request.app.openapi()
    info = document["info"] | {"description": document["info"]["description"] + refusal}
    shown = []
    if caller is not None:
        with state.database.session_scope(write=False) as session:
            deployments = _most_used(session, caller, state.predicting, state.settings.docs_models)
            shown = _describe(session, deployments, state.settings.max_instances)
    own = {_path(model): {"post": _predict_operation(document, model)} for model in shown}
    paths = dict(sorted((document["paths"] | own).items(), key=_place_in_life_cycle))
    schemas = dict(document["components"]["schemas"])
    for model in shown:
        schemas |= model.schemas
    components = document["components"] | {"schemas": schemas}
    return _answer(request, document | {"info": info, "paths": paths, "components": components})


def _most_used(session: Session, caller: Caller, predicting: Predicting, limit: int) -> Sequence[Deployment]:
    """What serves the models that this process has answered most rows with, in the order of their names.

    Of equally used ones, those that were promoted last.
    """
    newest = select(func.max(Deployment.id)).group_by(Deployment.model_id)
    rows = session.execute(select(Deployment.model, Deployment.id).where(Deployment.id.in_(newest)))
    seen = [(predicting.answered[model], id_) for model, id_ in rows if caller.may_touch(model)]
    ids = [id_ for _, id_ in nlargest(limit, seen)]
    query = select(Deployment).where(Deployment.id.in_(ids)).order_by(Deployment.model)
    return session.scalars(query.options(selectinload(Deployment.slots))).all()


def _document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with what the policy and the error handlers know added to every operation."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=SUMMARY,
            description=DESCRIPTION,
            tags=[{"name": name, "description": text} for name, text in TAGS.items()],
            routes=app.routes,
        )
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations_at in document["paths"].items():
            for method, operation in operations_at.items():
                _complete(operation, path, method, POLICY.get((method.upper(), path), ()))
        document["paths"] = dict(sorted(document["paths"].items(), key=_place_in_life_cycle))
        schemas = document["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        _add_models(document["paths"], schemas)
        app.openapi_schema = document
    return app.openapi_schema


def _add_models(paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add what FastAPI leaves out: models that only the paths name, and examples with nulls in them."""
    models = {model.__name__: model for model in _subclasses(BaseModel)}
    while missing := _names(paths, schemas) - schemas.keys():
        for name in sorted(missing):
            schemas[name] = models[name].model_json_schema(ref_template=REFERENCE + "{model}")
            schemas[name].pop("$defs", None)
    for name, model in models.items():
        extra = model.model_config.get("json_schema_extra")
        if isinstance(extra, dict) and isinstance(examples := extra.get("examples"), list):
            if name in schemas:
                schemas[name]["examples"] = examples
            if (page := f"Page_{name}_") in schemas:
                schemas[page]["examples"] = [{"items": examples, "next": None}]


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for below in model.__subclasses__():
        yield below
        yield from _subclasses(below)


def _names(*parts: dict[str, Any]) -> set[str]:
    """The schemas that parts of a document refer to."""
    return set(re.findall(rf'"{REFERENCE}([^"]+)"', json.dumps(parts)))


def _place_in_life_cycle(item: tuple[str, dict[str, Any]]) -> int:
    operation = next(iter(item[1].values()))
    return list(TAGS).index(operation["tags"][0])


def _complete(operation: dict[str, Any], path: str, method: str, permissions: tuple[Permission, ...]) -> None:
    statuses = {422} if operation.get("parameters") or "requestBody" in operation else set()
    operation["responses"].pop("422", None)
    if Permission.PUBLIC not in permissions:
        roles = ", ".join(f"`{role}`" for role in roles_with(permissions))
        operation["description"] = f"{operation.get('description', '')}\n\nRoles: {roles}."
        operation["security"] = [{"key": []}]
        statuses |= {401, 403, 503}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["example"] = PATH_EXAMPLES[parameter["name"]]
    if "requestBody" in operation:
        statuses |= {400, 413}
    takes_file = "multipart/form-data" in operation.get("requestBody", {"content": ()})["content"]
    if method == "post" and {"201", "202"} & operation["responses"].keys() and not takes_file:
        statuses |= {409, 422}
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    described = {str(status): response for status, response in problem_responses(*statuses).items()}
    operation["responses"] = dict(sorted((described | operation["responses"]).items()))
    for status, response in operation["responses"].items():
        if PROBLEM_TYPE in response.get("content", {}):
            detail = response["content"][PROBLEM_TYPE]["example"]["detail"]
            if (body := protocol_error(path, int(status), detail)) is not None:
                response["content"] = {"application/json": _described_by(body)}


def _described_by(body: dict[str, str]) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in body}
    schema = {"type": "object", "required": list(body), "properties": properties}
    return {"schema": schema, "example": body}


PATH_EXAMPLES = {
    "dataset": "flights",
    "version": 1,
    "other": 2,
    "run": 1,
    "model": "flight-delays",
    "alias": "stable",
    "deployment": 1,
    "prediction": PREDICTION_ID_EXAMPLE,
    "batch": 1,
    "key": "checkout-service",
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeat the request with the same key to get the first answer again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}


# ── A model's own ────────────────────────────────────────────────────────────────────────────────


@router.get(
    "/{model}/openapi.json",
    response_class=Response,
    responses={
        200: {
            "description": "An OpenAPI document.",
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {
                        "openapi": "3.1.0",
                        "info": {"title": "flight-delays", "version": "1"},
                        "paths": {"/v1/models/flight-delays:predict": {"post": {"responses": {}}}},
                    },
                }
            },
        },
        **problem_responses(404, 409),
    },
)
def get_model_document(
    model: str, request: Request, caller: CallerDep, database: DatabaseDep, predicting: PredictingDep
) -> Response:
    """The model's own OpenAPI document, to read or to generate a client from. It follows each promotion."""
    with database.session_scope(write=False) as session:
        deployment = current_deployment(session, get_model(session, model, caller))
        if deployment is None:
            raise predicting.live.absence(caller, model)
        (found,) = _describe(session, [deployment], request.app.state.settings.max_instances)
    return _answer(request, _model_document(request.app.openapi(), found))


def _describe(
    session: Session, deployments: Sequence[Deployment], max_instances: int
) -> list[ModelDescription]:
    ids = {slot.version_id for deployment in deployments for slot in deployment.slots}
    columns = (ModelVersion.id, ModelVersion.signature, ModelVersion.example)
    versions = {row.id: row for row in session.execute(select(*columns).where(ModelVersion.id.in_(ids)))}
    described = []
    for deployment in deployments:
        served = [
            ServedVersion(
                slot.version,
                slot.variant,
                slot.weight,
                Signature.model_validate(versions[slot.version_id].signature),
            )
            for slot in deployment.slots
            if slot.weight > 0
        ]
        example = versions[deployment.slots[0].version_id].example
        described.append(describe_model(deployment.model, served, example, max_instances=max_instances))
    return described


def _model_document(document: dict[str, Any], model: ModelDescription) -> dict[str, Any]:
    paths = {
        _path(model): {"post": _predict_operation(document, model)},
        FEEDBACK: document["paths"][FEEDBACK],
    }
    known = document["components"]["schemas"] | model.schemas
    item, batch = known["FeedbackItem"], known["FeedbackBatch"]
    actual = item["properties"]["actual"] | model.outcome
    actual.pop("anyOf", None)
    known["FeedbackItem"] = item | {"properties": item["properties"] | {"actual": actual}}
    outcome = {"prediction_id": PREDICTION_ID_EXAMPLE, "actual": actual["examples"][0]}
    known["FeedbackBatch"] = batch | {"examples": [{"items": [outcome]}]}
    used = {path: next(iter(at.values()))["tags"][0] for path, at in paths.items()}.values()
    return document | {
        "info": {"title": model.model, "version": str(model.version), "description": model.text},
        "tags": [tag for tag in document["tags"] if tag["name"] in used],
        "paths": paths,
        "components": document["components"] | {"schemas": _referred(paths, known)},
    }


def _path(model: ModelDescription) -> str:
    return PREDICT.format(model=model.model)


def _predict_operation(document: dict[str, Any], model: ModelDescription) -> dict[str, Any]:
    """The generic predict operation, with the JSON bodies of one model."""
    generic: dict[str, Any] = document["paths"][PREDICT]["post"]
    _, roles, named = generic["description"].partition("\n\nRoles:")
    answer = generic["responses"]["200"] | {"content": {"application/json": {"schema": model.response}}}
    return generic | {
        "tags": [IN_SERVICE],
        "summary": f"Predict with {model.model}",
        "description": f"{model.text}{roles}{named}",
        "operationId": f"predict_{model.model}",
        "parameters": [given for given in generic["parameters"] if given["in"] != "path"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": model.request}}},
        "responses": generic["responses"] | {"200": answer},
    }


def _referred(paths: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schemas that the paths refer to, and those that these refer to."""
    found: dict[str, Any] = {}
    while missing := _names(paths, found) - found.keys():
        found |= {name: schemas[name] for name in sorted(missing)}
    return found


def _answer(request: Request, document: dict[str, Any]) -> Response:
    """The document as JSON. Behind a proxy that adds a path, its operations are below that."""
    if root_path := request.scope.get("root_path", "").rstrip("/"):
        document = document | {"servers": [{"url": root_path}]}
    return JSONResponse(document, headers={"cache-control": "private, no-cache", "vary": "authorization"})
