"""Errors that a caller can do something about.

A rule raises the error where the rule is written; ``app.http`` turns every ``AppError`` into
``application/problem+json`` (RFC 9457). Nothing here knows about the web.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InputError:
    """One fault in the input: a JSON pointer (RFC 6901) to it, and what is wrong there."""

    pointer: str
    detail: str


def pointer(*parts: str | int) -> str:
    """A JSON pointer: ``pointer("instances", 0, "a/b") == "/instances/0/a~1b"``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def quoted(text: str) -> str:
    """A text of the request as a message names it: a long one is cut."""
    return repr(text if len(text) <= 200 else f"{text[:200]}…")


class AppError(Exception):
    """An answer other than the one asked for.

    ``status`` is the HTTP status, ``code`` a stable name for programs, ``detail`` a sentence that
    names the object and the way out.
    """

    status = 400
    retry_after_seconds: int | None = None
    """When the same request may well be answered."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[InputError] = (),
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.status = status or self.status


class InvalidInput(AppError):
    """The request was understood and its content is wrong (422)."""

    status = 422


class NotFound(AppError):
    """There is no such object (404)."""

    status = 404


class Conflict(AppError):
    """The object is not in the state that the request assumes (409)."""

    status = 409
