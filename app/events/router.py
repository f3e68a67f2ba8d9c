"""The audit log over HTTP."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.access.route import CallerDep, GuardedRoute
from app.events import service
from app.http.fields import Moment
from app.http.paging import Page, PagingDep
from app.http.session import SessionDep

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=GuardedRoute)

EXAMPLE: JsonDict = {
    "id": 42,
    "at": "2026-11-23T08:00:00Z",
    "actor": "admin",
    "action": "model.promoted",
    "subject": "models/flight-delays",
    "model": "flight-delays",
    "request_id": "0f9b8c1d2e3f4a5b",
    "detail": {"deployment": 3, "version": 2, "comment": "beats version 1 on June and July"},
}


class EventInfo(BaseModel):
    """Who did what to which object, when, and in which request."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE]})

    id: int
    at: datetime
    actor: str = Field(description="The key's name, or the server's own process.")
    action: str
    subject: str
    model: str | None = Field(description="The model that it is about, if it is about one.")
    request_id: str | None
    detail: dict[str, Any]


@router.get("")
def list_events(
    session: SessionDep,
    caller: CallerDep,
    paging: PagingDep,
    subject: Annotated[
        str | None,
        Query(description="An object's path; also finds what lies below it.", examples=["models/m"]),
    ] = None,
    action: Annotated[str | None, Query(examples=["model.promoted"])] = None,
    actor: Annotated[str | None, Query(examples=["admin"])] = None,
    since: Annotated[Moment | None, Query(description="Not before this time.")] = None,
    until: Annotated[Moment | None, Query(description="Before this time.")] = None,
) -> Page[EventInfo]:
    """Every change that was ever made, newest first; of models, those that the key may see."""
    rows, cursor = service.list_events(
        session, caller, paging, subject=subject, action=action, actor=actor, since=since, until=until
    )
    return Page(items=[EventInfo.model_validate(row) for row in rows], next=cursor)
