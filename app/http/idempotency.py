"""``Idempotency-Key``: a request that is sent twice is carried out once."""

import hashlib
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from starlette.concurrency import run_in_threadpool

from app.db import Base, Database
from app.errors import Conflict, InvalidInput
from app.http.bodies import JsonRequest, as_json

MAX_IDEMPOTENCY_KEY = 200


class IdempotencyRecord(Base):
    """The answer that a caller's ``Idempotency-Key`` got, written with what the request changed."""

    __tablename__ = "idempotency_records"
    __table_args__ = (UniqueConstraint("caller", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    caller: Mapped[str]
    key: Mapped[str]
    fingerprint: Mapped[str]
    status: Mapped[int]
    location: Mapped[str | None]
    body: Mapped[bytes]
    created_at: Mapped[datetime]


class IdempotentRoute(APIRoute):
    """Honours ``Idempotency-Key`` on every operation that creates (201 or 202) what a body describes.

    The record commits in the transaction of the change, so a repeated request is answered from it or
    not at all done twice. An operation without the request's session works for long and makes data versions;
    its record follows it: were that lost, repeating it would find the version of the same content.
    Of two simultaneous requests one meets the unique key and is answered 409.
    An upload needs no record: its own digest makes it idempotent.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            request = JsonRequest(
                as_json(request.scope) if self.body_field else request.scope, request.receive
            )
            key = request.headers.get("idempotency-key")
            if key is None or request.method != "POST" or self.status_code not in (201, 202):
                return await handler(request)
            if not 0 < len(key) <= MAX_IDEMPOTENCY_KEY:
                raise InvalidInput(
                    "invalid_idempotency_key",
                    f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} characters.",
                )
            caller = request.state.caller
            body = await request.body() if self.body_field else b""
            fingerprint = hashlib.sha256(f"{request.url.path}\n".encode() + body).hexdigest()
            record = await run_in_threadpool(_find_record, request, caller.name, key)
            if record is not None:
                return _replay(record, fingerprint)
            try:
                response = await handler(request)
            except Conflict:
                # It may have been made by this very request, sent at the same time.
                if (record := await run_in_threadpool(_find_record, request, caller.name, key)) is None:
                    raise
                if (
                    session := _session_of(request)
                ) is not None:  # none yet, where a dependency before it refused
                    await run_in_threadpool(session.rollback)
                return _replay(record, fingerprint)
            session = _session_of(request)
            if response.status_code < 300 and (session is not None or self.body_field is not None):
                record = IdempotencyRecord(
                    caller=caller.name,
                    key=key,
                    fingerprint=fingerprint,
                    status=response.status_code,
                    location=response.headers.get("location"),
                    body=self.recorded(bytes(response.body)),
                    created_at=caller.now,
                )
                if session is not None:
                    session.add(record)
                else:
                    await run_in_threadpool(_add_record, request, record)
            return response

        return handle

    def recorded(self, body: bytes) -> bytes:
        """What is kept of an answer, to be given again."""
        return body


def _session_of(request: Request) -> Session | None:
    session: Session | None = getattr(request.state, "session", None)
    return session


def _find_record(request: Request, caller: str, key: str) -> IdempotencyRecord | None:
    database: Database = request.app.state.database
    with database.session_scope(write=False) as session:
        return session.scalar(select(IdempotencyRecord).filter_by(caller=caller, key=key))


def _add_record(request: Request, record: IdempotencyRecord) -> None:
    database: Database = request.app.state.database
    with database.session_scope() as session:
        session.add(record)


def _replay(record: IdempotencyRecord, fingerprint: str) -> Response:
    if record.fingerprint != fingerprint:
        raise InvalidInput(
            "idempotency_key_reused",
            f"Idempotency-Key {record.key!r} was used with another request. Use a new key.",
        )
    headers = {"idempotent-replayed": "true"} | ({"location": record.location} if record.location else {})
    return Response(record.body, record.status, headers, media_type="application/json")
