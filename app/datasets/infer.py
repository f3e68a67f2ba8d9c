"""How a column of a source becomes a column of the canonical table: its type and the SQL of its values."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, TypeVar

from app.columns import ColumnType
from app.datasets.engine import identifier, literal
from app.datasets.faults import NULL_CHARACTER, cell_fault, fault

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")

NULL_TOKENS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")

COLUMNS_AT_ONCE = 500  # DuckDB plans a query in time quadratic in its aggregates

SQL_TYPES = {
    ColumnType.INTEGER: "BIGINT",
    ColumnType.NUMBER: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.STRING: "VARCHAR",
    ColumnType.DATE: "DATE",
    ColumnType.DATETIME: "TIMESTAMPTZ",
}

FIRST_DAY, LAST_DAY = "DATE '0001-01-01'", "DATE '9999-12-31'"
FIRST_TIME, LAST_TIME = (
    "TIMESTAMPTZ '0001-01-01 00:00:00+00'",
    "TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'",
)

FIRST_TIME_US, LAST_TIME_US = -62_135_596_800_000_000, 253_402_300_799_999_999

# Fractions and exponents only: whole numbers are integers, or keep their digits as text.
FRACTION = r"-0|-?((0|[1-9]\d*)\.\d*|\.\d+|(0|[1-9]\d*)[eE][+-]?\d+|((0|[1-9]\d*)\.\d*|\.\d+)[eE][+-]?\d+)"
TIME = r"\d{4}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6}0*)?)?"
ZONE = r"(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)"


class Kind(IntFlag):
    """The types that a text can be read as."""

    INTEGER = 1
    NUMBER = 2
    BOOLEAN = 4
    DATE = 8
    NAIVE_TIME = 16
    ZONED_TIME = 32


@dataclass(frozen=True)
class Cells:
    """A canonical column: ``value`` is SQL over a row of ``source``.

    ``misfit`` is the SQL condition of a value that the type cannot hold, and ``complaint`` says why.
    """

    name: str
    type: ColumnType
    value: str
    misfit: str | None = None
    complaint: str = ""


def infer_text(connection: DuckDBPyConnection, names: Sequence[str], columns: Sequence[str]) -> list[Cells]:
    """Types of the text columns of ``source``, over all of its rows.

    A column has the first of these types that every one of its values can be read as: integer (64 bits,
    written as integers are: no sign but minus, no leading zero), number (a fraction or an exponent, or an
    integer that a float holds exactly beside such; finite), boolean (true or false in any case), date
    (2013-05-31), datetime (ISO 8601 to the microsecond; all with a zone, and then in UTC, or all without,
    and then taken as UTC), string. Dates and times lie in the years 1 to 9999.

    An empty field and NA, N/A, NaN, nan, null, NULL, None are null in a column of another type than
    string. In a string column they are text, and only the empty unquoted field (SQL NULL here) is null.
    """
    source = [identifier(column) for column in columns]
    found = _agreed_kinds(connection, [f"CASE {_nulls(c)} {_kinds(c)} END" for c in source])
    return [
        _text_cells(name, column, kinds) for name, column, kinds in zip(names, source, found, strict=True)
    ]


def infer_times(connection: DuckDBPyConnection, names: Sequence[str]) -> list[Cells]:
    """Cells of the string columns of ``source``: dates or times where every value is one."""
    found = _agreed_kinds(
        connection,
        [f"CASE WHEN {identifier(n)} IS NULL THEN NULL {_time_kinds(identifier(n))} END" for n in names],
    )
    return [
        Cells(name, type_, f"CAST({identifier(name)} AS {SQL_TYPES[type_]})")
        for name, type_ in zip(names, map(_type_of, found), strict=True)
    ]


def cast_native(name: str, sql_type: str) -> Cells:
    """Cells of a typed column of ``source``; NaN is null, and a time without a zone is UTC.

    Decimals without a fraction are integers, others the nearest float. Raises InvalidInput for a type
    that has no place in a table for models.
    """
    column = identifier(name)
    base = sql_type.partition("(")[0]
    if sql_type in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"):
        return Cells(name, ColumnType.INTEGER, f"CAST({column} AS BIGINT)")
    if sql_type in ("UBIGINT", "HUGEINT", "UHUGEINT") or re.fullmatch(r"DECIMAL\(\d+,0\)", sql_type):
        return Cells(
            name,
            ColumnType.INTEGER,
            f"CAST({column} AS BIGINT)",
            f"{column} NOT BETWEEN -9223372036854775808 AND 9223372036854775807",
            "the integer does not fit in 64 bits with a sign. Send the column as strings or as floats.",
        )
    if base == "DECIMAL":
        return Cells(name, ColumnType.NUMBER, f"CAST({column} AS DOUBLE)")
    if sql_type in ("FLOAT", "DOUBLE"):
        return Cells(
            name,
            ColumnType.NUMBER,
            f"CASE WHEN NOT isnan({column}) THEN CAST({column} AS DOUBLE) END",
            f"isinf({column})",
            "the number is infinite. Send a finite number or null.",
        )
    if sql_type == "BOOLEAN":
        return Cells(name, ColumnType.BOOLEAN, column)
    if base in ("VARCHAR", "ENUM", "JSON", '"NULL"', "NULL"):
        value = f"CAST({column} AS VARCHAR)"
        return Cells(name, ColumnType.STRING, value, f"contains({value}, chr(0))", NULL_CHARACTER)
    if sql_type == "DATE":
        return Cells(
            name,
            ColumnType.DATE,
            column,
            f"{column} NOT BETWEEN {FIRST_DAY} AND {LAST_DAY}",
            "the date is not in the years 1 to 9999. Send another or null.",
        )
    if base.startswith("TIMESTAMP"):
        value = f"CAST({column} AS TIMESTAMPTZ)"
        misfit = f"{value} NOT BETWEEN {FIRST_TIME} AND {LAST_TIME}"
        if base.endswith("_NS"):
            misfit = f"({misfit}) OR epoch_ns({column}) % 1000 <> 0"
        return Cells(
            name,
            ColumnType.DATETIME,
            value,
            misfit,
            "the time is not in the years 1 to 9999, or finer than a microsecond. Round or remove it.",
        )
    raise fault(
        "unsupported_type",
        f"Column {name!r} has the type {sql_type}, which holds no value that a model reads. Convert it to "
        "integers, floats, booleans, strings, dates or timestamps, or drop it.",
        "columns",
        name,
    )


def check_fit(connection: DuckDBPyConnection, cells: Sequence[Cells]) -> None:
    """Raises InvalidInput that names the first misfit of the first column that has one."""
    risky = [cell for cell in cells if cell.misfit is not None]
    for some in _portions(risky):
        sums = ", ".join(f"bool_or({cell.misfit})" for cell in some)
        found = connection.execute(f"SELECT {sums} FROM source").fetchone() or ()
        for cell, misfits in zip(some, found, strict=True):
            if misfits:
                raise cell_fault(
                    "value_out_of_range", _first_row(connection, cell), cell.name, cell.complaint
                )


def _first_row(connection: DuckDBPyConnection, cell: Cells) -> int:
    numbered = f"SELECT row_number() OVER () AS number, {cell.misfit} AS misfit FROM source"
    found = connection.execute(f"SELECT min(number) FROM ({numbered}) WHERE misfit").fetchone() or (0,)
    return int(found[0])


def _agreed_kinds(connection: DuckDBPyConnection, kinds: Sequence[str]) -> list[Kind]:
    agreed: list[Kind] = []
    for some in _portions(kinds):
        sums = ", ".join(f"bit_and({kind})" for kind in some)
        found = connection.execute(f"SELECT {sums} FROM source").fetchone() or ()
        agreed.extend(Kind(kind or 0) for kind in found)
    return agreed


def _portions(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), COLUMNS_AT_ONCE):
        yield items[start : start + COLUMNS_AT_ONCE]


def _text_cells(name: str, column: str, kinds: Kind) -> Cells:
    # Every value has been seen to cast, so TRY_CAST makes null of the null tokens and of nothing else, once
    # NaN is spelt otherwise. An expression that names its column twice, as nullif and CASE do, makes the
    # query's time quadratic in its columns.
    type_ = _type_of(kinds)
    match type_:
        case ColumnType.STRING:
            return Cells(name, type_, column)
        case ColumnType.NUMBER:
            return Cells(name, type_, f"TRY_CAST(translate({column}, 'Nn', '__') AS DOUBLE)")
        case ColumnType.BOOLEAN:
            return Cells(name, type_, f"TRY_CAST(lower({column}) AS BOOLEAN)")
    return Cells(name, type_, f"TRY_CAST({column} AS {SQL_TYPES[type_]})")


def _type_of(kinds: Kind) -> ColumnType:
    for kind, type_ in (
        (Kind.INTEGER, ColumnType.INTEGER),
        (Kind.NUMBER, ColumnType.NUMBER),
        (Kind.BOOLEAN, ColumnType.BOOLEAN),
        (Kind.DATE, ColumnType.DATE),
        (Kind.NAIVE_TIME | Kind.ZONED_TIME, ColumnType.DATETIME),
    ):
        if kinds & kind:
            return type_
    return ColumnType.STRING


def _nulls(column: str) -> str:
    # Not IN: the optimizer makes a join of each, and a wide table then takes quadratic time and memory.
    tokens = ", ".join(map(literal, NULL_TOKENS))
    return f"WHEN {column} IS NULL THEN NULL WHEN list_contains([{tokens}], {column}) THEN NULL"


def _kinds(column: str) -> str:
    """The branches of a CASE: what a text can be read as, as a Kind."""
    integer = f"TRY_CAST({column} AS BIGINT)"
    number = f"TRY_CAST({column} AS DOUBLE)"
    exact = f"CAST(CAST({integer} AS DOUBLE) AS HUGEINT) = {integer}"
    return (
        f"WHEN CAST({integer} AS VARCHAR) = {column} THEN"
        f" CASE WHEN {exact} THEN {Kind.INTEGER | Kind.NUMBER:d} ELSE {Kind.INTEGER:d} END"
        f" WHEN regexp_full_match({column}, {literal(FRACTION)}) THEN"
        f" CASE WHEN isfinite({number}) THEN {Kind.NUMBER:d} ELSE 0 END"
        f" WHEN lower({column}) IN ('true', 'false') THEN {Kind.BOOLEAN:d} {_time_kinds(column)}"
    )


def _time_kinds(column: str) -> str:
    # A date that prints as it was written is one; longer and shorter texts are DuckDB's own notations.
    date = f"TRY_CAST({column} AS DATE)"
    time = f"TRY_CAST({column} AS TIMESTAMPTZ)"
    fits = f"epoch_us({time}) BETWEEN {FIRST_TIME_US} AND {LAST_TIME_US}"  # typed bounds are slow to plan
    return (
        f"WHEN length({column}) < 10 THEN 0 WHEN {column}[5] <> '-' THEN 0"
        f" WHEN length({column}) = 10 THEN"
        f" CASE WHEN CAST({date} AS VARCHAR) = {column} THEN {Kind.DATE:d} ELSE 0 END"
        f" WHEN {column} LIKE '0000%' THEN 0"
        f" WHEN regexp_full_match({column}, {literal(TIME)}) THEN"
        f" CASE WHEN {fits} THEN {Kind.NAIVE_TIME:d} ELSE 0 END"
        f" WHEN regexp_full_match({column}, {literal(TIME + ZONE)}) THEN"
        f" CASE WHEN {fits} THEN {Kind.ZONED_TIME:d} ELSE 0 END"
        f" ELSE 0"
    )
