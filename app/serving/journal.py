"""The journal: every prediction is recorded before it is answered.

A process appends its records to a spool file of its own with one ``write`` per request; what is written
survives the process, however it dies. Spool files are sealed into Parquet segments in the store, one of
each model and day, listed in SQL. A spool file is deleted only after the transaction that lists its
segments, so a record is always in one of the two, and readers take it from one of the two only.
"""

import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import duckdb
import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy import and_, or_, select

from app.datasets.engine import connect, identifier, one_file
from app.db import Database
from app.owned import OwnedFolder, Scratch, abandoned_folders
from app.serving.models import PredictionSegment
from app.store import Store

log = structlog.get_logger()

LOST = Counter("roundhouse_predictions_lost", "Predictions that were answered but could not be recorded.")

SEGMENT_COLUMNS = {
    "prediction_id": "VARCHAR",
    "at": "TIMESTAMP",
    "model": "VARCHAR",
    "version": "INTEGER",
    "deployment": "INTEGER",
    "variant": "VARCHAR",
    "caller": "VARCHAR",
    "request_id": "VARCHAR",
    "inputs": "JSON",
    "prediction": "JSON",
    "probabilities": "DOUBLE[]",
}

MAX_BATCH_SEGMENTS = 200  # files that one query opens
MAX_BATCH_ROWS = 100_000


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One answered row. ``at`` is in UTC; ``inputs`` is the row as it was sent."""

    prediction_id: str
    at: datetime
    model: str
    version: int
    deployment: int | None
    variant: str | None
    caller: str
    request_id: str | None
    inputs: dict[str, Any]
    prediction: bool | int | float | str
    probabilities: list[float] | None


class Selection(NamedTuple):
    """Which of a model's records are asked for: those in [since, until) of a version or of one id."""

    since: datetime | None
    until: datetime | None
    version: int | None
    prediction_id: str | None

    def takes(self, record: PredictionRecord) -> bool:
        return (
            (self.since is None or record.at >= self.since)
            and (self.until is None or record.at < self.until)
            and (self.version is None or record.version == self.version)
            and (self.prediction_id is None or record.prediction_id == self.prediction_id)
        )

    def condition(self) -> tuple[str, list[Any]]:
        """The same for the rows of segments, as SQL and its parameters."""
        terms = {
            '"at" >= ?': self.since and in_utc(self.since),
            '"at" < ?': self.until and in_utc(self.until),
            "version = ?": self.version,
            "prediction_id = ?": self.prediction_id,
        }
        given = {term: value for term, value in terms.items() if value is not None}
        return " AND ".join(given) or "true", list(given.values())


class ListedSegment(NamedTuple):
    spool: str
    model: str
    digest: str
    rows: int
    last_at: datetime


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PredictionRecord)


class Journal:
    """One process's spool, and the reading of everybody's records."""

    def __init__(
        self, folder: Path, database: Database, store: Store, scratch: Scratch, *, seal_seconds: float
    ) -> None:
        self._spools = folder / "spool"
        self._database = database
        self._store = store
        self._scratch = scratch
        self._seal_seconds = seal_seconds
        self._own = OwnedFolder(self._spools)
        self._writing = threading.Lock()
        self._sealing = threading.Lock()
        self._file: IO[bytes] | None = None
        self._count = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._seal_regularly, name="journal-sealer", daemon=True)
        self._not_writing: str | None = None
        self._not_sealing: str | None = None

    @property
    def problem(self) -> str | None:
        """Why records are not being written or sealed now."""
        return self._not_writing or self._not_sealing

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Seal what there is. What cannot be sealed now stays in the spool for the next process."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try_to_seal()
        self._own.close()

    # ── Writing ──────────────────────────────────────────────────────────────────────────────────

    def append(self, records: list[PredictionRecord]) -> None:
        """Record predictions. A disk that takes no more never fails the answer: the loss is counted."""
        lines = b"".join(_encoder.encode(record) + b"\n" for record in records)
        with self._writing:
            try:
                file = self._file or self._open_next()
                start = file.seek(0, os.SEEK_END)
                if file.write(lines) < len(lines):
                    file.truncate(start)
                    raise OSError("the disk took a part of the record only")
            except OSError as error:
                LOST.inc(len(records))
                self._not_writing = f"predictions are answered but not recorded: {error}"
                log.error("predictions_not_recorded", count=len(records), error=str(error))
            else:
                self._not_writing = None

    def _open_next(self) -> IO[bytes]:
        self._count += 1
        self._file = (self._own.path / f"{self._count:08}.ndjson").open("ab", buffering=0)
        return self._file

    # ── Sealing ──────────────────────────────────────────────────────────────────────────────────

    def seal(self) -> None:
        """Turn this process's spool, and those of processes that died, into segments.

        A spool file that cannot be sealed stays, and those after it are sealed all the same. Raises an
        ExceptionGroup of what was wrong with such files; and at once what would befall every file:
        StoreFault and the faults of the database.
        """
        with self._sealing:
            with self._writing:
                if self._file:
                    self._file.close()
                    self._file = None
                # Listed before anybody opens the next file: that one is being written.
                finished = spool_files(self._own.path)
            errors = self._seal_files(finished)
            for folder in abandoned_folders(self._spools):
                if left := self._seal_files(spool_files(folder)):
                    errors += left
                else:
                    shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too
        if errors:
            raise ExceptionGroup(f"spool files stay, the first because of: {errors[0]}", errors)

    def _seal_regularly(self) -> None:
        while not self._stopping.wait(self._seal_seconds):
            self._try_to_seal()

    def _try_to_seal(self) -> None:
        try:
            self.seal()
        except Exception as error:
            self._not_sealing = f"recorded predictions are not being sealed: {error}"
            log.warning("journal_not_sealed", error=str(error), exc_info=True)
        else:
            self._not_sealing = None

    def _seal_files(self, paths: list[Path]) -> list[Exception]:
        """Seal each file; what was wrong with those that stay."""
        errors: list[Exception] = []
        for path in paths:
            try:
                self._seal_file(path)
            except (ValueError, OSError, duckdb.Error) as error:
                error.add_note(f"The spool file is {path}.")
                errors.append(error)
        return errors

    def _seal_file(self, path: Path) -> None:
        with self._database.session_scope(write=False) as session:
            sealed = session.scalar(select(PredictionSegment.id).filter_by(spool=spool_name(path)).limit(1))
        if sealed is None:
            segments = list(self._write_segments(path))
            with self._database.session_scope() as session:
                session.add_all(segments)
        path.unlink()

    def _write_segments(self, path: Path) -> Iterator[PredictionSegment]:
        by_partition: dict[tuple[str, date], list[PredictionRecord]] = defaultdict(list)
        for record in read_spool(path):
            by_partition[record.model, record.at.astimezone(UTC).date()].append(record)
        for (model, day), records in by_partition.items():
            with self._scratch.folder() as folder:
                stored = self._store.write_file(write_parquet(records, folder))
            yield PredictionSegment(
                spool=spool_name(path),
                model=model,
                day=day,
                digest=stored.digest,
                rows=len(records),
                first_at=min(record.at for record in records),
                last_at=max(record.at for record in records),
            )

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────

    def read(
        self,
        model: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        version: int | None = None,
        prediction_id: str | None = None,
        limit: int | None = None,
        with_inputs: bool = True,
    ) -> list[PredictionRecord]:
        """Records of a model in [since, until), newest first, at most ``limit`` of them.

        What another machine has not sealed yet is not among them. Unless ``with_inputs``, the inputs of
        every record are left empty: they are most of what a record weighs.
        """
        selection = Selection(since, until, version, prediction_id)
        # Spools first: one that is sealed after this shows in the segments, and is left out by its name.
        spools = {spool_name(path): read_spool(path) for path in self._spools.glob("*/*.ndjson")}
        listed = self._list_segments(model, selection, spools)
        unsealed = [
            record if with_inputs else msgspec.structs.replace(record, inputs={})
            for name in spools.keys() - {segment.spool for segment in listed}
            for record in spools[name]
            if record.model == model and selection.takes(record)
        ]
        found = newest(unsealed, limit)
        for batch in batches([segment for segment in listed if segment.model == model], limit):
            if limit is not None and len(found) >= limit:
                # Only these may have newer records than those found.
                batch = [segment for segment in batch if segment.last_at >= found[-1].at]
            if not batch:
                break  # this segment and all after it are older
            read = self._read_segments(batch, selection, limit=limit, with_inputs=with_inputs)
            found = newest(found + read, limit)
        return found

    def _list_segments(
        self, model: str, selection: Selection, spools: Iterable[str]
    ) -> Sequence[ListedSegment]:
        """The model's segments in which there may be selected records, and all segments of ``spools``."""
        asked = [PredictionSegment.model == model]
        if selection.since is not None:
            asked.append(PredictionSegment.last_at >= selection.since)
        if selection.until is not None:
            asked.append(PredictionSegment.first_at < selection.until)
        columns = [getattr(PredictionSegment, name) for name in ListedSegment._fields]
        # One statement, so that both facts are of one moment: which spools are sealed, and into what.
        query = select(*columns).where(or_(and_(*asked), PredictionSegment.spool.in_(spools)))
        with self._database.session_scope(write=False) as session:
            rows = session.execute(query.order_by(PredictionSegment.last_at.desc()))
            return [ListedSegment(*row) for row in rows]

    def _read_segments(
        self,
        segments: Sequence[ListedSegment],
        selection: Selection,
        *,
        limit: int | None,
        with_inputs: bool,
    ) -> list[PredictionRecord]:
        with ExitStack() as stack:
            paths = [stack.enter_context(self._store.open_file(segment.digest)) for segment in segments]
            spill = stack.enter_context(self._scratch.folder())
            return read_parquet(paths, spill, selection, limit=limit, with_inputs=with_inputs)


def newest(records: list[PredictionRecord], limit: int | None) -> list[PredictionRecord]:
    return sorted(records, key=lambda record: record.at, reverse=True)[:limit]


def batches(segments: Sequence[ListedSegment], limit: int | None) -> Iterator[list[ListedSegment]]:
    """Runs of segments, each of about as many rows as are asked for, that one query reads."""
    batch: list[ListedSegment] = []
    rows, enough = 0, min(limit or MAX_BATCH_ROWS, MAX_BATCH_ROWS)
    for segment in segments:
        batch.append(segment)
        rows += segment.rows
        if rows >= enough or len(batch) == MAX_BATCH_SEGMENTS:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def in_utc(at: datetime) -> datetime:
    """As DuckDB's TIMESTAMP has it: without a zone."""
    return at.astimezone(UTC).replace(tzinfo=None)


def spool_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ndjson"))


def spool_name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def read_spool(path: Path) -> list[PredictionRecord]:
    """The whole records of a spool file; a last line that a dying process cut short was never answered."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # sealed a moment ago
        return []
    whole = content[: content.rfind(b"\n") + 1]
    return [_decoder.decode(line) for line in whole.split(b"\n")[:-1]]


def write_parquet(records: Iterable[PredictionRecord], folder: Path) -> Path:
    source, target = folder / "records.ndjson", folder / "segment.parquet"
    source.write_bytes(b"".join(_encoder.encode(record) + b"\n" for record in records))
    with connect(folder) as connection:
        table = connection.read_json(str(source), format="newline_delimited", columns=SEGMENT_COLUMNS)
        table.write_parquet(str(target), compression="zstd")
    return target


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
    query = (
        f"SELECT {', '.join(columns.values())} FROM read_parquet([{files}], hive_partitioning = false) "  # noqa: S608
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
