"""What ``Accept`` asks for."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from app.errors import AppError, quoted

T = TypeVar("T")


class PageFormat(StrEnum):
    """Of what programs read, and people too."""

    JSON = "json"
    HTML = "html"


PAGE_RANGES = {
    "": PageFormat.JSON,
    "*/*": PageFormat.JSON,
    "application/*": PageFormat.JSON,
    "application/json": PageFormat.JSON,
    "text/*": PageFormat.HTML,
    "text/html": PageFormat.HTML,
}


def preferred(accept: str) -> list[str]:
    """The media ranges of ``Accept``, the best liked first, without those it refuses.

    As RFC 9110, section 12.5.1, has it, but that of ranges of one quality the first named comes first.
    """
    wanted = []
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            wanted.append((-float(quality), name))
        except ValueError:
            wanted.append((0.0, name))
    return [name for unliked, name in sorted(wanted, key=lambda one: one[0]) if unliked < 0]


def best_of(accept: str, formats: Mapping[str, T], thing: str, named: str) -> T:
    """What ``Accept`` likes best of the formats of a thing, by media range. Raises AppError (406)."""
    for name in preferred(accept):
        if name in formats:
            return formats[name]
    detail = f"The {thing} can be had as {named}; Accept names {quoted(accept)}."
    raise AppError("not_acceptable", detail, status=406)


def page_format(accept: str, thing: str) -> PageFormat:
    """The format that ``Accept`` likes best to have the thing in. Raises AppError (406)."""
    return best_of(accept, PAGE_RANGES, thing, "application/json and text/html")
