"""CSV and NDJSON in pieces: the same rows wherever the body is cut."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.columns import ColumnType
from app.errors import InvalidInput
from app.registry.signature import Feature, Role, Signature, Task
from app.serving.protocols.row_readers import CsvReader, NdjsonReader

SIGNATURE = Signature(
    features=tuple(
        Feature(name=type_.value, type=type_, role=Role.NUMERIC, nullable=True) for type_ in ColumnType
    ),
    target="y",
    target_type=ColumnType.NUMBER,
    task=Task.REGRESSION,
)


def read(reader: CsvReader | NdjsonReader, content: bytes, piece: int = 2**20) -> list[Any]:
    pieces = (content[at : at + piece] for at in range(0, len(content), piece))
    rows = [row for part in pieces for row in reader.feed(part)]
    return rows + reader.end()


texts = st.text(st.sampled_from('a",\n\r é\t'), max_size=5)


@given(
    st.lists(st.lists(texts, min_size=2, max_size=2), max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 20),
)
def test_what_a_csv_writer_wrote_is_read_wherever_it_is_cut(
    rows: list[list[str]], line_end: str, piece: int
) -> None:
    lines = io.StringIO(newline="")
    csv.writer(lines, quoting=csv.QUOTE_ALL, lineterminator=line_end).writerows([["a", "string"], *rows])
    content = lines.getvalue().encode("utf-8-sig")
    expected = [{"a": first, "string": second} for first, second in rows]
    assert read(CsvReader(SIGNATURE), content, piece) == expected
    assert read(CsvReader(SIGNATURE), content.removesuffix(line_end.encode()), piece) == expected


@given(st.text(st.sampled_from('a",\n\r1'), max_size=30), st.integers(1, 10))
def test_any_text_is_read_alike_in_pieces_or_refused(text: str, piece: int) -> None:
    content = b"string,b\n" + text.encode()
    outcomes = []
    for size in (piece, 1000):
        try:
            outcomes.append(read(CsvReader(SIGNATURE), content, size))
        except InvalidInput as refusal:
            outcomes.append([refusal.code])
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("column", "field", "value"),
    [
        ("integer", "3", 3),
        ("integer", "-0", 0),
        ("integer", "3.0", 3.0),
        ("integer", '"3"', 3),
        ("integer", "2.9", 2.9),
        ("integer", "007", "007"),
        ("integer", "1_000", "1_000"),
        ("integer", "+1", "+1"),
        ("integer", " 1", " 1"),
        ("number", "1e3", 1000.0),
        ("number", ".5", 0.5),
        ("number", "1e999", "1e999"),
        ("number", "inf", "inf"),
        ("number", "NaN", None),
        ("number", "", None),
        ("boolean", "TRUE", True),
        ("boolean", "false", False),
        ("boolean", "1", "1"),
        ("boolean", "NA", None),
        ("string", "", None),
        ("string", '""', ""),
        ("string", "NA", "NA"),
        ("string", "1", "1"),
        ("date", "2013-05-31", "2013-05-31"),
        ("datetime", "NULL", None),
        ("ignored", "x", "x"),
    ],
)
def test_a_field_is_typed_by_its_column(column: str, field: str, value: Any) -> None:
    (row,) = read(CsvReader(SIGNATURE), f"{column},b\n{field},\n".encode())
    assert row == {column: value, "b": None}
    assert type(row[column]) is type(value)


def test_blank_lines_are_rows_in_a_table_of_one_column_only() -> None:
    assert read(CsvReader(SIGNATURE), b"string\na\n\nb\n") == [
        {"string": "a"},
        {"string": None},
        {"string": "b"},
    ]
    assert read(CsvReader(SIGNATURE), b"string,b\na,1\n\n\n") == [{"string": "a", "b": "1"}]


json_rows = st.lists(
    st.dictionaries(st.text(max_size=3), st.none() | st.integers(-9, 9) | st.text(max_size=4))
)


@given(json_rows, st.integers(1, 20), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines_are_read_wherever_they_are_cut(
    rows: list[dict[str, Any]], piece: int, line_end: str
) -> None:
    plain = [{key: value for key, value in row.items() if "\0" not in f"{key}{value}"} for row in rows]
    content = line_end.join(map(json.dumps, plain)).encode()
    assert read(NdjsonReader(), content, piece) == plain


def test_nan_in_json_lines_is_read_and_two_rows_in_one_line_are_not() -> None:
    (row,) = read(NdjsonReader(), b'{"a": NaN}')
    assert row["a"] != row["a"]
    with pytest.raises(InvalidInput, match="Row 2 is not JSON"):
        read(NdjsonReader(), b'{"a": 1}\n{"a": 1},{"a": 2}\n')


def test_an_endless_record_is_refused() -> None:
    for reader, begin in ((CsvReader(SIGNATURE), b'string\n"'), (NdjsonReader(), b'{"a": "')):
        with pytest.raises(InvalidInput, match="Row 1 is longer than 16 MB"):
            read(reader, begin + b"x" * (17 * 2**20))
