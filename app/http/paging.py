"""Lists in pages."""

from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """One page of a list, and the cursor of the next page, which is null on the last."""

    items: list[T]
    next: str | None = Field(None, description="Pass as `cursor` to get the next page.")


class Paging(BaseModel):
    limit: int = Field(50, ge=1, le=500, description="Most items in one page.")
    cursor: str | None = Field(None, pattern=r"^[0-9]{1,18}$", description="The `next` of the page before.")


PagingDep = Annotated[Paging, Query()]


def paginate(
    session: Session, query: Select[T], key: InstrumentedAttribute[int], paging: Paging
) -> tuple[Sequence[T], str | None]:
    """The rows of one page, the newest (highest ``key``) first, and the cursor of the next."""
    if paging.cursor is not None:
        query = query.where(key < int(paging.cursor))
    rows = session.scalars(query.order_by(key.desc()).limit(paging.limit + 1)).all()
    if len(rows) <= paging.limit:
        return rows, None
    page = rows[: paging.limit]
    return page, str(getattr(page[-1], key.key))
