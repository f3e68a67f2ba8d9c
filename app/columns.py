"""The types that a column of a table can have: one vocabulary for data versions and signatures."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

Value = bool | int | float | str
"""A value as JSON: a date as 2013-05-31, a time as 2013-05-31T14:00:00Z, any integer exact."""


class ColumnType(StrEnum):
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING = "string"
    DATE = "date"
    DATETIME = "datetime"


NUMBERS = (ColumnType.INTEGER, ColumnType.NUMBER)
TIMES = (ColumnType.DATE, ColumnType.DATETIME)
ORDERED = NUMBERS + TIMES


class Column(BaseModel):
    """A column of a data version; ``nullable`` says whether the data holds a null in it."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: ColumnType
    nullable: bool
