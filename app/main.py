"""The web application, put together."""

import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from app import telemetry
from app.access.caller import Caller
from app.access.key_ring import KeyRing
from app.access.policy import POLICY, Permission, Role, roles_with
from app.access.route import GuardedRoute
from app.datasets.router import router as datasets_router
from app.datasets.router import upload_router
from app.db import Database
from app.events.router import router as events_router
from app.http.problems import Problem, add_error_handlers, problem_responses
from app.keys.router import router as keys_router
from app.monitoring.router import feedback_router, history_router
from app.monitoring.router import router as monitoring_router
from app.owned import Scratch
from app.registry.router import router as registry_router
from app.serving.journal import Journal
from app.serving.live import LiveTable
from app.serving.predicting import Predicting
from app.serving.prediction_ids import PredictionIds, ensure_signing_key
from app.serving.router import PREDICTION_ID_EXAMPLE, predictions_router
from app.serving.router import router as serving_router
from app.settings import Settings
from app.store import Store
from app.training.router import algorithms_router
from app.training.router import router as training_router

SUMMARY = "One self-hosted server for the whole life of a tabular machine-learning model."
DESCRIPTION = """
Upload a data version → train → evaluate → promote → predict → send feedback → watch for drift → retrain →
promote, or roll back. Follow the sections below from top to bottom to run the loop by hand: press
**Authorize**, paste your key, and use *Try it out*.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Lists are pages: pass `next` as
`cursor`. Any POST that creates may carry an `Idempotency-Key` and then be repeated safely.
"""

TAGS = {
    "datasets": "1 · Upload data. A version is immutable, and named by the digest of its bytes.",
    "training": "2 · Train a model on a data version, and follow the run.",
    "models": "3 · See what came out: versions, their signature and their evaluation.",
    "deployments": "4 · Promote a version into service, or roll back. Nothing is overwritten.",
    "predictions": "5 · Predict. Every row is recorded under an id.",
    "feedback": "6 · Tell what came true.",
    "monitoring": "7 · Watch drift and performance; then train again on newer data.",
    "events": "Who changed what, and when.",
    "keys": "API keys and their roles.",
    "operations": "For those who run the server.",
}

log = structlog.get_logger()
operations = APIRouter(tags=["operations"], route_class=GuardedRoute)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application over ``settings``, by default those of the environment."""
    settings = settings or Settings()
    telemetry.configure_logging(settings.log_format)
    app = FastAPI(
        title="Roundhouse",
        summary=SUMMARY,
        description=DESCRIPTION,
        version=version("roundhouse"),
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: f"{route.tags[0]}_{route.name}",
    )
    app.state.settings = settings
    add_error_handlers(app)
    app.add_middleware(telemetry.RequestTelemetry)
    app.include_router(datasets_router)
    app.include_router(upload_router)
    for router in (
        training_router,
        algorithms_router,
        serving_router,
        registry_router,
        predictions_router,
        feedback_router,
        history_router,
        monitoring_router,
        events_router,
        keys_router,
        operations,
    ):
        app.include_router(router)
    # Swagger UI comes from a package, not from a CDN: the docs work without the internet.
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    app.add_route("/docs", _docs, include_in_schema=False)
    app.add_route("/", lambda _: RedirectResponse("docs"), include_in_schema=False)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign] # FastAPI's documented way
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state, settings = app.state, app.state.settings
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    state.database = Database(settings.sqlalchemy_url)
    if not await run_in_threadpool(state.database.schema_is_current):
        raise RuntimeError("The database's schema is not this version's. Run `roundhouse migrate` first.")
    state.scratch = Scratch(settings.scratch)
    state.store = Store(settings.store_url, folder=settings.home / "objects", scratch=state.scratch)
    state.key_ring = KeyRing(state.database)
    state.live = LiveTable(state.database, state.store, poll_seconds=settings.live_poll_seconds)
    journal = Journal(
        settings.journal,
        state.database,
        state.store,
        state.scratch,
        seal_seconds=settings.journal_seal_seconds,
    )
    with state.database.session_scope() as session:
        secret = ensure_signing_key(session, Caller("server", Role.ADMIN, datetime.now(UTC)))
    state.predicting = Predicting(
        state.live, journal, PredictionIds(secret), max_instances=settings.max_instances
    )
    await run_in_threadpool(state.live.start)
    journal.start()
    try:
        yield
    finally:
        await run_in_threadpool(state.live.stop)
        await run_in_threadpool(journal.stop)
        state.scratch.close()
        state.database.dispose()


def _end_with_parent() -> None:
    """Of ``serve --workers``: without it, processes whose parent was killed would keep the port for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


# ── Operations ───────────────────────────────────────────────────────────────────────────────────


class Liveness(BaseModel):
    model_config = {"json_schema_extra": {"examples": [{"status": "ok"}]}}

    status: str = "ok"


class Readiness(BaseModel):
    """``ready`` when the database and the store answer and the deployed versions are loaded."""

    model_config = {
        "json_schema_extra": {
            "examples": [
                {"status": "ready", "database": "ok", "store": "ok", "models": "ok", "journal": "ok"}
            ]
        }
    }

    status: str
    database: str
    store: str
    models: str
    journal: str


@operations.get("/livez")
async def livez() -> Liveness:
    """Whether the process answers. Touches nothing else."""
    return Liveness()


@operations.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready, and why."}})
def readyz(request: Request, response: Response) -> Readiness:
    """Whether this process can serve. A journal in trouble is told here and never stops the serving."""
    state = request.app.state
    database, store = _check(state.database.ping), _check(state.store.ping)
    models = "; ".join(state.live.problems()) or "ok"
    ready = database == store == models == "ok"
    if not ready:
        response.status_code = 503
    return Readiness(
        status="ready" if ready else "not ready",
        database=database,
        store=store,
        models=models,
        journal=state.predicting.journal.problem or "ok",
    )


def _check(ping: Any) -> str:
    try:
        ping()
    except Exception as error:  # the reason may name hosts and users: it is for the log
        log.warning("not_ready", exc_info=error)
        return f"{type(error).__name__}; see the log"
    return "ok"


@operations.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus's text form.", "content": {"text/plain": {}}}},
)
def metrics() -> Response:
    """Counters and histograms for Prometheus."""
    return Response(telemetry.render_metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


# ── Documentation ──────────────────────────────────────────────────────────────────────────────────────


async def _docs(request: Request) -> Response:
    return get_swagger_ui_html(
        openapi_url=request.scope.get("root_path", "") + "/openapi.json",
        title="Roundhouse",
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon.png",
        swagger_ui_parameters={"persistAuthorization": True, "displayRequestDuration": True},
    )


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with what the policy and the error handlers know added to every operation."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            tags=app.openapi_tags,
            routes=app.routes,
        )
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schemas["Problem"].pop("$defs")
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for name, examples in _examples().items():
            if name in schemas:
                schemas[name]["examples"] = examples
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations_at in document["paths"].items():
            for method, operation in operations_at.items():
                _complete(operation, method, POLICY.get((method.upper(), path), ()))
        document["paths"] = dict(sorted(document["paths"].items(), key=_place_in_life_cycle))
        app.openapi_schema = document
    return app.openapi_schema


def _examples() -> dict[str, list[Any]]:
    """The examples of every model by the name of its schema; FastAPI leaves out what is null in them."""
    found: dict[str, list[Any]] = {}
    models = list(BaseModel.__subclasses__())
    while models:
        model = models.pop()
        models += model.__subclasses__()
        extra = model.model_config.get("json_schema_extra")
        if isinstance(extra, dict) and isinstance(examples := extra.get("examples"), list):
            found[model.__name__] = examples
    pages = {f"Page_{name}_": [{"items": examples, "next": None}] for name, examples in found.items()}
    return found | pages


def _place_in_life_cycle(item: tuple[str, dict[str, Any]]) -> int:
    operation = next(iter(item[1].values()))
    return list(TAGS).index(operation["tags"][0])


def _complete(operation: dict[str, Any], method: str, permissions: tuple[Permission, ...]) -> None:
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
    takes_file = (
        "application/json" not in operation.get("requestBody", {"content": ["application/json"]})["content"]
    )
    if method == "post" and {"201", "202"} & operation["responses"].keys() and not takes_file:
        statuses |= {409, 422}
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    described = {str(status): response for status, response in problem_responses(*statuses).items()}
    operation["responses"] = dict(sorted((described | operation["responses"]).items()))


PATH_EXAMPLES = {
    "dataset": "flights",
    "version": 1,
    "run": 1,
    "model": "flight-delays",
    "alias": "stable",
    "deployment": 1,
    "prediction": PREDICTION_ID_EXAMPLE,
    "key": "checkout-service",
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeat the request with the same key to get the first answer again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}
