"""The forms of the prediction log: spool files, of an entry for each request, and Parquet segments.

An entry is a line of JSON: an ``Entry``, or a ``StreamEntry`` with the bytes that stand behind it.
``python -m app.serving.segments FOLDER SPOOL…`` turns spool files into segments, in a process of its own:
what DuckDB needs for it, in memory and in time, is not taken from a server's requests.
"""

import io
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog

from app.datasets.engine import connect, identifier, literal, one_file
from app.serving.records import Entry, PredictionRecord, RecordedAnswer, Selection, StreamEntry, StreamSizes

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

SEGMENT_COLUMNS = {
    "prediction_id": "VARCHAR",
    "at": "TIMESTAMP",
    "model": "VARCHAR",
    "version": "INTEGER",
    "deployment": "INTEGER",
    "variant": "VARCHAR",
    "caller": "VARCHAR",
    "request_id": "VARCHAR",
    "client_id": "VARCHAR",
    "inputs": "JSON",
    "prediction": "JSON",
    "probabilities": "DOUBLE[]",
}

ENTRY_COLUMNS = {
    "at": "BIGINT",
    "caller": "VARCHAR",
    "request_id": "VARCHAR",
    "client_id": "VARCHAR",
    "deployment": "INTEGER",
    "inputs": "JSON[]",
    "answer": (
        "STRUCT(predictions JSON[], probabilities DOUBLE[][], prediction_ids VARCHAR[], "
        "model VARCHAR, version INTEGER, variant VARCHAR)"
    ),
}
"""An ``Entry`` as DuckDB reads it."""

SEGMENT_FORMAT = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
"""Zstandard's higher levels make such records no smaller, and take longer."""

GENTLE_NICENESS = 10
"""A tenth of what a process gets that has this core to share with it."""

STREAMS = b'{"streams":['
"""With this the line of a ``StreamEntry`` begins, and no other."""
PREFIX = struct.Struct("<Ii")
"""Of a message of an Arrow stream: a marker, and how many bytes of metadata follow."""
END_OF_STREAM = 8
"""Bytes of a stream's last message."""

log = structlog.get_logger()
_decoder = msgspec.json.Decoder(Entry)
_stream_decoder = msgspec.json.Decoder(StreamEntry)
_sizes_decoder = msgspec.json.Decoder(StreamSizes)

# ── Spool files ──────────────────────────────────────────────────────────────────────────────────


class Spooled(NamedTuple):
    """The bytes of one entry: its line, and the streams behind it."""

    line: bytes
    streams: bytes = b""


def split_entries(content: bytes) -> Iterator[Spooled]:
    """The entries of a spool file; what a dying process cut short at its end was never answered.

    A line that is no entry is one of them. Unlike with ``splitlines``, a carriage return ends no line.
    """
    at = 0
    while end := content.find(b"\n", at) + 1:
        line, size = content[at:end], 0
        if line.startswith(STREAMS):
            with suppress(ValueError):
                size = sum(_sizes_decoder.decode(line).streams) + 1
        at = end + size
        if at > len(content):
            return
        yield Spooled(line, content[end:at])


def read_spool(path: Path, holding: str = "") -> list[PredictionRecord]:
    """The records of a spool file, of those requests whose entry holds a text.

    What is no entry is left out: sealing tells of it, and all others are read.
    """
    read: list[PredictionRecord] = []
    for entry in split_entries(read_file(path)):
        if any(holding.encode() in part for part in entry):
            try:
                read += records_of(entry)
            except (ValueError, RecursionError) as error:
                log.error("spool_line_not_readable", path=str(path), error=str(error))
    return read


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # sealed a moment ago
        return b""


def records_of(spooled: Spooled) -> Iterator[PredictionRecord]:
    """A record for each row of a request. Raises ValueError for what is no entry."""
    entry: Entry | StreamEntry
    told: RecordedAnswer | StreamEntry
    if spooled.streams:
        entry = told = _stream_decoder.decode(spooled.line)
        size, _ = entry.streams
        inputs = decode_stream(spooled.streams[:size])
        answers = [_recorded_answer(row) for row in decode_stream(spooled.streams[size:-1])]
    else:
        entry = _decoder.decode(spooled.line)
        told = answer = entry.answer
        inputs = entry.inputs
        shares: Sequence[list[float] | None] = answer.probabilities or [None] * len(answer.predictions)
        answers = list(zip(answer.prediction_ids, answer.predictions, shares, strict=True))
    at = datetime.fromtimestamp(entry.at // 1_000_000, UTC).replace(microsecond=entry.at % 1_000_000)
    for row, (prediction_id, prediction, probabilities) in zip(inputs, answers, strict=True):
        yield PredictionRecord(
            prediction_id=prediction_id,
            at=at,
            model=told.model,
            version=told.version,
            deployment=entry.deployment,
            variant=told.variant,
            caller=entry.caller,
            request_id=entry.request_id,
            client_id=entry.client_id,
            inputs=row,
            prediction=prediction,
            probabilities=probabilities,
        )


def _recorded_answer(row: dict[str, Any]) -> tuple[str, Any, list[float] | None]:
    prediction, *shares, prediction_id = row.values()
    return prediction_id, prediction, shares or None


def decode_stream(stream: bytes) -> list[dict[str, Any]]:
    """The rows of an Arrow stream. Raises ValueError for bytes that are none."""
    with connect(None) as connection:
        name = row_of(register_stream(connection, "stream", stream))
        query = f"SELECT to_json({name}) FROM stream AS {name}"  # noqa: S608 - underscores only
        rows = connection.execute(query).fetchall()
        return [msgspec.json.decode(row) for (row,) in rows]


def register_stream(connection: "DuckDBPyConnection", name: str, stream: bytes) -> list[str]:
    """Let a query read a stream under a name, once; the names of its columns. Raises ValueError."""
    from arro3.io import read_ipc_stream  # for those few who send such streams

    try:
        reader = read_ipc_stream(io.BytesIO(stream))
        connection.register(name, reader)
        return list(reader.schema.names)
    except Exception as error:  # of no class that arro3 exports
        raise ValueError(f"what is recorded cannot be read as an Arrow stream: {error}") from error


# ── Segments ─────────────────────────────────────────────────────────────────────────────────────


class SegmentFile(NamedTuple):
    """A Parquet file of the records of one model and day."""

    path: str
    model: str
    rows: int
    first_at: datetime
    last_at: datetime
    has_client_ids: bool
    counts: list[tuple[int, int | None, int]]
    """Version, deployment and how many of the records are theirs."""


def write_segments(spool: Path, folder: Path) -> Iterator[SegmentFile]:
    """A spool file's records as Parquet files in ``folder``, one of each model and day.

    Raises ValueError or duckdb.Error for a file with a line that is no entry.
    """
    lines: list[bytes] = []
    streamed: dict[tuple[bytes, bytes], list[Spooled]] = {}
    content = read_file(spool)
    for entry in split_entries(content):
        if entry.streams:
            streamed.setdefault(schemas_of(entry), []).append(entry)
        else:
            lines.append(entry.line)
    with connect(folder) as connection:
        connection.execute("SET threads = 1")  # no slower for so little, and the rest is for the requests
        source = spool
        if sum(map(len, lines)) < len(content):
            source = folder / "entries.ndjson"
            source.write_bytes(b"".join(lines))
        read_lines(connection, source, lines, ENTRY_COLUMNS).create("entries")
        if connection.execute(TORN).fetchone():
            raise ValueError("a line of the spool is no entry of the journal")
        connection.execute(f"CREATE TABLE records AS {EXPLODE}")
        drop_repeated_names(connection)
        for entries in streamed.values():
            insert_streamed(connection, entries, folder)
        if connection.execute(INCOMPLETE).fetchone():
            raise ValueError("a request of the spool has more rows or fewer than its answer")
        parts = connection.execute(PARTS).fetchall()
        for number, (model, day, rows, first_at, last_at, client_ids) in enumerate(parts):
            path = folder / f"{number}.parquet"
            of_part = "FROM records"
            if len(parts) > 1:
                of_part += f' WHERE model = {literal(model)} AND "at"::DATE = {literal(day)}'
            connection.execute(f"COPY ({of_part}) TO {literal(str(path))} ({SEGMENT_FORMAT})")
            first_at, last_at = first_at.replace(tzinfo=UTC), last_at.replace(tzinfo=UTC)
            by_version = f"SELECT version, deployment, count(*) {of_part} GROUP BY ALL"
            counts = connection.execute(by_version).fetchall()
            yield SegmentFile(str(path), model, rows, first_at, last_at, client_ids > 0, counts)


def drop_repeated_names(connection: "DuckDBPyConnection") -> None:
    """Of a row that names a column twice, keep what was answered: the last, where DuckDB reads the first."""
    connection.execute("CREATE TEMP TABLE shapes AS SELECT DISTINCT json_keys(inputs) AS names FROM records")
    repeating = connection.execute(REPEATING).fetchall()
    for prediction_id, inputs in repeating:
        row = msgspec.json.encode(msgspec.json.decode(inputs, type=dict[str, msgspec.Raw])).decode()
        connection.execute("UPDATE records SET inputs = ? WHERE prediction_id = ?", [row, prediction_id])


def read_lines(
    connection: "DuckDBPyConnection", source: Path, lines: list[bytes], columns: dict[str, str]
) -> "DuckDBPyRelation":
    """What the file ``source``, of these lines, holds."""
    return connection.read_json(
        str(source),
        format="newline_delimited",
        columns=columns,
        # DuckDB's own limit, 16 MB, unless a line is longer; each of its threads takes twice as much.
        maximum_object_size=max(2**24, 1 + max(map(len, lines), default=0)),
    )


def row_of(columns: list[str]) -> str:
    """A name for a table's rows that none of its columns has."""
    return "_" * (1 + max(map(len, columns), default=0))


def schemas_of(entry: Spooled) -> tuple[bytes, bytes]:
    """The schemas of the request's and the answer's stream: their first messages, which have no body."""
    size, _ = _sizes_decoder.decode(entry.line).streams
    request, answer = (
        entry.streams[at : at + PREFIX.size + PREFIX.unpack_from(entry.streams, at)[1]] for at in (0, size)
    )
    return request, answer


def insert_streamed(connection: "DuckDBPyConnection", entries: list[Spooled], folder: Path) -> None:
    """Put the rows of requests whose streams have the same schemas among the records.

    They are read at once: a stream of one batch becomes one of many by putting the next batch behind it.
    """
    sizes = [_sizes_decoder.decode(entry.line).streams[0] for entry in entries]
    request, answer = (
        schema
        + b"".join(
            entry.streams[cut][len(schema) : -END_OF_STREAM] for entry, cut in zip(entries, cuts, strict=True)
        )
        for schema, cuts in zip(
            schemas_of(entries[0]),
            ([slice(size) for size in sizes], [slice(size, -1) for size in sizes]),
            strict=True,
        )
    )
    row = row_of(register_stream(connection, "request", request))
    _, *shares, _ = map(identifier, register_stream(connection, "answer", answer))
    lines = [entry.line for entry in entries]
    source = folder / "streamed.ndjson"
    source.write_bytes(b"".join(lines))
    read_lines(connection, source, lines, STREAM_ENTRY_COLUMNS).create_view("streamed")
    probabilities = f"[{', '.join(shares)}]" if shares else "NULL"
    connection.execute(
        f"INSERT INTO records BY NAME {EXPLODE_STREAMED.format(row=row, probabilities=probabilities)}"
    )


STREAM_ENTRY_COLUMNS = {
    "rows": "BIGINT",
    "at": "BIGINT",
    "caller": "VARCHAR",
    "model": "VARCHAR",
    "version": "INTEGER",
    "variant": "VARCHAR",
    "request_id": "VARCHAR",
    "client_id": "VARCHAR",
    "deployment": "INTEGER",
}
"""What DuckDB reads of a ``StreamEntry``."""
EXPLODE_STREAMED = """
    SELECT told.* EXCLUDE ("row"), scored.*, asked.*
    FROM (
        SELECT * EXCLUDE (rows, "at"), make_timestamp(streamed."at") AS "at", unnest(range(rows)) AS "row"
        FROM streamed
    ) AS told
    POSITIONAL JOIN (SELECT to_json({row}) AS inputs FROM request AS {row}) AS asked
    POSITIONAL JOIN (
        SELECT prediction_id, to_json(prediction) AS prediction, {probabilities} AS probabilities FROM answer
    ) AS scored
"""
TORN = """
    SELECT 1 FROM entries WHERE NOT ifnull(
        "at" >= 0 AND caller IS NOT NULL AND answer.model IS NOT NULL AND answer.version IS NOT NULL
        AND len(answer.prediction_ids) = len(inputs) AND len(answer.predictions) = len(inputs)
        AND ifnull(len(answer.probabilities) = len(inputs), true),
        false
    ) LIMIT 1
"""
EXPLODE = """
    SELECT
        unnest(answer.prediction_ids) AS prediction_id, make_timestamp(entries."at") AS "at", answer.model,
        answer.version, deployment, answer.variant, caller, request_id, client_id, unnest(inputs) AS inputs,
        unnest(answer.predictions) AS prediction, unnest(answer.probabilities) AS probabilities
    FROM entries
"""
REPEATING = """
    SELECT prediction_id, inputs FROM records WHERE json_keys(inputs) IN (
        SELECT names FROM shapes WHERE len(names) > list_unique(names)
    )
"""
INCOMPLETE = """
    SELECT 1 FROM records WHERE prediction_id IS NULL OR inputs IS NULL OR caller IS NULL LIMIT 1
"""
PARTS = """
    SELECT model, "at"::DATE::VARCHAR AS "day", count(*), min("at"), max("at"), count(client_id)
    FROM records GROUP BY ALL
"""


class Sealed(msgspec.Struct):
    """What became of a spool file: its segments, or why there are none."""

    segments: list[SegmentFile] = []
    fault: str | None = None


def seal_apart(spools: Sequence[Path], folder: Path, *, gently: bool) -> Generator[Sealed]:
    """``write_segments`` of each spool file in a process of its own; ``gently`` in what time others leave.

    One process takes them all, as to start it costs what a spool file does. Where a spool file ends it, the
    next process goes on with the next file.
    """
    left = list(spools)
    while left:
        with subprocess.Popen(  # noqa: S603 - this interpreter, this module, paths
            [sys.executable, "-m", __name__, folder, *left], stdout=subprocess.PIPE
        ) as child:
            if gently:
                os.setpriority(os.PRIO_PROCESS, child.pid, GENTLE_NICENESS)
            try:
                for line in child.stdout or ():
                    del left[0]
                    yield msgspec.json.decode(line, type=Sealed)
            except GeneratorExit:  # the caller wants no more
                child.kill()
                raise
        if left:
            del left[0]
            yield Sealed(fault=f"the sealing process ended with code {child.returncode}")


def seal_each(spools: Sequence[Path], folder: Path) -> Iterator[Sealed]:
    """``write_segments`` of each spool file, into folders of their own in ``folder``."""
    for spool in spools:
        part = Path(tempfile.mkdtemp(dir=folder))
        try:
            made = list(write_segments(spool, part))
        except Exception as error:  # it is for the parent process to tell, whatever it is
            yield Sealed(fault=f"{type(error).__name__}: {error}")
        else:
            for source in part.glob("*.ndjson"):
                source.unlink()
            yield Sealed(made)


def read_parquet(
    paths: Sequence[Path],
    spill: Path,
    selection: Selection,
    *,
    limit: int | None = None,
    with_inputs: bool = True,
) -> list[PredictionRecord]:
    """The selected records of all the files, newest first; ``spill`` is a folder for DuckDB."""
    columns = {name: identifier(name) for name in SEGMENT_COLUMNS}
    if not with_inputs:
        columns["inputs"] = "'{}'"
    files = ", ".join(one_file(path) for path in paths)
    condition, parameters = selection.condition()
    # By name: segments of earlier releases have no client_id.
    query = (
        f"SELECT {', '.join(columns.values())} FROM ("  # noqa: S608 - quoted where they are made
        f"FROM read_parquet([{files}], hive_partitioning = false, union_by_name = true) "
        "UNION ALL BY NAME SELECT NULL::VARCHAR AS client_id WHERE false) "
        f'WHERE {condition} ORDER BY "at" DESC LIMIT ?'
    )
    records = []
    with connect(spill) as connection:
        rows = connection.execute(query, [*parameters, limit])
        while chunk := rows.fetchmany(10_000):
            for row in chunk:
                fields = dict(zip(SEGMENT_COLUMNS, row, strict=True))
                fields["at"] = fields["at"].replace(tzinfo=UTC)
                fields["inputs"] = msgspec.json.decode(fields["inputs"])
                fields["prediction"] = msgspec.json.decode(fields["prediction"])
                records.append(PredictionRecord(**fields))
    return records


if __name__ == "__main__":
    own_folder, *given = map(Path, sys.argv[1:])
    for each in seal_each(given, own_folder):
        sys.stdout.buffer.write(msgspec.json.encode(each) + b"\n")
        sys.stdout.buffer.flush()
