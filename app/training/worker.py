"""The worker: claims training runs and carries each out in a child process.

No transaction is open while a child works. The worker renews its lease, passes the progress on, and
ends the child when the run is cancelled, takes too long or too much memory, or the worker itself stops.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.models import DatasetVersion
from app.db import Database
from app.owned import Scratch
from app.registry.service import register_version
from app.settings import Settings
from app.store import Store, StoreFault
from app.training import queue
from app.training.handover import ERROR, MODEL, REQUEST, RESULT
from app.training.models import TrainingRun

log = structlog.get_logger()

POLL_SECONDS = 0.5
WATCH_SECONDS = 0.2
RENEW_SECONDS = 0.7


class Verdict(NamedTuple):
    """How a child's work came to an end: ``error`` is what the run failed with, if it did."""

    outcome: str
    error: dict[str, Any] | None = None


FINISHED, CANCELLED, STOPPED = Verdict("finished"), Verdict("cancelled"), Verdict("stopped")


class Worker:
    """Carries out one run after another until ``stop``."""

    def __init__(self, settings: Settings, database: Database, store: Store, scratch: Scratch) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._scratch = scratch
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._stopping = threading.Event()
        self._name = f"worker:{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(3)}"

    def stop(self) -> None:
        """End soon: an unfinished run goes back to the queue."""
        self._stopping.set()

    def work(self) -> None:
        log.info("worker_started", worker=self._name)
        while not self._stopping.is_set():
            try:
                worked = self.work_once()
            except OperationalError as error:
                log.warning("database_unavailable", error=str(error.orig))
                worked = False
            if not worked:
                self._stopping.wait(POLL_SECONDS)
        log.info("worker_stopped", worker=self._name)

    def work_once(self) -> bool:
        """Carry out one run, if one waits; whether there was one."""
        with self._database.session_scope() as session:
            queue.recover_lost_runs(session, self._caller(), self._settings.run_attempts)
            run = queue.claim_run(session, self._caller(), self._lease)
            data = session.get_one(DatasetVersion, run.dataset_version_id) if run else None
        if run is None or data is None:
            return False
        log.info("training_run_started", run=run.id, model=run.model, attempt=run.attempts)
        try:
            self._carry_out(run, data)
        except queue.LeaseLost:
            log.warning("lease_lost", run=run.id)
        return True

    def _carry_out(self, run: TrainingRun, data: DatasetVersion) -> None:
        try:
            with self._scratch.folder() as folder:
                with self._store.open_file(data.parquet_digest) as parquet:
                    verdict = self._fit(run, parquet, folder)
                if verdict is FINISHED:
                    self._register(run, data, folder)
        except StoreFault as fault:
            verdict = Verdict("retry", {"code": fault.code, "detail": fault.detail})
        except (queue.LeaseLost, OperationalError):  # the run is another's, or will be when the lease ends
            raise
        except Exception as error:  # it ends this run; the next one may do without what failed here
            log.exception("worker_fault", run=run.id)
            detail = f"The worker failed: {type(error).__name__}: {error}. Its log has the trace."
            verdict = Verdict("failed", {"code": "worker_fault", "detail": detail})
        if verdict is not FINISHED:
            with self._database.session_scope() as session:
                self._conclude(session, run.id, verdict)
        log.info("training_run_ended", run=run.id, outcome=verdict.outcome, error=verdict.error)
        if verdict.outcome == "retry":  # a store that was away a moment ago is away still
            self._stopping.wait(POLL_SECONDS * 2**run.attempts)

    def _conclude(self, session: Session, run_id: int, verdict: Verdict) -> None:
        caller = self._caller()
        match verdict.outcome, verdict.error:
            case "cancelled", _:
                queue.end_cancelled_run(session, caller, run_id)
            case "stopped", _:
                queue.return_run(session, caller, run_id)
            case "retry", dict(error):
                queue.retry_run(session, caller, run_id, error, self._settings.run_attempts)
            case _, error:
                queue.fail_run(session, caller, run_id, error or {})

    def _register(self, run: TrainingRun, data: DatasetVersion, folder: Path) -> None:
        result = json.loads((folder / RESULT).read_text())
        artifact = self._store.write_file(folder / MODEL)
        with self._database.session_scope() as session:
            caller = self._caller()
            version = register_version(
                session,
                caller,
                run.model,
                **result,
                spec=run.spec,
                data={
                    "dataset": data.dataset,
                    "version": data.number,
                    "digest": data.digest,
                    "rows": data.rows,
                },
                artifact_digest=artifact.digest,
                artifact_size=artifact.size,
                created_by=run.created_by,
            )
            queue.succeed_run(session, caller, run.id, version)

    def _fit(self, run: TrainingRun, parquet: Path, folder: Path) -> Verdict:
        """Run the child to its end, or end it."""
        (folder / REQUEST).write_text(json.dumps({"parquet": str(parquet.resolve()), "spec": run.spec}))
        command = [sys.executable, "-m", "app.training.child", str(folder)]
        with subprocess.Popen(  # noqa: S603 - our own module, with our own arguments
            command,
            env=os.environ | {"TMPDIR": str(folder)},  # what a killed fit leaves there is swept with it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in a terminal is for the server, which ends its children
        ) as child:
            progress = Progress(child)
            try:
                verdict = self._watch(run.id, child, progress)
            finally:
                child.kill()
                child.wait()
                progress.join()
        if verdict is not None:
            return verdict
        if child.returncode == 0:
            return FINISHED
        if (folder / ERROR).exists():
            return Verdict("failed", json.loads((folder / ERROR).read_text()))
        detail = (
            f"The fit's process ended with code {child.returncode} while {progress.step}. "
            "If the machine ran out of memory, train on fewer rows or columns."
        )
        return Verdict("failed", {"code": "fit_died", "detail": detail})

    def _watch(self, run_id: int, child: subprocess.Popen[str], progress: "Progress") -> Verdict | None:
        """None when the child has ended by itself, otherwise why it must end. Raises LeaseLost."""
        settings, started, renewed = self._settings, time.monotonic(), 0.0
        process = psutil.Process(child.pid)
        while child.poll() is None:
            if self._stopping.is_set():
                return STOPPED
            elapsed = time.monotonic() - started
            if elapsed > settings.run_time_limit_seconds:
                return _limit("time_limit", f"took longer than {settings.run_time_limit_seconds:g} seconds")
            if _memory_of(process) > settings.run_memory_limit_bytes:
                megabytes = settings.run_memory_limit_bytes // 2**20
                return _limit("memory_limit", f"used more than {megabytes} MB of memory")
            if elapsed - renewed >= RENEW_SECONDS or renewed == 0:
                renewed = elapsed
                if self._renew(run_id, progress):
                    return CANCELLED
            try:
                child.wait(WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return None

    def _renew(self, run_id: int, progress: "Progress") -> bool:
        try:
            with self._database.session_scope() as session:
                return queue.renew_lease(
                    session,
                    self._caller(),
                    run_id,
                    self._lease,
                    fraction=progress.fraction,
                    step=progress.step,
                )
        except OperationalError as error:  # the lease outlives a short absence of the database
            log.warning("lease_not_renewed", run=run_id, error=str(error.orig))
            return False

    def _caller(self) -> Caller:
        return Caller(self._name, Role.ADMIN, datetime.now(UTC))


class Progress(threading.Thread):
    """Reads the steps that the child tells, among whatever libraries print there."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        super().__init__(name="fit-progress", daemon=True)
        self.fraction, self.step = 0.0, "starting"
        self._child = child
        self.start()

    def run(self) -> None:
        assert self._child.stdout is not None  # noqa: S101 - Popen made it a pipe
        with self._child.stdout as lines:
            for line in lines:
                try:
                    told = json.loads(line)
                except ValueError:
                    continue
                match told:
                    case {"fraction": float(fraction), "step": str(step)}:
                        self.fraction, self.step = fraction, step


def _limit(code: str, what: str) -> Verdict:
    detail = f"The fit {what}, the limit of this server. Train on fewer rows or columns, or raise the limit."
    return Verdict("failed", {"code": code, "detail": detail})


def _memory_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
