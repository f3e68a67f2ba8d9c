"""The web's common ground: the request's transaction, pages, idempotency and errors."""

import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Generic, NoReturn, TypeVar, cast

import structlog
from annotated_types import Interval
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field, Strict, WithJsonSchema
from sqlalchemy import Select, UniqueConstraint, select
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, mapped_column
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import Message, Receive, Scope

from app.db import Base, Database
from app.errors import AppError, Conflict, InputError, InvalidInput, pointer
from app.owned import Scratch
from app.store import Store

log = structlog.get_logger()

MAX_DETAIL = 2000
PROBLEM_TYPE = "application/problem+json"
MAX_IDEMPOTENCY_KEY = 200

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError(
            "must begin with a letter or digit and hold only letters, digits, - and _, at most 64 in all"
        )
    return text


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME})]
"""A name that fits into a path: letters, digits, ``-`` and ``_``, at most 64 of them."""


def _iso_8601(value: Any) -> str:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("must be a time with its zone, such as 2026-11-23T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie within the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_iso_8601), AfterValidator(_in_utc)]
"""A time with its zone. Numbers, which Pydantic would take for seconds since 1970, are refused."""


class SegmentConvertor(StringConvertor):
    """``{name:segment}`` in a route's path: a part that ends before a colon, where a verb begins."""

    regex = "[^/:]+"


register_url_convertor("segment", SegmentConvertor())

Number = Annotated[int, Interval(ge=1, le=2**31 - 1)]
"""The number of a version or a deployment, within what every database's integer holds."""

StrictNumber = Annotated[int, Strict(), Interval(ge=1, le=2**31 - 1)]
"""The same in a body, where true and "1" are no numbers."""

# ── The request's transaction ────────────────────────────────────────────────────────────────────


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

# ── What the process holds open ──────────────────────────────────────────────────────────────────


def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def get_store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def get_scratch(request: Request) -> Scratch:
    scratch: Scratch = request.app.state.scratch
    return scratch


# For operations that read files or wait: they open short transactions of their own.
DatabaseDep = Annotated[Database, Depends(get_database)]
StoreDep = Annotated[Store, Depends(get_store)]
ScratchDep = Annotated[Scratch, Depends(get_scratch)]

# ── Bodies ───────────────────────────────────────────────────────────────────────────────────────

NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonRequest(Request):
    """A request whose JSON is Unicode text all through, as RFC 8259 (section 8.2) advises.

    Half a surrogate pair can be neither stored nor sent back. What else Python does not read is told as
    precisely as a syntax error.
    """

    async def json(self) -> Any:
        body = await self.body()
        if NUL.search(body):  # PostgreSQL cannot store it, and data files with it are refused as well
            raise json.JSONDecodeError("a text holds U+0000", "", 0)
        try:
            content = json.loads(body)
            if SURROGATE.search(body):
                json.dumps(content, ensure_ascii=False).encode()
        except UnicodeError:
            raise json.JSONDecodeError("the text is not Unicode", "", 0) from None
        except RecursionError:
            raise json.JSONDecodeError("the values are nested too deeply", "", 0) from None
        except json.JSONDecodeError:
            raise
        except ValueError:
            raise json.JSONDecodeError("an integer has too many digits", "", 0) from None
        return content


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────

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


# ── Size of bodies ───────────────────────────────────────────────────────────────────────────────

DISCARDED_BYTES = 64 * 1024 * 1024


def limit_body(request: Request, limit: int, setting: str) -> Request:
    """The same request, answered 413 when its body is read and is longer than ``limit`` bytes.

    Starlette's own limit answers in plain text, past the error handlers.
    """
    return Request(request.scope, _LimitedBody(request, limit, setting).receive)


class _LimitedBody:
    def __init__(self, request: Request, limit: int, setting: str) -> None:
        declared = request.headers.get("content-length", "")
        self._receive: Receive = request.receive
        self._declared = int(declared) if declared.isdecimal() else 0
        self._read = 0
        self._limit = limit
        self._setting = setting

    async def receive(self) -> Message:
        if self._declared > self._limit:
            await self._refuse(more=True)
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            await self._refuse(more=message.get("more_body", False))
        return message

    async def _refuse(self, *, more: bool) -> NoReturn:
        # A client that sends all before it reads would lose the answer, were the connection closed at once.
        discarded = 0
        while more and discarded < DISCARDED_BYTES:
            message = await self._receive()
            discarded += len(message.get("body", b""))
            more = message.get("more_body", False)
        raise HTTPException(
            413,
            f"The body is larger than the {self._limit} bytes that {self._setting} of this server allows.",
        )


# ── Idempotency ──────────────────────────────────────────────────────────────────────────────────


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
    """Honours ``Idempotency-Key`` on every operation that creates (201 or 202) in the request's session.

    The record commits in the transaction of the change, so a repeated request is answered from it or
    not at all done twice. Of two simultaneous requests one meets the unique key and is answered 409.
    An upload needs no record: its own digest makes it idempotent.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            request = JsonRequest(
                _as_json(request.scope) if self.body_field else request.scope, request.receive
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
                await run_in_threadpool(request.state.session.rollback)
                return _replay(record, fingerprint)
            session: Session | None = getattr(request.state, "session", None)
            if session is not None and response.status_code < 300:
                session.add(
                    IdempotencyRecord(
                        caller=caller.name,
                        key=key,
                        fingerprint=fingerprint,
                        status=response.status_code,
                        location=response.headers.get("location"),
                        body=self.recorded(bytes(response.body)),
                        created_at=caller.now,
                    )
                )
            return response

        return handle

    def recorded(self, body: bytes) -> bytes:
        """What is kept of an answer, to be given again."""
        return body


def _as_json(scope: Scope) -> Scope:
    """Whatever a client calls its JSON: curl says that it is a form, Triton's client says nothing."""
    headers = [header for header in scope["headers"] if header[0] != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


def _find_record(request: Request, caller: str, key: str) -> IdempotencyRecord | None:
    database: Database = request.app.state.database
    with database.session_scope(write=False) as session:
        return session.scalar(select(IdempotencyRecord).filter_by(caller=caller, key=key))


def _replay(record: IdempotencyRecord, fingerprint: str) -> Response:
    if record.fingerprint != fingerprint:
        raise InvalidInput(
            "idempotency_key_reused",
            f"Idempotency-Key {record.key!r} was used with another request. Use a new key.",
        )
    headers = {"idempotent-replayed": "true"} | ({"location": record.location} if record.location else {})
    return Response(record.body, record.status, headers, media_type="application/json")


# ── Errors: RFC 9457 ─────────────────────────────────────────────────────────────────────────────


class ProblemItem(BaseModel):
    pointer: str = Field(description="JSON pointer to the fault.", examples=["/instances/0/distance"])
    detail: str = Field(examples=["must be a number, not the string 'far'"])


class Problem(BaseModel):
    """An error as RFC 9457 describes it."""

    type: str = Field(examples=["urn:roundhouse:error:invalid_input"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(description="What is wrong, and the way out.")
    code: str = Field(description="A stable name for programs.", examples=["invalid_input"])
    request_id: str | None = Field(None, description="Names this request in the log and in events.")
    errors: list[ProblemItem] | None = Field(None, description="Each fault of the input.")


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[InputError] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    if len(detail) > MAX_DETAIL:  # a caller's own text is not sent back without bound
        detail = f"{detail[:MAX_DETAIL]}…"
    body: dict[str, Any] = {
        "type": f"urn:roundhouse:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request.scope.get("state", {}).get("request_id"),
    }
    if errors:
        body["errors"] = [
            {"pointer": error.pointer[:MAX_DETAIL], "detail": error.detail[:MAX_DETAIL]} for error in errors
        ]
    return JSONResponse(body, status, headers, media_type=PROBLEM_TYPE)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of an operation's possible errors."""
    return {
        status: {
            "description": PROBLEM_DESCRIPTIONS[status],
            "content": {
                PROBLEM_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": {
                        "type": f"urn:roundhouse:error:{code}",
                        "title": HTTPStatus(status).phrase,
                        "status": status,
                        "detail": detail,
                        "code": code,
                        "request_id": "0f9b8c1d2e3f4a5b",
                    },
                }
            },
        }
        for status in statuses
        for code, detail in [PROBLEM_EXAMPLES[status]]
    }


PROBLEM_DESCRIPTIONS = {
    400: "The connection closed before the body was complete.",
    401: "No key, or a key that is unknown or revoked.",
    403: "The key's role or model pattern does not allow this.",
    404: "There is no such object.",
    406: "The answer cannot be given in a format that `Accept` names.",
    409: "The object is not in the state that the request assumes.",
    413: "The body is larger than the server's limit.",
    415: "The body's content type is not one that is read here.",
    422: "The input is wrong; `errors` points to each fault.",
    503: "The server cannot do this now; try again.",
}
PROBLEM_EXAMPLES = {
    400: ("incomplete_body", "The connection closed before the body was complete."),
    401: ("key_missing", "Send your API key as 'Authorization: Bearer <key>'."),
    403: ("role_not_allowed", "The key 'shop' has the role 'client'; this needs one of: engineer, admin."),
    404: ("model_not_found", "There is no model 'flight-delay'. Did you mean 'flight-delays'?"),
    406: ("not_acceptable", "The content can be had as text/csv, …; Accept names 'image/png'."),
    409: ("deployment_changed", "Model 'flight-delays' is at deployment 3, not 1: look at it again."),
    413: ("body_too_large", "The body is larger than the 33554432 bytes that this server allows."),
    415: ("unsupported_media_type", "Data files of type 'image/png' are not read here."),
    422: ("invalid_input", "The request is wrong: /name: must be a string."),
    503: ("database_unavailable", "The database did not answer. Nothing was changed; try again."),
}


async def _app_error(request: Request, error: Exception) -> Response:
    error = cast("AppError", error)
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else None
    return problem(request, error.status, error.code, error.detail, errors=error.errors, headers=headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    refused = cast("RequestValidationError", error)
    found = [_input_error(fault, refused.body) for fault in refused.errors()]
    faults = list(dict.fromkeys(found))  # a body that two functions take is checked twice
    detail = "; ".join(f"{fault.pointer or 'the body'}: {fault.detail}" for fault in faults[:3])
    return problem(request, 422, "invalid_input", f"The request is wrong: {detail}", errors=faults)


WRONG_BODIES = {"missing": "is missing", "model_attributes_type": "is not a JSON object"}
PLAIN_WORDS = {
    "dict_type": "must be a JSON object",
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
    "model_attributes_type": "must be a JSON object",
    "too_short": "must not be empty",
}


def _input_error(fault: dict[str, Any], body: Any) -> InputError:
    place, *path = fault["loc"]
    if fault["type"] == "json_invalid":
        return InputError("", f"is not JSON: {fault['ctx']['error']} (character {path[0]})")
    if not path and (wrong := WRONG_BODIES.get(fault["type"])):
        return InputError("", f"{wrong}; send a JSON object")
    words = PLAIN_WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, "))
    if place != "body":
        return InputError(pointer(place, *path), words)
    absent = [path.pop()] if fault["type"] == "missing" else []
    return InputError(pointer(*_steps_in(body, path), *absent), words)


def _steps_in(body: Any, path: list[str | int]) -> Iterator[str | int]:
    """The path without the names of union branches that pydantic tried, such as "list[str]"."""
    for step in path:
        if isinstance(body, list) if isinstance(step, int) else isinstance(body, dict) and step in body:
            yield step
            body = body[step]


async def _http_exception(request: Request, error: Exception) -> Response:
    error = cast("HTTPException", error)
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    details = {
        404: f"There is nothing at {request.url.path}. See /docs for what there is.",
        405: f"{request.method} is not possible at {request.url.path}. See /docs.",
    }
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers = {"allow": ", ".join(_methods_at(request))}
    return problem(
        request,
        error.status_code,
        codes.get(error.status_code, HTTPStatus(error.status_code).name.lower()),
        details.get(error.status_code, str(error.detail)),
        headers=headers,
    )


def _methods_at(request: Request) -> list[str]:
    # Starlette names the methods of the first route of this path only; each operation is a route.
    routes = (context for context in iter_route_contexts(request.app.routes) if context.methods)
    found = [route.methods or () for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted(set().union(*found))


async def _client_gone(request: Request, _error: Exception) -> Response:
    # Nobody reads this answer; it keeps the log and the metrics free of a fault that is not the server's.
    return problem(request, 400, "incomplete_body", "The connection closed before the body was complete.")


LOST_RACES = {
    "23503",  # PostgreSQL: foreign_key_violation, unique_violation
    "23505",
    "SQLITE_CONSTRAINT_FOREIGNKEY",
    "SQLITE_CONSTRAINT_PRIMARYKEY",
    "SQLITE_CONSTRAINT_UNIQUE",
}


async def _integrity_error(request: Request, error: Exception) -> Response:
    # The rules check first and answer precisely; what arrives here has lost a race with another request.
    # A breach of any other constraint is a fault of ours.
    found = cast("IntegrityError", error).orig
    name = getattr(found, "sqlstate", None) or getattr(found, "sqlite_errorname", None)
    if name not in LOST_RACES:
        return await _unexpected(request, error)
    log.warning("lost_race", error=str(found))
    detail = "Another request changed the same object at the same time. Repeat the request."
    return problem(request, 409, "concurrent_change", detail)


async def _data_error(request: Request, error: Exception) -> Response:
    # PostgreSQL's text cannot hold U+0000, which JSON and URLs can.
    reason = str(cast("DataError", error).orig).partition("\n")[0]
    detail = f"The database cannot hold a value of this request: {reason}. Nothing was changed."
    return problem(request, 422, "value_not_storable", detail)


async def _database_away(request: Request, error: Exception) -> Response:
    log.error("database_unavailable", error=str(error))
    detail = "The database did not answer. Try again."
    if request.method not in ("GET", "HEAD"):  # it may have been lost just after the commit
        detail = (
            "The database did not answer, and it is not known whether the change was made. Look, or repeat "
            "the request with the same Idempotency-Key."
        )
    return problem(request, 503, "database_unavailable", detail, headers={"retry-after": "1"})


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected_error", path=request.url.path, exc_info=error)
    detail = "This is a fault of the server. Its log has the reason under the request id."
    # Answered outside of the middleware that adds this header to every other answer.
    headers = {"x-request-id": request.scope.get("state", {}).get("request_id", "")}
    return problem(request, 500, "internal_error", detail, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(IntegrityError, _integrity_error)
    app.add_exception_handler(DataError, _data_error)
    app.add_exception_handler(OperationalError, _database_away)
    app.add_exception_handler(PoolTimeoutError, _database_away)
    app.add_exception_handler(Exception, _unexpected)
