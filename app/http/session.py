"""The request's transaction, and what the process holds open."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.db import Database
from app.owned import Scratch
from app.store import Store


def get_session(request: Request) -> Iterator[Session]:
    """One transaction a request; a reading request takes no lock."""
    database: Database = request.app.state.database
    with database.session_scope(write=request.method not in ("GET", "HEAD")) as session:
        request.state.session = session
        yield session


MAX_SESSIONS = 10
"""Requests that hold a transaction at once. More than the pool lends would wait for each other's threads."""

# scope="function": the commit comes before the answer, so a failed commit is never answered with 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function", max_concurrency=MAX_SESSIONS)]


# Asynchronous: a thread would take longer to begin than this takes.
async def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def get_store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def get_scratch(request: Request) -> Scratch:
    scratch: Scratch = request.app.state.scratch
    return scratch


# For operations that read files or wait: they open short transactions of their own.
DatabaseDep = Annotated[Database, Depends(get_database)]
StoreDep = Annotated[Store, Depends(get_store)]
ScratchDep = Annotated[Scratch, Depends(get_scratch)]
