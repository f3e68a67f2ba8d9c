"""Datasets and their immutable versions."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Dataset(Base):
    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime]


class DatasetVersion(Base):
    """One uploaded file: its bytes (``digest``) and the canonical Parquet made of them."""

    __tablename__ = "dataset_versions"
    __table_args__ = (
        UniqueConstraint("dataset_id", "number"),
        UniqueConstraint("dataset_id", "digest"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    dataset: Mapped[str]
    number: Mapped[int]
    media_type: Mapped[str]
    digest: Mapped[str]
    size: Mapped[int]
    parquet_digest: Mapped[str]
    rows: Mapped[int]
    columns: Mapped[list[Any]]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
