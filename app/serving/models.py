"""Deployments, the segments of the prediction log, and the key that signs prediction ids."""

from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base
from app.store import ObjectDigest


class Variant(StrEnum):
    CHAMPION = "champion"
    CANARY = "canary"
    SHADOW = "shadow"


class Deployment(Base):
    """What serves a model from its creation until the model's next deployment. Never changed."""

    __tablename__ = "deployments"
    __table_args__ = (Index(None, "model_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    model: Mapped[str]
    reason: Mapped[str]
    comment: Mapped[str | None]
    restores_id: Mapped[int | None] = mapped_column(ForeignKey("deployments.id"))
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    slots: Mapped[list["DeploymentSlot"]] = relationship(lazy="raise", order_by="DeploymentSlot.position")


class DeploymentSlot(Base):
    """A version's part in a deployment; ``weight`` is its share of the answers, 0 for a shadow."""

    __tablename__ = "deployment_slots"
    __table_args__ = (
        UniqueConstraint("deployment_id", "variant"),
        CheckConstraint("weight >= 0 AND weight <= 1", name="weight"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    deployment_id: Mapped[int] = mapped_column(ForeignKey("deployments.id"))
    position: Mapped[int]
    variant: Mapped[str]
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    version: Mapped[int]
    weight: Mapped[float]


class PredictionSegment(Base):
    """A sealed Parquet file of recorded predictions: of one spool file, one model and one day."""

    __tablename__ = "prediction_segments"
    __table_args__ = (
        UniqueConstraint("spool", "model", "day"),
        Index(None, "model", "last_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    spool: Mapped[str]
    model: Mapped[str]
    day: Mapped[date]
    digest: Mapped[ObjectDigest]
    rows: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    has_client_ids: Mapped[bool]
    counts: Mapped[list["PredictionCount"]] = relationship(lazy="raise")


class PredictionCount(Base):
    """How many of a segment's predictions a version made in a deployment, or asked for by name."""

    __tablename__ = "prediction_counts"
    __table_args__ = (Index(None, "model", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    segment_id: Mapped[int] = mapped_column(ForeignKey("prediction_segments.id"))
    model: Mapped[str]
    version: Mapped[int]
    deployment: Mapped[int | None]
    rows: Mapped[int]
