"""Model versions without a worker: trained in this process, for tests of what comes after training."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.models import DatasetVersion
from app.db import Database
from app.owned import Scratch
from app.registry.models import ModelVersion
from app.registry.service import ensure_model, register_version
from app.serving.journal import Journal
from app.settings import Settings
from app.store import Store
from app.training.fit import fit_model
from app.training.spec import TrainingSpec
from app.training.worker import store_artifacts
from tests.client import Client


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Database, Store, Scratch]]:
    """What a server over the same settings works with."""
    database, scratch = Database(settings.sqlalchemy_url), Scratch(settings.scratch)
    try:
        yield database, Store(settings.store_url, folder=settings.home / "objects", scratch=scratch), scratch
    finally:
        scratch.close()
        database.dispose()


@contextmanager
def journal_of(settings: Settings) -> Iterator[Journal]:
    """A journal of another process of the same installation."""
    with opened(settings) as (database, store, scratch):
        journal = Journal(settings.journal, database, store, scratch, seal_seconds=60)
        try:
            yield journal
        finally:
            journal.stop()


def train_here(
    client: Client, dataset: str, version: int = 1, /, *, target: str = "late", **spec: Any
) -> dict[str, Any]:
    """Train on a version of the dataset and store the artifact; what a worker then registers."""
    training = TrainingSpec.model_validate({"target": target, "evaluation": {"seeds": 0}, **spec})
    with opened(client.settings) as (database, store, scratch), scratch.folder() as folder:
        with database.session_scope(write=False) as session:
            data = session.scalars(select(DatasetVersion).filter_by(dataset=dataset, number=version)).one()
        with store.open_files(data.parts) as parquet:
            facts = fit_model(parquet, training, folder)
        artifacts = store_artifacts(store, folder)
    return (
        facts
        | artifacts
        | {
            "spec": training.model_dump(mode="json"),
            "data": {"dataset": dataset, "version": version, "digest": data.digest, "rows": data.rows},
        }
    )


def register(client: Client, model: str, *trained: dict[str, Any]) -> None:
    """Make the model, and a version of each outcome of ``train_here``."""
    caller = Caller("tests", Role.ADMIN, datetime.now(UTC))
    database = Database(client.settings.sqlalchemy_url)
    with database.session_scope() as session:
        ensure_model(session, caller, model)
        for facts in trained:
            register_version(session, caller, model, **facts, created_by=caller.name)
    database.dispose()


def artifact_of(client: Client, model: str, version: int) -> Path:
    """The artifact that a version is served from, in the server's folder."""
    with opened(client.settings) as (database, _, _), database.session_scope(write=False) as session:
        row = session.scalars(select(ModelVersion).filter_by(model=model, number=version)).one()
        digest = row.scorer_digest or row.artifact_digest
    (path,) = (client.settings.home / "objects").rglob(digest.removeprefix("sha256:"))
    return path
