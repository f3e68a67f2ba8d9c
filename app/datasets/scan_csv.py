"""The structure of a CSV file, checked to the letter of RFC 4180 before any reader sees it.

CSV readers differ in what they make of a file that breaks the rules, and some drop rows silently. A file
that keeps them reads the same everywhere, so this scan accepts no other and says where a rule is broken.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.datasets.faults import check_names, check_width, fault
from app.errors import InvalidInput

DELIMITERS = b",;\t|"
LF, CR, QUOTE = b'\n\r"'
BLOCK_BYTES = 8 * 2**20
MAX_RECORD_BYTES = 16 * 2**20

Positions = NDArray[np.int64]
_Found = tuple[int, InvalidInput]  # the record's number in the block, and its fault


class CsvLayout(NamedTuple):
    """What a reader must be told; ``rows`` counts data rows, to be compared with what it has read."""

    names: list[str]
    delimiter: str
    newline_in_field: bool
    rows: int


class _Block(NamedTuple):
    """Bytes that begin at the begin of a record, and where their quotes and ends of records are."""

    data: bytes
    array: NDArray[np.uint8]
    quotes: Positions
    ends: Positions
    completed: bool  # the last line end is not in the file, whose last line has none

    @property
    def size(self) -> int:
        """Where the last complete record ends."""
        return int(self.ends[-1]) + 1

    def start(self, record: int) -> int:
        return int(self.ends[record - 1]) + 1 if record else 0

    def unquoted(self, byte: int, limit: int) -> Positions:
        found = np.flatnonzero(self.array[:limit] == byte)
        if len(self.quotes):
            found = found[np.searchsorted(self.quotes, found) % 2 == 0]
        return found


@dataclass
class _Scan:
    """How far the scan has come: line and record numbers are those of the block's first record."""

    names: list[str] = field(default_factory=list)
    delimiter: int = 0
    crlf: bool = False
    newline_in_field: bool = False
    line: int = 1
    record: int = 0
    blank: tuple[int, int] | None = None  # record and line of the first blank line, if none but blank follow


def scan_csv(source: Path) -> CsvLayout:
    """Names, delimiter and number of rows of a CSV file.

    UTF-8, with or without a byte order mark; the delimiter is the one of comma, semicolon, tab and bar
    that the header holds most often outside quotes; quotes enclose whole fields and are doubled inside;
    lines end in LF or in CRLF, all alike; every record has as many fields as the header. A blank line is
    a row with a null in a file of one column; in any other it is refused unless only blank lines follow.
    A record of 16 MB or less is never too long.

    Raises InvalidInput that names the first faulty row (data rows count from 1) and the line of the file.
    """
    scan = _Scan()
    with source.open("rb") as file:
        for block in _read_blocks(file, scan):
            if not scan.delimiter:
                _read_header(block, scan)
            found = _find_fault(block, scan)
            if scan.record == 0 and (found is None or found[0] > 0):
                check_names(scan.names)
            if found is not None:
                raise found[1]
            _advance(block, scan)
    rows = (scan.blank[0] if scan.blank else scan.record) - 1
    if rows < 0:
        raise fault("empty_table", "The file is empty. Send a header line and at least one row.")
    if rows == 0:
        raise fault("empty_table", "The file has a header and no rows. Send at least one row.")
    return CsvLayout(scan.names, chr(scan.delimiter), scan.newline_in_field, rows)


def _read_blocks(file: BinaryIO, scan: _Scan) -> Iterator[_Block]:
    mark = file.read(3)
    if mark[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise fault("malformed_csv", "The file is UTF-16. Save it as UTF-8 and send it again.")
    file.seek(3 if mark == b"\xef\xbb\xbf" else 0)
    rest = b""
    while True:
        read = file.read(BLOCK_BYTES)
        data = rest + read
        if not data:
            return
        if not read:
            data += b"\n"
        array = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(array == QUOTE)
        block = _Block(data, array, quotes, np.empty(0, np.int64), completed=not read)
        block = block._replace(ends=block.unquoted(LF, len(data)))
        if len(block.ends):
            rest = data[block.ends[-1] + 1 :]
            yield block
        elif not read or len(data) > MAX_RECORD_BYTES:
            raise _endless(block, scan)
        else:
            rest = data
        if not read:
            return


def _endless(block: _Block, scan: _Scan) -> InvalidInput:
    scan.delimiter = scan.delimiter or ord(",")
    limit = f"{MAX_RECORD_BYTES // 2**20} MB"
    found = _find_misplaced_quote(block, scan, len(block.data) - 1)
    if found is None and len(block.quotes) % 2 == 0:
        found = _at(block, scan, 0, f"The line is longer than {limit}. Shorten it.", whole_row=True)
    if found is None:
        what = f"The quote that begins the field has none to end it, at least not within {limit}. Add it."
        found = _at(block, scan, int(block.quotes[-1]), what)
    return found[1]


def _read_header(block: _Block, scan: _Scan) -> None:
    end = int(block.ends[0])
    counts = {delimiter: len(block.unquoted(delimiter, end)) for delimiter in DELIMITERS}
    scan.delimiter = max(DELIMITERS, key=lambda delimiter: counts[delimiter])
    scan.crlf = _is_crlf(block, end)
    starts = [0, *(block.unquoted(scan.delimiter, end) + 1).tolist()]
    check_width(len(starts))
    fields = (
        block.data[start : stop - 1]
        for start, stop in zip(starts, [*starts[1:], end - scan.crlf + 1], strict=True)
    )
    scan.names = [_unquote(name).decode("utf-8", "replace") for name in fields]


def _unquote(text: bytes) -> bytes:
    return text[1:-1].replace(b'""', b'"') if text.startswith(b'"') else text


def _is_crlf(block: _Block, end: int) -> bool:
    return block.data[end - 1 : end] == b"\r" and not (block.completed and end == len(block.data) - 1)


def _find_fault(block: _Block, scan: _Scan) -> _Found | None:
    """The first faulty record."""
    size = block.size
    blank = _blank_records(block, scan)
    filled = np.flatnonzero(~blank)
    if scan.blank is not None and len(filled):
        return 0, _blank_line(*scan.blank)
    candidates = (
        _find_misplaced_quote(block, scan, size),
        _find_bad_byte(block, scan),
        _find_bad_line_end(block, scan),
        _find_bad_width(block, scan, blank),
    )
    found = [candidate for candidate in candidates if candidate is not None]
    early_blank = np.flatnonzero(blank[: filled[-1]]) if len(filled) else filled
    if len(early_blank):
        record = int(early_blank[0])
        found.append((record, _blank_line(scan.record + record, _line(block, scan, block.start(record)))))
    return min(found, key=lambda item: item[0], default=None)


def _find_misplaced_quote(block: _Block, scan: _Scan, size: int) -> _Found | None:
    """A quote that neither begins nor ends a field, nor is doubled inside one."""
    array, opening, closing = block.array, block.quotes[0::2], block.quotes[1::2]
    before = np.where(opening == 0, LF, array[opening - 1])
    after = array[np.minimum(closing + 1, len(array) - 1)]
    misplaced = np.concatenate(
        [
            opening[~np.isin(before, (LF, scan.delimiter, QUOTE))],
            closing[~np.isin(after, (LF, CR, scan.delimiter, QUOTE))],
        ]
    )
    misplaced = misplaced[misplaced < size]
    if not len(misplaced):
        return None
    what = 'There is a quote inside the field. Put the whole field in quotes and double the quote: "".'
    return _at(block, scan, int(misplaced.min()), what)


def _find_bad_byte(block: _Block, scan: _Scan) -> _Found | None:
    null = block.data.find(b"\0", 0, block.size)
    try:
        block.data[: block.size if null < 0 else null].decode()
    except UnicodeDecodeError as error:
        what = "The bytes are not UTF-8. Save the file as UTF-8 and send it again."
        return _at(block, scan, error.start, what)
    return _at(block, scan, null, "There is a null byte in the field. Remove it.") if null >= 0 else None


def _find_bad_line_end(block: _Block, scan: _Scan) -> _Found | None:
    ends = block.ends[:-1] if block.completed else block.ends
    crlf = (ends > 0) & (block.array[ends - 1] == CR)
    mixed = ends[crlf != scan.crlf]
    returns = block.unquoted(CR, block.size)
    bare = np.setdiff1d(returns, ends[crlf] - 1, assume_unique=True)
    if len(bare) and not (len(mixed) and mixed[0] < bare[0]):
        what = (
            "There is a carriage return without a line feed. End lines with LF or with CRLF, and put a "
            "field that holds a carriage return in quotes."
        )
        return _at(block, scan, int(bare[0]), what)
    if len(mixed):
        kinds = ("CRLF", "LF") if scan.crlf else ("LF", "CRLF")
        what = f"The first line ends in {kinds[0]} and this one in {kinds[1]}. End every line alike."
        return _at(block, scan, int(mixed[0]), what, whole_row=True)
    return None


def _find_bad_width(block: _Block, scan: _Scan, blank: NDArray[np.bool_]) -> _Found | None:
    delimiters = block.unquoted(scan.delimiter, block.size)
    widths = np.diff(np.searchsorted(delimiters, block.ends), prepend=0) + 1
    bad = np.flatnonzero((widths != len(scan.names)) & ~blank)
    if not len(bad):
        return None
    record = int(bad[0])
    what = (
        f"The row's fields number {widths[record]} and the header's {len(scan.names)}. Send as many, and put "
        f"a field that holds the delimiter {chr(scan.delimiter)!r} in quotes."
    )
    return _at(block, scan, block.start(record), what, whole_row=True)


def _blank_records(block: _Block, scan: _Scan) -> NDArray[np.bool_]:
    starts = np.append(0, block.ends[:-1] + 1)
    if len(scan.names) == 1:
        return np.zeros(len(starts), np.bool_)
    blank: NDArray[np.bool_] = (block.ends == starts) | (
        (block.ends == starts + 1) & (block.array[starts] == CR)
    )
    return blank


def _blank_line(row: int, line: int) -> InvalidInput:
    detail = f"Row {row} (line {line} of the file) is blank, and rows follow it. Remove the line."
    return fault("malformed_csv", detail, "rows", row)


def _advance(block: _Block, scan: _Scan) -> None:
    blank = _blank_records(block, scan)
    filled = np.flatnonzero(~blank)
    first_blank = int(filled[-1]) + 1 if len(filled) else 0
    if first_blank < len(blank) and scan.blank is None:
        scan.blank = (scan.record + first_blank, _line(block, scan, block.start(first_blank)))
    newlines = block.data.count(b"\n", 0, block.size)
    scan.newline_in_field |= newlines > len(block.ends)
    scan.line += newlines
    scan.record += len(block.ends)


def _line(block: _Block, scan: _Scan, position: int) -> int:
    return scan.line + block.data.count(b"\n", 0, position)


def _at(block: _Block, scan: _Scan, position: int, what: str, *, whole_row: bool = False) -> _Found:
    """The fault at a byte of the block, with the number of its record in the block."""
    record = int(np.searchsorted(block.ends, position))
    row, line = scan.record + record, _line(block, scan, position)
    at: list[str | int] = ["rows", row] if row else []
    where = f"Row {row}" if row else "The header"
    if not whole_row:
        before = block.unquoted(scan.delimiter, position)
        column = int(np.count_nonzero(before >= block.start(record)))
        if column < len(scan.names):
            at += ["columns", scan.names[column]]
            where += f", column {scan.names[column]!r}"
    return record, fault("malformed_csv", f"{where} (line {line} of the file): {what}", *at)
