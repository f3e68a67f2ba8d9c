"""How the bytes of an upload are to be read: what a person may settle, and what was found out."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.columns import ColumnType
from app.datasets.faults import fault
from app.errors import InputError, InvalidInput, pointer

MAX_NULLS = 63
NullMarker = Annotated[str, Field(max_length=256, pattern=r"^[^\x00\r\n]*$")]


class Recipe(BaseModel):
    """What an upload asks for; what is left out is found out, over the whole file, and recorded.

    Of a CSV, all of it can be settled; of NDJSON, Parquet and Arrow the types, the null markers, which are
    strings there, and the time zone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoding: str | None = Field(None, description="Of the text, such as `windows-1252`; by default UTF-8.")
    compression: str | None = Field(None, pattern="^(none|gzip|zstd)$")
    delimiter: str | None = Field(
        None,
        pattern=r"^[\t !-/:-@\[-`{-~]$",
        description="Between fields of a CSV: an ASCII character, no letter and no digit. By default the one "
        "of comma, semicolon, tab and bar that the first line holds most often.",
    )
    quote: str | None = Field(
        None,
        pattern=r"^[!-/:-@\[-`{-~]?$",
        description="Around fields of a CSV, and doubled inside them; empty: nothing is quoted. By default a "
        "double quote.",
    )
    header: bool | None = Field(
        None,
        description="Whether a CSV's first line names the columns; by default it does, unless every field in "
        "it is a number, true or false, a date or a time, and none is quoted. Without, they are named "
        "column_1 and so on.",
    )
    nulls: list[NullMarker] | None = Field(
        None,
        max_length=MAX_NULLS,
        description="Texts that mean null, quoted or not, in every column. By default the empty text, NA, "
        "N/A, NaN, nan, null, NULL and None, and those only in CSV columns that are not of strings. An empty "
        "CSV field without quotes is always null.",
    )
    types: dict[str, ColumnType] = Field(
        {},
        description="Columns' types where those found are not wanted. A value of no such type is refused.",
    )
    timezone: str | None = Field(
        None,
        description="Of times written without a zone, such as `Europe/Berlin`; by default UTC. A time that "
        "its clocks skip is refused; of two times that they show alike, the later is taken.",
    )

    @model_validator(mode="after")
    def _tell_apart(self) -> Self:
        quote = '"' if self.quote is None else self.quote
        if self.delimiter is not None and self.delimiter == quote:
            raise ValueError("delimiter and quote are the same character: send two that differ")
        if quote and any(quote in marker for marker in self.nulls or ()):
            raise ValueError("a null marker holds the quote: send it as it reads without quotes")
        return self

    @classmethod
    def fixing(cls, types: dict[str, ColumnType]) -> Self:
        """The recipe that reads columns as these types."""
        return cls(types=types)


def unfit_recipe(part: str, detail: str) -> InvalidInput:
    """The error of a recipe that does not fit the file; ``part`` is its field."""
    return fault("invalid_recipe", detail, "recipe", part)


def check_types(recipe: Recipe, names: Sequence[str]) -> None:
    """Raises InvalidInput, with an error for each, where columns of settled types are not in the file."""
    known = set(names)
    unknown = [name for name in recipe.types if name not in known]
    if unknown:
        close = get_close_matches(unknown[0], names, n=1)
        hint = f"Is it {close[0]!r}?" if close else f"It has {', '.join(map(repr, names[:10]))}."
        errors = [
            InputError(pointer("recipe", "types", name), f"The file has no column {name!r}.")
            for name in unknown
        ]
        raise InvalidInput("invalid_recipe", f"{errors[0].detail} {hint}", errors=errors)
