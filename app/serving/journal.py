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
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any

import duckdb
import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy import and_, or_, select

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
        """Turn this process's spool, and those of processes that died, into segments."""
        with self._sealing:
            with self._writing:
                if self._file:
                    self._file.close()
                    self._file = None
                # Listed before anybody opens the next file: that one is being written.
                finished = spool_files(self._own.path)
            self._seal_files(finished)
            for folder in abandoned_folders(self._spools):
                self._seal_files(spool_files(folder))
                shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too

    def _seal_regularly(self) -> None:
        while not self._stopping.wait(self._seal_seconds):
            self._try_to_seal()

    def _try_to_seal(self) -> None:
        try:
            self.seal()
        except Exception as error:
            self._not_sealing = f"recorded predictions are not being sealed: {error}"
            log.warning("journal_not_sealed", error=str(error))
        else:
            self._not_sealing = None

    def _seal_files(self, paths: list[Path]) -> None:
        for path in paths:
            with self._database.session_scope(write=False) as session:
                sealed = session.scalar(
                    select(PredictionSegment.id).filter_by(spool=spool_name(path)).limit(1)
                )
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
    ) -> list[PredictionRecord]:
        """Records of a model in [since, until), newest first, at most ``limit`` of them.

        What another machine has not sealed yet is not among them.
        """

        def wanted(record: PredictionRecord) -> bool:
            return (
                record.model == model
                and (since is None or record.at >= since)
                and (until is None or record.at < until)
                and (version is None or record.version == version)
                and (prediction_id is None or record.prediction_id == prediction_id)
            )

        # Spools first: one that is sealed after this shows in the segments, and is left out by its name.
        spools = {spool_name(path): read_spool(path) for path in self._spools.glob("*/*.ndjson")}
        with self._database.session_scope(write=False) as session:
            asked = [PredictionSegment.model == model]
            if since is not None:
                asked.append(PredictionSegment.last_at >= since)
            if until is not None:
                asked.append(PredictionSegment.first_at < until)
            # One statement, so that both facts are of one moment: which spools are sealed, and into what.
            query = select(PredictionSegment).where(or_(and_(*asked), PredictionSegment.spool.in_(spools)))
            listed = session.scalars(query.order_by(PredictionSegment.last_at.desc())).all()
        sealed = {segment.spool for segment in listed}
        segments = [segment for segment in listed if segment.model == model]
        found = [record for name in spools.keys() - sealed for record in spools[name] if wanted(record)]
        for segment in segments:
            if limit is not None and len(found) >= limit:
                found = sorted(found, key=lambda record: record.at, reverse=True)[:limit]
                if found[-1].at > segment.last_at:
                    break  # this segment and all after it are older
            with self._store.open_file(segment.digest) as path:
                found.extend(record for record in read_parquet(path) if wanted(record))
        found.sort(key=lambda record: record.at, reverse=True)
        return found[:limit]


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
    with duckdb.connect() as connection:
        table = connection.read_json(str(source), format="newline_delimited", columns=SEGMENT_COLUMNS)
        table.write_parquet(str(target), compression="zstd")
    return target


def read_parquet(path: Path) -> Iterator[PredictionRecord]:
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
        while chunk := rows.fetchmany(10_000):
            for row in chunk:
                fields = dict(zip(SEGMENT_COLUMNS, row, strict=True))
                fields["at"] = fields["at"].replace(tzinfo=UTC)
                fields["inputs"] = msgspec.json.decode(fields["inputs"])
                fields["prediction"] = msgspec.json.decode(fields["prediction"])
                yield PredictionRecord(**fields)
