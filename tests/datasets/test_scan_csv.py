"""The scan of a CSV file finds what a slow and obvious reading of it finds, wherever its blocks end."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.datasets.reading import scan_csv as module
from app.datasets.reading import scanner
from app.datasets.reading.infer import NULL_TOKENS, NUMERIC, Kind
from app.datasets.reading.mixed import SHOWN_CHARACTERS, Misfit
from app.datasets.reading.recipe import Recipe
from app.datasets.reading.scan_csv import ColumnFacts, scan_csv
from app.errors import InvalidInput, pointer

some = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

LF, CR = "\n", "\r"
NOT_UTF8 = "\udcff"  # as the error handler "surrogateescape" reads the byte 0xFF


@dataclass
class Fault(Exception):
    """A rule is broken here: a whole row where ``column`` is None."""

    row: int
    column: int | None
    line: int


@dataclass
class Field:
    text: str
    quoted: bool
    plain: bool


class Reading:
    """A file read a character at a time, by the rules as they are written down."""

    def __init__(self, text: str, quote: str) -> None:
        self.text, self.quote = text, quote
        self.crlf = text.partition(LF)[0].endswith(CR)
        self.at, self.row, self.line = 0, 0, 1
        self.width: int | None = None
        self.blank: tuple[int, int] | None = None
        self.records: list[list[Field]] = []

    def read_or_fail(self) -> tuple[list[list[Field]], Fault | None]:
        """The rows behind the header, and the first fault if there is one."""
        try:
            return self.read()[1:], None
        except Fault as fault:
            return [], fault

    def read(self) -> list[list[Field]]:
        while self.at < len(self.text):
            record = self.read_record()
            self.width = self.width or len(record)
            self.records.append(record)
            self.row += 1
        return self.records if self.blank is None else self.records[: self.blank[0]]

    def read_record(self) -> list[Field]:
        is_blank = self.text.startswith((LF, CR + LF), self.at) and self.width != 1
        if is_blank:
            self.blank = self.blank or (self.row, self.line)
        elif self.blank is not None:
            raise Fault(self.blank[0], None, self.blank[1])
        begin = self.line
        fields: list[Field] = []
        while True:
            fields.append(self.read_field(len(fields)))
            end, self.at = self.text[self.at : self.at + 1], self.at + 1
            if end == ",":
                continue
            crlf = end == CR
            if crlf:
                if self.text[self.at : self.at + 1] != LF:
                    raise Fault(self.row, len(fields) - 1, self.line)
                self.at += 1
            if end and crlf != self.crlf:
                raise Fault(self.row, None, self.line)
            if self.width and len(fields) != self.width and not is_blank:
                raise Fault(self.row, None, begin)
            self.line += 1
            return fields

    def read_field(self, column: int) -> Field:
        quoted = self.quote != "" and self.text.startswith(self.quote, self.at)
        begin = (self.row, column, self.line)
        self.at += quoted
        text, plain, bad = "", True, None
        while True:
            character = self.text[self.at : self.at + 1]
            if quoted and character == "":
                raise Fault(*begin)
            if quoted and character == self.quote:
                if self.text.startswith(self.quote * 2, self.at):
                    self.at, text, plain = self.at + 2, text + self.quote, False
                    continue
                if bad is not None:
                    raise bad
                if self.text[self.at + 1 : self.at + 2] not in ("", ",", CR, LF):
                    raise Fault(self.row, column, self.line)
                self.at += 1
                return Field(text, quoted, plain)
            if not quoted and character in ("", ",", LF, CR):
                return Field(text, quoted, plain)
            if character in ("\0", NOT_UTF8) or character == self.quote:
                bad = bad or Fault(self.row, column, self.line)
                if not quoted:
                    raise bad
            self.line += character == LF
            text, self.at = text + character, self.at + 1


def facts_of(fields: list[Field], wanted: Kind) -> ColumnFacts:
    values = [
        (row, field) for row, field in enumerate(fields, start=1)
        if (field.quoted or field.text) and not (field.plain and field.text in NULL_TOKENS)
    ]  # fmt: skip
    kinds = [Kind(scanner.read_as(field.text.encode()) if field.plain else 0) for _, field in values]
    common, met = ~Kind(0), Kind(0)
    for kind in kinds:
        common, met = common & kind, met | kind
    misfits = [
        Misfit(row, (field.text if field.plain else field.text.replace('"', '""'))[:SHOWN_CHARACTERS])
        for (row, field), kind in zip(values, kinds, strict=True)
        if not kind & wanted
    ]
    markers = {field.text for field in fields if field.plain and field.text in NULL_TOKENS}
    markers -= {""} if not any(field.quoted and not field.text for field in fields) else set()
    return ColumnFacts(
        common=common if values else Kind(0),
        met=met,
        markers=[token for token in NULL_TOKENS if token in markers],
        has_empty=any(not field.quoted and not field.text for field in fields),
        counts=Counter(Kind(int(kind) & -int(kind)) for kind in kinds),
        misfits=len(misfits),
        first_misfits=misfits[:5],
    )


HEADERS = ["p,q", "p"]
PIECES = [
    ",",
    "\n",
    "\r\n",
    "\r",
    '"',
    '""',
    "a",
    "1",
    "-2.5",
    "true",
    "NA",
    "é",
    "2013-05-31",
    "007",
    "\0",
    NOT_UTF8,
]
rows = st.lists(st.tuples(*[st.sampled_from(["", "1", '"x,\ny"', '"a""b"', '""', "NA", "0.5", "é€😀"])] * 2))
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=16).map("".join),
    st.builds(
        lambda good, bad, end: "\n".join(map(",".join, good)) + "\n" + "".join(bad) + end,
        rows, st.lists(st.sampled_from(PIECES), max_size=4), st.sampled_from(["", "\n", "\n\n\n", "\n\nx,y"]),
    ),
)  # fmt: skip


@given(
    st.sampled_from(HEADERS),
    texts,
    st.sampled_from(['"', ""]),
    st.sampled_from([1, 7, 4096]),
    st.sampled_from([NUMERIC, Kind.TRUE_FALSE, Kind.DATE]),
)
@example("p,q", "1,2\n\n\n", '"', 1, NUMERIC)
@example("p,q", '1,"2\n\r\n', '"', 4096, NUMERIC)
@example("p,q", '"\n\0', '"', 1, NUMERIC)
@some
def test_rows_facts_and_faults_are_those_of_a_slow_reading(
    tmp_path: Path, header: str, text: str, quote: str, block: int, wanted: Kind
) -> None:
    text = f"{header}{CR * text.endswith(CR + LF)}\n{text}"
    source = tmp_path / "upload"
    source.write_bytes(text.encode("utf-8", "surrogateescape"))
    names = header.split(",")
    recipe = Recipe(quote=quote, delimiter=",")
    records, found = Reading(text, quote).read_or_fail()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", block)
        if found is not None or not records:
            with pytest.raises(InvalidInput) as caught:
                scan_csv(source, recipe)
            if found is None:
                assert caught.value.code == "empty_table"
                return
            at: list[str | int] = ["rows", found.row] if found.row else []
            if found.column is not None and found.column < len(names):
                at += ["columns", names[found.column]]
            assert caught.value.errors[0].pointer == pointer(*at)
            assert f"(line {found.line} of the file)" in caught.value.detail
            return
        layout = scan_csv(source, recipe, dict.fromkeys(names, wanted))
    assert (layout.names, layout.rows) == (names, len(records))
    assert layout.columns == [facts_of(list(fields), wanted) for fields in zip(*records, strict=True)]
    assert layout.newline_in_field == any(LF in field.text for record in records for field in record)


@given(st.lists(st.text("0123456789.-e", min_size=1, max_size=18), min_size=1, max_size=40))
@example(
    [
        "0",
        "1",
        "-1",
        "-0",
        "01",
        "-01",
        "9" * 15,
        "9" * 16,
        "-",
        ".",
        "-.",
        "1.",
        ".5",
        "00.5",
        "-0.5",
        "1.2.3",
    ]
)
@some
def test_a_number_is_read_alike_with_and_without_quotes(tmp_path: Path, cells: list[str]) -> None:
    plain, quoted = tmp_path / "plain", tmp_path / "quoted"
    plain.write_text("\n".join(["x", *cells, ""]))
    quoted.write_text("\n".join(["x", *(f'"{cell}"' for cell in cells), ""]))
    recipe = Recipe(header=True, delimiter=",")
    wanted = {"x": NUMERIC}
    facts = scan_csv(plain, recipe, wanted).columns
    assert facts == scan_csv(quoted, recipe, wanted).columns
    assert facts == [facts_of([Field(cell, quoted=False, plain=True) for cell in cells], NUMERIC)]


def refused(tmp_path: Path, data: bytes) -> InvalidInput:
    source = tmp_path / "upload"
    source.write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        scan_csv(source)
    return caught.value


def test_a_quote_that_nothing_ends_is_named_where_it_begins(tmp_path: Path) -> None:
    error = refused(tmp_path, b"a,b\n" + b"1,2\n" * 3 + b'3,"4\n' + b"5,6\n" * 6_000_000)
    assert error.errors[0].pointer == "/rows/4/columns/b"
    assert "(line 5 of the file)" in error.detail


def test_a_line_that_is_too_long_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, b"a,b\n1,2\n3," + b"x" * 25_000_000 + b"\n")
    assert error.errors[0].pointer == "/rows/2"
    assert "longer than 16 MB" in error.detail
