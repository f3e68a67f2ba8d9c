"""The live table: what each model answers with now, in this process's memory.

A new deployment is loaded and warm before it takes the old one's place, so predictions never fail
while versions change. A version that cannot be loaded leaves the old deployment in place.
"""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import joblib
import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.db import Database
from app.errors import AppError, Conflict
from app.registry.models import ModelVersion
from app.registry.predictor import predict
from app.registry.service import get_model
from app.registry.signature import Signature
from app.serving.models import Deployment, Variant
from app.store import Store, StoreFault

log = structlog.get_logger()

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
    def champion(self) -> LoadedVersion:
        return self.slots[0].version


class VersionNotServable(AppError):
    """The version's artifact cannot be read (503)."""

    status = 503


class LiveTable:
    def __init__(self, database: Database, store: Store, *, poll_seconds: float) -> None:
        self._database = database
        self._store = store
        self._poll_seconds = poll_seconds
        self._live: dict[str, LiveDeployment] = {}
        self._seen = 0
        self._failed: dict[str, str] = {}
        self._loaded: OrderedDict[int, LoadedVersion] = OrderedDict()
        self._refreshing = threading.Lock()
        self._loading = threading.RLock()
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

    def absence(self, model: str) -> AppError:
        """Why ``find`` found nothing. Raises NotFound where there is no such model."""
        with self._database.session_scope(write=False) as session:
            get_model(session, model)
        if failure := self.failure(model):
            return VersionNotServable("deployment_not_loaded", failure)
        return Conflict(
            "model_not_deployed",
            f"Model {model!r} has no version in service. POST /v1/models/{model}:promote promotes one.",
        )

    def load(self, version_id: int) -> LoadedVersion:
        """The version, loaded and warm. Raises VersionNotServable."""
        with self._loading:
            version = self._loaded.get(version_id) or self._read(version_id)
            self._loaded[version_id] = version
            self._loaded.move_to_end(version_id)
            self._forget_unused()
            return version

    def refresh(self) -> None:
        """Serve the newest deployment of every model."""
        with self._refreshing:
            with self._database.session_scope(write=False) as session:
                newest = session.scalar(select(func.max(Deployment.id))) or 0
                if newest == self._seen and not self._failed:
                    return
                latest = select(func.max(Deployment.id)).group_by(Deployment.model_id)
                deployments = session.scalars(
                    select(Deployment)
                    .where(Deployment.id.in_(latest))
                    .options(selectinload(Deployment.slots))
                ).all()
            self._failed = {}
            for deployment in deployments:
                current = self._live.get(deployment.model)
                if current is None or current.id != deployment.id:
                    self._serve(deployment)
            self._seen = newest

    def problems(self) -> list[str]:
        """Why this process does not serve what it should; empty when all is well."""
        if not self._started:
            return ["the deployed models are still loading"]
        return [f"model {model}: {reason}" for model, reason in self._failed.items()]

    def failure(self, model: str) -> str | None:
        """Why nothing serves the model, although it has a deployment."""
        return None if model in self._live else self._failed.get(model)

    def _serve(self, deployment: Deployment) -> None:
        try:
            slots = tuple(
                LiveSlot(Variant(slot.variant), slot.weight, self.load(slot.version_id))
                for slot in deployment.slots
            )
        except VersionNotServable as error:
            self._failed[deployment.model] = error.detail
            log.error(
                "deployment_not_loaded", model=deployment.model, deployment=deployment.id, error=error.detail
            )
            return
        self._live = {**self._live, deployment.model: LiveDeployment(deployment.id, slots)}
        log.info("deployment_live", model=deployment.model, deployment=deployment.id)

    def _read(self, version_id: int) -> LoadedVersion:
        with self._database.session_scope(write=False) as session:
            row = session.get_one(ModelVersion, version_id)
        try:
            artifact = self._store.read(row.artifact_digest)
        except StoreFault as fault:
            raise VersionNotServable(
                "artifact_unreadable",
                f"Version {row.number} of model {row.model!r} cannot be loaded. {fault.detail}",
            ) from fault
        signature = Signature.model_validate(row.signature)
        # The digest has just been checked against the registry: these are bytes that a worker wrote.
        version = LoadedVersion(row.id, row.model, row.number, signature, joblib.load(io.BytesIO(artifact)))
        version.score([row.example])  # warm before anybody waits for it
        return version

    def _forget_unused(self) -> None:
        in_use = {slot.version.id for deployment in self._live.values() for slot in deployment.slots}
        unused = [version_id for version_id in self._loaded if version_id not in in_use]
        for version_id in unused[:-VERSIONS_KEPT]:
            del self._loaded[version_id]

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self.refresh()
            except Exception as error:
                log.warning("live_table_not_refreshed", error=str(error))
