"""Rows out of CSV and NDJSON as they arrive, with no more of the body in memory than its unread rows."""

import json
import re
from collections.abc import Callable, Iterator
from math import inf, isfinite
from typing import Any

import msgspec
import numpy as np

from app.columns import ColumnType
from app.datasets.faults import NULL_CHARACTER, check_names, fault
from app.datasets.reading.infer import FRACTION, NULL_TOKENS
from app.datasets.reading.scan_csv import MAX_RECORD_BYTES
from app.datasets.reading.scan_ndjson import MAX_LINE_BYTES
from app.errors import InvalidInput
from app.http.bodies import read_json
from app.registry.signature import Signature

Row = Any  # of CSV always a dict; of NDJSON what a line holds


class NdjsonReader:
    """One JSON object a line, as ``instances`` takes it; blank lines are skipped.

    Raises InvalidInput that names the row (counted from 1) where a line is not JSON.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._rows = 0
        self._decoder = msgspec.json.Decoder()

    def feed(self, piece: bytes) -> list[Row]:
        """The rows that are whole with this piece."""
        content = self._rest + piece
        end = content.rfind(b"\n") + 1
        self._rest = content[end:]
        if len(self._rest) > MAX_LINE_BYTES:
            raise self._fault(self._rows + 1, f"is longer than {MAX_LINE_BYTES // 2**20} MB")
        return self._read(content[:end])

    def end(self) -> list[Row]:
        """The last row, where no line end follows it."""
        return self._read(self._rest)

    def _read(self, lines: bytes) -> list[Row]:
        try:
            if rb"\u0000" in lines:
                raise ValueError
            rows = self._decoder.decode_lines(lines)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            rows = list(self._read_one_by_one(lines))
        self._rows += len(rows)
        return rows

    def _read_one_by_one(self, lines: bytes) -> Iterator[Row]:
        """The same, which also knows NaN, and tells what is wrong."""
        filled = (line for line in lines.split(b"\n") if line.strip())
        for row, line in enumerate(filled, start=self._rows + 1):
            try:
                value = read_json(line)
            except json.JSONDecodeError as error:
                raise self._fault(row, f"is not JSON: {error.msg} (character {error.pos})") from None
            if isinstance(value, dict) and not {inf, -inf}.isdisjoint(_floats(value)):
                raise self._fault(row, "holds a number that is not finite")
            yield value

    @staticmethod
    def _fault(row: int, what: str) -> InvalidInput:
        return fault("malformed_ndjson", f"Row {row} {what}. Send one JSON object a line.", "rows", row)


def _floats(row: dict[str, Any]) -> Iterator[float]:
    return (value for value in row.values() if type(value) is float)


FIELD = re.compile(r'("(?:[^"]++|"")*+"|[^",\r\n]*+)(,|\r?\n)|(.)', re.DOTALL)
"""A field and what ends it; or a character that breaks RFC 4180."""
LINE_END, QUOTE = b'\n"'
WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,399})")
NUMBER = re.compile(FRACTION)
BOOLEANS = {"true": True, "false": False}


class CsvReader:
    """CSV of RFC 4180 in UTF-8, with a header; LF or CRLF ends lines, blank lines are skipped.

    The signature types the fields, which are written as data files have them (see ``infer_text``): an empty
    field is null, and so is NA and its like where the column is not of strings; a quoted empty field is an
    empty string. A field that is not of its column's type stays text, for the encoding to refuse.

    Raises InvalidInput that names the row (counted from 1) where the structure is broken.
    """

    def __init__(self, signature: Signature) -> None:
        self._types = {feature.name: feature.type for feature in signature.features}
        self._names: list[str] = []
        self._readers: list[Callable[[str], Any]] = []
        self._rest = b""
        self._begun = False
        self._rows = 0

    def feed(self, piece: bytes) -> list[Row]:
        """The rows that are whole with this piece."""
        content = self._rest + piece
        end = _end_of_records(content)
        self._rest = content[end:]
        if len(self._rest) > MAX_RECORD_BYTES:
            what = f"is longer than {MAX_RECORD_BYTES // 2**20} MB: is a quote missing?"
            raise self._fault(self._rows + 1, what)
        return list(self._read(content[:end]))

    def end(self) -> list[Row]:
        """The last row, where no line end follows it."""
        return list(self._read(self._rest + b"\n")) if self._rest else []

    def _read(self, content: bytes) -> Iterator[Row]:
        if not self._begun and content:
            self._begun = True
            content = content.removeprefix(b"\xef\xbb\xbf")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise self._fault(self._rows + 1, "or one soon after it is not UTF-8") from None
        if "\0" in text:
            raise self._fault(self._rows + 1, f"or one soon after it: {NULL_CHARACTER}")
        fields: list[str] = []
        for field, end, stray in FIELD.findall(text):
            if stray:
                raise self._fault(
                    self._rows + 1,
                    "has a quote or a carriage return out of place. Put the whole field in quotes, and "
                    "double the quotes inside",
                )
            fields.append(field)
            if end != ",":
                if fields != [""] or len(self._names) == 1:
                    if self._names:
                        self._rows += 1
                        yield self._read_row(fields)
                    else:
                        self._read_header(fields)
                fields = []

    def _read_header(self, fields: list[str]) -> None:
        self._names = [_unquote(field) for field in fields]
        check_names(self._names)
        self._readers = [READERS[self._types.get(name, ColumnType.STRING)] for name in self._names]

    def _read_row(self, fields: list[str]) -> Row:
        if len(fields) != len(self._names):
            raise self._fault(self._rows, f"has {len(fields)} fields, and the header {len(self._names)}")
        return {
            name: read(field) if field else None
            for name, read, field in zip(self._names, self._readers, fields, strict=True)
        }

    @staticmethod
    def _fault(row: int, what: str) -> InvalidInput:
        return fault("malformed_csv", f"Row {row} {what}.", "rows", row)


def _end_of_records(content: bytes) -> int:
    """Where the last whole record ends: with a line end that an even number of quotes precedes."""
    array = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(array == LINE_END)
    ends = ends[np.searchsorted(np.flatnonzero(array == QUOTE), ends) % 2 == 0]
    return int(ends[-1]) + 1 if len(ends) else 0


def _unquote(field: str) -> str:
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


def _read_number(field: str) -> Any:
    text = _unquote(field)
    if WHOLE.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) and isfinite(number := float(text)):
        return number
    return None if text in NULL_TOKENS else text


def _read_boolean(field: str) -> Any:
    text = _unquote(field)
    return BOOLEANS.get(text.lower(), None if text in NULL_TOKENS else text)


def _read_time(field: str) -> Any:
    text = _unquote(field)
    return None if text in NULL_TOKENS else text


READERS: dict[ColumnType, Callable[[str], Any]] = {
    ColumnType.INTEGER: _read_number,
    ColumnType.NUMBER: _read_number,
    ColumnType.BOOLEAN: _read_boolean,
    ColumnType.STRING: _unquote,
    ColumnType.DATE: _read_time,
    ColumnType.DATETIME: _read_time,
}
