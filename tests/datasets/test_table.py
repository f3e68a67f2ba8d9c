"""A canonical table, read back as JSON values and as files."""

import csv
import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest
from arro3.io import read_ipc_stream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.datasets import engine
from app.datasets.reading.ingest import MediaType, ingest
from app.datasets.table import concatenate, export, preview

ROWS: list[dict[str, Any]] = [
    {"n": 2**62 + 1, "f": 0.1, "b": True, 's "q"; ,é': "", "d": "2013-05-31", "t": "2013-05-31T14:00:00Z"},
    {"n": None, "f": None, "b": None, 's "q"; ,é': None, "d": None, "t": None},
    {"n": -1, "f": 1e300, "b": False, 's "q"; ,é': ' a"b,\r\nc ', "d": "0001-01-01",
     "t": "9999-12-31T23:59:59.999999Z"},
]  # fmt: skip


def canonical(folder: Path, rows: list[dict[str, Any]]) -> Path:
    source, target = folder / "rows.ndjson", folder / "table.parquet"
    source.write_text("\n".join(map(json.dumps, rows)))
    ingest(source, MediaType.NDJSON, target)
    return target


def exported(table: Path, media_type: MediaType) -> bytes:
    target = table.with_name("exported")
    export(table, media_type, target)
    return target.read_bytes()


def test_preview_is_json_ready_and_exact(tmp_path: Path) -> None:
    rows = preview(canonical(tmp_path, ROWS), 10)
    assert rows == ROWS
    assert [list(map(type, row.values())) for row in rows] == [list(map(type, row.values())) for row in ROWS]


def test_preview_takes_a_window_of_the_rows_in_order(tmp_path: Path) -> None:
    table = canonical(tmp_path, [{"a": number} for number in range(5000)])
    assert preview(table, 2, 4000) == [{"a": 4000}, {"a": 4001}]
    assert preview(table, 10, 4999) == [{"a": 4999}]
    assert preview(table, 10, 5000) == []


def test_row_groups_of_long_rows_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ROW_GROUP_BYTES", 2**20)
    rows = [{"a": sha256(str(number).encode()).hexdigest() * 20} for number in range(3000)]
    concatenate([canonical(tmp_path, rows)] * 2, tmp_path / "both.parquet")
    query = "SELECT max(row_group_num_rows) FROM parquet_metadata(?)"
    ((most,),) = duckdb.execute(query, [str(tmp_path / "both.parquet")]).fetchall()
    assert most < 3000
    assert preview(tmp_path / "both.parquet", 1, 5999) == rows[-1:]


def test_csv_tells_an_empty_string_from_null(tmp_path: Path) -> None:
    table = canonical(tmp_path, [{"a;b": "", "c": 1}, {"a;b": None, "c": None}, {"a;b": 'x"y', "c": 3}])
    assert exported(table, MediaType.CSV) == b'"a;b","c"\n"",1\n,\n"x""y",3\n'


def test_csv_reads_in_the_standard_library(tmp_path: Path) -> None:
    text = exported(canonical(tmp_path, ROWS), MediaType.CSV).decode()
    names, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert names == list(ROWS[0])
    assert rows[2] == ["-1", "1e+300", "false", ' a"b,\r\nc ', "0001-01-01", "9999-12-31T23:59:59.999999Z"]


def test_ndjson_reads_in_the_standard_library(tmp_path: Path) -> None:
    lines = exported(canonical(tmp_path, ROWS), MediaType.NDJSON).decode().splitlines()
    assert [json.loads(line) for line in lines] == ROWS


def test_parquet_is_the_canonical_file(tmp_path: Path) -> None:
    table = canonical(tmp_path, ROWS)
    assert exported(table, MediaType.PARQUET) == table.read_bytes()


def test_canonical_times_carry_their_zone(tmp_path: Path) -> None:
    table = canonical(tmp_path, ROWS)
    exported(table, MediaType.ARROW_STREAM)
    schema = read_ipc_stream(str(table.with_name("exported"))).schema
    assert str(schema.field("t").type.tz) == "UTC"
    with duckdb.connect() as connection:
        found = connection.execute("SELECT column_type FROM (DESCRIBE FROM read_parquet(?))", [str(table)])
        assert [row[0] for row in found.fetchall()] == [
            "BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "DATE", "TIMESTAMP WITH TIME ZONE"
        ]  # fmt: skip


def test_a_failed_export_leaves_no_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(duckdb.Error):
        export(broken, MediaType.CSV, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [broken]


def test_wildcards_in_a_path_are_letters(tmp_path: Path) -> None:
    folder = tmp_path / "[a]*?"
    folder.mkdir()
    assert preview(canonical(folder, ROWS), 3) == ROWS


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
columns: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "string": texts.map(lambda text: f"x{text}") | st.just(""),
    "date": st.dates().map(str),
    "datetime": st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
}
tables = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in columns.items()}),
    min_size=1,
    max_size=8,
)
one_column_tables = st.sampled_from(sorted(columns)).flatmap(
    lambda name: st.lists(st.fixed_dictionaries({name: st.none() | columns[name]}), min_size=1, max_size=8)
)


@pytest.mark.parametrize("media_type", [MediaType.CSV, MediaType.NDJSON, MediaType.PARQUET])
@given(rows=tables | one_column_tables)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_exported_table_read_again_is_the_same(
    tmp_path: Path, media_type: MediaType, rows: list[dict[str, Any]]
) -> None:
    table, again = canonical(tmp_path, rows), tmp_path / "again.parquet"
    original = ingest(table, MediaType.PARQUET, tmp_path / "same.parquet")
    exported(table, media_type)
    assert ingest(tmp_path / "exported", media_type, again)[:2] == original[:2]  # the recipes differ
    assert preview(again, 100) == preview(table, 100)


def test_an_exported_arrow_stream_read_again_is_the_same(tmp_path: Path) -> None:
    table, again = canonical(tmp_path, ROWS * 50), tmp_path / "again.parquet"
    exported(table, MediaType.ARROW_STREAM)
    assert ingest(tmp_path / "exported", MediaType.ARROW_STREAM, again).rows == 150
    assert preview(again, 200) == ROWS * 50
