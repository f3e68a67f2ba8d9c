"""Training runs: the row is the job."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.leases import Leased, lease_rules


class TrainingRun(Leased, Base):
    KIND = "training_run"
    REMEDY = "Train on fewer rows or columns, or on a larger machine."

    __tablename__ = "training_runs"
    __table_args__ = (
        *lease_rules(),
        Index(None, "dataset_version_id"),
        CheckConstraint("(status = 'succeeded') = (model_version_id IS NOT NULL)", name="result"),
    )

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    dataset_version_id: Mapped[int] = mapped_column(ForeignKey("dataset_versions.id"))
    dataset: Mapped[str]
    dataset_version: Mapped[int]
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), unique=True)
    model_version: Mapped[int | None]
    spec: Mapped[dict[str, Any]]
