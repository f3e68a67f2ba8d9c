"""How a column of a source becomes a column of the canonical table: its type and the SQL of its values."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
    """What a text can be read as.

    INTEGER: 64 bits, written as integers are: no sign but minus, no leading zero. NUMBER: a fraction or an
    exponent, finite; or an integer that a float holds exactly. TRUE_FALSE and its like: one of the pair, in
    any case. DATE: 2013-05-31. NAIVE_TIME, ZONED_TIME: ISO 8601 to the microsecond, without or with an
    offset from UTC or Z. Dates and times lie in the years 1 to 9999. CODE: digits, and no INTEGER: 00123.
    SAYS_TRUE, SAYS_FALSE: which one of a pair of words it is.

    ``scanner`` has the same numbers, and reads as ``kinds_of`` does.
    """

    INTEGER = 1
    NUMBER = 2
    TRUE_FALSE = 4
    DATE = 8
    NAIVE_TIME = 16
    ZONED_TIME = 32
    YES_NO = 64
    Y_N = 128
    T_F = 256
    ON_OFF = 512
    ZERO_ONE = 1024
    CODE = 2048
    SAYS_TRUE = 4096
    SAYS_FALSE = 8192


TRUE_AND_FALSE = {
    Kind.TRUE_FALSE: ("true", "false"),
    Kind.YES_NO: ("yes", "no"),
    Kind.Y_N: ("y", "n"),
    Kind.T_F: ("t", "f"),
    Kind.ON_OFF: ("on", "off"),
    Kind.ZERO_ONE: ("1", "0"),
}

NUMERIC = Kind.INTEGER | Kind.NUMBER
WORDS = Kind.YES_NO | Kind.Y_N | Kind.T_F | Kind.ON_OFF
TIMES = Kind.NAIVE_TIME | Kind.ZONED_TIME

READ_AS = {
    ColumnType.INTEGER: Kind.INTEGER,
    ColumnType.NUMBER: Kind.NUMBER,
    ColumnType.BOOLEAN: Kind.TRUE_FALSE | WORDS | Kind.ZERO_ONE,
    ColumnType.DATE: Kind.DATE,
    ColumnType.DATETIME: TIMES | Kind.DATE,
}
"""What a column may hold that is asked to be of a type. A date that is to be a time is its midnight. Of
strings it may hold anything."""

WRITTEN_AS = {
    ColumnType.INTEGER: "64 bits, without leading zeros, spaces or a plus sign",
    ColumnType.NUMBER: "finite, without leading zeros or spaces, and whole only where a float is exact",
    ColumnType.BOOLEAN: "true or false, yes or no, y or n, t or f, on or off, 1 or 0",
    ColumnType.DATE: "as 2013-05-31",
    ColumnType.DATETIME: "as 2013-05-31T14:00:00, with an offset from UTC, Z or neither",
}


@dataclass(frozen=True)
class Cells:
    """A canonical column: ``value`` is SQL over a row of ``source``.

    ``misfit`` is the SQL condition of a value that the type cannot hold, and ``complaint`` says why.
    ``naive`` is the SQL of the value's time without a zone, where it has none and the zone is to be given.
    """

    name: str
    type: ColumnType
    value: str
    misfit: str | None = None
    complaint: str = ""
    naive: str | None = None


def agreed_type(kinds: Kind) -> ColumnType:
    """The type of values that can all be read as these kinds: the first of those that they name."""
    for kind, type_ in (
        (Kind.INTEGER, ColumnType.INTEGER),
        (Kind.NUMBER, ColumnType.NUMBER),
        (Kind.TRUE_FALSE | WORDS, ColumnType.BOOLEAN),
        (Kind.DATE, ColumnType.DATE),
        (TIMES, ColumnType.DATETIME),
    ):
        if kinds & kind:
            return type_
    return ColumnType.STRING


def read_text(text: str, type_: ColumnType) -> str:
    """The SQL of a text's value, if it can be read as the type; of a null token, null."""
    # Every text has been seen to cast, so TRY_CAST makes null of the null tokens and of nothing else, once
    # NaN is spelt otherwise. An expression that names its column twice, as nullif and CASE do, makes the
    # query's time quadratic in its columns.
    match type_:
        case ColumnType.STRING:
            return text
        case ColumnType.NUMBER:
            return f"TRY_CAST(translate({text}, 'Nn', '__') AS DOUBLE)"
        case ColumnType.BOOLEAN:
            words = ", ".join(literal(word) for pair in TRUE_AND_FALSE.values() for word in pair)
            values = ", ".join(["true, false"] * len(TRUE_AND_FALSE))
            return f"list_extract([{values}], list_position([{words}], lower({text})))"
    return f"TRY_CAST({text} AS {SQL_TYPES[type_]})"


def without_nulls(text: str, markers: Sequence[str]) -> str:
    """The SQL of a text that is null where it is one of the markers."""
    return f"CASE WHEN NOT {_is_among(text, markers)} THEN {text} END" if markers else text


def naive_time(text: str) -> str:
    """The SQL of the time that a text tells without a zone; null, if it tells none or has a zone."""
    zoned = f"regexp_full_match({text}, {literal(TIME + ZONE)})"
    return f"CASE WHEN NOT {zoned} THEN TRY_CAST({text} AS TIMESTAMP) END"


def cast_to(cells: Cells, type_: ColumnType) -> Cells:
    """The cells, of another type; what it cannot hold is a misfit.

    Raises InvalidInput for types between which there is no conversion without loss.
    """
    value = cells.value
    naive = None
    match cells.type, type_:
        case same, wanted if same is wanted:
            return cells
        case ColumnType.STRING, _:
            misfit = f"CASE {_nulls(value)} {_kinds(value)} END & {READ_AS[type_]:d} = 0"
            cast = read_text(value, type_)
            naive = naive_time(value) if type_ is ColumnType.DATETIME else None
        case ColumnType.INTEGER, ColumnType.NUMBER:
            cast = f"CAST({value} AS DOUBLE)"
            misfit = f"CAST({cast} AS HUGEINT) <> {value}"
        case ColumnType.NUMBER, ColumnType.INTEGER:
            cast = f"TRY_CAST({value} AS BIGINT)"
            # The greatest float that is a 64-bit integer is 2^63 - 1024.
            fits = f"{value} BETWEEN -9223372036854775808 AND 9223372036854774784"
            misfit = f"{value} <> floor({value}) OR NOT ({fits})"
        case ColumnType.INTEGER, ColumnType.BOOLEAN:
            cast, misfit = f"({value}) = 1", f"({value}) NOT IN (0, 1)"
        case ColumnType.DATE, ColumnType.DATETIME:
            cast, misfit = f"CAST({value} AS TIMESTAMPTZ)", "false"
            naive = f"CAST({value} AS TIMESTAMP)"
        case ((ColumnType.INTEGER | ColumnType.BOOLEAN | ColumnType.DATE), ColumnType.STRING):
            cast, misfit = f"CAST({value} AS VARCHAR)", "false"
        case _:
            raise fault(
                "no_conversion",
                f"Column {cells.name!r} is of type {cells.type}, and the recipe's types say {type_}: what it "
                "holds cannot be kept so. Leave the column out of types.",
                "recipe",
                "types",
                cells.name,
            )
    complaint = (
        f"the value cannot be read as the {type_} that the recipe asks for ({WRITTEN_AS.get(type_, '')})."
    )
    if cells.misfit is not None:
        misfit = f"({cells.misfit}) OR ({misfit})"
        complaint = f"{cells.complaint} Or {complaint}"
    return Cells(cells.name, type_, cast, misfit, complaint, naive)


def check_naive(cells: Cells) -> Cells:
    """The cells, that take a time for a misfit which the clocks of the session's time zone skip."""
    if cells.naive is None:
        return cells
    local = f"CAST(CAST({cells.naive} AS TIMESTAMPTZ) AS TIMESTAMP)"
    fits = f"epoch_us({cells.value}) BETWEEN {FIRST_TIME_US} AND {LAST_TIME_US}"
    misfit = f"{local} <> {cells.naive} OR NOT ({fits})"
    complaint = (
        "there is no such time: the time zone's clocks skip it, or in UTC it is not in the years 1 to 9999."
    )
    if cells.misfit is not None:
        misfit, complaint = f"({cells.misfit}) OR {misfit}", f"{cells.complaint} Or {complaint}"
    return replace(cells, misfit=misfit, complaint=complaint)


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
            naive=None if "TIME ZONE" in sql_type else column,
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
    for some in portions(risky):
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


def portions(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in turn, as many at once as columns go into a query."""
    for start in range(0, len(items), COLUMNS_AT_ONCE):
        yield items[start : start + COLUMNS_AT_ONCE]


def _nulls(text: str) -> str:
    return f"WHEN {text} IS NULL THEN NULL WHEN {_is_among(text, NULL_TOKENS)} THEN NULL"


def _is_among(text: str, markers: Sequence[str]) -> str:
    # Not IN: the optimizer makes a join of each, and a wide table then takes quadratic time and memory.
    return f"list_contains([{', '.join(map(literal, markers))}], {text})"


def kinds_of(text: str) -> str:
    """The SQL of what a text can be read as, as a Kind."""
    return f"CASE {_kinds(text)} END"


def _kinds(text: str) -> str:
    integer = f"TRY_CAST({text} AS BIGINT)"
    number = f"TRY_CAST({text} AS DOUBLE)"
    exact = f"CAST(CAST({integer} AS DOUBLE) AS HUGEINT) = {integer}"
    words = [
        f"WHEN lower({text}) = {literal(word)} THEN {kind | says:d}"
        for kind, pair in TRUE_AND_FALSE.items()
        if kind is not Kind.ZERO_ONE
        for word, says in zip(pair, (Kind.SAYS_TRUE, Kind.SAYS_FALSE), strict=True)
    ]
    return (
        f"WHEN {text} IN ('0', '1') THEN {Kind.INTEGER | Kind.NUMBER | Kind.ZERO_ONE:d}"
        f" WHEN CAST({integer} AS VARCHAR) = {text} THEN"
        f" CASE WHEN {exact} THEN {Kind.INTEGER | Kind.NUMBER:d} ELSE {Kind.INTEGER:d} END"
        f" WHEN regexp_full_match({text}, '[0-9]+') THEN {Kind.CODE:d}"
        f" WHEN regexp_full_match({text}, {literal(FRACTION)}) THEN"
        f" CASE WHEN isfinite({number}) THEN {Kind.NUMBER:d} ELSE 0 END"
        f" {' '.join(words)} {time_kinds(text)}"
    )


def time_kinds(column: str) -> str:
    """The SQL of the branches of a CASE that tell what a text, that is not null, is as a date or a time."""
    # A date that prints as it was written is one; longer and shorter texts are DuckDB's own notations.
    date = f"TRY_CAST({column} AS DATE)"
    fits = {
        type_: f"epoch_us(TRY_CAST({column} AS {type_})) BETWEEN {FIRST_TIME_US} AND {LAST_TIME_US}"
        for type_ in ("TIMESTAMP", "TIMESTAMPTZ")  # typed bounds are slow to plan
    }
    return (
        f"WHEN length({column}) < 10 THEN 0 WHEN {column}[5] <> '-' THEN 0"
        f" WHEN length({column}) = 10 THEN"
        f" CASE WHEN CAST({date} AS VARCHAR) = {column} THEN {Kind.DATE:d} ELSE 0 END"
        f" WHEN {column} LIKE '0000%' THEN 0"
        f" WHEN regexp_full_match({column}, {literal(TIME)}) THEN"
        f" CASE WHEN {fits['TIMESTAMP']} THEN {Kind.NAIVE_TIME:d} ELSE 0 END"
        f" WHEN regexp_full_match({column}, {literal(TIME + ZONE)}) THEN"
        f" CASE WHEN {fits['TIMESTAMPTZ']} THEN {Kind.ZONED_TIME:d} ELSE 0 END"
        f" ELSE 0"
    )
