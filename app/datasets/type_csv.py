"""What the columns of a CSV file become: their types, from what was seen over all rows, and their values."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from app.columns import ColumnType
from app.datasets.infer import (
    NULL_TOKENS,
    SQL_TYPES,
    WRITTEN_AS,
    Cells,
    Kind,
    agreed_type,
    naive_time,
    read_text,
    without_nulls,
)
from app.datasets.recipe import Recipe
from app.datasets.scan_csv import ColumnFacts
from app.errors import InputError, InvalidInput, pointer

MIXED_FROM = 20  # numbers
MIXED_SHARE = 19, 20  # of the values


@dataclass(frozen=True)
class CsvColumn:
    """``cells`` are SQL over the column as DuckDB's reader gives it, of type ``sql_type``."""

    cells: Cells
    sql_type: str
    nulls: Sequence[str]
    """The texts that were met and are null."""


def read_column(name: str, source: str, facts: ColumnFacts, recipe: Recipe) -> CsvColumn:
    """The column of the canonical table that ``source``, a column of the reader, becomes.

    Its type is the one that the recipe asks for, or else what all of its values can be read as; a column
    without values is of strings. Null markers that the recipe names are null in every column, those that it
    does not name (see ``NULL_TOKENS``) in columns of other types than string.

    Raises InvalidInput for a value that is not of the type asked for, and for a mixed column: at least 20
    of its values, and at least 95 % of them, are numbers, some are not, and none is digits that are no
    integer, as 00123 is (such a column is of codes, and of strings).
    """
    asked = recipe.types.get(name)
    type_ = asked or agreed_type(facts.common)
    if asked not in (None, ColumnType.STRING) and facts.misfits:
        raise _not_as_asked(name, type_, facts)
    if type_ is ColumnType.STRING and asked is None and _is_mixed(facts):
        raise _mixed(name, facts)
    is_null = facts.markers if recipe.nulls is not None or type_ is not ColumnType.STRING else []
    nulls = [*is_null, *([""] if facts.has_empty else [])]
    is_naive = type_ is ColumnType.DATETIME and facts.met & ~Kind.ZONED_TIME
    is_utc = is_naive and facts.common & Kind.NAIVE_TIME and recipe.timezone is None
    is_other_word = type_ is ColumnType.BOOLEAN and not facts.common & Kind.TRUE_FALSE
    # DuckDB's reader has the values that a cast of the text has: of integers, floats, dates and times as they
    # are written here, and of true and false. Of times that are in a zone the text is needed, to check them.
    if is_null or is_other_word or (is_naive and not is_utc):
        # The usual tokens cast to no type: see read_text. To look for others takes a costlier query.
        others = (
            is_null if type_ is ColumnType.STRING else [null for null in is_null if null not in NULL_TOKENS]
        )
        text = without_nulls(source, others)
        naive = naive_time(source) if is_naive else None
        return CsvColumn(Cells(name, type_, read_text(text, type_), naive=naive), "VARCHAR", nulls)
    if is_utc:
        utc = f"make_timestamptz(epoch_us({source}))"  # a cast would ask a calendar of each
        return CsvColumn(Cells(name, type_, utc, naive=source), "TIMESTAMP", nulls)
    return CsvColumn(Cells(name, type_, source), SQL_TYPES[type_], nulls)


def _is_mixed(facts: ColumnFacts) -> bool:
    numbers = facts.values - facts.misfits
    share, whole = MIXED_SHARE
    return (
        facts.misfits > 0
        and not facts.met & Kind.CODE
        and numbers >= MIXED_FROM
        and numbers * whole >= facts.values * share
    )


def _mixed(name: str, facts: ColumnFacts) -> InvalidInput:
    first = facts.first_misfits[0]
    nulls = json.dumps({"nulls": [*facts.markers, first.text]}, ensure_ascii=False)
    types = json.dumps({"types": {name: "string"}}, ensure_ascii=False)
    detail = (
        f"Column {name!r} holds {facts.values - facts.misfits:,} numbers and {facts.misfits:,} other values, "
        f"the first of them {first.text!r} in row {first.row}. Mend the rows; or say in the recipe that such "
        f"texts mean null, as {nulls}, or that the column is of texts, as {types}."
    )
    return InvalidInput("mixed_column", detail, errors=_misfits(name, facts, "a number"))


def _not_as_asked(name: str, type_: ColumnType, facts: ColumnFacts) -> InvalidInput:
    first = facts.first_misfits[0]
    more = facts.misfits - 1
    others = f", nor are {more:,} more of the column's {facts.values:,} values" if more else ""
    detail = (
        f"Row {first.row}, column {name!r}: {first.text!r} is not of the type {type_} that the recipe asks "
        f"for ({WRITTEN_AS[type_]}){others}. Mend the data, name texts that mean null in the recipe's nulls, "
        "or take the column out of its types."
    )
    return InvalidInput("value_out_of_type", detail, errors=_misfits(name, facts, f"of the type {type_}"))


def _misfits(name: str, facts: ColumnFacts, wanted: str) -> list[InputError]:
    return [
        InputError(pointer("rows", row, "columns", name), f"{text!r} is not {wanted}.")
        for row, text in facts.first_misfits
    ]
