"""What the server tells about itself: request ids, logs as JSON, metrics for Prometheus."""

import itertools
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    multiprocess,
)
from prometheus_client.registry import REGISTRY, Collector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

log = structlog.get_logger()

REQUESTS = Counter("roundhouse_http_requests", "Answered HTTP requests.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("roundhouse_http_request_seconds", "Time to answer.", ["method", "route"])
RETIRED_NAME = "roundhouse_version_retired_timestamp_seconds"
# A metric and not a variable: all processes must know it alike, also those that are yet to start.
RETIRED = Gauge(
    RETIRED_NAME,
    "When a version left service, or memory, in seconds since 1970; 0 while it is in use.",
    ["model", "version"],
    multiprocess_mode="mostrecent",
)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The Prometheus client's own switch: where the processes of ``serve --workers`` share their counts."""
QUIET = ("/livez", "/readyz", "/metrics")


_process = uuid.uuid4().hex[:24]
_requests = itertools.count()


def make_request_id() -> str:
    """A text that no other request has, in this process or another."""
    return f"{_process}{next(_requests):08x}"


def configure_logging(log_format: str) -> None:
    """Log to standard error: JSON lines, or plain lines where a person is watching."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    for name in ("httpx", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def collect_metrics(*, since: float = 0) -> Iterator[Metric]:
    """All metrics, over all processes of ``serve --workers``.

    Left out are versions that were retired before ``since``, in seconds since 1970.
    """
    registry = REGISTRY
    if MULTIPROCESS_FOLDER in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    metrics = list(registry.collect())
    expired = {
        (sample.labels["model"], sample.labels["version"])
        for metric in metrics
        if metric.name == RETIRED_NAME
        for sample in metric.samples
        if 0 < sample.value <= since
    }
    for metric in metrics:
        metric.samples = [
            sample
            for sample in metric.samples
            if (sample.labels.get("model"), sample.labels.get("version")) not in expired
        ]
        yield metric


def render_metrics(*, since: float = 0) -> bytes:
    """What ``collect_metrics`` gives, in Prometheus's text form."""
    return generate_latest(_Collected(since))


class _Collected(Collector):
    def __init__(self, since: float) -> None:
        self._since = since

    def collect(self) -> Iterator[Metric]:
        return collect_metrics(since=self._since)


class RequestTelemetry:
    """Gives every request an id, and counts and logs its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else make_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self._tell(scope, status, time.perf_counter() - started)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "none")
        REQUESTS.labels(scope["method"], route, status).inc()
        REQUEST_SECONDS.labels(scope["method"], route).observe(seconds)
        if scope["path"] not in QUIET:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round(seconds * 1000, 2),
            )
