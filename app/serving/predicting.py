"""Answering: choose the target, score, record, and only then answer."""

import random
import time
from asyncio import CancelledError
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec
import numpy as np
import structlog
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.access.caller import Caller
from app.access.policy import Permission
from app.errors import AppError, InputError, InvalidInput, NotFound, pointer
from app.serving.answers import Answer
from app.serving.journal import Journal
from app.serving.live import LiveTable, Target
from app.serving.prediction_ids import TICK, PredictionIds
from app.serving.records import PredictionRecord
from app.serving.rows import Rows
from app.serving.segments import decode_stream

log = structlog.get_logger()

PREDICTED = Counter("roundhouse_predictions", "Answered rows.", ["model", "version", "variant", "protocol"])
SECONDS = Histogram(
    "roundhouse_predict_seconds",
    "Time to answer a predict request.",
    ["model", "version", "variant", "protocol", "code"],
    buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
SHADOW_FAILED = Counter(
    "roundhouse_shadow_failures", "Rows that a shadow could not score.", ["model", "version"]
)

SMALL_ROWS = 64
"""So many rows at most are encoded and scored on the event loop, where the version is compiled."""
SMALL_BODY = 64 * 1024
"""So many bytes at most are decoded on the event loop."""


class Meters(NamedTuple):
    """What counts the good answers of a target in one protocol."""

    rows: Counter
    seconds: Histogram


def meters_of(target: Target, protocol: str) -> Meters:
    meters = target.meters.get(protocol)
    if meters is None:
        version = target.version
        labels = (version.model, version.number, target.variant or "none", protocol)
        meters = Meters(PREDICTED.labels(*labels), SECONDS.labels(*labels, 200))
        target.meters[protocol] = meters
    return meters


class Stopwatch:
    """Measures the seconds since it was made, but for those in ``paused``."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        before = self.seconds()
        try:
            yield
        finally:
            self._started = time.perf_counter() - before


@contextmanager
def timed(target: Target, protocol: str) -> Iterator[Stopwatch]:
    """Measure the reading, scoring and recording of a request, and count how it ended."""
    watch, code = Stopwatch(), 500
    try:
        yield watch
        code = 200
    except AppError as error:
        code = error.status
        raise
    except RequestValidationError:
        code = 422
        raise
    except (CancelledError, ClientDisconnect):
        code = 499  # as nginx names a client that does not wait
        raise
    finally:
        version = target.version
        labels = (version.model, version.number, target.variant or "none", protocol, code)
        SECONDS.labels(*labels).observe(watch.seconds())


class Predicting:
    """What answering needs: the live table, the journal, and the maker of ids.

    ``shares`` are the parts of the requests that are recorded, by patterns of model names; the first
    pattern that a name matches counts, and what none matches is recorded.
    """

    def __init__(
        self,
        live: LiveTable,
        journal: Journal,
        ids: PredictionIds,
        *,
        max_instances: int,
        shares: Mapping[str, float],
    ) -> None:
        self.live = live
        self.journal = journal
        self.ids = ids
        self.answered: Tally[str] = Tally()
        """Rows that this process has answered, by model."""
        self.max_instances = max_instances
        self._shares = shares

    async def find_target(self, caller: Caller, model: str) -> Target:
        """What the traffic split chooses for the next request.

        Raises NotFound for an unknown model, Conflict where it has no deployment, VersionNotServable where
        that cannot be loaded.
        """
        deployment = self.live.current(model) or await run_in_threadpool(self.live.find, model)
        if deployment is None:
            raise await run_in_threadpool(self.live.absence, caller, model)
        return deployment.choose()

    async def version_target(self, version_id: int) -> Target:
        """One version, whatever is deployed. Raises VersionNotServable."""
        version = self.live.loaded(version_id)
        return Target(version if version else await run_in_threadpool(self.live.load, version_id))

    async def answer(
        self,
        target: Target,
        caller: Caller,
        rows: list[Any],
        *,
        protocol: str,
        root: str = "instances",
        client_id: str | None = None,
    ) -> Answer:
        """Answer rows of JSON values. Raises InvalidInput with pointers under ``root``."""
        self._check_count(len(rows), root)
        # In a thread: how large the rows' texts are is not known, and this is the way of the few.
        encoded = await run_in_threadpool(target.version.reader.encode, rows, root=root)
        return await self._complete(target, caller, encoded, protocol, client_id)

    async def answer_rows(self, target: Target, caller: Caller, rows: Rows, *, protocol: str) -> Answer:
        """Answer rows that are encoded already."""
        self._check_count(rows.size, "instances")
        return await self._complete(target, caller, rows, protocol, None)

    async def _complete(
        self, target: Target, caller: Caller, rows: Rows, protocol: str, client_id: str | None
    ) -> Answer:
        if is_batched(target, rows):
            scores = await target.version.batches.score(rows.matrix)
            return self._record(target, caller, rows, scores, protocol, client_id)
        if is_small(rows):
            return self.answer_now(target, caller, rows, protocol, client_id)
        return await run_in_threadpool(self.answer_now, target, caller, rows, protocol, client_id)

    def answer_now(
        self, target: Target, caller: Caller, rows: Rows, protocol: str, client_id: str | None = None
    ) -> Answer:
        """Answer encoded rows in the caller's own thread."""
        scores = target.version.scorer.score(rows.matrix)
        return self._record(target, caller, rows, scores, protocol, client_id)

    def _record(
        self,
        target: Target,
        caller: Caller,
        rows: Rows,
        scores: NDArray[np.float64],
        protocol: str,
        client_id: str | None,
    ) -> Answer:
        answer = self.record(target, caller, rows, scores, protocol, client_id)
        deployment = self.live.current(target.version.model)
        if target.deployment_id is not None and deployment and deployment.shadow:
            shadow = deployment.shadow
            answer.background = BackgroundTask(self.score_shadow, shadow, caller, rows, protocol, client_id)
        return answer

    def record(
        self,
        target: Target,
        caller: Caller,
        rows: Rows,
        scores: NDArray[np.float64],
        protocol: str,
        client_id: str | None = None,
    ) -> Answer:
        """Record what was scored, under ids that it makes."""
        at = time.time_ns() // 1000
        ids = self.ids.make(at, target.version.id, target.deployment_id, rows.size)
        answer = Answer(target, scores, ids)
        self.journal_answer(
            at,
            target,
            msgspec.json.encode(caller.name),
            msgspec.json.encode(caller.request_id),
            rows,
            answer.stream if rows.is_arrow else answer.body,
            msgspec.json.encode(client_id),
        )
        self.count_rows(target, protocol, rows.size)
        return answer

    def journal_answer(
        self,
        at: int,
        target: Target,
        caller: bytes,
        request_id: bytes,
        rows: Rows,
        answer: bytes,
        client_id: bytes = b"null",
    ) -> None:
        """Append the entry of a request to the journal; all texts are JSON.

        ``answer`` is the stream of the answer where the rows came in Arrow, else a ``RecordedAnswer``.
        """
        if self._shares and random.random() >= self._share(target.version.model):  # noqa: S311 - a sample
            return
        facts = b'"at":%d,"caller":%b,"request_id":%b,"client_id":%b,"deployment":%b,' % (
            at,
            caller,
            request_id,
            client_id,
            target.deployment_text,
        )
        if rows.is_arrow:
            sizes = len(rows.inputs), len(answer), rows.size
            line = b'{"streams":[%d,%d],"rows":%d,%b%b\n' % (*sizes, facts, target.name_text)
            entry = [line, rows.inputs, answer, b"\n"]
        else:
            entry = [b'{%b"inputs":%b,"answer":%b}\n' % (facts, rows.inputs, answer)]
        self.journal.append(entry, rows.size)

    def _share(self, model: str) -> float:
        return next((share for name, share in self._shares.items() if fnmatchcase(model, name)), 1.0)

    def count_rows(self, target: Target, protocol: str, rows: int) -> Meters:
        """Count answered rows; returns what else counts of their requests."""
        meters = meters_of(target, protocol)
        meters.rows.inc(rows)
        self.answered[target.version.model] += rows
        return meters

    def _check_count(self, count: int, root: str) -> None:
        if count > self.max_instances:
            raise InvalidInput(
                "too_many_instances",
                f"One request takes at most {self.max_instances} instances; this one has {count}.",
                errors=[InputError(pointer(root), f"send at most {self.max_instances} rows")],
            )

    def score_shadow(
        self, shadow: Target, caller: Caller, rows: Rows, protocol: str, client_id: str | None
    ) -> None:
        """Score with a shadow what was answered. Nothing of it fails the caller."""
        version = shadow.version
        try:
            # Its columns may be others than those of the version that answered.
            own = version.reader.encode(sent_rows(rows))
            scores = version.scorer.score(own.matrix)
        except Exception as error:  # a version on trial may do anything
            SHADOW_FAILED.labels(version.model, version.number).inc(rows.size)
            log.warning("shadow_not_scored", model=version.model, version=version.number, exc_info=error)
        else:
            self.record(shadow, caller, own, scores, protocol, client_id)

    def recall(self, caller: Caller, prediction_id: str, model: str, at: datetime) -> PredictionRecord:
        """The record of a prediction that was made at ``at``. A client finds only its own.

        Raises NotFound.
        """
        found = self.journal.read(model, since=at, until=at + TICK, prediction_id=prediction_id)
        if not found or not (caller.has(Permission.READ) or found[0].caller == caller.name):
            raise prediction_not_found(prediction_id)
        return found[0]


def is_small(rows: Rows) -> bool:
    """Whether the rows keep nobody waiting where they are scored on the event loop."""
    return rows.size <= SMALL_ROWS and len(rows.inputs) <= SMALL_BODY


def is_batched(target: Target, rows: Rows) -> bool:
    """Whether the rows are to be scored together with those of other requests."""
    return target.version.compiled is None and is_small(rows)


def sent_rows(rows: Rows) -> list[Any]:
    """The JSON values of rows, in whatever form they were sent."""
    if rows.is_arrow:
        return decode_stream(rows.inputs)
    sent: list[Any] = msgspec.json.decode(rows.inputs)
    return sent


def prediction_not_found(prediction_id: str) -> NotFound:
    return NotFound(
        "prediction_not_found",
        f"There is no prediction {prediction_id!r} that this key may see, or it was not recorded "
        "(ROUNDHOUSE_JOURNAL_SHARES). Use an id from `prediction_ids`.",
    )
