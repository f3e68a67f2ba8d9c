"""The types that a column of a table can have: one vocabulary for data versions and signatures."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


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
