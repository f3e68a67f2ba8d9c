"""What training runs tell while they run, over HTTP: trials, log lines, and all of it live."""

import asyncio
import heapq
import re
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import uvicorn
from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator, BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from app.access.caller import Caller
from app.access.route import CallerDep, GuardedRoute
from app.db import Database
from app.http.paging import Page, PagingDep
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, SessionDep
from app.training.models import LogLine, Trial
from app.training.router import RunId, RunInfo, run_info, visible_run
from app.training.trials import START, Position, TrialReport, list_lines, list_trials, read_news

router = APIRouter(prefix="/v1/training-runs", tags=["training"], route_class=GuardedRoute)

EVENTS_POLL_SECONDS = 0.5
TRIAL_EXAMPLE: dict[str, Any] = {
    "number": 7,
    "status": "complete",
    "algorithm": "hist_gradient_boosting",
    "configuration": {
        "algorithm": "hist_gradient_boosting",
        "params": {"learning_rate": 0.07},
        "preparation": {"categorical.encode": "ordinal"},
    },
    "scores": {"roc_auc": [0.91, 0.9, 0.93]},
    "value": 0.913,
    "reason": None,
    "seconds": 1.4,
    "finished_at": "2026-11-23T08:00:09Z",
}


class TrialInfo(TrialReport):
    """A candidate that a search has tried: its scores by metric and fold, and the `value` to compare by."""

    model_config = ConfigDict(json_schema_extra={"examples": [TRIAL_EXAMPLE]})

    finished_at: datetime


class LogLineInfo(BaseModel):
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={"examples": [{"at": "2026-11-23T08:00:02Z", "text": "reading the data"}]},
    )

    at: datetime
    text: str


@router.get("/{run}/trials", responses=problem_responses(404))
def list_run_trials(run: RunId, caller: CallerDep, session: SessionDep, paging: PagingDep) -> Page[TrialInfo]:
    """The trials that a run has finished, newest first; more come while it runs."""
    trials, cursor = list_trials(session, visible_run(session, caller, run), paging)
    return Page(items=[TrialInfo.model_validate(trial) for trial in trials], next=cursor)


@router.get("/{run}/logs", responses=problem_responses(404))
def list_run_logs(run: RunId, caller: CallerDep, session: SessionDep, paging: PagingDep) -> Page[LogLineInfo]:
    """What a run has said, newest first: of more than 5,000 lines the first 1,000 and the last 4,000."""
    lines, cursor = list_lines(session, visible_run(session, caller, run), paging)
    return Page(items=[LogLineInfo.model_validate(line) for line in lines], next=cursor)


class Look(NamedTuple):
    """What one look at a run has found, all of one moment: the run, and what is new since a position."""

    run: RunInfo
    trials: Sequence[Trial]
    lines: Sequence[LogLine]

    def pieces(self) -> Iterator[Trial | LogLine]:
        """The trials and the lines, each in the order in which they were kept, by their moments."""
        pieces: list[Sequence[Trial | LogLine]] = [self.lines, self.trials]
        return heapq.merge(*pieces, key=_moment)


def _event_id(text: str) -> str:
    if not re.fullmatch(r"\d{1,17}-\d{1,17}", text, re.ASCII):
        raise ValueError("must be the `id` of an event of this run, as the stream has sent it")
    return text


EventId = Annotated[str, AfterValidator(_event_id)]


def _look(database: Database, caller: Caller, run: int, since: Position) -> Look:
    with database.session_scope(write=False) as session:
        found = visible_run(session, caller, run)
        return Look(run_info(session, found), *read_news(session, found, since))


def _first_look(
    run: RunId,
    caller: CallerDep,
    database: DatabaseDep,
    last_event_id: Annotated[
        EventId | None, Header(description="Go on behind the event with this `id`.")
    ] = None,
) -> tuple[Position, Look]:
    since = START if last_event_id is None else Position.parse(last_event_id)
    return since, _look(database, caller, run, since)


@router.get("/{run}/events", response_class=EventSourceResponse, responses=problem_responses(404))
async def follow_run(
    run: RunId,
    caller: CallerDep,
    database: DatabaseDep,
    # A dependency, because once the stream has begun there is no other status to answer.
    first: Annotated[tuple[Position, Look], Depends(_first_look)],
) -> AsyncIterator[ServerSentEvent]:
    """Follow a run as server-sent events, until it has ended.

    There is a `trial` event for every finished trial and a `log` event for every line of the log, from the
    beginning or behind `Last-Event-ID`, and a `run` event for every change of the run. A server that stops
    ends the stream before; connect again, as an EventSource does by itself.
    """
    position, look = first
    known: RunInfo | None = None
    while True:
        for piece in look.pieces():
            position = _behind(position, piece)
            event, model = ("trial", TrialInfo) if isinstance(piece, Trial) else ("log", LogLineInfo)
            yield ServerSentEvent(event=event, data=model.model_validate(piece), id=str(position))
        if look.run != known:
            known = look.run
            yield ServerSentEvent(event="run", data=known, id=str(position))
        if known.status.final or _server_is_stopping():
            return
        await asyncio.sleep(EVENTS_POLL_SECONDS)
        look = await run_in_threadpool(_look, database, caller, run, position)


def _moment(piece: Trial | LogLine) -> datetime:
    return piece.finished_at if isinstance(piece, Trial) else piece.at


def _behind(position: Position, piece: Trial | LogLine) -> Position:
    if isinstance(piece, Trial):
        return position._replace(trial_at=piece.finished_at)
    return position._replace(line=piece.id)


def _server_is_stopping() -> bool:
    """Whether uvicorn has taken a signal to stop. It waits for open streams then, and does not tell them."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return isinstance(server, uvicorn.Server) and server.should_exit
