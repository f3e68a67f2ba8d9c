"""What paths, queries and bodies are made of: names, numbers, times."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from annotated_types import Interval
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Strict, WithJsonSchema
from starlette.convertors import StringConvertor, register_url_convertor

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
