"""Models, their immutable versions, and aliases."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.registry.runtime import Runtime
from app.store import ObjectDigest


class Model(Base):
    __tablename__ = "models"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_by: Mapped[str]
    created_at: Mapped[datetime]


class ModelVersion(Base):
    """A fitted model with everything that is known of it, copied here so that it stands alone.

    ``runtime_reason`` says why a version is not served compiled; one that is has a scorer, its artifact in
    the form that ``app.serving.compiled`` reads. ``report`` is the evaluation report (JSON), ``holdout`` the
    rows held out with the model's scores (Parquet), ``probe`` fixed rows with its scores there (npz).
    """

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    model: Mapped[str]
    number: Mapped[int]
    algorithm: Mapped[str]
    params: Mapped[dict[str, Any]]
    task: Mapped[str]
    signature: Mapped[dict[str, Any]]
    example: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    evaluation: Mapped[dict[str, Any]]
    reference: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]
    data: Mapped[dict[str, Any]]
    environment: Mapped[dict[str, Any]]
    artifact_digest: Mapped[ObjectDigest]
    artifact_size: Mapped[int]
    # The default is for the rows of the first release: SQLite adds no column without one.
    runtime: Mapped[str] = mapped_column(server_default=Runtime.NATIVE)
    runtime_reason: Mapped[str | None]
    scorer_digest: Mapped[ObjectDigest | None]
    scorer_size: Mapped[int | None]
    report_digest: Mapped[ObjectDigest | None]
    holdout_digest: Mapped[ObjectDigest | None]
    probe_digest: Mapped[ObjectDigest | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]


class Alias(Base):
    """A name of one's own for a version; moving it is recorded as an event."""

    __tablename__ = "aliases"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    name: Mapped[str]
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    updated_by: Mapped[str]
    updated_at: Mapped[datetime]
