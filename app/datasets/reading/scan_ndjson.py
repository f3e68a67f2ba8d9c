"""NDJSON, checked line by line: strict JSON, one type to a column."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from app.columns import ColumnType
from app.datasets.faults import NULL_CHARACTER, cell_fault, check_names, check_width, fault
from app.errors import InvalidInput

MAX_LINE_BYTES = 16 * 2**20
INT64 = range(-(2**63), 2**63)
EXACT_IN_FLOAT = 2**53

JSON_TYPES: dict[type, ColumnType | None] = {
    int: ColumnType.INTEGER,
    float: ColumnType.NUMBER,
    bool: ColumnType.BOOLEAN,
    str: ColumnType.STRING,
    type(None): None,
}


class JsonLayout(NamedTuple):
    types: dict[str, ColumnType]
    rows: int


class _Column:
    """What a column has held so far; a column of nulls alone is a string column."""

    def __init__(self) -> None:
        self.seen: set[type] = set()
        self.type: ColumnType | None = None
        self.inexact_row: int | None = None  # the first integer that a float cannot hold

    def admit(self, name: str, value: Any, row: int) -> None:
        """Raises InvalidInput where the column cannot hold the value beside those seen before."""
        kind = type(value)
        if kind not in JSON_TYPES:
            raise cell_fault(
                "unsupported_type",
                row,
                name,
                f"there is a JSON {'array' if kind is list else 'object'}. A cell holds one value: give each "
                "nested value a column of its own.",
            )
        new = JSON_TYPES[kind]
        if new is not None and self.type not in (None, new):
            if {self.type, new} != {ColumnType.INTEGER, ColumnType.NUMBER}:
                raise cell_fault(
                    "mixed_types",
                    row,
                    name,
                    f"a value of type {new} follows values of type {self.type}. Send one type in a column.",
                )
            new = ColumnType.NUMBER
        self.type = new or self.type
        self.seen.add(kind)
        if kind is str and "\0" in value:
            raise cell_fault("value_out_of_range", row, name, NULL_CHARACTER)
        if kind is int and value not in INT64:
            raise cell_fault(
                "value_out_of_range",
                row,
                name,
                f"the integer {str(value)[:40]} does not fit in 64 bits. Send the column as strings.",
            )
        if kind is int and self.inexact_row is None and int(float(value)) != value:
            self.inexact_row = row


def scan_ndjson(source: Path) -> JsonLayout:
    """Columns in the order of their first appearance, and the number of rows, of a file of JSON objects.

    A line holds one object and at most 16 MB; blank lines are skipped and not counted as rows. Integers
    have 64 bits; a column of integers and other numbers is of numbers, and each integer in it must then
    be one that a float holds exactly.

    Raises InvalidInput that names the first faulty row (rows count from 1), its line and its column.
    """
    columns: dict[str, _Column] = {}
    decoder = msgspec.json.Decoder()
    rows = number = 0
    with source.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if not line.strip(b" \t\r\n"):
                continue
            rows += 1
            may_hold_null = rb"\u0000" in line
            for name, value in _decode(decoder, line, rows, number).items():
                column = columns.get(name)
                if column is None:
                    check_width(len(columns) + 1)
                    column = columns[name] = _Column()
                kind = type(value)
                large = kind is int and not -EXACT_IN_FLOAT <= value <= EXACT_IN_FLOAT
                if kind not in column.seen or large or (may_hold_null and kind is str):
                    column.admit(name, value, rows)
    if not columns:
        raise fault("empty_table", "The file holds no row with a value. Send one JSON object a line.")
    check_names(list(columns))
    for name, column in columns.items():
        if column.type is ColumnType.NUMBER and column.inexact_row is not None:
            raise cell_fault(
                "value_out_of_range",
                column.inexact_row,
                name,
                "the integer has more digits than a floating-point number holds, and the column holds "
                "fractions too. Send the column as strings.",
            )
    return JsonLayout({name: column.type or ColumnType.STRING for name, column in columns.items()}, rows)


def _decode(decoder: "msgspec.json.Decoder[Any]", line: bytes, row: int, number: int) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _line_fault(row, number, f"is longer than {MAX_LINE_BYTES // 2**20} MB")
    try:
        value = decoder.decode(line)
    except msgspec.ValidationError:
        raise _line_fault(row, number, "holds a number beyond the range of a 64-bit float") from None
    except msgspec.DecodeError as error:
        raise _line_fault(row, number, f"is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise _line_fault(row, number, "is not UTF-8") from None
    except RecursionError:
        raise _line_fault(row, number, "is nested too deeply") from None
    if type(value) is not dict:
        raise _line_fault(row, number, "is not a JSON object")
    return value


def _line_fault(row: int, number: int, what: str) -> InvalidInput:
    detail = (
        f"Row {row} (line {number} of the file) {what}. Send one JSON object of columns and values a line."
    )
    return fault("malformed_ndjson", detail, "rows", row)


def find_duplicate_key(source: Path) -> InvalidInput | None:
    """The fault of the first object that holds a key twice, in a file that ``scan_ndjson`` accepts."""

    def repeated(pairs: list[tuple[str, Any]]) -> str | None:
        seen: set[str] = set()
        return next((name for name, _ in pairs if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]

    with source.open("rb") as file:
        lines = (line for line in file if line.strip(b" \t\r\n"))
        for row, line in enumerate(lines, start=1):
            name = json.loads(line, object_pairs_hook=repeated)
            if name is not None:
                return cell_fault(
                    "duplicate_column", row, name, "the object holds this key more than once. Keep one."
                )
    return None
