"""Training runs: the row is the job. Beside it stand its trials, its log and the facts it is found by."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.leases import Leased, lease_rules


class TrainingRun(Leased, Base):
    """A fit that makes a model version, or that verifies one: fits it anew and compares.

    ``request_key`` is equal for requests of the same fit (model, content of the data, spec); ``warm_start``
    is the configuration of the model's version before, from which a search begins; ``limits`` holds the run's
    own, ``seconds`` and ``memory_bytes``, where they are below the server's. A verification has a ``result``
    and a signed ``receipt`` in place of a model version.
    """

    KIND = "training_run"
    REMEDY = "Train on fewer rows or columns, or on a larger machine."

    __tablename__ = "training_runs"
    __table_args__ = (
        *lease_rules(),
        Index(None, "dataset_version_id"),
        Index(None, "request_key"),
        Index(None, "verifies_id"),
        Index(None, "status", "priority", "id"),
        Index(None, "model_id", "status"),
        Index(None, "finished_at", "id"),
        CheckConstraint(
            "status <> 'succeeded' OR (model_version_id IS NOT NULL) <> (result IS NOT NULL)", name="result"
        ),
        CheckConstraint("result IS NULL OR verifies_id IS NOT NULL", name="verification"),
    )

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    dataset_version_id: Mapped[int] = mapped_column(ForeignKey("dataset_versions.id"))
    dataset: Mapped[str]
    dataset_version: Mapped[int]
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), unique=True)
    model_version: Mapped[int | None]
    spec: Mapped[dict[str, Any]]
    request_key: Mapped[str | None]
    warm_start: Mapped[dict[str, Any] | None]
    limits: Mapped[dict[str, Any]]
    priority: Mapped[int]
    tags: Mapped[dict[str, Any]]
    verifies_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    result: Mapped[str | None]
    receipt: Mapped[str | None]


class Trial(Base):
    """A candidate that a search has tried: kept as soon as it is done, so that no other worker repeats it."""

    __tablename__ = "trials"

    run_id: Mapped[int] = mapped_column(ForeignKey("training_runs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    """``complete``, ``pruned``, ``refused`` by a constraint, or ``failed``."""
    algorithm: Mapped[str]
    configuration: Mapped[dict[str, Any]]
    scores: Mapped[dict[str, Any]]
    value: Mapped[float | None]
    reason: Mapped[str | None]
    seconds: Mapped[float]
    finished_at: Mapped[datetime]


class LogLine(Base):
    """What a run has said, for people."""

    __tablename__ = "log_lines"
    __table_args__ = (Index(None, "run_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("training_runs.id"))
    at: Mapped[datetime]
    text: Mapped[str]


class Fact(Base):
    """A metric, parameter or tag of a run, by which runs and versions are found and sorted."""

    __tablename__ = "facts"
    __table_args__ = (
        Index(None, "name", "number", "run_id"),
        Index(None, "name", "text", "run_id"),
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("training_runs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    """Such as ``metrics.roc_auc``, ``params.max_depth`` or ``tags.team``."""
    number: Mapped[float | None]
    text: Mapped[str | None]


class ReceiptKey(Base):
    """The public half of a key that signs receipts, or once did: published so that they can be checked."""

    __tablename__ = "receipt_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    """Its thumbprint (RFC 7638)."""
    jwk: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
