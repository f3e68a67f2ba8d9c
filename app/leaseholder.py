"""A worker's side of a lease: it claims one piece of work after another and has each done in a child process.

No transaction is open while a child works. The worker renews its lease, passes the progress on, and
ends the child when the work is cancelled, takes too long or too much memory, or the worker itself stops.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple

import psutil
import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import leases
from app.access.caller import Caller
from app.access.policy import Role
from app.child import ERROR, REQUEST
from app.db import Database
from app.leases import LeaseLost, Work
from app.owned import Scratch
from app.settings import Settings
from app.store import Store, StoreFault

log = structlog.get_logger()

POLL_SECONDS = 0.5
WATCH_SECONDS = 0.2
RENEW_SECONDS = 0.7


class Verdict(NamedTuple):
    """How a child's work came to an end: ``error`` is what the work failed with, if it did."""

    outcome: str
    error: dict[str, Any] | None = None


FINISHED, CANCELLED, STOPPED = Verdict("finished"), Verdict("cancelled"), Verdict("stopped")


class Leaseholder(ABC, Generic[Work]):
    """Carries out one piece of a kind of work after another until ``stop``."""

    kind: type[Work]
    name: ClassVar[str]
    """What the child's work is called in codes and sentences, such as ``fit``."""

    def __init__(self, settings: Settings, database: Database, store: Store, scratch: Scratch) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._scratch = scratch
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._stopping = threading.Event()
        self._name = f"worker:{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(3)}"

    def stop(self) -> None:
        """End soon: unfinished work goes back to the queue."""
        self._stopping.set()

    def work(self) -> None:
        log.info("worker_started", worker=self._name, kind=self.kind.KIND)
        while not self._stopping.is_set():
            try:
                worked = self.work_once()
            except OperationalError as error:
                log.warning("database_unavailable", error=str(error.orig))
                worked = False
            if not worked:
                self._stopping.wait(POLL_SECONDS)
        log.info("worker_stopped", worker=self._name, kind=self.kind.KIND)

    def work_once(self) -> bool:
        """Carry out one piece of work, if one waits; whether there was one."""
        with self._database.session_scope() as session:
            leases.recover_lost(session, self._caller(), self.kind, self._settings.run_attempts)
            work = leases.claim(session, self._caller(), self.kind, self._lease)
        if work is None:
            return False
        log.info(f"{self.kind.KIND}_started", id=work.id, model=work.model, attempt=work.attempts)
        try:
            self._conclude(work, self._carry_out_safely(work))
        except LeaseLost:
            log.warning("lease_lost", kind=self.kind.KIND, id=work.id)
        return True

    @abstractmethod
    def carry_out(self, work: Work, folder: Path) -> Verdict:
        """Have ``run_child`` do the work in the folder, and record the success of what it finished."""

    def _carry_out_safely(self, work: Work) -> Verdict:
        try:
            with self._scratch.folder() as folder:
                return self.carry_out(work, folder)
        except StoreFault as fault:
            return Verdict("retry", {"code": fault.code, "detail": fault.detail})
        except (LeaseLost, OperationalError):  # the work is another's, or will be when the lease ends
            raise
        except Exception as error:  # it ends this work; the next piece may do without what failed here
            log.exception("worker_fault", kind=self.kind.KIND, id=work.id)
            detail = f"The worker failed: {type(error).__name__}: {error}. Its log has the trace."
            return Verdict("failed", {"code": "worker_fault", "detail": detail})

    def _conclude(self, work: Work, verdict: Verdict) -> None:
        if verdict is not FINISHED:
            with self._database.session_scope() as session:
                self._record(session, work, verdict)
        log.info(f"{self.kind.KIND}_ended", id=work.id, outcome=verdict.outcome, error=verdict.error)
        if verdict.outcome == "retry":  # a store that was away a moment ago is away still
            self._stopping.wait(POLL_SECONDS * 2**work.attempts)

    def _record(self, session: Session, work: Work, verdict: Verdict) -> None:
        caller = self._caller()
        match verdict.outcome, verdict.error:
            case "cancelled", _:
                leases.end_cancelled(session, caller, work)
            case "stopped", _:
                leases.give_back(session, caller, work)
            case "retry", dict(error):
                leases.retry(session, caller, work, error, self._settings.run_attempts)
            case _, error:
                leases.fail(session, caller, work, error or {})

    def run_child(
        self,
        work: Work,
        module: str,
        folder: Path,
        request: dict[str, Any],
        *,
        time_limit: float | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Verdict:
        """Run ``python -m module folder`` to its end, or end it after ``time_limit`` seconds.

        ``meanwhile`` is called again and again while the child works. Raises LeaseLost.
        """
        (folder / REQUEST).write_text(json.dumps(request))
        with subprocess.Popen(  # noqa: S603 - our own module, with our own arguments
            [sys.executable, "-m", module, str(folder)],
            env=os.environ | {"TMPDIR": str(folder)},  # what a killed child leaves there is swept with it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in a terminal is for the server, which ends its children
        ) as child:
            progress = Progress(child, work.fraction_kept)
            try:
                verdict = self._watch(work, child, progress, time_limit, meanwhile)
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
            f"The {self.name}'s process ended with code {child.returncode} while {progress.step}. "
            f"The machine may have run out of memory. {self.kind.REMEDY}"
        )
        return Verdict("failed", {"code": f"{self.name}_died", "detail": detail})

    def _watch(
        self,
        work: Work,
        child: subprocess.Popen[str],
        progress: "Progress",
        time_limit: float | None,
        meanwhile: Callable[[], None],
    ) -> Verdict | None:
        """None when the child has ended by itself, otherwise why it must end. Raises LeaseLost."""
        settings, started, renewed = self._settings, time.monotonic(), 0.0
        process = psutil.Process(child.pid)
        while child.poll() is None:
            if self._stopping.is_set():
                return STOPPED
            elapsed = time.monotonic() - started
            if time_limit is not None and elapsed > time_limit:
                what = f"took longer than {time_limit:g} seconds"
                return self._limit("time_limit", what, "RUN_TIME_LIMIT_SECONDS")
            if _memory_of(process) > settings.run_memory_limit_bytes:
                what = f"used more than {settings.run_memory_limit_bytes // 2**20} MB of memory"
                return self._limit("memory_limit", what, "RUN_MEMORY_LIMIT_BYTES")
            if elapsed - renewed >= RENEW_SECONDS or renewed == 0:
                renewed = elapsed
                if self._renew(work, progress):
                    return CANCELLED
            meanwhile()
            try:
                child.wait(WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return None

    def _limit(self, code: str, what: str, setting: str) -> Verdict:
        detail = (
            f"The {self.name} {what}, the limit of this server (ROUNDHOUSE_{setting}). {self.kind.REMEDY}"
        )
        return Verdict("failed", {"code": code, "detail": detail})

    def _renew(self, work: Work, progress: "Progress") -> bool:
        fraction, step = progress.fraction, progress.step
        try:
            with self._database.session_scope() as session:
                return leases.renew(session, self._caller(), work, self._lease, fraction=fraction, step=step)
        except OperationalError as error:  # the lease outlives a short absence of the database
            log.warning("lease_not_renewed", kind=self.kind.KIND, id=work.id, error=str(error.orig))
            return False

    def _caller(self) -> Caller:
        return Caller(self._name, Role.ADMIN, datetime.now(UTC))


class Progress(threading.Thread):
    """Reads the steps that the child tells, among whatever libraries print there."""

    def __init__(self, child: subprocess.Popen[str], fraction: float) -> None:
        super().__init__(name="child-progress", daemon=True)
        self.fraction, self.step = fraction, "starting"
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


def _memory_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
