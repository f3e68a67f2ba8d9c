"""What runs and versions are looked for by: conditions, joined with and, or and not, and an order.

A condition compares a field with a value. The fields are those of a run, and what is known of it by name:
``metrics.roc_auc``, ``params.max_depth``, ``tags.team``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.http.fields import Moment
from app.leases import Status
from app.registry.signature import shown

MAX_CONDITIONS = 100
MAX_DEPTH = 8
MAX_VALUES = 200
FACT = re.compile(r"(?s)(metrics|params|tags)\..{1,200}")


class Kind(StrEnum):
    """What the values of a field are."""

    TEXT = "text"
    NUMBER = "number"
    MOMENT = "moment"
    ANY = "any"
    """A fact: numbers and texts, each found by its like."""


FIELDS: dict[str, Kind] = {
    "id": Kind.NUMBER,
    "status": Kind.TEXT,
    "result": Kind.TEXT,
    "model": Kind.TEXT,
    "version": Kind.NUMBER,
    "algorithm": Kind.ANY,
    "dataset": Kind.TEXT,
    "dataset_version": Kind.NUMBER,
    "priority": Kind.NUMBER,
    "created_by": Kind.TEXT,
    "created_at": Kind.MOMENT,
    "started_at": Kind.MOMENT,
    "finished_at": Kind.MOMENT,
}
"""All but the facts that a run has by name."""

_LIKE = {Kind.TEXT: str, Kind.NUMBER: int | float, Kind.ANY: int | float | str}
_WANTED = {Kind.TEXT: "a text", Kind.NUMBER: "a number", Kind.ANY: "a text, a number, true or false"}

Number = Annotated[int, Strict()] | Annotated[float, Strict(), Field(allow_inf_nan=False)]
Value = bool | Number | str
_VALUES = TypeAdapter[Any](Value | Annotated[list[Value], Field(min_length=1, max_length=MAX_VALUES)])
_moment: TypeAdapter[datetime] = TypeAdapter(Moment)


def kind_of(field: str) -> Kind:
    """Raises ValueError, with what there is, for a field that there is not."""
    if field in FIELDS:
        return FIELDS[field]
    if not FACT.fullmatch(field):
        raise ValueError(
            f"there is no such field to look for; there are {', '.join(FIELDS)}, and by name metrics.…, "
            "params.…, tags.…"
        )
    return Kind.ANY


def _wanted(field: str) -> str:
    if kind_of(field) is Kind.MOMENT:
        return "a time with its zone, such as 2026-11-23T12:00:00Z"
    return _WANTED[kind_of(field)]


def _fault(field: str, op: str, value: Any) -> str | None:
    """What is wrong with a single value that the field is compared with."""
    kind = kind_of(field)
    if isinstance(value, list):
        return f"`{op}` takes a single value, and only `in` a list of them"
    if kind is Kind.MOMENT:
        try:
            _moment.validate_python(value)
        except ValidationError:
            return f"{field} is compared with {_wanted(field)}, not {shown(value)}"
    elif not isinstance(value, _LIKE[kind]) or (isinstance(value, bool) and kind is not Kind.ANY):
        return f"{field} is compared with {_wanted(field)}, not {shown(value)}"
    elif op == "contains" and not (isinstance(value, str) and value):
        return f"`contains` takes a text that is not empty, not {shown(value)}"
    elif isinstance(value, int) and abs(value) >= 2**63:
        return f"{field} is never as far from 0 as 2^63"
    elif isinstance(value, float) and not isfinite(value):
        return f"{field} is compared with finite numbers"
    elif isinstance(value, str) and "\0" in value:
        return "no text holds the character U+0000"
    elif field == "status" and op != "contains" and value not in list(Status):
        return f"the status is one of {', '.join(Status)}, not {shown(value)}"
    return None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Condition(_Model):
    """One field beside a value. ``contains`` is of texts: the value is a part of them, whatever the case."""

    field: str = Field(examples=["metrics.roc_auc"])
    op: Literal["=", "!=", "<", "<=", ">", ">=", "in", "contains"]
    # Of a union, an error would name every branch, and not say what the field takes.
    value: Annotated[Any, WithJsonSchema(_VALUES.json_schema())]

    @field_validator("field")
    @classmethod
    def _check_field(cls, field: str) -> str:
        kind_of(field)
        return field

    @field_validator("value")
    @classmethod
    def _check_value(cls, value: Any, condition: ValidationInfo) -> Any:
        if not {"field", "op"} <= condition.data.keys():  # refused already
            return value
        field, op = condition.data["field"], condition.data["op"]
        if op == "contains" and kind_of(field) not in (Kind.TEXT, Kind.ANY):
            raise ValueError(f"`contains` is of texts, and {field} is compared with {_wanted(field)}")
        if op != "in":
            if (fault := _fault(field, op, value)) is not None:
                raise ValueError(fault)
            return value
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
            raise ValueError(f"`in` takes a list of 1 to {MAX_VALUES} values")
        faults = [
            InitErrorDetails(type=PydanticCustomError("value_error", fault), loc=(place,), input=one)
            for place, one in enumerate(value)
            if (fault := _fault(field, op, one)) is not None
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return value

    @property
    def values(self) -> list[Any]:
        return self.value if isinstance(self.value, list) else [self.value]

    @property
    def operands(self) -> list[Any]:
        """The values as the database compares them: times as times."""
        if kind_of(self.field) is Kind.MOMENT:
            return [_moment.validate_python(value) for value in self.values]
        return self.values


class And(_Model):
    """Every part holds."""

    all_of: list[Where] = Field(alias="and", min_length=1, max_length=MAX_CONDITIONS)


class Or(_Model):
    """A part holds, or several do."""

    any_of: list[Where] = Field(alias="or", min_length=1, max_length=MAX_CONDITIONS)


class Not(_Model):
    """The part does not hold; a run without its field is among these."""

    part: Where = Field(alias="not")


def _form(value: Any) -> str:
    keys = value if isinstance(value, dict) else {}
    return next((f"<{form}>" for form in ("and", "or", "not") if form in keys), "<condition>")


# The tags stand in the paths of errors, where none may look like a field's name.
Where = Annotated[
    Annotated[And, Tag("<and>")]
    | Annotated[Or, Tag("<or>")]
    | Annotated[Not, Tag("<not>")]
    | Annotated[Condition, Tag("<condition>")],
    Discriminator(_form),
]


class Order(_Model):
    """What comes first; runs without the field come last, the newest of them first."""

    field: str = Field(default="id", examples=["metrics.roc_auc"])
    order: Literal["asc", "desc"] = "desc"

    @field_validator("field")
    @classmethod
    def _check_field(cls, field: str) -> str:
        if field not in ("id", "finished_at") and not FACT.fullmatch(field):
            raise ValueError("runs are sorted by id, finished_at, metrics.…, params.… or tags.…")
        return field


class Query(_Model):
    """Which runs, in which order, and how many of them."""

    where: Where | None = Field(default=None, description="Default: all.")
    sort: Order = Order()
    limit: int = Field(default=50, ge=1, le=500, description="Most items in one page.")
    cursor: str | None = Field(
        default=None, max_length=2000, description="The `next` of the page before, of the same query."
    )

    @field_validator("where")
    @classmethod
    def _check_size(cls, where: Where | None) -> Where | None:
        depths = [] if where is None else list(_depths(where, 1))
        if len(depths) > MAX_CONDITIONS or max(depths, default=0) > MAX_DEPTH:
            raise ValueError(f"there may be {MAX_CONDITIONS} conditions at most, on {MAX_DEPTH} levels")
        return where


def _depths(where: And | Or | Not | Condition, depth: int) -> Iterator[int]:
    match where:
        case And(all_of=parts) | Or(any_of=parts):
            for part in parts:
                yield from _depths(part, depth + 1)
        case Not(part=part):
            yield from _depths(part, depth + 1)
        case Condition():
            yield depth
