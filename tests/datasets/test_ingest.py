"""An uploaded file becomes one canonical table, exactly or not at all."""

import csv
import io
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.core import Table as ArrowTable
from arro3.io import write_ipc_stream, write_parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.datasets.canonical import Table
from app.datasets.reading.ingest import MediaType, ingest
from app.datasets.table import preview
from app.errors import InvalidInput

CSV, NDJSON = MediaType.CSV, MediaType.NDJSON
PARQUET, ARROW = MediaType.PARQUET, MediaType.ARROW_STREAM

some = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Desk:
    """A folder where files are taken in, that stays clean."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "upload", folder / "table.parquet"

    def ingest(self, data: bytes, media_type: MediaType) -> Table:
        self.source.write_bytes(data)
        self.target.unlink(missing_ok=True)
        return ingest(self.source, media_type, self.target)

    def read(self, data: bytes, media_type: MediaType) -> dict[str, tuple[str, list[Any]]]:
        """Each column's type and values."""
        table = self.ingest(data, media_type)
        rows = preview(self.target, table.rows + 1)
        assert len(rows) == table.rows
        columns = {c.name: (c.type.value, [row[c.name] for row in rows]) for c in table.columns}
        assert list(rows[0]) == list(columns)
        assert [c.nullable for c in table.columns] == [None in values for _, values in columns.values()]
        return columns

    def refuse(self, data: bytes, media_type: MediaType) -> InvalidInput:
        with pytest.raises(InvalidInput) as caught:
            self.ingest(data, media_type)
        self.check_clean()
        return caught.value

    def ingest_or_refuse(self, data: bytes, media_type: MediaType) -> None:
        try:
            self.ingest(data, media_type)
        except InvalidInput:
            self.check_clean()

    def check_clean(self) -> None:
        assert [path.name for path in self.target.parent.iterdir()] == [self.source.name]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def column(desk: Desk, *cells: str) -> tuple[str, list[Any]]:
    return desk.read("\n".join(["x,y", *(f"{cell},end" for cell in cells), ""]).encode(), CSV)["x"]


class TestCsvTypes:
    @pytest.mark.parametrize(
        ("cells", "type_", "values"),
        [
            (["1", "-5", "0"], "integer", [1, -5, 0]),
            (["9223372036854775807", "-9223372036854775808"], "integer", [2**63 - 1, -(2**63)]),
            (["4611686018427387905", ""], "integer", [2**62 + 1, None]),
            (["1", "1.5", ".5", "2.", "-1e3", "1E-2"], "number", [1.0, 1.5, 0.5, 2.0, -1000.0, 0.01]),
            (["1", "NaN", "nan", "NA", "N/A", "null", "NULL", "None"], "integer", [1] + 7 * [None]),
            (["0.5", '""', ""], "number", [0.5, None, None]),
            (["true", "FALSE", "tRuE", "None"], "boolean", [True, False, True, None]),
            (["2013-05-31", "NA"], "date", ["2013-05-31", None]),
            (["2013-05-31T14:00", "2013-05-31 14:00:01.5"], "datetime",
             ["2013-05-31T14:00:00Z", "2013-05-31T14:00:01.500000Z"]),
            (["2013-05-31T14:00:00+02:00", "2013-05-31T14:00:00Z", "2013-05-31 14:00:00-0530"], "datetime",
             ["2013-05-31T12:00:00Z", "2013-05-31T14:00:00Z", "2013-05-31T19:30:00Z"]),
        ],
    )  # fmt: skip
    def test_a_type_that_every_value_has_is_the_columns(
        self, desk: Desk, cells: list[str], type_: str, values: list[Any]
    ) -> None:
        assert column(desk, *cells) == (type_, values)

    @pytest.mark.parametrize(
        "cells",
        [
            ["00123", "124"],
            ["+5"],
            ["1_000"],
            ["0x10"],
            [" 1"],
            ["9223372036854775808"],
            ["123456789012345678901234567890", "1"],
            ["9007199254740993", "0.5"],
            ["inf", "1.0"],
            ["1e999"],
            ["00.5"],
            ["1", "many"],
            ["1", "true"],
            ["2013-02-30"],
            ["2013-5-31"],
            ["infinity", "2013-05-31"],
            ["10000-01-01"],
            ["2013-05-31", "2013-05-31T14:00:00"],
            ["2013-05-31T14:00:00Z", "2013-05-31T14:00:00"],
            ["2013-05-31T24:00:00"],
            ["2013-05-31T14:00:00.1234567"],
            ["0000-05-31T14:00:00"],
            ["9999-12-31T23:00:00-05:00"],
        ],
    )
    def test_a_column_that_no_other_type_holds_exactly_is_text(self, desk: Desk, cells: list[str]) -> None:
        assert column(desk, *cells) == ("string", cells)

    def test_zero_and_one_are_integers(self, desk: Desk) -> None:
        assert column(desk, "0", "1") == ("integer", [0, 1])

    def test_null_words_are_text_in_a_string_column(self, desk: Desk) -> None:
        assert column(desk, "NA", "x", "", "null") == ("string", ["NA", "x", None, "null"])

    def test_a_quoted_empty_field_is_an_empty_string(self, desk: Desk) -> None:
        assert column(desk, '""', "", "x") == ("string", ["", None, "x"])

    def test_a_column_without_values_is_text(self, desk: Desk) -> None:
        assert column(desk, "", "") == ("string", [None, None])

    def test_the_last_row_decides_as_the_first_does(self, desk: Desk) -> None:
        type_, values = column(desk, *["7"] * 50_000, "1.5")
        assert (type_, values[0], values[-1]) == ("number", 7.0, 1.5)

    @given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
    @some
    def test_integers_are_exact(self, tmp_path: Path, numbers: list[int]) -> None:
        assert column(Desk(tmp_path), *map(str, numbers)) == ("integer", numbers)

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
    @some
    def test_floats_are_exact(self, tmp_path: Path, numbers: list[float]) -> None:
        assert column(Desk(tmp_path), *map(repr, numbers)) == ("number", numbers)


class TestCsvForm:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    @pytest.mark.parametrize("last", ["", "\n"])
    def test_delimiter_line_ends_and_byte_order_mark(
        self, desk: Desk, delimiter: str, newline: str, last: str
    ) -> None:
        lines = [["a", "b c", "é"], ["1", '"x""y"', f'"p{delimiter}{newline}q"'], ["2", "", "z"]]
        text = newline.join(delimiter.join(line) for line in lines) + last.replace("\n", newline)
        assert desk.read(b"\xef\xbb\xbf" + text.encode(), CSV) == {
            "a": ("integer", [1, 2]),
            "b c": ("string", ['x"y', None]),
            "é": ("string", [f"p{delimiter}{newline}q", "z"]),
        }

    def test_a_blank_line_is_a_null_in_a_file_of_one_column(self, desk: Desk) -> None:
        assert desk.read(b"a\n1\n\n3\n", CSV) == {"a": ("integer", [1, None, 3])}

    def test_blank_lines_at_the_end_are_no_rows(self, desk: Desk) -> None:
        assert desk.ingest(b"a,b\r\n1,2\r\n\r\n\r\n", CSV).rows == 1

    @pytest.mark.parametrize(
        ("data", "pointer", "line"),
        [
            (b"a,b\n1,2\n3\n", "/rows/2", 3),
            (b"a,b\n1,2\n3,4,\n", "/rows/2", 3),
            (b'a,b\n"1\n1",2\n3,4,5\n', "/rows/2", 4),
            (b"a,b\n1,2\n\n3,4\n", "/rows/2", 3),
            (b'a,b\n1,2\n"3,4\n5,6\n', "/rows/2/columns/a", 3),
            (b'a,b\n1,2\n3,x"y\n', "/rows/2/columns/b", 3),
            (b'a,b\n1,2\n3,"x"y\n', "/rows/2/columns/b", 3),
            (b'a,b\n1,2\n3, "x"\n', "/rows/2/columns/b", 3),
            (b"a,b\n1,2\n3,\xe9\n", "/rows/2/columns/b", 3),
            (b"a,b\n1,2\n\0,4\n", "/rows/2/columns/a", 3),
            (b"a,b\n1,2\n3,4\r5,6\n", "/rows/2/columns/b", 3),
            (b"a,b\n1,2\r\n", "/rows/1", 2),
            (b"a,b\r\n1,2\n", "/rows/1", 2),
        ],
    )
    def test_a_malformed_row_is_refused_by_place(
        self, desk: Desk, data: bytes, pointer: str, line: int
    ) -> None:
        error = desk.refuse(data, CSV)
        assert (error.code, error.errors[0].pointer) == ("malformed_csv", pointer)
        assert f"(line {line} of the file)" in error.detail

    def test_a_fault_far_into_a_large_file_is_named_exactly(self, desk: Desk) -> None:
        rows = [b'%d,"two\nlines"\n' % number for number in range(800_000)]
        rows[700_000] = b"oops\n"
        error = desk.refuse(b"a,b\n" + b"".join(rows), CSV)
        assert error.errors[0].pointer == "/rows/700001"
        assert "(line 1400002 of the file)" in error.detail

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"", "empty_table"),
            (b"a,b", "empty_table"),
            (b"a,b\n", "empty_table"),
            (b"a,b\n\n", "empty_table"),
            (b"\xff\xfea\0", "malformed_csv"),
            (b'"a,b\n1,2\n', "malformed_csv"),
            (b'a"b,c\n1,2\n', "malformed_csv"),
            (b"\n1\n", "invalid_column_name"),
            (b"a, \n1,2\n", "invalid_column_name"),
            (b'a,"b\nc"\n1,2\n', "invalid_column_name"),
            (b"a," + b"b" * 257 + b"\n1,2\n", "invalid_column_name"),
            (b"a,b,a\n1,2,3\n", "duplicate_column"),
            (b"a,b,A\n1,2,3\n", "duplicate_column"),
            (b"," * 10_000 + b"\n", "too_many_columns"),
        ],
    )
    def test_a_file_without_a_table_is_refused(self, desk: Desk, data: bytes, code: str) -> None:
        assert desk.refuse(data, CSV).code == code

    def test_a_wide_table_is_read(self, desk: Desk) -> None:
        names = [f"c{number}" for number in range(300)]
        data = "\n".join([",".join(names), ",".join(map(str, range(300))), "," * 299, ""])
        read = desk.read(data.encode(), CSV)
        assert read["c299"] == ("integer", [299, None])

    @given(
        width=st.integers(1, 4),
        cells=st.lists(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
            min_size=4,
            max_size=24,
        ),
        delimiter=st.sampled_from(",;\t|"),
        newline=st.sampled_from(["\n", "\r\n"]),
    )
    @some
    def test_any_text_is_read_as_the_standard_librarys_reader_does(
        self, tmp_path: Path, width: int, cells: list[str], delimiter: str, newline: str
    ) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL)
        marked = ["x" + cell for cell in cells]  # of no type but text
        writer.writerow([f"c{number}" for number in range(width)])
        writer.writerows(marked[at : at + width] for at in range(0, len(marked) - width + 1, width))
        read = Desk(tmp_path).read(text.getvalue().encode(), CSV)
        text.seek(0)
        names, *rows = csv.reader(text, delimiter=delimiter)
        assert read == {n: ("string", list(v)) for n, v in zip(names, zip(*rows, strict=True), strict=True)}


class TestNdjson:
    def read(self, desk: Desk, *rows: dict[str, Any]) -> dict[str, tuple[str, list[Any]]]:
        return desk.read("\n".join(map(json.dumps, rows)).encode(), NDJSON)

    def test_columns_are_those_of_all_rows_and_absent_is_null(self, desk: Desk) -> None:
        rows: Sequence[dict[str, Any]] = [{"b": 1, "a": "x"}, {}, {"a": None, "c": True}, {"d": None}]
        assert self.read(desk, *rows) == {
            "b": ("integer", [1, None, None, None]),
            "a": ("string", ["x", None, None, None]),
            "c": ("boolean", [None, None, True, None]),
            "d": ("string", [None, None, None, None]),
        }

    def test_types_are_those_of_json_over_all_rows(self, desk: Desk) -> None:
        assert self.read(
            desk,
            {"i": 2**62 + 1, "n": 1, "s": "1", "d": "2013-05-31", "t": "2013-05-31T14:00:00+02:00"},
            {"i": -(2**63), "n": 0.1, "s": "", "d": None, "t": "2013-05-31T14:00:00Z"},
        ) == {
            "i": ("integer", [2**62 + 1, -(2**63)]),
            "n": ("number", [1.0, 0.1]),
            "s": ("string", ["1", ""]),
            "d": ("date", ["2013-05-31", None]),
            "t": ("datetime", ["2013-05-31T12:00:00Z", "2013-05-31T14:00:00Z"]),
        }

    @pytest.mark.parametrize("value", ["2013-05-31", "2013-05-31T14:00:00", "2013-05-31T14:00:00Z"])
    def test_texts_that_are_dates_or_times_but_for_a_few_are_refused_by_place(
        self, desk: Desk, value: str
    ) -> None:
        rows = [json.dumps({"a": value, "b": "x"})] * 40 + ['{"a": null}', '{"a": "soon"}', '{"a": ""}']
        refused = desk.refuse("\n".join(rows).encode(), NDJSON)
        assert refused.code == "mixed_column"
        assert [error.pointer for error in refused.errors] == ["/rows/42/columns/a", "/rows/43/columns/a"]
        assert "'soon' in row 42" in refused.detail
        rows[40] = '{"a": "late"}'  # under 95 %
        assert desk.read("\n".join(rows).encode(), NDJSON)["a"][0] == "string"

    def test_null_words_are_strings(self, desk: Desk) -> None:
        assert self.read(desk, {"a": "NA"}, {"a": "2013-05-31"}) == {"a": ("string", ["NA", "2013-05-31"])}

    @pytest.mark.parametrize(
        ("data", "code", "pointer"),
        [
            (b'{"a":1}\n\n{"a":"x"}', "mixed_types", "/rows/2/columns/a"),
            (b'{"a":1}\n{"a":2.5}\n{"a":true}', "mixed_types", "/rows/3/columns/a"),
            (b'{"a":1}\n{"a":[1]}', "unsupported_type", "/rows/2/columns/a"),
            (b'{"a":1}\n{"a":{}}', "unsupported_type", "/rows/2/columns/a"),
            (b'{"a":9223372036854775808}', "value_out_of_range", "/rows/1/columns/a"),
            (b'{"a":1}\n{"a":9007199254740993}\n{"a":0.5}', "value_out_of_range", "/rows/2/columns/a"),
            (b'{"a":"x"}\n{"a":"\\u0000"}', "value_out_of_range", "/rows/2/columns/a"),
            (b'{"a":1}\n{"a":', "malformed_ndjson", "/rows/2"),
            (b'{"a":1}\n{"a":1,}', "malformed_ndjson", "/rows/2"),
            (b'{"a":1}\n{"a":NaN}', "malformed_ndjson", "/rows/2"),
            (b'{"a":1}\n{"a":1e999}', "malformed_ndjson", "/rows/2"),
            (b'{"a":1}\n{"a":"\xff"}', "malformed_ndjson", "/rows/2"),
            (b'{"a":1}\n[1]', "malformed_ndjson", "/rows/2"),
            (b'{"a":1}{"a":2}', "malformed_ndjson", "/rows/1"),
            (b'{"a":1}\n{"a":1,"b":2,"\\u0061":3}', "duplicate_column", "/rows/2/columns/a"),
            (b'{"a":1,"A":2}', "duplicate_column", "/columns/A"),
            (b'{"":1}', "invalid_column_name", "/columns/"),
            (b"[" * 100_000, "malformed_ndjson", "/rows/1"),
            (b"{}\n{}", "empty_table", ""),
            (b"", "empty_table", ""),
        ],
    )
    def test_a_fault_is_refused_by_place(self, desk: Desk, data: bytes, code: str, pointer: str) -> None:
        error = desk.refuse(data, NDJSON)
        assert (error.code, error.errors[0].pointer) == (code, pointer)


def parquet(folder: Path, query: str) -> bytes:
    path = folder / "made.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    data = path.read_bytes()
    path.unlink()
    return data


def arrow(folder: Path, query: str) -> bytes:
    path = folder / "made.arrows"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        write_ipc_stream(RecordBatchReader.from_stream(connection.sql(query)), str(path), compression=None)
    data = path.read_bytes()
    path.unlink()
    return data


MIXED = '''
    SELECT i::TINYINT AS i8, (i * 9007199254740993)::BIGINT AS i64, i::UBIGINT AS u64,
        (i / 4)::FLOAT AS f32, CASE i WHEN 1 THEN 'nan'::DOUBLE ELSE 0.1 END AS f64,
        (i + 0.25)::DECIMAL(9, 2) AS fixed, i::DECIMAL(20, 0) AS whole, i = 1 AS flag,
        CASE i WHEN 0 THEN 'zero' END AS "a ""text""", ('e' || i)::ENUM('e0', 'e1', 'e2') AS level,
        DATE '2013-05-31' + i::INT AS day, TIMESTAMP '2013-05-31 14:00:00.5' AS naive,
        TIMESTAMPTZ '2013-05-31 14:00:00+02' AS zoned, TIMESTAMP_NS '2013-05-31 14:00:00.000001' AS fine
    FROM range(3) AS t(i) ORDER BY i
'''

MIXED_READ = {
    "i8": ("integer", [0, 1, 2]),
    "i64": ("integer", [0, 9007199254740993, 18014398509481986]),
    "u64": ("integer", [0, 1, 2]),
    "f32": ("number", [0.0, 0.25, 0.5]),
    "f64": ("number", [0.1, None, 0.1]),
    "fixed": ("number", [0.25, 1.25, 2.25]),
    "whole": ("integer", [0, 1, 2]),
    "flag": ("boolean", [False, True, False]),
    'a "text"': ("string", ["zero", None, None]),
    "level": ("string", ["e0", "e1", "e2"]),
    "day": ("date", ["2013-05-31", "2013-06-01", "2013-06-02"]),
    "naive": ("datetime", ["2013-05-31T14:00:00.500000Z"] * 3),
    "zoned": ("datetime", ["2013-05-31T12:00:00Z"] * 3),
    "fine": ("datetime", ["2013-05-31T14:00:00.000001Z"] * 3),
}

MISFITS = [
    "CASE i WHEN 2 THEN 18446744073709551615 ELSE i END::UBIGINT",
    "CASE i WHEN 2 THEN 99999999999999999999 ELSE i END::DECIMAL(20, 0)",
    "CASE i WHEN 2 THEN '-inf' ELSE '1' END::DOUBLE",
    "CASE i WHEN 2 THEN 'infinity' ELSE '2013-05-31' END::DATE",
    "CASE i WHEN 2 THEN '12000-01-01' ELSE '2013-05-31' END::TIMESTAMP",
    "CASE i WHEN 2 THEN '2013-05-31 00:00:00.000000001' ELSE '2013-05-31' END::TIMESTAMP_NS",
    "CASE i WHEN 2 THEN chr(0) ELSE 'x' END",
]

UNSUPPORTED = ["TIME '12:00'", "'x'::BLOB", "[i]", "{'a': i}", "MAP {i: i}", "INTERVAL 1 DAY"]


def five_rows(value: str) -> str:
    return f"SELECT i, {value} AS x FROM range(5) AS t(i)"  # noqa: S608


class TestParquet:
    def test_physical_types_map_to_the_tables(self, desk: Desk, tmp_path: Path) -> None:
        assert desk.read(parquet(tmp_path, MIXED), PARQUET) == MIXED_READ

    @pytest.mark.parametrize("value", MISFITS)
    def test_a_value_that_does_not_fit_is_refused_by_place(
        self, desk: Desk, tmp_path: Path, value: str
    ) -> None:
        error = desk.refuse(parquet(tmp_path, five_rows(value)), PARQUET)
        assert (error.code, error.errors[0].pointer) == ("value_out_of_range", "/rows/3/columns/x")

    @pytest.mark.parametrize("value", [*UNSUPPORTED, "uuid()"])
    def test_a_type_that_models_do_not_read_is_refused_by_column(
        self, desk: Desk, tmp_path: Path, value: str
    ) -> None:
        error = desk.refuse(parquet(tmp_path, five_rows(value)), PARQUET)
        assert (error.code, error.errors[0].pointer) == ("unsupported_type", "/columns/x")

    def test_duplicate_names_are_refused(self, desk: Desk, tmp_path: Path) -> None:
        data = parquet(tmp_path, "SELECT 1 AS aaaa, 2 AS bbbb").replace(b"bbbb", b"aaaa")
        assert desk.refuse(data, PARQUET).code == "duplicate_column"

    def test_a_file_without_rows_is_refused(self, desk: Desk, tmp_path: Path) -> None:
        assert desk.refuse(parquet(tmp_path, "SELECT 1 AS a WHERE false"), PARQUET).code == "empty_table"

    def test_nan_is_null_though_the_files_statistics_leave_it_out(self, desk: Desk) -> None:
        values = Array([1.5, math.nan, 2.5], type=DataType.float64())
        batch = RecordBatch.from_arrays(
            [values], schema=Schema([Field("a", DataType.float64(), nullable=False)])
        )
        made = io.BytesIO()
        write_parquet(ArrowTable.from_batches([batch]), made)
        assert desk.read(made.getvalue(), PARQUET) == {"a": ("number", [1.5, None, 2.5])}

    def test_rows_keep_their_order(self, desk: Desk, tmp_path: Path) -> None:
        query = "SELECT hash(i) % 1000003 AS a FROM range(300000) AS t(i)"
        table = desk.ingest(parquet(tmp_path, query), PARQUET)
        with duckdb.connect() as connection:
            expected = connection.execute(query).fetchall()
        assert [(row["a"],) for row in preview(desk.target, table.rows)] == expected

    @pytest.mark.parametrize("data", [b"", b"PAR1", b"a,b\n1,2\n", b"PAR1" * 30])
    def test_what_is_not_parquet_is_refused(self, desk: Desk, data: bytes) -> None:
        error = desk.refuse(data, PARQUET)
        assert error.code == "malformed_parquet"
        assert str(desk.source) not in error.detail

    def test_a_truncated_file_is_refused(self, desk: Desk, tmp_path: Path) -> None:
        assert desk.refuse(parquet(tmp_path, MIXED)[:-1], PARQUET).code == "malformed_parquet"


class TestArrowStream:
    def test_types_map_as_parquets_do(self, desk: Desk, tmp_path: Path) -> None:
        assert desk.read(arrow(tmp_path, MIXED), ARROW) == MIXED_READ

    def test_dictionary_encoded_strings_are_strings(self, desk: Desk, tmp_path: Path) -> None:
        values = Array(["x", None, "y", "x"], type=DataType.utf8()).cast(
            DataType.dictionary(DataType.int32(), DataType.utf8())
        )
        batch = RecordBatch.from_arrays([values], schema=Schema([Field("a", values.type)]))
        write_ipc_stream(ArrowTable.from_batches([batch, batch]), str(tmp_path / "made"), compression=None)
        data = (tmp_path / "made").read_bytes()
        (tmp_path / "made").unlink()
        assert desk.read(data, ARROW) == {"a": ("string", ["x", None, "y", "x"] * 2)}

    def test_a_misfit_is_refused_by_place(self, desk: Desk, tmp_path: Path) -> None:
        error = desk.refuse(arrow(tmp_path, five_rows(MISFITS[0])), ARROW)
        assert (error.code, error.errors[0].pointer) == ("value_out_of_range", "/rows/3/columns/x")

    @pytest.mark.parametrize("value", ["[i]", "TIME '12:00'"])
    def test_a_type_that_models_do_not_read_is_refused(self, desk: Desk, tmp_path: Path, value: str) -> None:
        assert desk.refuse(arrow(tmp_path, five_rows(value)), ARROW).errors[0].pointer == "/columns/x"

    def test_duplicate_names_are_refused(self, desk: Desk, tmp_path: Path) -> None:
        data = arrow(tmp_path, "SELECT 1 AS aaaa, 2 AS bbbb").replace(b"bbbb", b"aaaa")
        assert desk.refuse(data, ARROW).code == "duplicate_column"

    def test_a_stream_cut_anywhere_is_refused(self, desk: Desk, tmp_path: Path) -> None:
        data = arrow(tmp_path, "SELECT i FROM range(5000) AS t(i)")
        assert desk.refuse(data[:-8], ARROW).code == "malformed_arrow"  # a whole batch may be missing
        assert desk.refuse(data[: len(data) // 2], ARROW).code == "malformed_arrow"
        assert desk.refuse(b"", ARROW).code == "malformed_arrow"

    def test_damage_that_makes_the_reader_abort_is_an_error(self, desk: Desk, tmp_path: Path) -> None:
        data = bytearray(arrow(tmp_path, "SELECT i FROM range(64) AS t(i)"))
        at = data.index(struct.pack("<qq", 0, 64 * 8))  # the place and the length of the values
        data[at + 8 : at + 16] = struct.pack("<q", 2**40)
        assert desk.refuse(bytes(data), ARROW).code == "malformed_arrow"


@pytest.mark.parametrize("media_type", [CSV, NDJSON, PARQUET])
@given(data=st.binary(max_size=60) | st.text("a,;\"'\n\r{}[]:1.\\u\0é", max_size=40).map(str.encode))
@some
def test_no_bytes_are_more_than_an_input_error(tmp_path: Path, media_type: MediaType, data: bytes) -> None:
    Desk(tmp_path).ingest_or_refuse(data, media_type)


def mutate(data: bytes, changes: list[tuple[float, int]]) -> bytes:
    changed = bytearray(data)
    for place, byte in changes:
        changed[int(place * len(changed))] = byte
    return bytes(changed)


changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


@given(changes)
@some
def test_no_damaged_parquet_is_more_than_an_input_error(
    tmp_path: Path, changes: list[tuple[float, int]]
) -> None:
    Desk(tmp_path).ingest_or_refuse(mutate(parquet(tmp_path, MIXED), changes), PARQUET)


@given(changes)
@settings(some, max_examples=6)
def test_no_damaged_stream_is_more_than_an_input_error(
    tmp_path: Path, changes: list[tuple[float, int]]
) -> None:
    data = arrow(tmp_path, MIXED)
    Desk(tmp_path).ingest_or_refuse(mutate(data[:-8], changes) + data[-8:], ARROW)


def test_damaged_metadata_of_a_readable_parquet_file_are_an_input_error(tmp_path: Path) -> None:
    before, name, after = parquet(tmp_path, "SELECT range AS long_name FROM range(9)").rpartition(
        b"long_name"
    )
    damaged = before + b"\xff" * len(name) + after  # the path of a column in its row group
    assert Desk(tmp_path).refuse(damaged, PARQUET).code == "malformed_parquet"


def test_very_long_texts_are_taken_in(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    rows = [f"{number},{chr(97 + number) * 10_000_000}\n" for number in range(15)]
    assert desk.ingest(("id,text\n" + "".join(rows)).encode(), CSV).rows == 15
    assert [row["id"] for row in preview(desk.target, 20)] == list(range(15))


@pytest.mark.parametrize("cores", [2, 4])
def test_a_parquet_file_of_large_row_groups_is_read_on_any_number_of_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    source = tmp_path / "long.parquet"
    text = "md5(i::VARCHAR) || repeat(md5((i * 7)::VARCHAR), 12)"
    rows = f"SELECT i, {text} AS text FROM range(800_000) AS t(i)"  # noqa: S608 - ours
    duckdb.sql(f"COPY ({rows}) TO '{source}' (FORMAT parquet)")
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    table = ingest(source, MediaType.PARQUET, tmp_path / "canonical.parquet")
    assert table.rows == 800_000
