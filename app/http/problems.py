"""Errors as RFC 9457 describes them, and as the protocols of other servers have them on their paths."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Match

from app.errors import AppError, InputError, pointer

log = structlog.get_logger()

MAX_DETAIL = 2000
PROBLEM_TYPE = "application/problem+json"


MLFLOW_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "ENDPOINT_NOT_FOUND",
    409: "RESOURCE_CONFLICT",
    422: "INVALID_PARAMETER_VALUE",
    503: "TEMPORARILY_UNAVAILABLE",
}
"""The names that MLflow's protocol has for errors, by status."""


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


def protocol_error(path: str, status: int, detail: str) -> dict[str, str] | None:
    """The body of an error in another server's protocol, where ``path`` belongs to one."""
    if path == "/v2" or path.startswith("/v2/"):  # the Open Inference Protocol
        return {"error": detail}
    if path.endswith("/invocations"):
        code = MLFLOW_CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
        return {"error_code": code, "message": detail}
    return None


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
    if (own := protocol_error(request.scope["path"], status, detail)) is not None:
        return JSONResponse(own, status, headers)
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
    if error.retry_after_seconds is not None:
        headers = {"retry-after": str(error.retry_after_seconds)}
    return problem(request, error.status, error.code, error.detail, errors=error.errors, headers=headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    refused = cast("RequestValidationError", error)
    errors = refused.errors()
    # A list may be too short only because pydantic does not count its faulty items: these are told.
    around = {fault["loc"][:depth] for fault in errors for depth in range(len(fault["loc"]))}
    found = [
        _input_error(fault, refused.body)
        for fault in errors
        if fault["type"] != "too_short" or fault["loc"] not in around
    ]
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
    if fault["type"] == "too_short" and (least := fault["ctx"]["min_length"]) > 1:
        words = f"must have at least {least} items"
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
