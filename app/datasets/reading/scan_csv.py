"""A CSV file, checked to the letter of RFC 4180 and typed over all of its rows before any reader sees it.

CSV readers differ in what they make of a file that breaks the rules, and some drop rows silently. A file
that keeps them reads the same everywhere, so this scan accepts no other and says where a rule is broken.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from itertools import chain, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.datasets.faults import check_names, check_width, fault
from app.datasets.reading import scanner
from app.datasets.reading.infer import NULL_TOKENS, NUMERIC, READ_AS, TIMES, Kind
from app.datasets.reading.mixed import SHOWN_CHARACTERS, Misfit
from app.datasets.reading.recipe import Recipe, check_types
from app.errors import InvalidInput

DELIMITERS = ",;\t|"
LF = 0x0A
BLOCK_BYTES = 4 * 2**20
MAX_RECORD_BYTES = 16 * 2**20
MAX_THREADS = 4
NOTHING_WANTED: Mapping[str, Kind] = MappingProxyType({})

FACTS = np.dtype(
    [
        ("wanted", np.uint32),
        ("common", np.uint32),
        ("met", np.uint32),
        ("misfits_shown", np.uint32),
        ("nulls", np.uint64),
        ("counts", np.int64, (scanner.COUNTS,)),
        ("misfits", np.int64),
        ("misfit", np.int64, (scanner.SHOWN_MISFITS, 3)),
    ]
)
"""What ``scanner.scan`` is told and says of a column: see ``Column`` in scanner.c."""


class ColumnFacts(NamedTuple):
    """A column over all rows; nulls are no values."""

    common: Kind
    """What every value can be read as; nothing, where there is no value."""
    met: Kind
    """What some value can be read as."""
    markers: list[str]
    """The null markers that were met."""
    has_empty: bool
    """An empty field without quotes was met."""
    counts: dict[Kind, int]
    """How many values there are of which lowest kind; of no kind, they are texts."""
    misfits: int
    """How many values cannot be read as what was wanted of the column."""
    first_misfits: list[Misfit]

    @property
    def values(self) -> int:
        return sum(self.counts.values())


class CsvLayout(NamedTuple):
    """What a reader must be told, and the columns; ``rows`` is to be compared with what it has read."""

    names: list[str]
    delimiter: str
    quote: str
    header: bool
    newline_in_field: bool
    longest: int
    """Bytes of the longest record."""
    rows: int
    columns: list[ColumnFacts]


class _Block(NamedTuple):
    """Whole records; or, where ``endless``, the begin of one that is too long."""

    data: bytearray
    completed: bool  # the last line feed is not in the file
    endless: bool = False


class _Scanned(NamedTuple):
    fault: int
    place: int
    records: int
    newlines: int
    longest: int
    blank: int
    blank_place: int


@dataclass
class _Scan:
    """How far the scan has come: row and line are those of the next block's first record."""

    delimiter: int
    quote: int  # -1 where nothing is quoted
    nulls: list[str]
    crlf: bool = False
    header: bool = True
    names: list[str] = field(default_factory=list)
    line: int = 1
    row: int = 0
    newline_in_field: bool = False
    longest: int = 0
    blank: tuple[int, int] | None = None  # row and line of the first blank line, if none but blank follow
    facts: NDArray[np.void] = field(default_factory=lambda: np.empty(0, FACTS))
    misfits: list[list[Misfit]] = field(default_factory=list)

    def scan(self, block: _Block, facts: NDArray[np.void]) -> _Scanned:
        """What is in the block, on its own; ``facts`` are added to."""
        markers = tuple(marker.encode() for marker in self.nulls)
        return _Scanned(
            *scanner.scan(block.data, facts, self.delimiter, self.quote, self.crlf, block.completed, markers)
        )


def scan_csv(
    source: Path, recipe: Recipe | None = None, wanted: Mapping[str, Kind] = NOTHING_WANTED
) -> CsvLayout:
    """The layout of a CSV file in UTF-8, and what each of its columns can be read as, over all rows.

    With or without a byte order mark; quotes enclose whole fields and are doubled inside; lines end in LF
    or in CRLF, all alike; every record has as many fields as the first. A blank line is a row with a null
    in a file of one column; in any other it is refused unless only blank lines follow. A record of 16 MB
    or less is never too long.

    What the recipe leaves open: the delimiter is the one of comma, semicolon, tab and bar that the first
    line holds most often outside quotes; the quote is ``"``; the first line is the header unless every one
    of its fields is a number, ``true`` or ``false``, a date or a time, and none is in quotes. Columns
    without a header are named column_1, column_2 and so on.

    Misfits are told of columns whose types the recipe asks for, and of those in ``wanted``: values of none
    of the kinds.

    Raises InvalidInput that names the first faulty row (data rows count from 1) and the line of the file.
    """
    recipe = recipe or Recipe()
    quote = ord(recipe.quote or '"') if recipe.quote != "" else -1
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with source.open("rb", buffering=0) as file, ThreadPoolExecutor(threads) as pool:
        blocks = _read_blocks(file, quote)
        first = next(blocks, None)
        if first is None:
            raise fault("empty_table", "The file is empty. Send a header line and at least one row.")
        kinds = {
            **wanted,
            **{name: READ_AS[type_] for name, type_ in recipe.types.items() if type_ in READ_AS},
        }
        scan, rest = _begin(first, recipe, quote)
        ahead: deque[tuple[_Block, NDArray[np.void], Future[_Scanned]]] = deque()
        for block in chain(rest, blocks):
            facts = _no_facts(scan, kinds)
            ahead.append((block, facts, pool.submit(scan.scan, block, facts)))
            if len(ahead) > threads:
                _add(scan, *ahead.popleft())
        while ahead:
            _add(scan, *ahead.popleft())
    rows = (scan.blank[0] if scan.blank else scan.row) - 1
    if rows == 0:
        raise fault("empty_table", "The file has a header and no rows. Send at least one row.")
    return CsvLayout(
        scan.names,
        chr(scan.delimiter),
        chr(scan.quote) if scan.quote >= 0 else "",
        scan.header,
        scan.newline_in_field,
        scan.longest,
        rows,
        [_column_facts(scan, number) for number in range(len(scan.names))],
    )


def _read_blocks(file: FileIO, quote: int) -> Iterator[_Block]:
    mark = file.read(3)
    if mark[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise fault("malformed_csv", "The file is UTF-16. Save it as UTF-8 and send it again.")
    file.seek(3 if mark == b"\xef\xbb\xbf" else 0)
    size = BLOCK_BYTES
    while True:
        data = bytearray(size)
        del data[file.readinto(data) :]
        end = scanner.last_end(data, quote)
        if end:
            file.seek(end - len(data), os.SEEK_CUR)
            del data[end:]  # without a copy
            yield _Block(data, completed=False)
            size = BLOCK_BYTES
        elif len(data) > MAX_RECORD_BYTES:
            yield _Block(data + b"\n", completed=True, endless=True)
            return
        elif len(data) == size:
            file.seek(-len(data), os.SEEK_CUR)
            size = min(2 * size, MAX_RECORD_BYTES + 1)
        else:
            if data:
                data += b"\n"
                yield _Block(data, completed=True, endless=not scanner.last_end(data, quote))
            return


def _begin(first: _Block, recipe: Recipe, quote: int) -> tuple[_Scan, list[_Block]]:
    """What the first line says, and the block without that line if it is the header."""
    scan = _Scan(
        ord(recipe.delimiter or ","), quote, [*(NULL_TOKENS if recipe.nulls is None else recipe.nulls)]
    )
    if first.endless:
        raise _endless(scan, first)
    end = _first_end(first.data, quote)
    whole = end == len(first.data)
    line = _Block(first.data[:end], first.completed and whole)
    scan.crlf = line.data[-2:-1] == b"\r" and not line.completed
    text = line.data[: -2 if scan.crlf else -1]
    if recipe.delimiter is None:
        widths = {delimiter: len(_split(text, ord(delimiter), quote)) for delimiter in DELIMITERS}
        scan.delimiter = ord(max(DELIMITERS, key=lambda delimiter: widths[delimiter]))
    fields = _split(text, scan.delimiter, quote)
    check_width(len(fields))
    scan.names = [_unquote(name, quote).decode("utf-8", "replace") for name in fields]
    scan.header = recipe.header if recipe.header is not None else not all(map(_is_data, fields))
    if scan.header:
        scanned = scan.scan(line, _no_facts(scan, {}))
        if scanned.fault:
            raise _fault(scan, line, scanned)
        check_names(scan.names)
        scan.line += scanned.newlines
    else:
        scan.names = [f"column_{number}" for number in range(1, len(fields) + 1)]
    scan.row = 1
    check_types(recipe, scan.names)
    scan.facts = _no_facts(scan, {})
    scan.misfits = [[] for _ in scan.names]
    if not scan.header:
        return scan, [first]
    return scan, [] if whole else [first._replace(data=first.data[end:])]


def _first_end(data: bytearray, quote: int) -> int:
    """Where the first record ends."""
    end = quotes = 0
    while True:
        begin, end = end, data.index(LF, end) + 1
        quotes += data.count(quote, begin, end) if quote >= 0 else 0
        if quotes % 2 == 0:
            return end


def _split(record: bytes | bytearray, delimiter: int, quote: int) -> list[bytes]:
    places = [-1, *_unquoted(record, delimiter, quote).tolist(), len(record)]
    return [bytes(record[begin + 1 : end]) for begin, end in pairwise(places)]


def _unquote(text: bytes, quote: int) -> bytes:
    mark = bytes([quote]) if quote >= 0 else b""
    return text[1:-1].replace(mark * 2, mark) if mark and text.startswith(mark) else text


def _is_data(text: bytes) -> bool:
    return bool(Kind(scanner.read_as(text)) & (NUMERIC | Kind.TRUE_FALSE | Kind.DATE | TIMES))


def _no_facts(scan: _Scan, wanted: Mapping[str, Kind]) -> NDArray[np.void]:
    facts = np.zeros(len(scan.names), FACTS)
    facts["common"] = ~np.uint32(0)
    facts["wanted"] = [wanted.get(name, 0) for name in scan.names]
    return facts


def _add(scan: _Scan, block: _Block, facts: NDArray[np.void], future: Future[_Scanned]) -> None:
    """Go behind the block. Raises InvalidInput for its first fault."""
    scanned = future.result()
    if scan.blank is not None and (scanned.blank != 0 or scanned.fault == scanner.BLANK):
        raise _blank_line(*scan.blank)
    if block.endless:
        raise _endless(scan, block)
    if scanned.fault:
        raise _fault(scan, block, scanned)
    if scanned.blank >= 0 and scan.blank is None:
        line = scan.line + block.data.count(LF, 0, scanned.blank_place)
        scan.blank = (scan.row + scanned.blank, line)
    total = scan.facts
    total["common"] &= facts["common"]
    for name in ("met", "nulls"):
        total[name] |= facts[name]
    for name in ("counts", "misfits"):
        total[name] += facts[name]
    for number in np.flatnonzero((total["misfits_shown"] < scanner.SHOWN_MISFITS) & (facts["misfits"] > 0)):
        shown, found = scan.misfits[number], facts[number]
        for record, place, size in found["misfit"][: found["misfits_shown"]].tolist():
            if len(shown) < scanner.SHOWN_MISFITS:
                text = block.data[place : place + min(size, 4 * SHOWN_CHARACTERS)].decode("utf-8", "replace")
                shown.append(Misfit(scan.row + record, text[:SHOWN_CHARACTERS]))
        total["misfits_shown"][number] = len(shown)
    scan.newline_in_field |= scanned.newlines > scanned.records
    scan.longest = max(scan.longest, scanned.longest)
    scan.line += scanned.newlines
    scan.row += scanned.records


def _column_facts(scan: _Scan, number: int) -> ColumnFacts:
    facts = scan.facts[number]
    nulls = int(facts["nulls"])
    *of_kinds, texts = facts["counts"].tolist()
    counts = {Kind(1 << place): count for place, count in enumerate(of_kinds) if count}
    if texts:
        counts[Kind(0)] = texts
    return ColumnFacts(
        common=Kind(int(facts["common"]) if counts else 0),
        met=Kind(int(facts["met"])),
        markers=[marker for place, marker in enumerate(scan.nulls) if nulls >> place & 1],
        has_empty=bool(nulls >> scanner.MAX_NULLS & 1),
        counts=counts,
        misfits=int(facts["misfits"]),
        first_misfits=scan.misfits[number],
    )


def _fault(scan: _Scan, block: _Block, scanned: _Scanned) -> InvalidInput:
    if scanned.fault == scanner.BLANK:
        line = scan.line + block.data.count(LF, 0, scanned.place)
        return _blank_line(scan.row + scanned.blank, line)
    if scanned.fault == scanner.WIDTH:
        begin = _record_start(scan, block, scanned.place)
        width = len(_split(block.data[begin : scanned.place], scan.delimiter, scan.quote))
        what = (
            f"The row's fields number {width} and the {'header' if scan.header else 'first row'}'s "
            f"{len(scan.names)}. Send as many, and put a field that holds the delimiter "
            f"{chr(scan.delimiter)!r} in quotes."
        )
        return _at(scan, block, begin, what, whole_row=True)
    if scanned.fault == scanner.OTHER_LINE_END:
        kinds = ("CRLF", "LF") if scan.crlf else ("LF", "CRLF")
        what = f"The first line ends in {kinds[0]} and this one in {kinds[1]}. End every line alike."
        return _at(scan, block, scanned.place, what, whole_row=True)
    return _at(scan, block, scanned.place, WHAT[scanned.fault])


WHAT = {
    scanner.STRAY_QUOTE: "There is a quote inside the field. Put the whole field in quotes and double the "
    'quote: "".',
    scanner.OPEN_QUOTE: "The quote that begins the field has none to end it, at least not within "
    f"{MAX_RECORD_BYTES // 2**20} MB. Add it.",
    scanner.NOT_UTF8: "The bytes are not UTF-8. Save the file as UTF-8 and send it again.",
    scanner.NULL_BYTE: "There is a null byte in the field. Remove it.",
    scanner.BARE_RETURN: "There is a carriage return without a line feed. End lines with LF or with CRLF, "
    "and put a field that holds a carriage return in quotes.",
}


def _endless(scan: _Scan, block: _Block) -> InvalidInput:
    scanned = scan.scan(block, np.zeros(max(1, len(scan.names)), FACTS))
    is_cut = len(block.data) > MAX_RECORD_BYTES + 1  # perhaps within a character or a line end
    if scanned.fault in WHAT and (not is_cut or scanned.place < len(block.data) - 4):
        return _fault(scan, block, scanned)
    what = f"The line is longer than {MAX_RECORD_BYTES // 2**20} MB. Shorten it."
    return _at(scan, block, 0, what, whole_row=True)


def _blank_line(row: int, line: int) -> InvalidInput:
    detail = f"Row {row} (line {line} of the file) is blank, and rows follow it. Remove the line."
    return fault("malformed_csv", detail, "rows", row)


def _at(scan: _Scan, block: _Block, place: int, what: str, *, whole_row: bool = False) -> InvalidInput:
    """The fault at a byte of the block."""
    begin = _record_start(scan, block, place)
    row = scan.row + len(_unquoted(block.data[:begin], LF, scan.quote))
    at: list[str | int] = ["rows", row] if row else []
    where = f"Row {row}" if row else "The header"
    if not whole_row:
        column = len(_unquoted(block.data[begin:place], scan.delimiter, scan.quote))
        if column < len(scan.names):
            at += ["columns", scan.names[column]]
            where += f", column {scan.names[column]!r}"
    line = scan.line + block.data.count(LF, 0, place)
    return fault("malformed_csv", f"{where} (line {line} of the file): {what}", *at)


def _record_start(scan: _Scan, block: _Block, place: int) -> int:
    return scanner.last_end(block.data[:place], scan.quote)


def _unquoted(data: bytes | bytearray, byte: int, quote: int) -> NDArray[np.int64]:
    """The places of a byte outside quotes, in data that begins outside quotes."""
    array = np.frombuffer(data, np.uint8)
    found = np.flatnonzero(array == byte)
    quotes = np.flatnonzero(array == quote) if quote >= 0 else found[:0]
    is_outside: NDArray[np.bool_] = np.searchsorted(quotes, found) % 2 == 0
    return found[is_outside]
