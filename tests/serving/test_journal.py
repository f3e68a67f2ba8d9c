"""The journal: every answered row is recorded once, however processes, disks and stores behave."""

import itertools
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.datasets.engine import connect
from app.db import Database
from app.owned import OwnedFolder, Scratch
from app.serving.journal import (
    MAX_BATCH_ROWS,
    MAX_BATCH_SEGMENTS,
    Journal,
    ListedSegment,
    batches,
)
from app.serving.models import PredictionSegment
from app.serving.records import PredictionRecord, Selection
from app.serving.segments import read_parquet, read_spool, write_segments
from app.store import ObjectMissing, Store
from tests.client import Client
from tests.serving.records import NOW, append, arrow_entry, entry, record
from tests.versions import journal_of, register, train_here

ROW: dict[str, Any] = {
    "scheduled": "2013-05-31T14:15:00Z",
    "carrier": "B6",
    "distance": 700,
    "wind": 17.5,
    "international": False,
}


@pytest.fixture
def make_journal(database: Database, tmp_path: Path) -> Iterator[Callable[[], Journal]]:
    """Makes journals of processes that share a folder, a database and a store."""
    with ExitStack() as stack:

        def make() -> Journal:
            scratch = Scratch(tmp_path / "scratch")
            store = Store("", folder=tmp_path / "objects", scratch=scratch)
            stack.callback(scratch.close)
            journal = Journal(tmp_path / "journal", database, store, scratch, seal_seconds=60)
            stack.callback(journal.stop)
            return journal

        yield make


def spools(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "journal" / "spool").glob("*/*.ndjson"))


# ── Records ──────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(codec="utf-8"), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
records = st.builds(
    record,
    st.integers(0, 10**6),
    model=texts,
    caller=texts,
    version=st.integers(1, 2**31 - 1),
    deployment=st.none() | st.integers(1, 2**31 - 1),
    variant=st.none() | st.just("canary"),
    request_id=st.none() | texts,
    inputs=st.dictionaries(texts, json_values, max_size=4),
    prediction=st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    probabilities=st.none() | st.lists(st.floats(0, 1), max_size=3),
)


@settings(deadline=None, max_examples=15)
@given(st.lists(records, min_size=1, max_size=5))
def test_a_sealed_record_is_the_record_that_was_written(written: list[PredictionRecord]) -> None:
    with TemporaryDirectory() as folder:
        spool = Path(folder) / "spool"
        spool.write_bytes(b"".join(map(entry, written)))
        paths = [Path(part.path) for part in write_segments(spool, Path(folder))]
        read = read_parquet(paths, Path(folder), Selection(None, None, None, None))
    newest_first = sorted(written, key=lambda record: record.at, reverse=True)
    # repr tells True from 1, 1 from 1.0, and -0.0 from 0.0
    assert sorted(map(repr, read)) == sorted(map(repr, written))
    assert [found.at for found in read] == [found.at for found in newest_first]


@pytest.mark.sqlite_alone
def test_a_record_of_many_megabytes_is_sealed(make_journal: Callable[[], Journal]) -> None:
    journal = make_journal()
    append(journal, record(1, inputs={"note": "x" * 20_000_000}), record(2))
    journal.seal()
    assert [len(str(found.inputs.get("note"))) for found in journal.read("m")] == [4, 20_000_000]


# ── Writing, sealing, reading ────────────────────────────────────────────────────────────────────


def test_records_read_the_same_before_and_after_they_are_sealed(
    make_journal: Callable[[], Journal], tmp_path: Path
) -> None:
    journal, other = make_journal(), make_journal()
    # Two models, two processes, and a midnight between the records.
    for number in range(0, 400, 10):
        writer = journal if number % 20 else other
        others = record(number + 1, model="n", version=2), record(number + 2, version=2)
        append(writer, record(number), *others)
    queries: list[dict[str, Any]] = [
        {},
        {"limit": 1},
        {"limit": 7},
        {"version": 2},
        {"version": 3},
        {"prediction_id": "id-12"},
        {"prediction_id": "id-11"},
        {"since": NOW + timedelta(milliseconds=100)},
        {"until": NOW + timedelta(milliseconds=100)},
        {"since": NOW + timedelta(milliseconds=90), "until": NOW + timedelta(milliseconds=110), "limit": 3},
        {"since": NOW + timedelta(days=1)},
        {"until": (NOW + timedelta(milliseconds=100)).astimezone(timezone(timedelta(hours=5)))},
    ]
    unsealed = [journal.read("m", **query) for query in queries]
    journal.seal()
    half_sealed = [journal.read("m", **query) for query in queries]
    other.seal()
    assert spools(tmp_path) == []
    sealed = [other.read("m", **query) for query in queries]
    assert unsealed == half_sealed == sealed
    numbers = [[int(found.prediction_id[3:]) for found in read] for read in sealed]
    everything = sorted([*range(0, 400, 10), *range(2, 402, 10)], reverse=True)
    assert numbers == [
        everything,
        everything[:1],
        everything[:7],
        everything[::2],
        [],
        [12],
        [],
        [number for number in everything if number >= 100],
        [number for number in everything if number < 100],
        [102, 100, 92],
        [],
        [number for number in everything if number < 100],
    ]
    assert [found.prediction_id for found in journal.read("n", limit=1)] == ["id-391"]
    assert journal.read("nobody") == []


def test_sealing_while_writing_and_reading_neither_loses_nor_doubles_a_record(
    make_journal: Callable[[], Journal],
) -> None:
    journal, reader = make_journal(), make_journal()
    numbers = itertools.count()
    written: list[str] = []
    sealed = threading.Event()

    def write() -> None:
        while not sealed.is_set():
            number = next(numbers)
            append(journal, record(number))
            written.append(f"id-{number}")
            time.sleep(0.001)  # rest, so that a write may begin at any moment of a seal

    def read() -> None:
        while not sealed.is_set():
            before = set(written)
            found = [record.prediction_id for record in reader.read("m")]
            assert len(found) == len(set(found)), "a record was read twice"
            assert before <= set(found), "a record was not read"

    with ThreadPoolExecutor(5) as pool:
        working = [pool.submit(work) for work in (read, write, write, write, write)]
        try:
            for _ in range(6):
                journal.seal()
        finally:
            sealed.set()
        for work in working:
            work.result()
    journal.seal()
    assert Counter(found.prediction_id for found in reader.read("m")) == Counter(written)


def test_a_seal_that_was_interrupted_before_the_spool_was_deleted_doubles_nothing(
    make_journal: Callable[[], Journal], tmp_path: Path
) -> None:
    journal = make_journal()
    append(journal, *map(record, range(5)))
    (spool,) = spools(tmp_path)
    content = spool.read_bytes()
    journal.seal()
    spool.write_bytes(content)  # as if the process had died between the commit and the deletion
    assert len(journal.read("m")) == 5
    journal.seal()
    assert spools(tmp_path) == []
    assert len(journal.read("m")) == 5


@pytest.mark.sqlite_alone
def test_a_seal_that_fails_is_made_up_for_by_the_next(
    make_journal: Callable[[], Journal], tmp_path: Path
) -> None:
    journal = make_journal()
    append(journal, record(1))
    shutil.rmtree(tmp_path / "objects")
    (tmp_path / "objects").write_text("no folder")
    with pytest.raises(Exception, match="store did not do what was asked"):
        journal.seal()
    assert journal.read("m") == [record(1)]
    append(journal, record(2))
    (tmp_path / "objects").unlink()
    journal.seal()
    assert spools(tmp_path) == []
    assert journal.read("m") == [record(2), record(1)]


def test_many_small_segments_read_as_one_log(
    make_journal: Callable[[], Journal], database: Database, tmp_path: Path
) -> None:
    journal = make_journal()
    scratch = Scratch(tmp_path / "scratch")
    store = Store("", folder=tmp_path / "objects", scratch=scratch)
    made = 30
    with scratch.folder() as folder, database.session_scope() as session:
        for number in range(made):
            # Each reaches back over many before it, as those of a slow process do.
            held = [record(number), record(-number, version=2)]
            spool = folder / "spool"
            spool.write_bytes(b"".join(map(entry, held)))
            (part,) = write_segments(spool, folder)
            session.add(
                PredictionSegment(
                    spool=f"gone/{number}",
                    model="m",
                    day=NOW.date(),
                    digest=store.write_file(Path(part.path)).digest,
                    rows=len(held),
                    first_at=held[1].at,
                    last_at=held[0].at,
                    has_client_ids=False,
                )
            )
    scratch.close()
    append(journal, record(made), record(10**6, model="n"))
    numbers = {1: [*range(made, -1, -1)], 2: [*range(0, -made, -1)]}
    for version, expected in numbers.items():
        for limit in (None, 1, 5, made):
            read = journal.read("m", version=version, limit=limit)
            assert [found.prediction_id for found in read] == [f"id-{number}" for number in expected[:limit]]
    both = journal.read("m", limit=made + 10)
    assert [found.at for found in both] == sorted((found.at for found in both), reverse=True)
    assert len({(found.prediction_id, found.version) for found in both}) == made + 10
    # made … 0 of version 1, then 0 … -8 of version 2
    assert both[-1].at == record(-8).at


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 50_000), max_size=30), st.none() | st.integers(1, 10**6), st.integers(0, 500))
def test_a_query_reads_no_more_segments_than_it_must(rows: list[int], limit: int | None, small: int) -> None:
    segments = [
        ListedSegment("s", "m", str(n), count, NOW, has_client_ids=False)
        for n, count in enumerate([*rows, *[1] * small])
    ]
    cut = list(batches(segments, limit))
    assert list(itertools.chain(*cut)) == segments
    enough = min(limit or MAX_BATCH_ROWS, MAX_BATCH_ROWS)
    for batch in cut:
        assert 1 <= len(batch) <= MAX_BATCH_SEGMENTS
        assert sum(segment.rows for segment in batch[:-1]) < enough
    for batch in cut[:-1]:
        assert len(batch) == MAX_BATCH_SEGMENTS or sum(segment.rows for segment in batch) >= enough


@pytest.mark.sqlite_alone
def test_a_limited_read_opens_no_segment_that_is_too_old_to_matter(
    make_journal: Callable[[], Journal], tmp_path: Path
) -> None:
    journal = make_journal()
    for number in range(6):
        append(journal, record(2 * number), record(2 * number + 1))
        journal.seal()
        if number == 2:
            shutil.rmtree(tmp_path / "objects" / "sha256")  # what is read of these raises ObjectMissing
    newest = ["id-11", "id-10", "id-9", "id-8", "id-7"]
    assert [found.prediction_id for found in journal.read("m", limit=5)] == newest
    append(journal, record(12))
    assert [found.prediction_id for found in journal.read("m", limit=6)] == ["id-12", *newest]
    with pytest.raises(ObjectMissing):
        journal.read("m", limit=8)


@pytest.mark.sqlite_alone
def test_inputs_are_left_out_where_they_are_not_asked_for(make_journal: Callable[[], Journal]) -> None:
    journal = make_journal()
    append(journal, record(1), record(2, prediction="late", probabilities=None))
    without = [record(2, prediction="late", probabilities=None, inputs={}), record(1, inputs={})]
    assert journal.read("m", with_inputs=False) == without
    journal.seal()
    assert journal.read("m", with_inputs=False) == without


def test_segments_of_a_release_before_client_ids_are_read(tmp_path: Path) -> None:
    spool, old = tmp_path / "spool", tmp_path / "old.parquet"
    spool.write_bytes(entry(record(1)))
    (part,) = write_segments(spool, tmp_path)
    with connect(tmp_path) as connection:
        connection.read_parquet(part.path).create_view("records")
        connection.sql("SELECT * EXCLUDE client_id FROM records").write_parquet(str(old))
    assert read_parquet([old], tmp_path, Selection()) == [record(1)]
    spool.write_bytes(entry(record(2, client_id="order-4711")))
    (new,) = write_segments(spool, tmp_path)
    both = read_parquet([old, Path(new.path)], tmp_path, Selection())
    assert both == [record(2, client_id="order-4711"), record(1)]
    assert (part.has_client_ids, new.has_client_ids) == (False, True)


def test_the_newest_request_under_a_clients_own_id_is_found(make_journal: Callable[[], Journal]) -> None:
    journal, other = make_journal(), make_journal()

    def found(*client_ids: str, touching: str = "mn", since: datetime = NOW) -> dict[str, list[str]]:
        rows = journal.find_by_client_id(
            frozenset(client_ids), since, lambda record: record.model in touching
        )
        return {name: [row.prediction_id for row in records] for name, records in rows.items()}

    append(journal, record(1, client_id="a"), record(2, client_id="b"), record(3))
    other.append([entry(record(4, client_id="c", model="n"), record(5, client_id="c", model="n"))], 2)
    append(other, record(6, client_id="a"))
    for _ in range(3):  # all in spools, then the first process's sealed, then all
        assert found("a", "b", "c", "d") == {"a": ["id-6"], "b": ["id-2"], "c": ["id-4", "id-5"]}
        assert found("a", "c", touching="m") == {"a": ["id-6"]}
        assert found("c", touching="n") == {"c": ["id-4", "id-5"]}, "what others see hides nothing"
        assert found("a", "b", since=NOW + timedelta(milliseconds=3)) == {"a": ["id-6"]}
        assert found("request-3", "id-1") == {}
        journal.seal()
        journal, other = other, journal


@pytest.mark.sqlite_alone
def test_a_path_is_no_pattern(
    make_journal: Callable[[], Journal], database: Database, tmp_path: Path
) -> None:
    scratch = Scratch(tmp_path / "scratch")
    store = Store("", folder=tmp_path / "it's [o]*" / "version=7", scratch=scratch)
    journal = Journal(tmp_path / "journal", database, store, scratch, seal_seconds=60)
    append(journal, record(1))
    journal.seal()
    assert journal.read("m") == [record(1)]
    journal.stop()
    scratch.close()


@pytest.mark.sqlite_alone
def test_a_spool_that_cannot_be_sealed_holds_up_no_other(
    make_journal: Callable[[], Journal], tmp_path: Path
) -> None:
    journal = make_journal()
    append(journal, record(1))
    (own,) = spools(tmp_path)
    line = own.read_bytes()
    folder = tmp_path / "journal" / "spool"
    damaged = [leave_behind(folder, b"damaged\n" + line), leave_behind(folder, b"\xff" + line)]
    for number in range(10, 14):
        leave_behind(folder, line.replace(b"id-1", b"id-%d" % number))
    (own.parent / "00000000.ndjson").write_bytes(b"{}\n")
    for _ in range(2):
        with pytest.raises(ExceptionGroup) as told:
            journal.seal()
        assert len(told.value.exceptions) == 3
        assert spools(tmp_path) == sorted([*damaged, own.parent / "00000000.ndjson"])
        read = {found.prediction_id for found in journal.read("m")}
        assert read == {"id-1", *(f"id-{number}" for number in range(10, 14))}, "nor any reader"
    for path in spools(tmp_path):
        path.unlink()
    journal.seal()
    assert {found.prediction_id for found in journal.read("m")} == read


# ── Processes that die ───────────────────────────────────────────────────────────────────────────


def leave_behind(folder: Path, content: bytes) -> Path:
    """A spool whose process is gone."""
    owned = OwnedFolder(folder)
    path = owned.path / "00000001.ndjson"
    path.write_bytes(content)
    owned.close()
    return path


@pytest.mark.sqlite_alone
def test_a_carriage_return_ends_no_line(make_journal: Callable[[], Journal], tmp_path: Path) -> None:
    journal = make_journal()
    journal.append([entry(record(1)).replace(b"{", b"{\r", 3)], 1)
    journal.append(arrow_entry(record(2, inputs={"a\r\n": 13})), 1)
    expected = [record(2, inputs={"a\r\n": 13}), record(1)]
    assert journal.read("m") == expected
    journal.seal()
    assert spools(tmp_path) == []
    assert journal.read("m") == expected


@pytest.mark.sqlite_alone
@pytest.mark.parametrize("probabilities", [None, [0.25, 0.75], [0.5, 0.5]])
def test_what_is_kept_as_streams_reads_as_any_other(
    make_journal: Callable[[], Journal], tmp_path: Path, probabilities: list[float] | None
) -> None:
    prediction = 2.5 if probabilities is None else probabilities[0] < probabilities[1]
    facts = {"at": NOW, "probabilities": probabilities, "prediction": prediction, "request_id": "one"}
    named = ("request", "stream", "inputs", "answer")  # as the tables of a query may be
    rows = [record(number, inputs=dict.fromkeys(named, number), **facts) for number in range(3)]
    journal = make_journal()
    journal.append(arrow_entry(*rows), 3)
    append(journal, record(4))
    for sealed in (False, True):
        if sealed:
            journal.seal()
            assert spools(tmp_path) == []
        assert sorted(journal.read("m"), key=lambda found: found.prediction_id) == [*rows, record(4)]
        assert journal.read("m", prediction_id="id-1") == [rows[1]]


@pytest.mark.sqlite_alone
@pytest.mark.parametrize(
    "damage",
    [(b'"rows":2', b'"rows":3'), (b'"caller"', b'"called"'), (b"prediction_id", b"prediction_ie")],
)
def test_streams_that_do_not_fit_are_no_entry(
    make_journal: Callable[[], Journal], damage: tuple[bytes, bytes]
) -> None:
    journal = make_journal()
    append(journal, record(4))
    streamed = arrow_entry(*[record(number, inputs={"distance": 1}) for number in range(2)])
    journal.append([part.replace(*damage) for part in streamed], 2)
    append(journal, record(5))
    with pytest.raises(ExceptionGroup):
        journal.seal()
    read = journal.read("m")
    assert record(4) in read
    assert record(5) in read


def test_a_torn_stream_is_left_out(tmp_path: Path) -> None:
    streamed = b"".join(arrow_entry(record(2, inputs={"distance": 10})))
    spool = tmp_path / "spool"
    for cut in {*range(0, len(streamed), 97), len(streamed) - 1}:
        spool.write_bytes(entry(record(1)) + streamed[:cut])
        assert read_spool(spool) == [record(1)]
    (part,) = write_segments(spool, tmp_path)
    assert part.rows == 1


def test_of_a_column_that_is_named_twice_the_one_that_counts_is_recorded(tmp_path: Path) -> None:
    """JSON's readers differ there; a prediction is made of the last."""
    spool = tmp_path / "spool"
    twice = entry(record(2, inputs={"wind": 1.5, "a": 2}), record(3)).replace(b'"wind":', b'"a":null,"a":')
    spool.write_bytes(entry(record(1)) + twice)
    (part,) = write_segments(spool, tmp_path)
    with connect(None) as connection:
        rows = connection.read_parquet(part.path).project("inputs ->> 'a', inputs").fetchall()
    unchanged = [msgspec.json.encode(record(number).inputs).decode() for number in (1, 3)]
    assert rows == [(None, unchanged[0]), ("2", '{"a":2}'), (None, unchanged[1])]


@pytest.mark.sqlite_alone
def test_a_torn_last_line_is_left_out(make_journal: Callable[[], Journal], tmp_path: Path) -> None:
    journal = make_journal()
    append(journal, record(1), record(2))
    (own,) = spools(tmp_path)
    lines = own.read_bytes()
    journal.seal()
    for cut in (1, 10, len(lines) // 2 - 1):
        path = leave_behind(tmp_path / "torn", lines + lines[:cut])
        assert read_spool(path) == [record(1), record(2)]
    left = leave_behind(tmp_path / "journal" / "spool", lines.replace(b"id-", b"no-") + lines[:30])
    leave_behind(tmp_path / "journal" / "spool", lines[:30])
    assert len(journal.read("m")) == 4
    journal.seal()
    assert sorted(found.prediction_id for found in journal.read("m")) == ["id-1", "id-2", "no-1", "no-2"]
    assert not left.parent.exists()
    assert spools(tmp_path) == []


def test_what_dead_processes_left_is_sealed_once_by_many(
    make_journal: Callable[[], Journal], tmp_path: Path
) -> None:
    first = make_journal()
    append(first, record(0))
    (own,) = spools(tmp_path)
    line = own.read_bytes()
    for number in range(1, 21):
        leave_behind(tmp_path / "journal" / "spool", line.replace(b"id-0", b"id-%d" % number))
    journals = [first, make_journal(), make_journal(), make_journal()]
    with ThreadPoolExecutor(4) as pool:
        for sealing in [pool.submit(journal.seal) for journal in journals]:
            sealing.result()
    found = Counter(found.prediction_id for found in first.read("m"))
    assert found == Counter(f"id-{number}" for number in range(21))
    assert spools(tmp_path) == []
    living = [path for path in (tmp_path / "journal" / "spool").iterdir() if path.is_dir()]
    assert len(living) == 4


WRITER = """
import itertools, sys
from pathlib import Path
from app.db import Database
from app.owned import Scratch
from app.serving.journal import Journal
from app.store import Store
from tests.serving.records import append, entry, record

folder = Path(sys.argv[1])
scratch = Scratch(folder / "scratch")
store = Store("", folder=folder / "objects", scratch=scratch)
journal = Journal(folder / "journal", Database(sys.argv[2]), store, scratch, seal_seconds=0.05)
"""


def start_process(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER + script, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_the_records_of_a_killed_process_are_sealed_exactly_once(
    make_journal: Callable[[], Journal], database: Database, tmp_path: Path
) -> None:
    script = """
journal.start()
for number in itertools.count():
    append(journal, record(number))
    print(f"id-{number}", flush=True)  # the answer
"""
    journal = make_journal()
    with start_process(script, tmp_path, database.url) as process:
        assert process.stdout is not None
        answered = [process.stdout.readline().strip() for _ in range(300)]
        process.kill()
        answered += process.stdout.read().split("\n")[:-1]
    assert len(answered) >= 300
    unsealed = Counter(found.prediction_id for found in journal.read("m"))
    journal.seal()
    sealed = Counter(found.prediction_id for found in journal.read("m"))
    assert sealed == unsealed
    assert set(sealed.values()) == {1}
    # Of what was not answered yet, at most the one record in hand is there.
    assert set(answered) <= set(sealed)
    assert len(sealed) <= len(answered) + 1
    assert spools(tmp_path) == []
    make_journal().seal()
    assert Counter(found.prediction_id for found in journal.read("m")) == sealed


@pytest.mark.sqlite_alone
def test_a_full_disk_costs_the_record_and_nothing_else(
    make_journal: Callable[[], Journal], database: Database, tmp_path: Path
) -> None:
    script = """
import resource
from app.serving.journal import LOST

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def room(size):  # the disk takes files up to this size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

def request(*numbers):
    before = LOST._value.get()
    journal.append([entry(*map(record, numbers))], len(numbers))
    print("appended", *numbers, int(LOST._value.get() - before), bool(journal.problem))

request(1)
(spool,) = (folder / "journal").rglob("*.ndjson")
line = spool.stat().st_size
room(int(line * 1.5))
request(2, 3)  # takes a part of the line only
room(int(line * 0.8))  # nor the next file a whole one
request(4, 5)
room(line * 10)
request(6)
room(spool.stat().st_size)
request(7)
room(line * 10)
request(8)
"""
    with start_process(script, tmp_path, database.url) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    told = [line.split()[1:] for line in output.splitlines() if line.startswith("appended")]
    assert told == [
        ["1", "0", "False"],
        ["2", "3", "2", "True"],
        ["4", "5", "2", "True"],
        ["6", "0", "False"],
        ["7", "1", "True"],
        ["8", "0", "False"],
    ]
    journal = make_journal()
    for _ in range(2):
        assert [found.prediction_id for found in journal.read("m")] == ["id-8", "id-6", "id-1"]
        journal.seal()
    assert spools(tmp_path) == []


# ── Over HTTP ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def served(shared: Client, model: str) -> str:
    """A model whose champion is version 1 and whose shadow is version 2; `steady` is version 3."""
    for body in ({"version": 1}, {"version": 2, "shadow": True}):
        assert shared.post(f"/v1/models/{model}:promote", json=body).status_code == 201
    assert shared.put(f"/v1/models/{model}/aliases/steady", json={"version": 3}).status_code == 201
    return model


def wait_until_sealed(client: Client) -> None:
    """The server seals by itself, twice a second."""
    deadline = time.monotonic() + 60
    while list(client.settings.journal.glob("spool/*/*.ndjson")):
        assert time.monotonic() < deadline, client.get("/readyz").text
        time.sleep(0.05)


def test_every_answered_row_is_recorded_once(shared: Client, served: str) -> None:
    asking = shared.as_role("client")
    rows = [ROW | {"distance": distance, "flight_id": distance} for distance in (100, 200, 300)]
    deployment = shared.get(f"/v1/models/{served}").json()["deployment"]
    forms = {
        "": (1, "champion", deployment),
        "/versions/2": (2, None, None),
        "/aliases/steady": (3, None, None),
    }
    expected: dict[str, dict[str, Any]] = {}
    started = datetime.now(UTC)
    for form, (version, variant, by) in forms.items():
        answer = asking.post(
            f"/v1/models/{served}{form}:predict",
            json={"instances": rows},
            headers={"x-request-id": f"request{version}"},
        ).json()
        for position, prediction_id in enumerate(answer["prediction_ids"]):
            expected[prediction_id] = {
                "prediction_id": prediction_id,
                "model": served,
                "version": version,
                "deployment": by,
                "variant": variant,
                "request_id": f"request{version}",
                "inputs": rows[position],
                "prediction": answer["predictions"][position],
                "probabilities": answer["probabilities"][position],
            }
    ended = datetime.now(UTC)
    assert len(expected) == 9
    for sealed in (False, True):
        if sealed:
            wait_until_sealed(shared)
        for prediction_id, facts in expected.items():
            found = asking.get(f"/v1/predictions/{prediction_id}").json()
            assert {name: found[name] for name in facts} == facts
            assert started <= datetime.fromisoformat(found["at"]) <= ended
            assert found["caller"].startswith("client-")
        with journal_of(shared.settings) as journal:
            recorded = Counter(found.prediction_id for found in journal.read(served))
            assert set(recorded.values()) == {1}
            assert set(expected) <= set(recorded)
            shadowed = [found for found in journal.read(served) if found.prediction_id not in expected]
        assert [(found.version, found.variant, found.deployment) for found in shadowed] == [
            (2, "shadow", deployment)
        ] * 3
        assert [found.inputs for found in shadowed] == rows


def test_a_client_sees_its_own_predictions_only(shared: Client, served: str) -> None:
    asking, other = shared.as_role("client"), shared.as_role("client")
    (prediction_id,) = asking.predict(served, [ROW])["prediction_ids"]
    path = f"/v1/predictions/{prediction_id}"
    assert asking.get(path).status_code == 200
    for reader in ("viewer", "scientist", "engineer", "admin"):
        assert shared.as_role(reader).get(path).json() == asking.get(path).json()
    assert shared.as_role("viewer", models=f"{served}*").get(path).status_code == 200
    hidden: list[httpx.Response] = [other.get(path), shared.as_role("viewer", models="other-*").get(path)]
    for answer in hidden:
        assert answer.status_code == 404
        assert answer.json()["code"] == "prediction_not_found"


@pytest.mark.parametrize("wrong", ["none", "a" * 40, "A" * 40, "é" * 40, "%00", "..%2Fkeys"])
def test_an_id_of_nobody_finds_nothing(shared: Client, wrong: str) -> None:
    answer = shared.get(f"/v1/predictions/{wrong}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_id_with_a_changed_character_finds_nothing(shared: Client, served: str) -> None:
    (prediction_id,) = shared.predict(served, [ROW])["prediction_ids"]
    changed = ("b" if prediction_id[0] == "a" else "a") + prediction_id[1:]
    for wrong in (changed, prediction_id.upper(), prediction_id[:-1]):
        assert shared.get(f"/v1/predictions/{wrong}").status_code == 404


def begin(start: Callable[..., Client], **changes: Any) -> Client:
    """A server of the test's own that serves the model ``m``."""
    client = start(**changes)
    client.add_dataset("few", client.table(rows=60, seed=2))
    register(client, "m", train_here(client, "few", algorithm="dummy"))
    assert client.post("/v1/models/m:promote", json={"version": 1}).status_code == 201
    return client


def lost(client: Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(
        float(line.split()[1]) for line in lines if line.startswith("roundhouse_predictions_lost_total")
    )


def test_a_spool_that_is_gone_is_counted_and_never_stops_the_answers(start: Callable[..., Client]) -> None:
    client = begin(start)
    for folder in client.settings.journal.glob("spool/*"):
        shutil.rmtree(folder)
    before = lost(client)
    answers = [client.predict("m", [ROW, ROW]) for _ in range(3)]
    assert len({prediction_id for answer in answers for prediction_id in answer["prediction_ids"]}) == 6
    assert lost(client) - before == 6
    for _ in range(12):  # while seals, which have nothing to do, succeed
        ready = client.get("/readyz")
        assert ready.status_code == 200, "it still serves"
        assert "answered but not recorded" in ready.json()["journal"]
        time.sleep(0.1)


def test_predictions_are_answered_while_the_store_is_away(start: Callable[..., Client]) -> None:
    client = begin(start)
    objects = client.settings.home / "objects"
    assert client.get("/readyz").json()["store"] == "ok"
    away = objects.rename(objects.with_name("away"))
    objects.write_text("where the volume was")
    (prediction_id,) = client.predict("m", [ROW])["prediction_ids"]
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "StoreUnavailable" in ready.json()["store"]
    assert ready.json()["models"] == "ok"
    deadline = time.monotonic() + 60
    while client.get("/readyz").json()["journal"] == "ok":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "not being sealed" in client.get("/readyz").json()["journal"]
    assert client.get(f"/v1/predictions/{prediction_id}").json()["inputs"] == ROW
    objects.unlink()
    away.rename(objects)
    wait_until_sealed(client)
    assert client.get(f"/v1/predictions/{prediction_id}").json()["inputs"] == ROW
    assert client.get("/readyz").json()["status"] == "ready"
