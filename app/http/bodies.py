"""Reading a request's body: as JSON that can be stored, and only up to a size."""

import json
import re
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
Model = TypeVar("Model", bound=BaseModel)

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonRequest(Request):
    """A request whose JSON is read by ``read_json``."""

    async def json(self) -> Any:
        return read_json(await self.body())


def read_json(body: bytes) -> Any:
    """JSON that is Unicode text all through, as RFC 8259 (section 8.2) advises.

    Half a surrogate pair can be neither stored nor sent back. What else Python does not read is told as
    precisely as a syntax error. Raises JSONDecodeError.
    """
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


def read_body(model: type[Model], body: bytes) -> Model:
    """The body of a route that reads it by itself, validated and refused as FastAPI does it for the others.

    Raises RequestValidationError.
    """
    if not body:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "", "input": None}])
    try:
        content = read_json(body)
    except json.JSONDecodeError as error:
        fault = {"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}
        raise RequestValidationError([fault]) from None
    try:
        return model.model_validate(content, from_attributes=True)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError(
            [fault | {"loc": ("body", *fault["loc"])} for fault in faults], body=content
        ) from None


def as_json(scope: Scope) -> Scope:
    """Whatever a client calls its JSON: curl says that it is a form, Triton's client says nothing."""
    headers = [header for header in scope["headers"] if header[0] != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


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
