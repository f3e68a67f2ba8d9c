"""The forms of the prediction log: spool files, of a line for each request, and Parquet segments.

``python -m app.serving.segments SPOOL FOLDER`` turns the one into the others, in a process of its own: what
DuckDB needs for it, in memory and in time, is not taken from a server's requests.
"""

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog

from app.datasets.engine import connect, identifier, literal, one_file
from app.serving.records import Entry, PredictionRecord, RecordedScores, Selection

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

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

GENTLE_NICENESS = 10
"""A tenth of what a process gets that has this core to share with it."""

log = structlog.get_logger()
_decoder = msgspec.json.Decoder(Entry)

# ── Spool files ──────────────────────────────────────────────────────────────────────────────────


def read_spool(path: Path, holding: str = "") -> list[PredictionRecord]:
    """The records of a spool file, of those requests whose line holds a text.

    A line that is no entry is left out: sealing tells of it, and all others are read.
    """
    read: list[PredictionRecord] = []
    for line in lines_of(whole_lines(path)):
        if holding.encode() in line:
            try:
                read += records_of(_decoder.decode(line))
            except (ValueError, RecursionError) as error:
                log.error("spool_line_not_readable", path=str(path), error=str(error))
    return read


def whole_lines(path: Path) -> bytes:
    """A spool file up to its last line end: what a dying process cut short was never answered."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # sealed a moment ago
        return b""
    return content[: content.rfind(b"\n") + 1]


def lines_of(content: bytes) -> Iterator[bytes]:
    """Lines with their ends; unlike ``splitlines``, a carriage return ends none."""
    return iter(io.BytesIO(content))


def records_of(entry: Entry) -> Iterator[PredictionRecord]:
    """A record for each row of a request."""
    answer = entry.scored.answer() if entry.scored else entry.answer
    if answer is None:
        raise ValueError("an entry without an answer")
    inputs = entry.inputs if entry.arrow is None else decode_stream(entry.arrow)
    shares: Sequence[list[float] | None] = answer.probabilities or [None] * len(answer.predictions)
    at = datetime.fromtimestamp(entry.at // 1_000_000, UTC).replace(microsecond=entry.at % 1_000_000)
    for prediction_id, row, prediction, probabilities in zip(
        answer.prediction_ids, inputs, answer.predictions, shares, strict=True
    ):
        yield PredictionRecord(
            prediction_id=prediction_id,
            at=at,
            model=answer.model,
            version=answer.version,
            deployment=entry.deployment,
            variant=answer.variant,
            caller=entry.caller,
            request_id=entry.request_id,
            client_id=entry.client_id,
            inputs=row,
            prediction=prediction,
            probabilities=probabilities,
        )


def decode_stream(stream: bytes) -> list[dict[str, Any]]:
    """The rows of an Arrow IPC stream."""
    with connect(None) as connection:
        return [msgspec.json.decode(row) for row in rows_of_stream(connection, stream)]


def rows_of_stream(connection: "DuckDBPyConnection", stream: bytes) -> list[str]:
    """The rows of an Arrow IPC stream, each the JSON of an object."""
    from arro3.io import read_ipc_stream  # for those few who send such streams

    connection.register("stream", read_ipc_stream(io.BytesIO(stream)))
    return [row for (row,) in connection.execute("SELECT to_json(stream) FROM stream").fetchall()]


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
    content = whole_lines(spool)
    source = spool
    if (has_arrow := b'"arrow":' in content) or len(content) < spool.stat().st_size:
        if has_arrow:
            with connect(folder) as connection:
                content = b"".join(as_json(connection, line) for line in lines_of(content))
        source = folder / "spool.ndjson"
        source.write_bytes(content)
    with connect(folder) as connection:
        connection.execute("SET threads = 1")  # no slower for so little, and the rest is for the requests
        connection.read_json(
            str(source),
            format="newline_delimited",
            columns=ENTRY_COLUMNS,
            # DuckDB's own limit, 16 MB, unless a line is longer; each of its threads takes twice as much.
            maximum_object_size=max(2**24, 1 + max(map(len, lines_of(content)), default=0)),
        ).create("entries")
        if connection.execute(TORN).fetchone():
            raise ValueError("a line of the spool is no entry of the journal")
        connection.execute(f"CREATE TABLE records AS {EXPLODE}")
        parts = connection.execute(PARTS).fetchall()
        for number, (model, day, rows, first_at, last_at, client_ids) in enumerate(parts):
            path = folder / f"{number}.parquet"
            of_part = f'FROM records WHERE model = {literal(model)} AND "at"::DATE = {literal(day)}'
            connection.execute(f"COPY ({of_part}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
            first_at, last_at = first_at.replace(tzinfo=UTC), last_at.replace(tzinfo=UTC)
            by_version = f"SELECT version, deployment, count(*) {of_part} GROUP BY ALL"
            counts = connection.execute(by_version).fetchall()
            yield SegmentFile(str(path), model, rows, first_at, last_at, client_ids > 0, counts)


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
PARTS = """
    SELECT model, "at"::DATE::VARCHAR AS "day", count(*), min("at"), max("at"), count(client_id)
    FROM records GROUP BY ALL
"""


def as_json(connection: "DuckDBPyConnection", line: bytes) -> bytes:
    """The line of an entry with its inputs and its answer as JSON, whatever form they came in."""
    entry = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    stream, scored = entry.pop("arrow", None), entry.pop("scored", None)
    if stream is None:
        return line
    rows = rows_of_stream(connection, msgspec.json.decode(stream, type=bytes))
    told: dict[str, Any] = {"inputs": [msgspec.Raw(row.encode()) for row in rows]}
    if scored is not None:
        told["answer"] = msgspec.json.decode(scored, type=RecordedScores).answer()
    return msgspec.json.encode(entry | told) + b"\n"


def seal_apart(spool: Path, folder: Path, *, gently: bool) -> list[SegmentFile]:
    """``write_segments`` in a process of its own; ``gently`` in what time the others leave.

    Raises ValueError with the reason.
    """
    with subprocess.Popen(  # noqa: S603 - this interpreter, this module, two paths
        [sys.executable, "-m", __name__, spool, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        if gently:
            os.setpriority(os.PRIO_PROCESS, child.pid, GENTLE_NICENESS)
        made, told = child.communicate()
    if child.returncode:
        lines = told.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else f"the sealing process ended with code {child.returncode}")
    return msgspec.json.decode(made, type=list[SegmentFile])


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
    made = list(write_segments(Path(sys.argv[1]), Path(sys.argv[2])))
    sys.stdout.buffer.write(msgspec.json.encode(made))
