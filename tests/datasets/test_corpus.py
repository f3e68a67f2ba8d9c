"""Files as people send them: each is taken in exactly, or refused with its place and the way out."""

# ruff: noqa: RUF001 - there is text in several scripts

import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
import zstandard
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.core import Table as ArrowTable
from arro3.io import write_ipc, write_ipc_stream

from app.datasets.reading.ingest import MediaType
from tests.client import Client
from tests.conftest import make_settings, running_server

CSV, NDJSON = MediaType.CSV, MediaType.NDJSON
PARQUET, ARROW = MediaType.PARQUET, MediaType.ARROW_STREAM
MEGABYTE = 2**20

Values = tuple[str, list[Any]]


class Refused(NamedTuple):
    """The error's code, where it points, and some of its words."""

    code: str
    at: str
    words: str
    status: int = 422


class Case(NamedTuple):
    name: str
    media_type: str
    data: bytes | Callable[[Path], bytes]
    expected: dict[str, Values] | Refused
    """The type and the values of every column, or the refusal."""
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}


def parquet(query: str, folder: Path) -> bytes:
    path = folder / "made"
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


def arrow(query: str, folder: Path, write: Callable[..., None] = write_ipc_stream) -> bytes:
    path = folder / "made"
    with duckdb.connect() as connection:
        write(RecordBatchReader.from_stream(connection.sql(query)), str(path), compression=None)
    return path.read_bytes()


def typed_arrow(type_: DataType, values: list[Any], folder: Path) -> bytes:
    """A stream of one column ``a`` of a type that DuckDB does not write."""
    batch = RecordBatch.from_arrays([Array(values, type=type_)], schema=Schema([Field("a", type_)]))
    write_ipc_stream(ArrowTable.from_batches([batch]), str(folder / "made"), compression=None)
    return (folder / "made").read_bytes()


def changed(make: Callable[[Path], bytes], change: Callable[[bytes], bytes], folder: Path) -> bytes:
    return change(make(folder))


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "a,b\n1,2\n")
    return file.getvalue()


PLAIN = "a,b\n1,é\n"
READ: dict[str, Values] = {"a": ("integer", [1]), "b": ("string", ["é"])}
FRENCH = "id,ville\n1,Orléans\n2,Besançon\n"
JAPANESE = "名前,都市\n太郎,東京\n花子,大阪\n"
JAPANESE_READ: dict[str, Values] = {
    "名前": ("string", ["太郎", "花子"]),
    "都市": ("string", ["東京", "大阪"]),
}
LONG = b"a,b\n" + b"".join(b"%d,%d\n" % (number, number**2) for number in range(5000))
ONE, THREE = partial(parquet, "SELECT 1 AS a"), partial(parquet, "SELECT i AS a FROM range(3) AS t(i)")
STREAM = partial(arrow, "SELECT i AS a FROM range(3) AS t(i)")
UNREADABLE = {
    "lists": "[i]",
    "structures": "{'y': i}",
    "maps": "MAP {i: i}",
    "lists of structures": "[{'y': [i]}]",
    "bytes": "'x'::BLOB",
    "times of day": "TIME '12:00'",
    "intervals": "INTERVAL 1 DAY",
    "UUIDs": "uuid()",
}
WAY_OUT_OF_TYPE = "Convert it to integers, floats, booleans, strings, dates or timestamps, or drop it"
MALFORMED = "malformed_csv"


def exotic(sql: str) -> Callable[[Path], bytes]:
    return partial(parquet, f"SELECT i, {sql} AS x FROM range(3) AS t(i)")  # noqa: S608


ENCODINGS = [
    Case("UTF-8 with a mark", CSV, b"\xef\xbb\xbf" + PLAIN.encode(), READ),
    Case("UTF-16", CSV, PLAIN.encode("utf-16"), READ),
    Case("UTF-16 of the other order", CSV, b"\xfe\xff" + PLAIN.encode("utf-16-be"), READ),
    Case("UTF-32", CSV, PLAIN.encode("utf-32"), READ),
    Case("UTF-16 without a mark", CSV, "a,b\n1,x\n2,y\n".encode("utf-16-le"),
         Refused(MALFORMED, "/", "send ?encoding=utf-16-le")),
    Case("UTF-16 of the other order without a mark", CSV, "a,b\n1,x\n2,y\n".encode("utf-16-be"),
         Refused(MALFORMED, "/", "send ?encoding=utf-16-be")),
    Case("UTF-16 without a mark, named", CSV, PLAIN.encode("utf-16-le"), READ, {"encoding": "utf-16-le"}),
    Case("UTF-16 cut within a character", CSV, PLAIN.encode("utf-16") + b"x",
         Refused("malformed_text", "/recipe/encoding", "Line 3 of the file is not utf-16")),
    Case("half a surrogate pair", CSV, "a,b\n1,x\n".encode("utf-16") + b"\x00\xd8,\x00\n\x00",
         Refused("malformed_text", "/recipe/encoding", "Line 3 of the file is not utf-16")),
    Case("windows-1252", CSV, FRENCH.encode("cp1252"),
         Refused(MALFORMED, "/rows/1/columns/ville", "send ?encoding=windows-1252")),
    Case("windows-1252, named", CSV, PLAIN.encode("cp1252"), READ, {"encoding": "windows-1252"}),
    Case("windows-1252 with a byte that it has not", CSV, b"a,b\n1,x\n2,\x81\n",
         Refused("malformed_text", "/recipe/encoding", "Line 3 of the file is not cp1252"),
         {"encoding": "windows-1252"}),
    Case("Shift JIS", CSV, JAPANESE.encode("shift_jis"), Refused(MALFORMED, "/", "send ?encoding=shift_jis")),
    Case("Shift JIS, named", CSV, JAPANESE.encode("shift_jis"), JAPANESE_READ, {"encoding": "shift_jis"}),
    Case("KOI8-R, named by the content type", "text/csv; charset=KOI8-R", "имя,n\nПётр,1\n".encode("koi8-r"),
         {"имя": ("string", ["Пётр"]), "n": ("integer", [1])}),
    Case("EBCDIC, named", CSV, "a,b\n1,x\n".encode("cp037"), {"a": ("integer", [1]), "b": ("string", ["x"])},
         {"encoding": "cp037"}),
    Case("not UTF-8 late in the file", CSV, b"a,b\n" + b"1,x\n" * 99_999 + b"1,caf\xe9\n" + b"1,y\n" * 10,
         Refused(MALFORMED, "/rows/100000/columns/b", "(line 100001 of the file)")),
    Case("UTF-8 cut within a character", CSV, b"a,b\n1,x\n2,\xe2\x82",
         Refused(MALFORMED, "/rows/2/columns/b", "not UTF-8")),
    Case("a character in more bytes than it needs", CSV, b"a,b\n1,\xc0\xaf\n",
         Refused(MALFORMED, "/rows/1/columns/b", "not UTF-8")),
    Case("surrogates in UTF-8", CSV, b"a,b\n1,\xed\xa0\xbd\xed\xb8\x80\n",
         Refused(MALFORMED, "/rows/1/columns/b", "not UTF-8")),
    Case("an encoding that is not there", CSV, PLAIN.encode(),
         Refused("invalid_input", "/query/encoding", "windows-1252"), {"encoding": "latin-99"}),
    Case("an encoding of no text", CSV, PLAIN.encode(),
         Refused("invalid_input", "/query/encoding", "no text encoding 'base64'"), {"encoding": "base64"}),
    Case("ASCII named UTF-16", CSV, b"a,b\n1,x\n",
         Refused("malformed_text", "/recipe/encoding", "name its encoding"), {"encoding": "utf-16"}),
    Case("more than ASCII named ASCII", CSV, PLAIN.encode(),
         Refused("malformed_text", "/recipe/encoding", "Line 2 of the file is not ascii"),
         {"encoding": "ascii"}),
    Case("NDJSON with a mark", NDJSON, b'\xef\xbb\xbf{"a": 1}\n', {"a": ("integer", [1])}),
    Case("NDJSON in UTF-16", NDJSON, '{"a": "é"}\n'.encode("utf-16"), {"a": ("string", ["é"])}),
    Case("NDJSON in latin-1", NDJSON, '{"a": "Orléans"}\n'.encode("latin-1"),
         Refused("malformed_ndjson", "/rows/1", "send ?encoding=windows-1252")),
    Case("Parquet with an encoding", PARQUET, ONE,
         Refused("invalid_recipe", "/recipe/encoding", "no text encoding"), {"encoding": "utf-16"}),
    Case("null bytes", CSV, b"a,b\n1,x\0y\n", Refused(MALFORMED, "/rows/1/columns/b", "null byte")),
]  # fmt: skip

COMPRESSIONS = [
    Case("gzip", CSV, gzip.compress(PLAIN.encode()), READ),
    Case("zstd", CSV, zstd(PLAIN.encode()), READ),
    Case("gzip of several members", CSV, gzip.compress(b"a,b\n1,x\n2,") + gzip.compress(b"y\n"),
         {"a": ("integer", [1, 2]), "b": ("string", ["x", "y"])}),
    Case("zstd of several frames", CSV, zstd(b"a,b\n1,x\n2,") + zstd(b"y\n"),
         {"a": ("integer", [1, 2]), "b": ("string", ["x", "y"])}),
    Case("gzip of UTF-16", CSV, gzip.compress(PLAIN.encode("utf-16")), READ),
    Case("Content-Encoding", NDJSON, gzip.compress(b'{"a": 1}\n'), {"a": ("integer", [1])}, {},
         {"content-encoding": "gzip"}),
    Case("gzip of Parquet, named", PARQUET, partial(changed, ONE, gzip.compress), {"a": ("integer", [1])},
         {"compression": "gzip"}),
    Case("gzip of Parquet", PARQUET, partial(changed, ONE, gzip.compress),
         Refused("wrong_format", "", "send ?compression=gzip")),
    Case("truncated gzip", CSV, gzip.compress(LONG)[:9000],
         Refused("malformed_compression", "", "truncated")),
    Case("gzip without its end", CSV, gzip.compress(LONG)[:-3],
         Refused("malformed_compression", "", "truncated")),
    Case("truncated zstd", CSV, zstd(LONG)[:-2], Refused("malformed_compression", "", "truncated")),
    Case("gzip with a wrong checksum", CSV, gzip.compress(LONG)[:-8] + bytes(8),
         Refused("malformed_compression", "", "damaged")),
    Case("gzip with more behind it", CSV, gzip.compress(LONG) + b"more",
         Refused("malformed_compression", "", "not all of it is gzip")),
    Case("zstd with a wrong checksum", CSV,
         zstandard.ZstdCompressor(write_checksum=True).compress(LONG)[:-4] + bytes(4),
         Refused("malformed_compression", "", "damaged")),
    Case("a gzip bomb", CSV, gzip.compress(b"a\n" + b"1\n" * (40 * MEGABYTE)),
         Refused("decompression_bomb", "", "Send the file without compression", 413)),
    Case("a zstd bomb", CSV, zstd(bytes(200 * MEGABYTE)),
         Refused("decompression_bomb", "", "ROUNDHOUSE_MAX_DECOMPRESSION_RATIO", 413)),
    Case("an empty gzip", CSV, gzip.compress(b""), Refused("empty_table", "", "The file is empty")),
    Case("gzip of gzip", CSV, gzip.compress(gzip.compress(LONG)),
         Refused("wrong_format", "", "perhaps more than once. Decompress it")),
    Case("plain text named gzip", CSV, PLAIN.encode(),
         Refused("malformed_compression", "", "send it without compression"), {"compression": "gzip"}),
    Case("a compression that is not there", CSV, PLAIN.encode(),
         Refused("invalid_input", "/query/compression", "none|gzip|zstd"), {"compression": "lz4"}),
    Case("a Content-Encoding that is not there", CSV, PLAIN.encode(),
         Refused("unsupported_encoding", "", "Send gzip, zstd or none", 415), {}, {"content-encoding": "br"}),
    Case("bzip2", CSV, bz2.compress(LONG), Refused("wrong_format", "", "with gzip or zstd")),
    Case("xz", CSV, lzma.compress(LONG), Refused("wrong_format", "", "with gzip or zstd")),
    Case("a zip archive", CSV, zipped("a.csv"), Refused("wrong_format", "", "Unpack it")),
    Case("an Excel workbook", CSV, zipped("[Content_Types].xml"),
         Refused("wrong_format", "", "save the sheet as CSV UTF-8")),
    Case("an old Excel workbook", CSV, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500),
         Refused("wrong_format", "", "Save the sheet as CSV UTF-8")),
]  # fmt: skip

FORMS = [
    Case("embedded line ends", CSV, b'a,b\n1,"x\ny"\n2,"z\r\n"\n',
         {"a": ("integer", [1, 2]), "b": ("string", ["x\ny", "z\r\n"])}),
    Case("semicolons", CSV, "a;b\n1;é\n".encode(), READ),
    Case("tabs", CSV, "a\tb\n1\té\n".encode(), READ),
    Case("no line end at the end", CSV, PLAIN.encode().rstrip(), READ),
    Case("blank lines at the end", CSV, PLAIN.encode() + b"\n\n", READ),
    Case("formulas", CSV, b"a,b\n=1+1,@SUM(A1)\n=cmd|' /C calc'!A0,+x\n",
         {"a": ("string", ["=1+1", "=cmd|' /C calc'!A0"]), "b": ("string", ["@SUM(A1)", "+x"])}),
    Case("5,000 columns", CSV,
         ("\n".join(",".join(f"{c}{n}" for n in range(5000)) for c in ("c", "1", "2")) + "\n").encode(),
         {f"c{n}": ("integer", [int(f"1{n}"), int(f"2{n}")]) for n in range(5000)}),
    Case("10,001 columns", CSV, (",".join(f"c{n}" for n in range(10_001)) + "\n").encode(),
         Refused("too_many_columns", "/columns", "10,000 columns")),
    Case("a cell of 15 MB", CSV, b'a,b\n1,x\n2,"' + b"z" * (15 * MEGABYTE) + b'"\n',
         {"a": ("integer", [1, 2]), "b": ("string", ["x", "z" * (15 * MEGABYTE)])}),
    Case("a cell of 20 MB", CSV, b'a,b\n1,x\n2,"' + b"z" * (20 * MEGABYTE) + b'"\n',
         Refused(MALFORMED, "/rows/2/columns/b", "within 16 MB")),
    Case("a row too short", CSV, b"a,b\n1,2\n3\n", Refused(MALFORMED, "/rows/2", "(line 3 of the file)")),
    Case("a row too long", CSV, b"a,b\n1,2\n3,4,5\n", Refused(MALFORMED, "/rows/2", "in quotes")),
    Case("a delimiter too many", CSV, b"a,b\n1,2,\n", Refused(MALFORMED, "/rows/1", "in quotes")),
    Case("a blank line among rows", CSV, b"a,b\n1,2\n\n3,4\n",
         Refused(MALFORMED, "/rows/2", "Remove the line")),
    Case("lines of both kinds of end", CSV, b"a,b\r\n1,2\r\n3,4\n",
         Refused(MALFORMED, "/rows/2", "End every line alike")),
    Case("lines that end as on an old Mac", CSV, b"a,b\r1,2\r",
         Refused(MALFORMED, "/columns/", "End lines with LF or with CRLF")),
    Case("a lone quote", CSV, b'a,b\n1,5" pipe\n', Refused(MALFORMED, "/rows/1/columns/b", "quote")),
    Case("a quote without an end", CSV, b'a,b\n1,"x\n2,y\n',
         Refused(MALFORMED, "/rows/1/columns/b", "quote")),
    Case("text behind a quote", CSV, b'a,b\n1,"x"y\n', Refused(MALFORMED, "/rows/1/columns/b", "quote")),
    Case("duplicate names", CSV, b"a,b,a\n1,2,3\n", Refused("duplicate_column", "/columns/a", "Rename one")),
    Case("names alike but for case", CSV, b"a,A\n1,2\n",
         Refused("duplicate_column", "/columns/A", "Rename one")),
    Case("an empty name", CSV, b"a,,c\n1,2,3\n", Refused("invalid_column_name", "/columns/", "Column 2")),
    Case("a name of 300 characters", CSV, b"a," + b"n" * 300 + b"\n1,2\n",
         Refused("invalid_column_name", "/columns/nnn", "column 2 is longer than 256")),
    Case("a bell in a name", CSV, b"a\x07,c\n1,2\n",
         Refused("invalid_column_name", "/columns/a", "control character")),
    Case("Excel's line of the delimiter", CSV, b"sep=;\na;b\n1;2\n",
         Refused("invalid_column_name", "/columns/", "Column 2 has no name")),
    Case("a comment first", CSV, b"# export of May\na,b\n1,2\n",
         Refused(MALFORMED, "/rows/1", "fields number 2")),
    Case("nothing", CSV, b"", Refused("empty_table", "", "Send a header line and at least one row")),
    Case("a mark only", CSV, b"\xef\xbb\xbf", Refused("empty_table", "", "The file is empty")),
    Case("a header only", CSV, b"a,b\n", Refused("empty_table", "", "a header and no rows")),
    Case("a header without a line end", CSV, b"a,b", Refused("empty_table", "", "a header and no rows")),
    Case("a line end only", CSV, b"\n", Refused("invalid_column_name", "/columns/", "has no name")),
    Case("a web page", CSV, b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n",
         Refused("wrong_format", "", "Look where it comes from")),
    Case("Parquet called CSV", CSV, THREE, Refused("wrong_format", "", f"Content-Type {PARQUET}")),
    Case("an Arrow stream called CSV", CSV, STREAM, Refused("wrong_format", "", f"Content-Type {ARROW}")),
    Case("integers beyond 64 bits", CSV, b"a\n9223372036854775808\n1\n",
         {"a": ("string", ["9223372036854775808", "1"])}),
    Case("infinities", CSV, b"a\ninf\n-Infinity\n", {"a": ("string", ["inf", "-Infinity"])}),
    Case("dates out of range", CSV, b"a\n10000-01-01\n2013-02-30\n",
         {"a": ("string", ["10000-01-01", "2013-02-30"])}),
    Case("leading zeros", CSV, b"a\n00123\n7\n", {"a": ("string", ["00123", "7"])}),
    *(
        Case(f"20,000 {name} and one bad value", CSV, f"a\n{cells * 10_000}{bad}\n{cells}".encode(),
             Refused("mixed_column", "/rows/20001/columns/a", f"1 other value, {bad!r} in row 20001"))
        for name, cells, bad in [
            ("numbers", "1\n2.5\n", "n.a."),
            ("dates", "2013-05-31\n2024-02-29\n", "2023-02-29"),
            ("times", "2013-05-31 14:00\n2013-05-31T14:00:00.5\n", "2013-05-31 25:00"),
            ("times with zones", "2013-05-31T14:00Z\n2013-05-31T14:00:00+02:00\n", "noon"),
            ("booleans", "true\nFALSE\n", "maybe"),
        ]
    ),
]  # fmt: skip

JSON = [
    Case("CRLF, blank lines and absent keys", NDJSON, b'{"a": 1}\r\n\r\n{"a": 2, "b": "x"}\r\n',
         {"a": ("integer", [1, 2]), "b": ("string", [None, "x"])}),
    Case("a surrogate pair", NDJSON, b'{"a": "\\ud83d\\ude00"}', {"a": ("string", ["😀"])}),
    Case("half a surrogate pair in JSON", NDJSON, b'{"a": "\\ud800"}',
         Refused("malformed_ndjson", "/rows/1", "line 1")),
    Case("a key twice", NDJSON, b'{"a": 1}\n{"a": 1, "a": 2}\n',
         Refused("duplicate_column", "/rows/2/columns/a", "Keep one")),
    Case("types mixed", NDJSON, b'{"a": 1}\n{"a": "x"}\n',
         Refused("mixed_types", "/rows/2/columns/a", "one type")),
    Case("dates and one bad value in JSON", NDJSON, b'{"a": "2013-05-31"}\n' * 20_000 + b'{"a": "soon"}\n',
         Refused("mixed_column", "/rows/20001/columns/a", "'soon' in row 20001")),
    Case("an array of objects", NDJSON, b'[{"a": 1}, {"a": 2}]',
         Refused("malformed_ndjson", "/rows/1", "Send one JSON object")),
    Case("commas between lines", NDJSON, b'{"a": 1},\n{"a": 2}\n',
         Refused("malformed_ndjson", "/rows/1", "line 1")),
    Case("a trailing comma", NDJSON, b'{"a": 1}\n{"a": 1,}\n',
         Refused("malformed_ndjson", "/rows/2", "trailing comma")),
    Case("one object over lines", NDJSON, json.dumps({"a": 1}, indent=1).encode(),
         Refused("malformed_ndjson", "/rows/1", "one JSON object of columns and values a line")),
    Case("deep nesting", NDJSON, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
         Refused("malformed_ndjson", "/rows/1", "too deeply")),
    Case("an object in a cell", NDJSON, b'{"a": {"b": 1}}',
         Refused("unsupported_type", "/rows/1/columns/a", "of its own")),
    Case("an array in a cell", NDJSON, b'{"a": 1}\n{"a": [1]}',
         Refused("unsupported_type", "/rows/2/columns/a", "array")),
    Case("an integer beyond 64 bits", NDJSON, b'{"a": 9223372036854775808}',
         Refused("value_out_of_range", "/rows/1/columns/a", "as strings")),
    Case("a number beyond floats", NDJSON, b'{"a": 1e999}', Refused("malformed_ndjson", "/rows/1", "range")),
    Case("NaN", NDJSON, b'{"a": NaN}', Refused("malformed_ndjson", "/rows/1", "not JSON")),
    Case("a null character", NDJSON, b'{"a": "\\u0000"}',
         Refused("value_out_of_range", "/rows/1/columns/a", "Remove it")),
    Case("NDJSON that breaks off", NDJSON, b'{"a": 1}\n{"a":',
         Refused("malformed_ndjson", "/rows/2", "truncated")),
]  # fmt: skip

BINARY = [
    Case("truncated Parquet", PARQUET, partial(changed, THREE, lambda data: data[:-20]),
         Refused("malformed_parquet", "", "send it whole")),
    Case("Parquet without its begin", PARQUET, partial(changed, THREE, lambda data: data[20:]),
         Refused("malformed_parquet", "", "send it whole")),
    Case("CSV called Parquet", PARQUET, LONG, Refused("malformed_parquet", "", "something else")),
    Case("Parquet without rows", PARQUET, partial(parquet, "SELECT 1 AS a WHERE false"),
         Refused("empty_table", "", "Send at least one")),
    Case("Parquet with duplicate names", PARQUET,
         partial(changed, partial(parquet, "SELECT 1 AS aaaa, 2 AS bbbb"),
                 lambda data: data.replace(b"bbbb", b"aaaa")),
         Refused("duplicate_column", "/columns/aaaa", "Rename one")),
    Case("an infinity in Parquet", PARQUET, exotic("CASE i WHEN 1 THEN 'inf' ELSE '1' END::DOUBLE"),
         Refused("value_out_of_range", "/rows/2/columns/x", "finite")),
    Case("an infinite date in Parquet", PARQUET,
         exotic("CASE i WHEN 1 THEN 'infinity' ELSE '2013-05-31' END::DATE"),
         Refused("value_out_of_range", "/rows/2/columns/x", "years 1 to 9999")),
    Case("decimals, nanoseconds and enums in Parquet", PARQUET,
         partial(parquet, "SELECT 1.25::DECIMAL(9, 2) AS a, 'x'::ENUM('x') AS b,"
                 " '2013-05-31 12:00:00.000001'::TIMESTAMP_NS AS c, 7::DECIMAL(20, 0) AS d"),
         {"a": ("number", [1.25]), "b": ("string", ["x"]), "c": ("datetime", ["2013-05-31T12:00:00.000001Z"]),
          "d": ("integer", [7])}),
    *(Case(f"Parquet with {name}", PARQUET, exotic(sql),
           Refused("unsupported_type", "/columns/x", WAY_OUT_OF_TYPE))
      for name, sql in UNREADABLE.items()),
    Case("a truncated Arrow stream", ARROW, partial(changed, STREAM, lambda data: data[: len(data) // 2]),
         Refused("malformed_arrow", "", "truncated")),
    Case("an Arrow stream without its end", ARROW, partial(changed, STREAM, lambda data: data[:-8]),
         Refused("malformed_arrow", "", "Close the writer")),
    Case("an Arrow file", ARROW, partial(arrow, "SELECT 1 AS a", write=write_ipc),
         Refused("wrong_format", "", "Write it as an IPC stream")),
    Case("Parquet called an Arrow stream", ARROW, THREE,
         Refused("wrong_format", "", f"Content-Type {PARQUET}")),
    Case("a dictionary in Arrow", ARROW, partial(arrow, "SELECT 'e0'::ENUM('e0', 'e1') AS a"),
         {"a": ("string", ["e0"])}),
    Case("large strings in Arrow", ARROW, partial(typed_arrow, DataType.large_utf8(), ["x", None]),
         {"a": ("string", ["x", None])}),
    Case("string views in Arrow", ARROW, partial(typed_arrow, DataType.string_view(), ["x", None]),
         {"a": ("string", ["x", None])}),
    Case("bytes in Arrow", ARROW, partial(typed_arrow, DataType.binary(), [b"x", None]),
         Refused("unsupported_type", "/columns/a", WAY_OUT_OF_TYPE)),
    Case("unsigned integers beyond 64 bits with a sign", ARROW,
         partial(typed_arrow, DataType.uint64(), [1, 2**64 - 1]),
         Refused("value_out_of_range", "/rows/2/columns/a", "as strings or as floats")),
]  # fmt: skip

CORPUS = [*ENCODINGS, *COMPRESSIONS, *FORMS, *JSON, *BINARY]


# Named as the shared server is, so that one process has all these tests and starts one server.
@pytest.fixture(scope="module", params=["laptop"])
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = make_settings(tmp_path_factory.mktemp("home"))
    with running_server(settings) as url, Client.of(url, settings) as client:
        yield client


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_a_file_is_taken_in_exactly_or_refused_with_the_way_out(
    client: Client, case: Case, tmp_path: Path
) -> None:
    name = f"corpus-{CORPUS.index(case)}"
    client.post("/v1/datasets", json={"name": name})
    url = f"/v1/datasets/{name}/versions"
    stored = objects(client)
    answer = client.post(
        url,
        content=case.data if isinstance(case.data, bytes) else case.data(tmp_path),
        params=case.query,
        headers={"content-type": case.media_type} | case.headers,
    )
    if isinstance(case.expected, Refused):
        assert answer.status_code == case.expected.status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        refusal = answer.json()
        assert refusal["code"] == case.expected.code
        assert case.expected.words in refusal["detail"]
        places = [error["pointer"] for error in refusal.get("errors", [{"pointer": ""}])]
        assert all(place.startswith(case.expected.at) for place in places), places
        assert len(refusal["detail"]) < 1000
        assert client.get(url).json()["items"] == []
        assert objects(client) == stored
    else:
        assert answer.status_code == 201, answer.text
        assert {c["name"]: c["type"] for c in answer.json()["columns"]} == {
            name: type_ for name, (type_, _) in case.expected.items()
        }
        rows = client.get(f"{url}/1/preview", params={"limit": 1000}).json()["rows"]
        assert len(rows) == answer.json()["rows"]
        assert {name: [row[name] for row in rows] for name in rows[0]} == {
            name: values for name, (_, values) in case.expected.items()
        }
    assert not [path for path in client.settings.scratch.glob("*/*") if path.name != "owner.lock"]


def objects(client: Client) -> set[str]:
    """The names of the stored objects; there is nothing else in the store."""
    folder = client.settings.home / "objects"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert all(re.fullmatch(r"sha256/[0-9a-f]{2}/[0-9a-f]{64}", name) for name in found)
    return found
