"""The web application, put together."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse

from app import telemetry
from app.access.caller import Caller
from app.access.key_ring import KeyRing
from app.access.policy import Role
from app.access.route import GuardedRoute
from app.access.signing_keys import ensure_signing_key
from app.datasets.comparison.router import router as diff_router
from app.datasets.contracts.router import router as contract_router
from app.datasets.growth_router import append_router
from app.datasets.growth_router import router as growth_router
from app.datasets.profiles.router import router as profile_router
from app.datasets.router import router as datasets_router
from app.datasets.upload_router import router as upload_router
from app.db import Database
from app.events.router import router as events_router
from app.http.heads import HeadAsGet
from app.http.problems import add_error_handlers
from app.keys.router import router as keys_router
from app.lineage.router import data_router as data_lineage_router
from app.lineage.router import model_router as model_lineage_router
from app.lineage.router import prediction_router as prediction_lineage_router
from app.monitoring.labelled_router import router as labelled_router
from app.monitoring.router import feedback_router, history_router
from app.monitoring.router import router as monitoring_router
from app.openapi import add_documentation
from app.owned import Scratch
from app.registry.router import router as registry_router
from app.serving.batch_router import router as batch_router
from app.serving.express import STATE, Express
from app.serving.journal import Journal
from app.serving.live import LiveTable
from app.serving.predict_router import predictions_router
from app.serving.predict_router import router as predict_router
from app.serving.predicting import Predicting
from app.serving.prediction_ids import KEY_NAME, PredictionIds
from app.serving.protocols.mlflow_router import router as mlflow_router
from app.serving.protocols.oip_router import router as oip_router
from app.serving.router import router as serving_router
from app.settings import Settings
from app.store import Store
from app.training.advice.router import router as advice_router
from app.training.advice.suggestions_router import router as suggestions_router
from app.training.algorithms.catalogue import LEFT_OUT
from app.training.algorithms.router import router as catalogue_router
from app.training.card.router import router as card_router
from app.training.comparison.router import router as compare_router
from app.training.finding.router import router as finding_router
from app.training.follow_router import router as follow_router
from app.training.router import router as training_router
from app.training.verification.receipts import publish_receipt_key
from app.training.verification.router import router as verify_router

log = structlog.get_logger()
HEALTH = ("/livez", "/readyz", "/ping", "/health", "/v2/health/live", "/v2/health/ready")
operations = APIRouter(tags=["operations"], route_class=GuardedRoute)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application over ``settings``, by default those of the environment."""
    settings = settings or Settings()
    telemetry.configure_logging(settings.log_format)
    for entry, reason in LEFT_OUT.items():
        log.warning("algorithm_left_out", entry=entry, reason=reason)
    app = FastAPI(
        title="Roundhouse",
        version=version("roundhouse"),
        lifespan=_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: f"{route.tags[0]}_{route.name}",
    )
    app.state.settings = settings
    add_error_handlers(app)
    app.add_middleware(telemetry.RequestTelemetry)
    app.add_middleware(HeadAsGet, paths=HEALTH)
    app.include_router(datasets_router)
    app.include_router(profile_router)
    app.include_router(upload_router)
    app.include_router(append_router)
    app.include_router(growth_router)
    app.include_router(labelled_router)
    app.include_router(contract_router)
    app.include_router(diff_router)
    for router in (
        advice_router,
        training_router,
        follow_router,
        finding_router,
        catalogue_router,
        card_router,
        suggestions_router,
        compare_router,
        verify_router,
        serving_router,
        predict_router,
        registry_router,
        data_lineage_router,
        model_lineage_router,
        prediction_lineage_router,
        predictions_router,
        batch_router,
        oip_router,
        mlflow_router,
        feedback_router,
        history_router,
        monitoring_router,
        events_router,
        keys_router,
        operations,
    ):
        app.include_router(router)
    add_documentation(app)
    app.add_route("/", _front_door, include_in_schema=False)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
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
        server = Caller("server", Role.ADMIN, datetime.now(UTC))
        secret = ensure_signing_key(session, server, KEY_NAME)
        publish_receipt_key(session, server, settings)
    state.predicting = Predicting(
        state.live,
        journal,
        PredictionIds(secret),
        max_instances=settings.max_instances,
        shares=settings.journal_shares,
    )
    await run_in_threadpool(state.key_ring.start)
    await run_in_threadpool(state.live.start)
    journal.start()
    express = Express(state.predicting, state.key_ring, max_body=settings.max_request_bytes)
    try:
        yield {STATE: express}
    finally:
        await run_in_threadpool(state.live.stop)
        await run_in_threadpool(state.key_ring.stop)
        await run_in_threadpool(journal.stop)
        state.scratch.close()
        state.database.dispose()


def _front_door(request: Request) -> Response:
    """A person finds the documentation; KServe's client asks here whether the server lives."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("docs")
    return JSONResponse({"status": "alive"})


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
def metrics(request: Request) -> Response:
    """Counters and histograms for Prometheus, of all processes of this server."""
    since = time.time() - request.app.state.settings.metrics_expiry_seconds
    content = telemetry.render_metrics(since=since)
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")
