"""What the scanner reads a text as is what DuckDB, asked in SQL, reads it as."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.datasets.engine import connect
from app.datasets.reading import scanner
from app.datasets.reading.infer import FRACTION, NULL_TOKENS, TIME, TRUE_AND_FALSE, ZONE, Kind, kinds_of
from app.datasets.reading.scan_csv import FACTS

HALF_BEYOND = 2**1024 - 2**970  # the least that is rounded to infinity

digits = st.text("0123456789", max_size=24)
integers = (
    st.integers(-(2**65), 2**65) | st.integers(2**53 - 3, 2**53 + 3) | st.integers(2**63 - 2, 2**63 + 2)
)
exponents = st.integers(-400, 400) | st.integers(300, 310)
dates = st.builds(
    "{:04}-{:02}-{:02}".format, st.sampled_from([0, 1, 2, 1900, 2000, 2023, 2024, 9999]),
    st.integers(0, 13), st.integers(0, 32),
)  # fmt: skip
edges = st.builds(
    "{} {:02}:{:02}{}".format, st.sampled_from(["0001-01-01", "9999-12-31"]), st.integers(0, 24),
    st.integers(0, 60), st.from_regex(rf"\A{ZONE}\Z"),
)  # fmt: skip
texts = st.one_of(
    st.text("0123456789.-+eE:TZ tNa", max_size=30),
    st.text(max_size=12).map(lambda text: text.replace("\0", "")),
    integers.map(str),
    digits,
    st.builds("{}{}.{}".format, st.sampled_from(["", "-", "+"]), digits, digits),
    st.builds("{}e{}".format, digits, exponents),
    st.builds("{}.{}E+{}".format, digits, digits, exponents),
    st.from_regex(rf"\A({FRACTION})\Z"),
    st.from_regex(rf"\A({TIME})\Z"),
    st.from_regex(rf"\A({TIME}{ZONE})\Z"),
    dates,
    edges,
    st.builds("{}T{:02}:{:02}:{:02}.{}".format, dates, *[st.integers(0, 61)] * 3, digits),
    st.sampled_from([word for pair in TRUE_AND_FALSE.values() for word in pair]).flatmap(
        lambda word: st.sampled_from([word, word.upper(), word.title(), f"{word} "])
    ),
)


def asked_in_sql(texts: Sequence[str]) -> list[Kind]:
    with connect(spill=None) as connection:
        query = f"SELECT {kinds_of('text')} FROM (SELECT unnest(?) AS text)"  # noqa: S608 - no input
        return [Kind(kinds) for (kinds,) in connection.execute(query, [list(texts)]).fetchall()]


def read(texts: Sequence[str]) -> list[Kind]:
    return [Kind(scanner.read_as(text.encode())) for text in texts]


values = texts.filter(lambda text: text not in NULL_TOKENS)


@given(st.lists(values, min_size=40, max_size=80))
@settings(max_examples=60, deadline=None)
def test_a_text_is_read_as_sql_reads_it(some: list[str]) -> None:
    assert dict(zip(some, read(some), strict=True)) == dict(zip(some, asked_in_sql(some), strict=True))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (str(HALF_BEYOND - 1) + ".0", Kind.NUMBER),
        (str(HALF_BEYOND) + ".0", Kind(0)),
        (f"{HALF_BEYOND - 1}.999", Kind.NUMBER),
        (f"0.{'0' * 400}1e709", Kind.NUMBER),
        (f"0.{'0' * 400}1e710", Kind(0)),
        (f"1{'0' * 400}.e-400", Kind.NUMBER),
        ("0e999999999999999999999", Kind.NUMBER),
        ("1e-999999999999999999999", Kind.NUMBER),
        ("1e999999999999999999999", Kind(0)),
        ("9" * 400, Kind.CODE),
        ("2013-05-31T14:00:00.1234560000000000000000", Kind.NAIVE_TIME),
        ("-0", Kind.NUMBER),
        ("-00", Kind(0)),
        ("", Kind(0)),
    ],
)
def test_the_limits_are_exact(text: str, kinds: Kind) -> None:
    assert read([text]) == [kinds]
    if text:
        assert asked_in_sql([text]) == [kinds]


def scanned(block: str) -> tuple[tuple[int, ...], np.void]:
    facts = np.zeros(1, FACTS)
    facts["wanted"], facts["common"] = Kind.INTEGER, 0xFFFF
    found = scanner.scan(block.encode(), facts, ord(","), ord('"'), False, False, ())
    return found, facts[0]


@given(texts | st.text("1-", max_size=6) | st.text("01.", max_size=6) | st.text("/09:.-", max_size=17))
@settings(max_examples=1000, deadline=None)
def test_a_field_is_read_as_its_text_is(text: str) -> None:
    text = "".join(mark for mark in text if mark not in ',"\r\n')
    _, facts = scanned(f"{text}\n" * 20)
    if text:
        assert {int(facts["met"]), int(facts["common"])} == {read([text])[0]}


@given(st.lists(texts | st.text(max_size=60), min_size=1, max_size=8), st.booleans())
@settings(max_examples=300, deadline=None)
def test_fields_are_read_alike_at_the_end_of_a_block_and_far_from_it(fields: list[str], quoted: bool) -> None:
    if quoted:
        fields = ['"{}"'.format(field.replace('"', '""')) for field in fields]
    else:
        fields = ["".join(mark for mark in field if mark not in ',"\r\n') for field in fields]
    block, padding = "".join(f"{field}\n" for field in fields), 40
    (fault, place, records, newlines, *_), facts = scanned(block)
    (far_fault, far_place, far_records, far_newlines, *_), far = scanned(block + "x\n" * padding)
    assert (far_fault, far_place) == (fault, place)
    if not fault:
        assert (far_records - padding, far_newlines - padding) == (records, newlines)
        far["counts"][-1] -= padding  # those of no kind
        assert far["counts"].tolist() == facts["counts"].tolist()
        assert (far["nulls"], far["met"]) == (facts["nulls"], facts["met"])
        assert far["misfits"] - padding == facts["misfits"]


def test_a_block_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="line feed"):
        scanner.scan(b"1,2", bytearray(scanner.COLUMN_BYTES), 44, 34, False, False, ())
    with pytest.raises(ValueError, match="null markers"):
        scanner.scan(b"1\n", bytearray(scanner.COLUMN_BYTES), 44, 34, False, False, (b"x",) * 64)
