"""Writing events and finding them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.events.models import Event
from app.http.paging import Paging, paginate


def record_event(
    session: Session,
    caller: Caller,
    action: str,
    subject: str,
    *,
    model: str | None = None,
    **detail: Any,
) -> None:
    """Add an event to the transaction of the change that it tells of.

    ``action`` is what happened, such as ``model.promoted``; ``subject`` the path of the object that it
    happened to, such as ``models/flight-delays``; ``model`` the model that it is about, if it is about one:
    a key that is limited to others does not see the event.
    """
    session.add(
        Event(
            at=caller.now,
            actor=caller.name,
            action=action,
            subject=subject,
            model=model,
            request_id=caller.request_id,
            detail=detail,
        )
    )


def list_events(
    session: Session,
    caller: Caller,
    paging: Paging,
    *,
    subject: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[Sequence[Event], str | None]:
    """Events of the caller's models and of none, newest first.

    ``subject`` also finds what lies below it; ``until`` is exclusive.
    """
    query = select(Event).where(or_(Event.model.is_(None), caller.sees(Event.model)))
    if subject is not None:
        below = Event.subject.startswith(subject.rstrip("/") + "/", autoescape=True)
        query = query.where(or_(Event.subject == subject, below))
    if action is not None:
        query = query.where(Event.action == action)
    if actor is not None:
        query = query.where(Event.actor == actor)
    if since is not None:
        query = query.where(Event.at >= since)
    if until is not None:
        query = query.where(Event.at < until)
    return paginate(session, query, Event.id, paging)
