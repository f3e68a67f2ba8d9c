"""Training runs: the row is the job."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (RunStatus.QUEUED, RunStatus.RUNNING)


class TrainingRun(Base):
    """``lease_owner`` is the worker that holds it until ``lease_expires_at``; a running run has both."""

    __tablename__ = "training_runs"
    __table_args__ = (
        CheckConstraint(
            f"status IN ({', '.join(repr(status.value) for status in RunStatus)})", name="status"
        ),
        CheckConstraint("(status = 'running') = (lease_owner IS NOT NULL)", name="lease"),
        CheckConstraint("(status = 'succeeded') = (model_version_id IS NOT NULL)", name="result"),
        Index(None, "status", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    model: Mapped[str]
    dataset_version_id: Mapped[int] = mapped_column(ForeignKey("dataset_versions.id"))
    dataset: Mapped[str]
    dataset_version: Mapped[int]
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), unique=True)
    model_version: Mapped[int | None]
    spec: Mapped[dict[str, Any]]
    status: Mapped[str]
    fraction: Mapped[float]
    step: Mapped[str]
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int]
    cancel_requested: Mapped[bool]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
