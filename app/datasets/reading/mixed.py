"""Columns of texts of which nearly all are numbers, dates, times or booleans: some are likely to be wrong."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.columns import ColumnType
from app.datasets.reading.infer import NUMERIC, READ_AS, WORDS, Kind
from app.errors import InputError, InvalidInput, pointer

SHOWN_CHARACTERS = 40  # of a value
MIXED_FROM = 20  # values that are alike
MIXED_PERCENT = 95  # of all values
MIXED_PERCENT_OF_WORDS = 99  # a column of yes and no may well have a third answer

TOLD_APART = {
    NUMERIC: ("numbers", "a number"),
    Kind.TRUE_FALSE: ("booleans", "true or false"),
    Kind.YES_NO: ("booleans", "yes or no"),
    Kind.Y_N: ("booleans", "y or n"),
    Kind.T_F: ("booleans", "t or f"),
    Kind.ON_OFF: ("booleans", "on or off"),
    Kind.DATE: ("dates", "a date"),
    Kind.NAIVE_TIME: ("times without a zone", "a time without a zone"),
    Kind.ZONED_TIME: ("times with a zone", "a time with a zone"),
}
"""What the values of a column can be, and one of them."""


class Misfit(NamedTuple):
    row: int
    text: str


def find_majority(counts: Mapping[Kind, int], met: Kind) -> Kind:
    """What nearly all values of a mixed column are; nothing, if the column is none.

    ``counts`` are of values by their lowest kind, ``met`` is all that some value can be read as. Nearly all
    are at least 20 and 95 %, of words for true and false 99 %. A column is not mixed if all are alike; nor
    one of numbers if some are digits that are no integer, as 00123 is: those are codes; nor one of words if
    they are all true or all false: F may stand for female.
    """
    values = sum(counts.values())
    for kinds in TOLD_APART:
        alike = sum(count for kind, count in counts.items() if kind & kinds)
        is_word = bool(kinds & (Kind.TRUE_FALSE | WORDS))
        percent = MIXED_PERCENT_OF_WORDS if is_word else MIXED_PERCENT
        if MIXED_FROM <= alike < values and alike * 100 >= values * percent:
            is_code = kinds == NUMERIC and Kind.CODE in met
            is_one_word = is_word and (Kind.SAYS_TRUE | Kind.SAYS_FALSE) not in met
            return Kind(0) if is_code or is_one_word else kinds
    return Kind(0)


def mixed_column(
    name: str,
    majority: Kind,
    counts: Mapping[Kind, int],
    misfits: Sequence[Misfit],
    nulls: Sequence[str],
) -> InvalidInput:
    """The refusal of a mixed column; ``misfits`` are the first, and ``nulls`` the null markers it holds."""
    plural, one = TOLD_APART[majority]
    values = sum(counts.values())
    alike = sum(count for kind, count in counts.items() if kind & majority)
    type_ = ColumnType.STRING
    for wider in (ColumnType.BOOLEAN, ColumnType.DATETIME):
        if all(kind & READ_AS[wider] for kind in counts):
            type_ = wider
    first, others = misfits[0], values - alike
    which = "1 other value," if others == 1 else f"{others:,} other values, the first of them"
    detail = (
        f"Column {name!r} holds {alike:,} {plural} and {which} {first.text!r} in row {first.row}. Mend the "
        "rows; or say in the recipe that such texts mean null, as "
        f"{_shown({'nulls': [*nulls, first.text]})}, or what the column is of, as "
        f"{_shown({'types': {name: type_}})}."
    )
    return InvalidInput("mixed_column", detail, errors=name_misfits(name, misfits, one))


def _shown(recipe: Mapping[str, object]) -> str:
    return json.dumps(recipe, ensure_ascii=False)


def name_misfits(name: str, misfits: Sequence[Misfit], wanted: str) -> list[InputError]:
    return [
        InputError(pointer("rows", row, "columns", name), f"{text!r} is not {wanted}.")
        for row, text in misfits
    ]
