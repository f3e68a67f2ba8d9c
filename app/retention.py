"""``roundhouse gc``: removing the objects that no row names, and other leftovers.

An object is removed that was last written before the grace period and that no row names now. Whoever writes
an object commits the row that names it within the grace period, or never. And a row that comes to name an
object without writing it, such as a data version that shares parts with another, is committed while the
other row stands.
"""

import heapq
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Column, delete, func, select
from sqlalchemy.orm import Session

import app.tables  # noqa: F401 - every room's columns
from app.access.caller import Caller
from app.db import Base, Database
from app.errors import Conflict
from app.events.models import Event
from app.events.service import record_event
from app.http.idempotency import IdempotencyRecord
from app.store import NAMES_OBJECTS, SHARDS, Store, StoreEntry

REPEATABLE = timedelta(days=1)
"""How long a request can be repeated with its ``Idempotency-Key``, at least."""
LOOKED_FOR = 100
"""Objects that the database names, of which the store must hold half: another's may share some."""
STREAMED = {"yield_per": 10_000}
WAY_OUT = "Check ROUNDHOUSE_DATABASE_URL, ROUNDHOUSE_HOME and ROUNDHOUSE_STORE_URL. Nothing was removed."


class Garbage(NamedTuple):
    """What was removed, or would be: objects, files of writers that died, and old idempotency records."""

    objects: list[StoreEntry]
    temporary: list[StoreEntry]
    idempotency_records: int

    @property
    def size(self) -> int:
        return sum(entry.size for entry in (*self.objects, *self.temporary))


def object_columns() -> list[Column[Any]]:
    """Every column that names objects: those declared as ``ObjectDigest`` or ``ObjectDigests``."""
    return [
        column
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if column.info.get(NAMES_OBJECTS)
    ]


def list_used(session: Session) -> set[str]:
    """The digests of all objects that rows name."""
    return {digest for column in object_columns() for digest in _digests_in(session, column)}


def _digests_in(session: Session, column: Column[Any]) -> Iterator[str]:
    for named in session.scalars(select(column).where(column.is_not(None)), execution_options=STREAMED):
        if isinstance(named, str):
            yield named
        else:
            yield from named


def find_garbage(database: Database, store: Store, *, now: datetime, older_than: timedelta) -> Garbage:
    """What ``collect_garbage`` would remove. Raises Conflict and StoreUnavailable, as that does."""
    before = now - older_than
    store.ping()
    with database.session_scope(write=False) as session:
        used = _list_used_safely(session, store)
        old = select(func.count()).where(_is_old_record(now, older_than))
        records = session.scalar(old.select_from(IdempotencyRecord)) or 0
    unused = [entry for shard in SHARDS for entry in store.list_unused(shard, used, before)]
    return Garbage(unused, store.list_abandoned(before), records)


def collect_garbage(database: Database, store: Store, caller: Caller, *, older_than: timedelta) -> Garbage:
    """Remove what no row names and was last written longer ago than ``older_than``, beside running servers.

    Raises StoreUnavailable, and Conflict for a database to which the store cannot belong.
    """
    before = caller.now - older_than
    store.ping()
    # Read after ``now``: whoever wrote before the grace period has committed, or is dead.
    with database.session_scope(write=False) as session:
        used = _list_used_safely(session, store)
    objects = [entry for shard in SHARDS for entry in store.remove_unused(shard, used, before)]
    temporary = store.sweep(before)
    with database.session_scope() as session:
        old = delete(IdempotencyRecord).where(_is_old_record(caller.now, older_than))
        records = len(session.scalars(old.returning(IdempotencyRecord.id)).all())
        garbage = Garbage(objects, temporary, records)
        if any(garbage):
            record_event(
                session, caller, "store.collected", "store",
                objects=len(objects), temporary=len(temporary), idempotency_records=records,
                bytes=garbage.size,
            )  # fmt: skip
    return garbage


def _is_old_record(now: datetime, older_than: timedelta) -> Any:
    return IdempotencyRecord.created_at < now - max(older_than, REPEATABLE)


def _list_used_safely(session: Session, store: Store) -> set[str]:
    """``list_used``, but for a database that is not the store's: to that all objects would seem unused."""
    used = list_used(session)
    if not used and session.scalar(select(Event.id).filter_by(action="dataset.created").limit(1)) is None:
        raise Conflict(
            "database_without_data",
            f"This database has never held a dataset, so the store's objects belong to another. {WAY_OUT}",
        )
    looked_for = heapq.nsmallest(LOOKED_FOR, used)
    held = sum(store.holds(digest) for digest in looked_for)
    if 2 * held < len(looked_for):
        raise Conflict(
            "store_without_data",
            f"The store holds {held} of {len(looked_for)} objects that this database names, so what it holds "
            f"belongs to another. {WAY_OUT}",
        )
    return used
