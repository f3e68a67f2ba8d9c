"""The journal: every prediction is recorded before it is answered.

A process appends an entry for each request to a spool file of its own with one ``write``; what is written
survives the process, however it dies. Spool files are sealed into Parquet segments in the store, one of
each model and day, a row for each prediction, listed in SQL. A spool file is deleted only after the
transaction that lists its segments, so a record is always in one of the two, and readers take it from one
of the two only.
"""

import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy import ColumnElement, and_, or_, select

from app.db import Database
from app.owned import OwnedFolder, Scratch, abandoned_folders
from app.repeating import Repeating
from app.serving.models import PredictionCount, PredictionSegment
from app.serving.records import PredictionRecord, Selection
from app.serving.segments import SegmentFile, read_parquet, read_spool, seal_apart
from app.store import Store

log = structlog.get_logger()

LOST = Counter("roundhouse_predictions_lost", "Predictions that were answered but could not be recorded.")

FULL_SPOOL = 32 * 2**20
"""Bytes after which a spool file is followed by the next: sealing holds one in memory."""
GENTLE_BACKLOG = 16
"""As long as no more spool files wait, half a gigabyte, sealing takes what time the requests leave."""
MAX_BATCH_SEGMENTS = 200  # files that one query opens
MAX_BATCH_ROWS = 100_000


class ListedSegment(NamedTuple):
    spool: str
    model: str
    digest: str
    rows: int
    last_at: datetime
    has_client_ids: bool


class Journal:
    """One process's spool, and the reading of everybody's records."""

    def __init__(
        self, folder: Path, database: Database, store: Store, scratch: Scratch, *, seal_seconds: float
    ) -> None:
        self._spools = folder / "spool"
        self._database = database
        self._store = store
        self._scratch = scratch
        self._patience = max(120, 12 * seal_seconds)
        self._repeating = Repeating("journal-sealer", seal_seconds, self._try_to_seal)
        self._own = OwnedFolder(self._spools)
        self._writing = threading.Lock()
        self._sealing = threading.Lock()
        self._file: io.FileIO | None = None
        self._size = 0
        self._count = 0
        self._not_writing: str | None = None
        self._not_sealing: str | None = None

    @property
    def problem(self) -> str | None:
        """Why records are not being written or sealed now, or not soon enough."""
        return self._not_writing or self._not_sealing or self._backlog()

    def _backlog(self) -> str | None:
        waiting = [path.stat() for path in self._spools.glob("*/*.ndjson") if path.exists()]
        oldest = min((found.st_ctime for found in waiting), default=time.time())
        if time.time() - oldest < self._patience:
            return None
        size = sum(found.st_size for found in waiting) / 1e6
        return f"{size:.0f} MB of recorded predictions wait to be sealed, some for minutes"

    def start(self) -> None:
        self._repeating.start()

    def stop(self) -> None:
        """Seal what there is. What cannot be sealed now stays in the spool for the next process."""
        self._repeating.stop()
        self._try_to_seal()
        self._own.close()

    # ── Writing ──────────────────────────────────────────────────────────────────────────────────

    def append(self, entry: Sequence[bytes], rows: int) -> None:
        """Record one request: the parts of an entry as ``segments`` reads it, with ``rows`` predictions.

        A disk that takes no more never fails the answer: the loss is counted.
        """
        size = sum(map(len, entry))
        with self._writing:
            try:
                file = self._file if self._file and self._size < FULL_SPOOL else self._open_next()
                if os.writev(file.fileno(), entry) < size:
                    file.truncate(self._size)
                    raise OSError("the disk took a part of the record only")
            except OSError as error:
                LOST.inc(rows)
                if self._not_writing is None:  # a line for each would fill what is left of the disk
                    log.error("predictions_not_recorded", error=str(error))
                self._not_writing = f"predictions are answered but not recorded: {error}"
                self._close()  # what is half written ends its file
            else:
                self._size += size
                self._not_writing = None

    def _open_next(self) -> io.FileIO:
        self._close()
        self._count += 1
        self._size = 0
        self._file = io.FileIO(self._own.path / f"{self._count:08}.ndjson", "ab")
        return self._file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # it has nothing of its own to write
                file.close()

    # ── Sealing ──────────────────────────────────────────────────────────────────────────────────

    def seal(self) -> None:
        """Turn this process's spool, and those of processes that died, into segments.

        A spool file that cannot be sealed stays, and those after it are sealed all the same. Raises an
        ExceptionGroup of what was wrong with such files; and at once what would befall every file:
        StoreFault and the faults of the database.
        """
        with self._sealing:
            with self._writing:
                self._close()
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
        waiting = [path for path in paths if not self._is_listed(path)]
        for path in set(paths) - set(waiting):
            path.unlink()
        if not waiting:
            return errors
        gently = len(waiting) <= GENTLE_BACKLOG
        with (
            self._scratch.folder() as folder,
            closing(seal_apart(waiting, folder, gently=gently)) as sealing,
        ):
            for path, sealed in zip(waiting, sealing, strict=True):
                try:
                    if sealed.fault is not None:
                        raise ValueError(sealed.fault)
                    self._list_sealed(path, sealed.segments)
                except (ValueError, OSError) as error:
                    error.add_note(f"The spool file is {path}.")
                    errors.append(error)
        return errors

    def _is_listed(self, path: Path) -> bool:
        """Whether a process died between listing the file's segments and deleting it."""
        with self._database.session_scope(write=False) as session:
            found = session.scalar(select(PredictionSegment.id).filter_by(spool=spool_name(path)).limit(1))
        return found is not None

    def _list_sealed(self, path: Path, parts: list[SegmentFile]) -> None:
        segments = [
            PredictionSegment(
                spool=spool_name(path),
                model=part.model,
                day=part.first_at.date(),
                digest=self._store.write_file(Path(part.path)).digest,
                rows=part.rows,
                first_at=part.first_at,
                last_at=part.last_at,
                has_client_ids=part.has_client_ids,
                counts=[
                    PredictionCount(model=part.model, version=version, deployment=deployment, rows=rows)
                    for version, deployment, rows in part.counts
                ],
            )
            for part in parts
        ]
        with self._database.session_scope() as session:
            session.add_all(segments)
        path.unlink()
        for part in parts:
            Path(part.path).unlink()

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
        holding = prediction_id or f'"model":{msgspec.json.encode(model).decode()}'
        spools = {
            spool_name(path): read_spool(path, holding=holding) for path in self._spools.glob("*/*.ndjson")
        }
        asked = [PredictionSegment.model == model]
        if since is not None:
            asked.append(PredictionSegment.last_at >= since)
        if until is not None:
            asked.append(PredictionSegment.first_at < until)
        listed = self._list_segments(asked, spools)
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

    def find_by_client_id(
        self, client_ids: frozenset[str], since: datetime, may_see: Callable[[PredictionRecord], bool]
    ) -> dict[str, list[PredictionRecord]]:
        """The newest request since then under each of the clients' own ids that ``may_see``; its rows.

        The inputs are left out. An id under which there is no request is not in the answer.
        """
        selection = Selection(since=since, client_ids=client_ids)
        spools = {
            spool_name(path): read_spool(path, holding='"client_id":"')
            for path in self._spools.glob("*/*.ndjson")
        }
        asked = [PredictionSegment.has_client_ids.is_(True), PredictionSegment.last_at >= since]
        listed = self._list_segments(asked, spools)
        unsealed = spools.keys() - {segment.spool for segment in listed}
        read = [record for name in unsealed for record in spools[name] if selection.takes(record)]
        seen = [record for record in read if may_see(record)]
        for batch in batches([segment for segment in listed if segment.has_client_ids], None):
            if client_ids <= {record.client_id for record in seen}:
                break  # what follows is older
            read = self._read_segments(batch, selection, limit=None, with_inputs=False)
            seen += [record for record in read if may_see(record)]
        found: dict[str, list[PredictionRecord]] = {}
        for record in newest(seen, None):
            rows = found.setdefault(record.client_id or "", [record])
            if rows[0] is not record and rows[0].at == record.at:
                rows.append(record)
        return found

    def _list_segments(
        self, asked: Sequence[ColumnElement[bool]], spools: Iterable[str]
    ) -> Sequence[ListedSegment]:
        """The segments that are asked for, newest first, and all segments of ``spools``."""
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


def spool_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ndjson"))


def spool_name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"
