"""Batch predictions, and the parts in which each is stored."""

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.leases import Leased, lease_rules
from app.store import ObjectDigest


class BatchPrediction(Leased, Base):
    """A model version's predictions for every row of a data version.

    The first ``rows_scored`` of its ``rows`` are in its parts.
    """

    KIND = "batch_prediction"
    REMEDY = "Run the worker on a larger machine."

    __tablename__ = "batch_predictions"
    __table_args__ = (
        *lease_rules(),
        Index(None, "version_id"),
        Index(None, "dataset_version_id"),
        CheckConstraint("rows_scored >= 0 AND rows_scored <= rows", name="rows_scored"),
        CheckConstraint("status <> 'succeeded' OR rows_scored = rows", name="result"),
    )

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    version: Mapped[int]
    dataset_version_id: Mapped[int] = mapped_column(ForeignKey("dataset_versions.id"))
    dataset: Mapped[str]
    dataset_version: Mapped[int]
    rows: Mapped[int]
    rows_scored: Mapped[int]

    @property
    def fraction_kept(self) -> float:
        return self.rows_scored / self.rows if self.rows else 0.0


class BatchPart(Base):
    """A Parquet file of the predictions for the rows from ``first_row`` on. Never changed."""

    __tablename__ = "batch_parts"

    batch_id: Mapped[int] = mapped_column(ForeignKey("batch_predictions.id"), primary_key=True)
    first_row: Mapped[int] = mapped_column(primary_key=True)
    rows: Mapped[int]
    digest: Mapped[ObjectDigest]
