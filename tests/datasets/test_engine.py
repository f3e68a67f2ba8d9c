"""Databases in memory are used again, and no use sees another's."""

from pathlib import Path

import duckdb
import pytest

from app.datasets.engine import TableTooLarge, connect

SETTINGS = "SELECT name, value FROM duckdb_settings() WHERE name <> 'temp_directory' ORDER BY name"


def test_a_use_leaves_nothing_to_the_next() -> None:
    with connect(None) as connection:
        before = connection.execute(SETTINGS).fetchall()
        connection.execute("CREATE TABLE t AS SELECT 1; CREATE TEMP VIEW v AS SELECT 2")
        connection.execute("SET threads = 1; SET memory_limit = '100MB'; SET TimeZone = 'Asia/Tokyo'")
        connection.execute("SET arrow_large_buffer_size = true; SET parquet_metadata_cache = true")
    with connect(None) as connection:
        assert connection.execute("SHOW ALL TABLES").fetchall() == []
        assert connection.execute(SETTINGS).fetchall() == before


def test_uses_at_the_same_time_do_not_meet() -> None:
    with connect(None) as one, connect(None) as other:
        for connection in (one, other):
            connection.execute("CREATE TABLE t AS SELECT 1")
        one.execute("SET memory_limit = '100MB'")
        limit = "SELECT current_setting('memory_limit')"
        assert one.execute(limit).fetchall() != other.execute(limit).fetchall()


def test_after_a_fault_or_a_spill_the_next_use_begins_anew(tmp_path: Path) -> None:
    big = "CREATE TABLE big AS SELECT i, md5(i::VARCHAR) AS s FROM range(2_000_000) AS t(i) ORDER BY s"
    with pytest.raises(duckdb.CatalogException), connect(None) as connection:
        connection.execute("FROM nowhere")
    with pytest.raises(TableTooLarge), connect(None) as connection:
        connection.execute(f"SET memory_limit = '50MB'; {big}")
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        with connect(folder) as connection:
            connection.execute(f"SET memory_limit = '100MB'; {big}")
            assert any(folder.iterdir()), "it did not spill"
            assert connection.execute("SELECT count(*) FROM big").fetchall() == [(2_000_000,)]
        assert not any(folder.iterdir())
