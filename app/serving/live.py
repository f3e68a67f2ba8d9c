"""The live table: what each model answers with now, in this process's memory.

A new deployment is loaded and warm before it takes the old one's place, so predictions never fail
while versions change. A version that cannot be loaded leaves the old deployment in place.
"""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.access.caller import Caller
from app.db import Database
from app.errors import AppError, Conflict
from app.registry.models import ModelVersion
from app.registry.service import get_model
from app.repeating import Repeating
from app.serving.models import Deployment, Variant
from app.serving.split import choose
from app.serving.versions import LoadedVersion, VersionNotServable, load_version
from app.store import Store
from app.telemetry import RETIRED

log = structlog.get_logger()

LONGEST_PAUSE = 30.0
VERSIONS_KEPT = 8
"""How many versions stay loaded that no deployment uses: those asked for by number or alias."""


class Target:
    """What answers a request: a version, and its place in the deployment, if it was reached by one."""

    def __init__(
        self,
        version: LoadedVersion,
        deployment_id: int | None = None,
        variant: Variant | None = None,
        weight: float = 0.0,
    ) -> None:
        self.version = version
        self.deployment_id = deployment_id
        self.variant = variant
        self.weight = weight
        self.meters: dict[str, Any] = {}
        """The metrics of its answers by protocol, which ``predicting`` keeps here."""
        self.schema = b""
        """That of its answers in Arrow, which ``answers`` keeps here."""
        # What every answer of it and every record of it say alike.
        self.deployment_text = msgspec.json.encode(deployment_id)
        self.classes_text = msgspec.json.encode(version.signature.classes)
        named = {"model": version.model, "version": version.number, "variant": variant}
        self.name_text = msgspec.json.encode(named)[1:]


class LiveDeployment:
    def __init__(self, deployment_id: int, slots: Sequence[Target]) -> None:
        self.id = deployment_id
        self.slots = slots
        self.shadow = next((slot for slot in slots if slot.variant is Variant.SHADOW), None)
        self._only = slots[0] if slots[0].weight == 1 else None

    def choose(self) -> Target:
        """The slot that answers the next request."""
        return self._only or choose(self.slots, random.random())  # noqa: S311 - no secret is drawn


class Failure(NamedTuple):
    """A deployment that could not be loaded, and when it is tried again (monotonic clock, seconds)."""

    deployment_id: int
    reason: str
    pause: float
    retry_at: float


class LiveTable:
    def __init__(self, database: Database, store: Store, *, poll_seconds: float) -> None:
        self._database = database
        self._store = store
        self._poll_seconds = poll_seconds
        self._polling = Repeating("live-table", poll_seconds, self.catch_up)
        self._live: dict[str, LiveDeployment] = {}
        self._failed: dict[str, Failure] = {}
        self._not_following: str | None = None
        self._loaded: dict[int, LoadedVersion] = {}
        self._refreshing = threading.Lock()
        self._loading = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Load what is deployed now, and follow the deployments from here on."""
        self.refresh()
        self._started = True
        self._polling.start()

    def stop(self) -> None:
        self._polling.stop()

    def current(self, model: str) -> LiveDeployment | None:
        """The deployment that this process serves."""
        return self._live.get(model)

    def find(self, model: str) -> LiveDeployment | None:
        """``current``, or what another process may have promoted a moment ago."""
        if model not in self._live:
            self.refresh()
        return self._live.get(model)

    def absence(self, caller: Caller, model: str) -> AppError:
        """Why ``find`` found nothing. Raises NotFound where there is no such model."""
        with self._database.session_scope(write=False) as session:
            get_model(session, model, caller)
        if failure := self.failure(model):
            return VersionNotServable("deployment_not_loaded", failure)
        return Conflict(
            "model_not_deployed",
            f"Model {model!r} has no version in service. POST /v1/models/{model}:promote promotes one.",
        )

    def loaded(self, version_id: int) -> LoadedVersion | None:
        """The version, if it is in memory."""
        version = self._loaded.pop(version_id, None)
        if version is not None:
            self._loaded[version_id] = version  # the last to be forgotten
            _mark_used(version)  # also where another process has retired it since
        return version

    def load(self, version_id: int) -> LoadedVersion:
        """The version, loaded and warm. Raises VersionNotServable."""
        if (loaded := self._loaded.get(version_id)) is not None:
            return loaded
        with self._loading:
            version = self._loaded.get(version_id) or self._read(version_id)
            self._loaded[version_id] = version
            _mark_used(version)
            self._forget_unused()
            return version

    def refresh(self) -> None:
        """Serve the newest deployment of every model."""
        with self._refreshing:
            with self._database.session_scope(write=False) as session:
                newest = select(func.max(Deployment.id)).group_by(Deployment.model_id)
                # Each model by itself: on PostgreSQL a lower id may be committed after a higher one.
                due = set(session.scalars(newest)) - self._settled()
                query = select(Deployment).where(Deployment.id.in_(due))
                deployments = session.scalars(query.options(selectinload(Deployment.slots))).all()
            for deployment in deployments:
                self._serve(deployment)

    def catch_up(self) -> None:
        """``refresh`` that fails for later: what raised is told by ``problems`` until one succeeds."""
        try:
            self.refresh()
        except Exception as error:
            self._not_following = f"the deployments cannot be followed: {type(error).__name__}"
            log.warning("live_table_not_refreshed", exc_info=error)
        else:
            self._not_following = None

    def problems(self) -> list[str]:
        """Why this process does not serve what it should; empty when all is well."""
        if not self._started:
            return ["the deployed models are still loading"]
        told = [f"model {model}: {failure.reason}" for model, failure in self._failed.items()]
        return told + ([self._not_following] if self._not_following else [])

    def failure(self, model: str) -> str | None:
        """Why nothing serves the model, although it has a deployment."""
        failure = self._failed.get(model)
        return failure.reason if failure and model not in self._live else None

    def _settled(self) -> set[int]:
        """The deployments that there is nothing to do for now: they are live, or failed a moment ago."""
        now = time.monotonic()
        waiting = {failure.deployment_id for failure in self._failed.values() if now < failure.retry_at}
        return waiting | {deployment.id for deployment in self._live.values()}

    def _serve(self, deployment: Deployment) -> None:
        try:
            slots = tuple(
                Target(self.load(slot.version_id), deployment.id, Variant(slot.variant), slot.weight)
                for slot in deployment.slots
            )
        except VersionNotServable as error:
            before = self._failed.get(deployment.model)
            pause = min(2 * before.pause, LONGEST_PAUSE) if before else self._poll_seconds
            self._failed[deployment.model] = Failure(
                deployment.id, error.detail, pause, time.monotonic() + pause
            )
            log.error(
                "deployment_not_loaded", model=deployment.model, deployment=deployment.id, exc_info=error
            )
            return
        self._failed.pop(deployment.model, None)
        replaced = self._live.get(deployment.model)
        self._live = {**self._live, deployment.model: LiveDeployment(deployment.id, slots)}
        for slot in replaced.slots if replaced else ():
            _mark_retired(slot.version)
        for slot in slots:
            _mark_used(slot.version)
        log.info("deployment_live", model=deployment.model, deployment=deployment.id)

    def _read(self, version_id: int) -> LoadedVersion:
        with self._database.session_scope(write=False) as session:
            row = session.get_one(ModelVersion, version_id)
        return load_version(row, self._store)

    def _forget_unused(self) -> None:
        in_use = {slot.version.id for deployment in self._live.values() for slot in deployment.slots}
        unused = [version_id for version_id in self._loaded if version_id not in in_use]
        for version_id in unused[:-VERSIONS_KEPT]:
            _mark_retired(self._loaded.pop(version_id))


def _mark_used(version: LoadedVersion) -> None:
    RETIRED.labels(version.model, version.number).set(0)


def _mark_retired(version: LoadedVersion) -> None:
    """From here on its metrics expire, unless another mark follows, of this process or another."""
    RETIRED.labels(version.model, version.number).set(time.time())
