"""What the columns of a CSV file become: their types, from what was seen over all rows, and their values."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.columns import ColumnType
from app.datasets.reading.infer import (
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
from app.datasets.reading.mixed import name_misfits
from app.datasets.reading.recipe import Recipe
from app.datasets.reading.scan_csv import ColumnFacts
from app.errors import InvalidInput


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

    Raises InvalidInput for a value that is not of the type asked for.
    """
    asked = recipe.types.get(name)
    type_ = asked or agreed_type(facts.common)
    if facts.misfits:
        raise _not_as_asked(name, type_, facts)
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


def _not_as_asked(name: str, type_: ColumnType, facts: ColumnFacts) -> InvalidInput:
    first = facts.first_misfits[0]
    more = facts.misfits - 1
    others = f", nor are {more:,} more of the column's {facts.values:,} values" if more else ""
    detail = (
        f"Row {first.row}, column {name!r}: {first.text!r} is not of the type {type_} that the recipe asks "
        f"for ({WRITTEN_AS[type_]}){others}. Mend the data, name texts that mean null in the recipe's nulls, "
        "or take the column out of its types."
    )
    return InvalidInput(
        "value_out_of_type", detail, errors=name_misfits(name, facts.first_misfits, f"of the type {type_}")
    )
