"""From a CSV file to a stored version, beside DuckDB's bare copy of the file to Parquet."""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Self

import duckdb
from report import Measured, Table, measure

sys.path.insert(0, str(Path(__file__).parents[2]))  # `app`, of the same working copy

from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.arrivals import Upload, add_upload
from app.datasets.contracts.service import check_arrival, propose_contract, put_contract
from app.datasets.identity import content_digest
from app.datasets.profiles.profiler import build_profile
from app.datasets.reading.decode import Limits
from app.datasets.reading.ingest import MediaType, ingest
from app.datasets.reading.scan_csv import scan_csv
from app.datasets.service import create_dataset
from app.db import Database
from app.owned import Scratch
from app.settings import Settings
from app.store import Store, digest_of

ROWS = 6_000_000  # 1 GB
HEAD_ROWS = 20_000
ROUNDS = 3
WANTED = 0.5
NAME = "measured"

# hash() makes the file the same each time.
COLUMNS = """
    i AS id,
    hash(i, 1) % 1000 AS quantity,
    CASE WHEN hash(i, 2) % 12 <> 0 THEN (hash(i, 2) % 100000)::BIGINT - 50000 END AS balance,
    (hash(i, 3) % 1000000) / 100 AS price,
    CASE WHEN hash(i, 4) % 10 <> 0 THEN round(sqrt(hash(i, 4) % 1000000), 6) END AS distance,
    (hash(i, 5) % 10000000) / 1e7 AS score,
    (hash(i, 6) % 1000) / 8 AS weight,
    (['red', 'green', 'blue', 'yellow'])[1 + (hash(i, 7) % 4)::INT] AS colour,
    'city, ' || (hash(i, 8) % 500) AS city,
    'He said "no" ' || (hash(i, 9) % 100000) AS note,
    left(md5(i::VARCHAR), 12) AS token,
    hash(i, 10) % 3 = 0 AS member,
    CASE WHEN hash(i, 11) % 20 <> 0 THEN hash(i, 11) % 2 = 0 END AS answered,
    DATE '2015-01-01' + (hash(i, 12) % 3000)::INT AS day,
    TIMESTAMP '2020-01-01' + to_seconds((hash(i, 13) % 100000000)::BIGINT) AS seen_at,
    10000000 + hash(i, 14) % 90000000 AS phone,
    lpad((hash(i, 15) % 100000)::VARCHAR, 5, '0') AS postcode,
    hash(i, 16) % 200 AS age,
    CASE WHEN hash(i, 17) % 5 <> 0 THEN (hash(i, 17) % 1000) / 10 END AS rate,
    CASE WHEN hash(i, 18) % 7 <> 0 THEN (['A', 'B', 'C'])[1 + (hash(i, 18) % 3)::INT] END AS grade
"""


def run(size: float, folder: Path) -> list[Table]:
    source = folder / "upload.csv"
    _make(source, int(ROWS * size))
    bare, whole = [], []
    for number in range(ROUNDS):
        bare.append(measure(__file__, "bare", str(source), str(folder / "bare.parquet")))
        home = folder / f"home-{number}"
        whole.append(measure(__file__, "arrive", str(source), str(home)))
    parts = measure(__file__, "parts", str(source), str(folder / "parts"))
    return [_compare(source, bare, whole), _parts(source, parts), _again(source, whole[-1])]


def _compare(source: Path, bare: list[Measured], whole: list[Measured]) -> Table:
    copies, arrivals = ([_seconds(one)["whole"] for one in runs] for runs in (bare, whole))
    ratios = [copy / arrival for copy, arrival in zip(copies, arrivals, strict=True)]
    of_cpu = [_seconds(copy)["cpu"] / _seconds(one)["cpu"] for copy, one in zip(bare, whole, strict=True)]
    table = Table("CSV to a version", ("", "seconds", "MB/s", "CPU seconds", "peak MB"))
    for name, seconds, runs in (
        ("DuckDB: bare COPY to Parquet", copies, bare),
        ("Roundhouse: add_upload", arrivals, whole),
    ):
        best = min(range(len(runs)), key=seconds.__getitem__)
        table.rows.append(
            (name, *_figures(source, seconds[best]), f"{_seconds(runs[best])['cpu']:.1f}", _peak(runs))
        )
    reached = "reached" if median(ratios) >= WANTED else "missed"
    table.notes.append(
        f"{source.stat().st_size / 1e9:.2f} GB, best of {len(bare)} rounds. Speed beside the bare copy, "
        f"median of the rounds: {median(ratios):.2f} (wanted ≥ {WANTED}: {reached}); by CPU seconds "
        f"{median(of_cpu):.2f}."
    )
    return table


def _parts(source: Path, measured: Measured) -> Table:
    table = Table("What the arrival is made of", ("part", "seconds", "MB/s"))
    for name, seconds in _seconds(measured).items():
        table.rows.append((name, *_figures(source, seconds)))
    return table


def _again(source: Path, measured: Measured) -> Table:
    table = Table("The same bytes again", ("", "seconds", "MB/s"))
    seconds = _seconds(measured)
    table.rows.append(("bare SHA-256 of the file", *_figures(source, seconds["sha256"])))
    table.rows.append(("Roundhouse: digest and add_upload", *_figures(source, seconds["again"])))
    return table


def _seconds(measured: Measured) -> dict[str, float]:
    seconds: dict[str, float] = json.loads(measured.output)
    return seconds


def _figures(source: Path, seconds: float) -> tuple[str, str]:
    return f"{seconds:.2f}", f"{source.stat().st_size / 1e6 / seconds:,.0f}"


def _peak(runs: list[Measured]) -> str:
    return f"{max(one.peak_bytes for one in runs) / 1e6:.0f}"


def _make(target: Path, rows: int) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {COLUMNS} FROM range({rows}) AS t(i)) TO '{target}' (FORMAT csv, HEADER)"  # noqa: S608 - ours
        )


# ---- in a process of its own


def _main(what: str, source: str, target: str) -> None:
    measures = {"bare": _bare, "arrive": _arrive, "parts": _take_apart}
    sys.stdout.write(json.dumps(measures[what](Path(source), Path(target))))


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _bare(source: Path, target: Path) -> dict[str, float]:
    with duckdb.connect() as connection:
        copy = f"COPY (FROM read_csv('{source}')) TO '{target}' (FORMAT parquet)"
        began = time.process_time()
        return {"whole": _timed(lambda: connection.execute(copy)), "cpu": time.process_time() - began}


def _arrive(source: Path, home: Path) -> dict[str, float]:
    with _Installation(home) as installed:
        installed.agree_on_a_contract(source)
        began = time.process_time()
        return {
            "whole": _timed(lambda: installed.add(source)),
            "cpu": time.process_time() - began,
            "sha256": _timed(lambda: digest_of(source)),
            "again": _timed(lambda: installed.add(source)),
        }


def _take_apart(source: Path, home: Path) -> dict[str, float]:
    with _Installation(home) as installed, installed.scratch.folder() as folder:
        installed.agree_on_a_contract(source)
        store, parquet, digest = installed.store, folder / "canonical.parquet", digest_of(source)
        seconds = {
            "digest of the bytes": _timed(lambda: digest_of(source)),
            "scan and types (also part of the next)": _timed(lambda: scan_csv(source)),
            "ingest: canonical Parquet": _timed(lambda: ingest(source, MediaType.CSV, parquet)),
            "store the bytes": _timed(lambda: store.take_file(source, digest)),
            "store the Parquet": _timed(lambda: store.take_file(parquet)),
        }
        table = ingest(source, MediaType.CSV, parquet)
        return seconds | {
            "digest of the content": _timed(lambda: content_digest(parquet, table.columns)),
            "profile": _timed(lambda: build_profile(parquet, table.columns, table.rows, folder)),
            "contract": _timed(
                lambda: check_arrival(
                    installed.database, NAME, parquet, table.columns, installed.caller.now, folder
                )
            ),
        }


class _Installation:
    """An empty home with a dataset."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.caller = Caller("benchmark", Role.ADMIN, datetime.now(UTC))

    def __enter__(self) -> Self:
        home = self.settings.home
        home.mkdir()
        self.database = Database(self.settings.sqlalchemy_url)
        self.database.migrate()
        self.scratch = Scratch(self.settings.scratch)
        self.store = Store("", folder=home / "objects", scratch=self.scratch)
        with self.database.session_scope() as session:
            create_dataset(session, self.caller, name=NAME, description="")
        return self

    def __exit__(self, *_: object) -> None:
        self.scratch.close()
        self.database.dispose()

    def agree_on_a_contract(self, source: Path) -> None:
        """Put a contract in force that is proposed from the first rows."""
        with self.scratch.folder() as folder, source.open("rb") as file:
            head = folder / "head.csv"
            head.write_bytes(b"".join(islice(file, HEAD_ROWS)))
            self.add(head)
        _, contract = propose_contract(self.database, self.store, self.scratch, self.caller, NAME, None)
        put_contract(self.database, self.store, self.scratch, self.caller, NAME, contract)

    def add(self, source: Path) -> None:
        limits = Limits(self.settings.max_upload_bytes, self.settings.max_decompression_ratio)
        with self.scratch.folder() as folder:
            path = folder / "upload"
            path.hardlink_to(source)
            upload = Upload(path, MediaType.CSV, digest_of(path), limits)
            add_upload(self.database, self.store, self.caller, NAME, upload)


if __name__ == "__main__":
    _main(*sys.argv[1:])
