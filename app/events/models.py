"""One append-only event for every change: the audit log and the timeline."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Event(Base):
    __tablename__ = "events"
    __table_args__ = (
        Index(None, "subject", "id"),
        Index(None, "action", "id"),
        Index(None, "model", "id"),
        Index(None, "at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    model: Mapped[str | None]
    request_id: Mapped[str | None]
    detail: Mapped[dict[str, Any]]
