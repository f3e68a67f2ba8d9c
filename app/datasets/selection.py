"""Which columns and rows of a table are asked for, and the small language in which rows are."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

from app.columns import Column, ColumnType
from app.datasets.engine import identifier, literal
from app.errors import InputError, InvalidInput, pointer, quoted

TEST = re.compile(r"(?P<operator>!=|<=|>=|=|<|>)(?P<value>.*)|:(?P<state>null|present)", re.DOTALL)
STATES = {"null": "IS NULL", "present": "IS NOT NULL"}


class Selection(NamedTuple):
    """Columns in the order asked for, the SQL conditions that rows must fulfil, and how many at most."""

    columns: Sequence[Column]
    conditions: Sequence[str] = ()
    limit: int | None = None


def select(
    columns: Sequence[Column], names: Sequence[str], where: Sequence[str], limit: int | None
) -> Selection:
    """What is asked for of a table of these ``columns``; without ``names``, all of them.

    Each text of ``where`` is a column's name and a test of its value: ``distance>=100``, ``carrier!=UA``
    (``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``), ``wind:null`` or ``wind:present``. The value is read as
    the column's type; a null passes no comparison. Raises InvalidInput with pointers to the parameters.
    """
    known = {column.name: column for column in columns}
    errors = [
        InputError(pointer("query", "columns", index), f"there is no column {quoted(name)}")
        for index, name in enumerate(names)
        if name not in known
    ] + [
        InputError(pointer("query", "columns", index), f"the column {quoted(name)} is named twice")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    conditions = []
    for index, text in enumerate(where):
        try:
            conditions.append(_condition(known, text))
        except ValueError as error:
            errors.append(InputError(pointer("query", "where", index), str(error)))
    if errors:
        raise InvalidInput(
            "invalid_selection",
            f"The rows and columns asked for are not to be had: {errors[0].detail}.",
            errors=errors,
        )
    return Selection([known[name] for name in names or known], conditions, limit)


def _condition(columns: dict[str, Column], text: str) -> str:
    # A name may hold signs of the language itself; the longest that fits is meant.
    for name in sorted(columns, key=len, reverse=True):
        if text.startswith(name) and (test := TEST.fullmatch(text, len(name))):
            cell = identifier(name)
            if test["state"]:
                return f"{cell} {STATES[test['state']]}"
            value = _literal(columns[name], test["operator"], test["value"])
            return f"{cell} {test['operator']} {value}"
    raise ValueError(
        f"{quoted(text)} is not the name of a column followed by =, !=, <, <=, > or >= and a value, "
        "or by :null or :present"
    )


def _literal(column: Column, operator: str, text: str) -> str:
    """The SQL of a value of the column's type. Raises ValueError."""
    match column.type:
        case ColumnType.INTEGER if re.fullmatch(r"-?[0-9]{1,19}", text) and -(2**63) <= int(text) < 2**63:
            return f"CAST({literal(text)} AS BIGINT)"
        case ColumnType.NUMBER if (number := _number(text)) is not None:
            return f"CAST({literal(repr(number))} AS DOUBLE)"
        case ColumnType.BOOLEAN if text in ("true", "false") and operator in ("=", "!="):
            return text
        case ColumnType.STRING if "\0" not in text:
            return literal(text)
        case ColumnType.DATE if (day := _date(text)) is not None:
            return f"DATE {literal(day.isoformat())}"
        case ColumnType.DATETIME if (moment := _moment(text)) is not None:
            return f"TIMESTAMPTZ {literal(moment.isoformat())}"
    expected = {
        ColumnType.INTEGER: "compared with an integer of 64 bits",
        ColumnType.NUMBER: "compared with a finite number",
        ColumnType.BOOLEAN: "tested with = or != for true or false",
        ColumnType.STRING: "compared with a text without null characters",
        ColumnType.DATE: "compared with a date such as 2013-05-31",
        ColumnType.DATETIME: "compared with a time such as 2013-05-31T14:00:00Z",
    }[column.type]
    raise ValueError(
        f"the column {column.name!r} is of type {column.type}: it can be {expected}, not {text[:60]!r}"
    )


def _number(text: str) -> float | None:
    if not re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return None
    return number if math.isfinite(number := float(text)) else None


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    """Without a zone it is UTC, as in an upload."""
    try:
        moment = datetime.fromisoformat(text) if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:", text) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
