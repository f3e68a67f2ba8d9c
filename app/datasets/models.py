"""Datasets and their immutable versions."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.columns import Column, ColumnType
from app.db import Base
from app.store import ObjectDigest, ObjectDigests


class DataStatus(StrEnum):
    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"


class Dataset(Base):
    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str]
    tags: Mapped[dict[str, Any]]
    last_version: Mapped[int] = mapped_column(default=0)
    """The number that was given last: that of a deleted version is never given again."""
    created_by: Mapped[str]
    created_at: Mapped[datetime]


class DatasetVersion(Base):
    """An immutable table: canonical Parquet files, one behind the other, and where they come from.

    ``digest`` and ``size`` are of the uploaded bytes, which ``media_type`` and ``recipe`` say how to read; of
    a version that was derived from others they are those of the content. ``content_digest`` is that of the
    table, whatever file it came in. Only the description and the tags change.
    """

    __tablename__ = "dataset_versions"
    __table_args__ = (
        UniqueConstraint("dataset_id", "number"),
        UniqueConstraint("dataset_id", "content_digest"),
        CheckConstraint("status IN ('accepted', 'quarantined')", name="status"),
        Index("ix_dataset_versions_digest", "dataset_id", "digest"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    dataset: Mapped[str]
    number: Mapped[int]
    origin: Mapped[dict[str, Any]]
    """``{"kind": "upload"}`` or another kind, with what it was derived from."""
    media_type: Mapped[str]
    digest: Mapped[ObjectDigest]
    size: Mapped[int]
    recipe: Mapped[dict[str, Any]]
    """How the bytes were read: what was asked for, and what was found out."""
    content_digest: Mapped[str]
    parts: Mapped[ObjectDigests]
    """The digests of its Parquet files."""
    rows: Mapped[int]
    columns: Mapped[list[Any]]
    profile_digest: Mapped[ObjectDigest | None]
    contract: Mapped[int | None]
    """The number of the contract that it was checked against when it came."""
    status: Mapped[str]
    """What that check found."""
    report: Mapped[dict[str, Any] | None]
    # Whoever shows or uses a version needs it: asked for with the version, and not by a join, which no
    # lock could be had on.
    release: Mapped["QuarantineRelease | None"] = relationship(lazy="selectin", cascade="all, delete-orphan")
    description: Mapped[str]
    tags: Mapped[dict[str, Any]]
    created_by: Mapped[str]
    created_at: Mapped[datetime]

    @property
    def typed_columns(self) -> list[Column]:
        return [Column.model_validate(column) for column in self.columns]

    @property
    def column_types(self) -> dict[str, ColumnType]:
        """The type of each column, by name."""
        return {column.name: column.type for column in self.typed_columns}


class DatasetContract(Base):
    """What new versions of a dataset must hold to. A change is a new row, with the next number."""

    __tablename__ = "dataset_contracts"
    __table_args__ = (UniqueConstraint("dataset_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    number: Mapped[int]
    rules: Mapped[dict[str, Any]]
    created_by: Mapped[str]
    created_at: Mapped[datetime]


class QuarantineRelease(Base):
    """That somebody accepted a quarantined version, and why."""

    __tablename__ = "quarantine_releases"

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("dataset_versions.id"), unique=True)
    reason: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
