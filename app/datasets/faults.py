"""What is wrong with an uploaded file, and the rules for the names of its columns."""

import unicodedata
from collections.abc import Sequence

from app.errors import InputError, InvalidInput, pointer

MAX_COLUMNS = 10_000
MAX_NAME_LENGTH = 256
NULL_CHARACTER = "the string holds a null character. Remove it: databases and C programs end strings there."


def fault(code: str, detail: str, *at: str | int) -> InvalidInput:
    """The error to raise; ``at`` are the parts of its pointer, as ``"rows", 17, "columns", "age"``.

    Rows are data rows and count from 1.
    """
    return InvalidInput(code, detail, errors=[InputError(pointer(*at), detail)])


def cell_fault(code: str, row: int, column: str, what: str) -> InvalidInput:
    return fault(code, f"Row {row}, column {column!r}: {what}", "rows", row, "columns", column)


def check_width(width: int) -> None:
    if width > MAX_COLUMNS:
        raise fault(
            "too_many_columns",
            f"The table has more than {MAX_COLUMNS:,} columns. Keep those that a model can use.",
            "columns",
        )


def check_names(names: Sequence[str]) -> None:
    """Raises InvalidInput unless every name can name a column.

    A name is not blank, of at most 256 characters, without control characters, and unlike every other
    also when letter case is ignored: SQL engines that read the table fold case.
    """
    check_width(len(names))
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise fault("invalid_column_name", f"Column {number} has no name. Name it.", "columns", name)
        if len(name) > MAX_NAME_LENGTH:
            raise fault(
                "invalid_column_name",
                f"The name of column {number} is longer than {MAX_NAME_LENGTH} characters. Shorten it.",
                "columns",
                name,
            )
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise fault(
                "invalid_column_name",
                f"The name of column {number}, {name!r}, holds a control character or a line break. "
                "Remove it.",
                "columns",
                name,
            )
        first = seen.setdefault(name.casefold(), number)
        if first != number:
            twin = names[first - 1]
            alike = "the same name" if twin == name else f"a name that differs from {twin!r} only by case"
            raise fault(
                "duplicate_column",
                f"Column {number}, {name!r}, has {alike} as column {first}"
                f"{'' if twin == name else ', and SQL engines take those for one'}. Rename one of them.",
                "columns",
                name,
            )
