"""What the scanner reads a text as is what DuckDB, asked in SQL, reads it as."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.datasets.engine import connect
from app.datasets.reading import scanner
from app.datasets.reading.infer import FRACTION, NULL_TOKENS, TIME, TRUE_AND_FALSE, ZONE, Kind, kinds_of

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


def test_a_block_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="line feed"):
        scanner.scan(b"1,2", bytearray(scanner.COLUMN_BYTES), 44, 34, False, False, ())
    with pytest.raises(ValueError, match="null markers"):
        scanner.scan(b"1\n", bytearray(scanner.COLUMN_BYTES), 44, 34, False, False, (b"x",) * 64)
