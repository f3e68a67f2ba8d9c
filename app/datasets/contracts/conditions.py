"""The SQL of a contract's rules, built of their values and the columns' types.

Nothing of a contract is SQL itself.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

from app.columns import NUMBERS, ORDERED, TIMES, ColumnType
from app.datasets.contracts.distance import NULL_CELL, ReferenceCells
from app.datasets.contracts.rules import (
    AllOf,
    Allowed,
    AnyOf,
    Comparison,
    Condition,
    Matches,
    Nulls,
    Range,
    RowRule,
    Value,
)
from app.datasets.engine import identifier, literal
from app.datasets.reading.infer import SQL_TYPES

MANY_VALUES = 20  # from here on looking a value up is faster than comparing it with each


class Cell(NamedTuple):
    """A column of the view ``data``."""

    sql: str
    type: ColumnType


class Misfit(ValueError):
    """The rule cannot be applied to a column of this type. The text ends a sentence on the rule."""


def key_of(cells: Sequence[Cell]) -> str:
    if len(cells) == 1:
        return cells[0].sql
    present = " AND ".join(f"{cell.sql} IS NOT NULL" for cell in cells)
    return f"CASE WHEN {present} THEN row({', '.join(cell.sql for cell in cells)}) END"


def time_of(cell: Cell) -> str:
    if cell.type not in TIMES:
        raise Misfit(f"the column is of type {cell.type}, and not of dates or times")
    return f"CAST({cell.sql} AS TIMESTAMPTZ)"


def cell_of(cell: Cell, reference: ReferenceCells) -> str:
    """SQL of the number of the reference's cell that a value of the column is in."""
    bounds = reference.values if reference.edges is None else reference.edges
    constants = [_constant(bound, cell.type) for bound in bounds or ()]
    if reference.edges is not None:
        number = " + ".join(["0", *(f"CAST({cell.sql} > {edge} AS INTEGER)" for edge in constants)])
    else:
        cases = "".join(f" WHEN {value} THEN {n}" for n, value in enumerate(constants, start=1))
        number = f"CASE {cell.sql}{cases} ELSE 0 END" if cases else "0"
    return f"CASE WHEN {cell.sql} IS NULL THEN {NULL_CELL} ELSE {number} END"


def breach_of(rule: RowRule, cells: Mapping[str, Cell]) -> str:
    """The SQL condition of a row that breaks the rule; where it is null, the row keeps the rule."""
    match rule:
        case Nulls():
            return f"{cells[rule.column].sql} IS NULL"
        case Range():
            cell = cells[rule.column]
            if cell.type not in ORDERED:
                raise Misfit(f"the column is of type {cell.type}, and has no range")
            bounds = [("<", rule.min), (">", rule.max)]
            return " OR ".join(
                f"{cell.sql} {op} {_constant(bound, cell.type)}" for op, bound in bounds if bound is not None
            )
        case Allowed():
            cell = cells[rule.column]
            # No integer equals a fraction, and beside one DuckDB would make floats of them all.
            held = [value for value in rule.values if not _has_fraction(value, cell)]
            if not held:
                return f"{cell.sql} IS NOT NULL"
            values = ", ".join(_constant(value, cell.type) for value in held)
            if len(held) < MANY_VALUES:
                return f"{cell.sql} NOT IN ({values})"
            return f"{cell.sql} NOT IN (SELECT unnest([{values}]::{SQL_TYPES[cell.type]}[]))"
        case Matches():
            cell = cells[rule.column]
            if cell.type is not ColumnType.STRING:
                raise Misfit(f"the column is of type {cell.type}, and not of strings")
            return f"NOT regexp_full_match({cell.sql}, {literal(rule.pattern)})"
        case _:
            return f"({_condition(rule.that, cells)}) IS FALSE"


def _condition(condition: Condition, cells: Mapping[str, Cell]) -> str:
    match condition:
        case AllOf():
            return " AND ".join(f"({_condition(term, cells)})" for term in condition.all)
        case AnyOf():
            return " OR ".join(f"({_condition(term, cells)})" for term in condition.any)
        case Comparison(op="is null" | "is not null"):
            return f"{cells[condition.column].sql} {condition.op.upper()}"
        case Comparison():
            cell = cells[condition.column]
            if condition.value is not None:
                return f"{cell.sql} {condition.op} {_constant(condition.value, cell.type)}"
            other = cells[condition.other or ""]
            if cell.type is not other.type and not any(
                {cell.type, other.type} <= set(group) for group in (NUMBERS, TIMES)
            ):
                raise Misfit(
                    f"{condition.column!r} is of type {cell.type} and {condition.other!r} of {other.type}"
                )
            if cell.type is other.type or cell.type in TIMES:
                return f"{cell.sql} {condition.op} {other.sql}"
            present = f"{cell.sql} IS NOT NULL AND {other.sql} IS NOT NULL"
            return f"CASE WHEN {present} THEN {_exact(cell)} {condition.op} {_exact(other)} END"


def _has_fraction(value: Value, cell: Cell) -> bool:
    return cell.type is ColumnType.INTEGER and isinstance(value, float) and not value.is_integer()


def _exact(cell: Cell) -> str:
    """SQL of a number as its floor and its fraction: as a float, a large integer would be rounded."""
    if cell.type is ColumnType.INTEGER:
        return f"row({cell.sql}::HUGEINT, 0::DOUBLE)"
    held = f"greatest(least({cell.sql}, 1e30), -1e30)"  # beyond any integer, and within a HUGEINT
    return f"row(floor({held})::HUGEINT, {held} - floor({held}))"


def _constant(value: Value, type_: ColumnType) -> str:
    """SQL of a value that is compared with a column of this type. Raises Misfit."""
    match type_, value:
        case ColumnType.BOOLEAN, bool():
            return str(value).upper()
        case ((ColumnType.INTEGER | ColumnType.NUMBER), int()) if not isinstance(value, bool):
            return str(value)
        case ((ColumnType.INTEGER | ColumnType.NUMBER), float()):
            # Beside an integer it must not make a float of that, unless it has a fraction: it is small then.
            return str(int(value)) if value.is_integer() and abs(value) < 2**63 else f"{value!r}::DOUBLE"
        case ColumnType.STRING, str():
            return literal(value)
        case ColumnType.DATE, str():
            return f"DATE '{moment_of(value, type_).date()}'"
        case ColumnType.DATETIME, str():
            return f"TIMESTAMPTZ '{moment_of(value, type_).isoformat()}'"
    raise Misfit(f"the column is of type {type_}, which is not compared with {value!r}")


def moment_of(text: str, type_: ColumnType) -> datetime:
    try:
        if type_ is ColumnType.DATE:
            return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Misfit(f"{text!r} is not an ISO 8601 {type_}") from None


def value_of_text(name: str, type_: ColumnType) -> str:
    """SQL of a value of this type, of the text that it has in JSON."""
    text = identifier(name)
    if type_ is ColumnType.STRING:
        return text
    if type_ is ColumnType.DATE:
        return f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS DATE)"
    if type_ is ColumnType.NUMBER:
        return f"CASE WHEN isfinite(TRY_CAST({text} AS DOUBLE)) THEN CAST({text} AS DOUBLE) END"
    return f"TRY_CAST({text} AS {SQL_TYPES[type_]})"
