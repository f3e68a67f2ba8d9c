"""The live table: what each model answers with now, in this process's memory.

A new deployment is loaded and warm before it takes the old one's place, so predictions never fail
while versions change. A version that cannot be loaded leaves the old deployment in place.
"""

import io
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import joblib
import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.access.caller import Caller
from app.db import Database
from app.errors import AppError, Conflict
from app.registry.models import ModelVersion
from app.registry.predictor import predict
from app.registry.service import get_model
from app.registry.signature import Signature
from app.serving.models import Deployment, Variant
from app.store import Store, StoreFault

log = structlog.get_logger()

LONGEST_PAUSE = 30.0
VERSIONS_KEPT = 8
"""How many versions stay loaded that no deployment uses: those asked for by number or alias."""


class Scores(NamedTuple):
    """A prediction for each row; for classifiers also its probabilities, in the order of the classes."""

    predictions: list[Any]
    probabilities: list[list[float]] | None


@dataclass(frozen=True)
class LoadedVersion:
    id: int
    model: str
    number: int
    signature: Signature
    pipeline: Any

    def score(self, rows: list[Any]) -> Scores:
        """Score JSON rows. Raises InvalidInput for rows that do not fit the signature."""
        predicted, probabilities = predict(self.pipeline, self.signature, self.signature.encode(rows))
        if probabilities is None or self.signature.classes is None:
            return Scores(predicted.tolist(), None)
        labels = [self.signature.classes[index] for index in predicted]
        return Scores(labels, probabilities.tolist())


@dataclass(frozen=True)
class LiveSlot:
    variant: Variant
    weight: float
    version: LoadedVersion


@dataclass(frozen=True)
class LiveDeployment:
    id: int
    slots: tuple[LiveSlot, ...]

    @property
    def shadow(self) -> LiveSlot | None:
        return next((slot for slot in self.slots if slot.variant is Variant.SHADOW), None)


class Failure(NamedTuple):
    """A deployment that could not be loaded, and when it is tried again (monotonic clock, seconds)."""

    deployment_id: int
    reason: str
    pause: float
    retry_at: float


class VersionNotServable(AppError):
    """The version's artifact cannot be read (503)."""

    status = 503


class LiveTable:
    def __init__(self, database: Database, store: Store, *, poll_seconds: float) -> None:
        self._database = database
        self._store = store
        self._poll_seconds = poll_seconds
        self._live: dict[str, LiveDeployment] = {}
        self._failed: dict[str, Failure] = {}
        self._not_following: str | None = None
        self._loaded: dict[int, LoadedVersion] = {}
        self._refreshing = threading.Lock()
        self._loading = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="live-table", daemon=True)
        self._started = False

    def start(self) -> None:
        """Load what is deployed now, and follow the deployments from here on."""
        self.refresh()
        self._started = True
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._started:
            self._thread.join()

    def find(self, model: str) -> LiveDeployment | None:
        deployment = self._live.get(model)
        if deployment is None:  # it may have been promoted a moment ago, by another process
            self.refresh()
            deployment = self._live.get(model)
        return deployment

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

    def load(self, version_id: int) -> LoadedVersion:
        """The version, loaded and warm. Raises VersionNotServable."""
        if (loaded := self._loaded.get(version_id)) is not None:
            return loaded
        with self._loading:
            version = self._loaded.get(version_id) or self._read(version_id)
            self._loaded[version_id] = version
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
                LiveSlot(Variant(slot.variant), slot.weight, self.load(slot.version_id))
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
        self._live = {**self._live, deployment.model: LiveDeployment(deployment.id, slots)}
        log.info("deployment_live", model=deployment.model, deployment=deployment.id)

    def _read(self, version_id: int) -> LoadedVersion:
        with self._database.session_scope(write=False) as session:
            row = session.get_one(ModelVersion, version_id)
        try:
            artifact = self._store.read(row.artifact_digest)
            signature = Signature.model_validate(row.signature)
            # The digest has just been checked against the registry: these are bytes that a worker wrote.
            pipeline = joblib.load(io.BytesIO(artifact))
            version = LoadedVersion(row.id, row.model, row.number, signature, pipeline)
            version.score([row.example])  # warm before anybody waits for it
        except Exception as error:  # whatever another release's pickle raises, the other models go on
            reason = error.detail if isinstance(error, StoreFault) else f"{type(error).__name__}: {error}."
            raise VersionNotServable(
                "version_not_loadable",
                f"Version {row.number} of model {row.model!r} cannot be loaded. {reason}",
            ) from error
        return version

    def _forget_unused(self) -> None:
        in_use = {slot.version.id for deployment in self._live.values() for slot in deployment.slots}
        unused = [version_id for version_id in self._loaded if version_id not in in_use]
        for version_id in unused[:-VERSIONS_KEPT]:
            del self._loaded[version_id]

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            self.catch_up()
