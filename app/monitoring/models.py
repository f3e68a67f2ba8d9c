"""Feedback: the true outcomes of predictions."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Json


class Feedback(Base):
    """One statement of a prediction's true outcome; a later revision corrects an earlier one."""

    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("prediction_id", "revision"),
        Index(None, "model_id", "predicted_at"),
        Index(None, "model_id", "observed_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    prediction_id: Mapped[str]
    revision: Mapped[int]
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    predicted_at: Mapped[datetime]
    actual: Mapped[Any] = mapped_column(Json)
    observed_at: Mapped[datetime]
    source: Mapped[str | None]
    received_by: Mapped[str]
    received_at: Mapped[datetime]
