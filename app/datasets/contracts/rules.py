"""Contracts: the rules that new versions of a dataset must hold to.

A rule is a JSON object of a fixed form, never code, so a contract can be read, compared and checked
without running anything that somebody wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    field_validator,
    model_validator,
)

from app.columns import ColumnType
from app.datasets.faults import MAX_NAME_LENGTH

MAX_RULES = 50_000
MAX_VALUES = 1_000
MAX_TERMS = 100
MAX_AGE = r"^[1-9][0-9]{0,4}[hd]$"


class Severity(StrEnum):
    ERROR = "error"
    """A version that breaks the rule is quarantined."""
    WARN = "warn"
    """It is reported only."""


ColumnName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Whole = Annotated[int, Strict(), Interval(ge=-(2**63), le=2**63 - 1)]
Real = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Count = Annotated[int, Strict(), Interval(ge=0, le=2**63 - 1)]
Value = bool | Whole | Real | str
"""A value of a column: dates and times are ISO 8601 texts, and a time without a zone is in UTC."""


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: Severity = Field(
        Severity.ERROR, description="`error`: one violation quarantines the version; `warn`: it is reported."
    )


class _ColumnRule(_Rule):
    column: ColumnName


# ── Of the columns ───────────────────────────────────────────────────────────────────────────────


class Required(_ColumnRule):
    """The column is there. The other rules of a column hold where it is there."""

    rule: Literal["required"]


class HasType(_ColumnRule):
    """The column has this type; a `number` may be an `integer`."""

    rule: Literal["column_type"]
    type: ColumnType


class NoOtherColumns(_Rule):
    """There is no column but those that a `required` or `column_type` rule names."""

    rule: Literal["no_other_columns"]


class ForbiddenColumns(_Rule):
    """No column has a name like these; `*` stands for any text, `?` for a character; case is ignored."""

    rule: Literal["forbidden_columns"]
    names: list[ColumnName] = Field(min_length=1, max_length=MAX_VALUES, examples=[["ssn", "*password*"]])


# ── Of the rows ──────────────────────────────────────────────────────────────────────────────────


class Nulls(_ColumnRule):
    """At most this share of the values is null: by default none."""

    rule: Literal["nulls"]
    max_share: float = Field(0.0, ge=0, le=1, strict=True)


class Range(_ColumnRule):
    """Every value of a column of numbers, dates or times lies between these, which are allowed too."""

    rule: Literal["range"]
    min: Whole | Real | str | None = None
    max: Whole | Real | str | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("needs a min, a max, or both")
        if self.min is not None and self.max is not None and _is_beyond(self.min, self.max):
            raise ValueError(f"no value lies between the min {self.min!r} and the max {self.max!r}")
        return self


def _is_beyond(low: float | str, high: float | str) -> bool:
    """Whether there is nothing from ``low`` to ``high``; texts that are no times are told of by the check."""
    if isinstance(low, str) and isinstance(high, str):
        try:
            return _with_zone(low) > _with_zone(high)
        except ValueError:
            return False
    return isinstance(low, str) or isinstance(high, str) or low > high


def _with_zone(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Allowed(_ColumnRule):
    """Every value is one of these."""

    rule: Literal["allowed"]
    values: list[Value] = Field(min_length=1, max_length=MAX_VALUES)


class Matches(_ColumnRule):
    """Every value of a column of strings matches the regular expression, in RE2's syntax, as a whole."""

    rule: Literal["matches"]
    pattern: Annotated[str, Field(min_length=1, max_length=1_000)]


class Unique(_Rule):
    """No two rows hold the same values in these columns; rows with a null there are not compared."""

    rule: Literal["unique"]
    columns: list[ColumnName] = Field(min_length=1, max_length=10)

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: list[str]) -> list[str]:
        if len(set(columns)) < len(columns):
            raise ValueError("names a column twice")
        return columns


class Comparison(BaseModel):
    """The value of a column against that of an `other` column, or against a constant `value`.

    `is null` and `is not null` stand alone. Any other comparison of a null is neither true nor false.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: ColumnName
    op: Literal["=", "!=", "<", "<=", ">", ">=", "is null", "is not null"]
    other: ColumnName | None = None
    value: Value | None = None

    @model_validator(mode="after")
    def _check_sides(self) -> Comparison:
        given = (self.other is not None) + (self.value is not None)
        if self.op.startswith("is") and given:
            raise ValueError(f"{self.op!r} goes without another column or value")
        if not self.op.startswith("is") and given != 1:
            raise ValueError(f"{self.op!r} needs either an other column or a value")
        return self


class _Terms(BaseModel):
    # A condition holds conditions: only by this does Pydantic see that it is sent and answered in one form.
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_mode_override="validation")


class AllOf(_Terms):
    """Every one of these holds."""

    all: list[Condition] = Field(min_length=1, max_length=MAX_TERMS)


class AnyOf(_Terms):
    """One of these holds, or more."""

    any: list[Condition] = Field(min_length=1, max_length=MAX_TERMS)


def _kind(condition: object) -> str:
    held = condition if isinstance(condition, dict) else getattr(condition, "__dict__", {})
    return next((f"{word}_of" for word in ("all", "any") if word in held), "comparison")


Condition = Annotated[
    Annotated[Comparison, Tag("comparison")]
    | Annotated[AllOf, Tag("all_of")]
    | Annotated[AnyOf, Tag("any_of")],
    Discriminator(_kind),
]


class Compare(_Rule):
    """The condition is not false in any row: as in SQL's CHECK, a comparison with null does not break it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "rule": "compare",
                    "that": {
                        "any": [
                            {"column": "cancelled", "op": "=", "value": True},
                            {"column": "departed", "op": "<=", "other": "arrived"},
                        ]
                    },
                }
            ]
        }
    )

    rule: Literal["compare"]
    that: Condition


# ── Of the whole table ───────────────────────────────────────────────────────────────────────────


class RowCount(_Rule):
    """The table has so many rows."""

    rule: Literal["row_count"]
    min: Count = 0
    max: Count | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> RowCount:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"no number of rows is at least {self.min} and at most {self.max}")
        return self


class Freshness(_ColumnRule):
    """The newest date or time of the column is no older than this when the version comes."""

    rule: Literal["freshness"]
    max_age: str = Field(pattern=MAX_AGE, description="In hours or days.", examples=["36h", "7d"])

    def age(self) -> timedelta:
        return timedelta(**{{"h": "hours", "d": "days"}[self.max_age[-1]]: int(self.max_age[:-1])})


class DriftMeasure(StrEnum):
    JENSEN_SHANNON = "jensen_shannon"
    """The distance to base 2, from 0 to 1."""
    PSI = "psi"
    """The population stability index, from 0 up."""


class Drift(_ColumnRule):
    """The column is distributed as in a reference version, up to a distance of `max`.

    Numbers are counted in the reference's tenths, strings and booleans by the reference's 20 most frequent
    values. What sampling alone would show is subtracted, and a distance that may well be chance is none.
    """

    rule: Literal["drift"]
    reference: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True, description="A version's number.")]
    measure: DriftMeasure = DriftMeasure.JENSEN_SHANNON
    max: float = Field(gt=0, le=100, strict=True)


Rule = (
    Required
    | HasType
    | NoOtherColumns
    | ForbiddenColumns
    | Nulls
    | Range
    | Allowed
    | Matches
    | Unique
    | Compare
    | RowCount
    | Freshness
    | Drift
)
RowRule = Nulls | Range | Allowed | Matches | Compare
"""Those that a row keeps or breaks by itself."""

CONTRACT_EXAMPLE: dict[str, Any] = {
    "rules": [
        {"rule": "required", "column": "carrier"},
        {"rule": "column_type", "column": "carrier", "type": "string"},
        {"rule": "nulls", "column": "carrier"},
        {"rule": "allowed", "column": "carrier", "values": ["AA", "B6", "UA"], "severity": "warn"},
        {"rule": "range", "column": "distance", "min": 1, "max": 10000},
        {"rule": "forbidden_columns", "names": ["*password*"]},
        {"rule": "row_count", "min": 5},
    ]
}


class Contract(BaseModel):
    """What new versions must hold to. A rule about a column that is not there is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [CONTRACT_EXAMPLE]})

    rules: list[Annotated[Rule, Field(discriminator="rule")]] = Field(max_length=MAX_RULES)


def columns_of(rule: Rule) -> list[str]:
    """The names of the columns that the rule is about, in the order in which it names them."""
    match rule:
        case Unique():
            return list(dict.fromkeys(rule.columns))
        case Compare():
            return list(dict.fromkeys(_columns_in(rule.that)))
        case NoOtherColumns() | ForbiddenColumns() | RowCount():
            return []
        case _:
            return [rule.column]


def _columns_in(condition: Condition) -> Iterator[str]:
    match condition:
        case Comparison():
            yield condition.column
            if condition.other is not None:
                yield condition.other
        case AllOf():
            for term in condition.all:
                yield from _columns_in(term)
        case AnyOf():
            for term in condition.any:
                yield from _columns_in(term)


def is_named_like(name: str, glob: str) -> bool:
    """Whether a column's name is like ``glob``, of ``*`` and ``?``, whatever the case."""
    return fnmatchcase(name.casefold(), glob.casefold().replace("[", "[[]"))
