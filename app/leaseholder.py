"""A worker's side of a lease: it claims one piece of work after another and has each done in a child process.

No transaction is open while a child works. The worker renews its lease, passes the progress on, and
ends the child when the work is cancelled, takes too long or too much memory, or the worker itself stops.
"""

import json
import os
import secrets
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import leases
from app.access.caller import Caller
from app.access.policy import Role
from app.child import ERROR, REQUEST
from app.child_process import Group, Progress, hand_over, kill_group, start_child
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
    kept_ready: ClassVar[str | None] = None
    """The module of which one child is started ahead, so that it has loaded all it needs when work comes."""

    def __init__(self, settings: Settings, database: Database, store: Store, scratch: Scratch) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._scratch = scratch
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._stopping = threading.Event()
        self._spare: subprocess.Popen[str] | None = None
        self._name = f"worker:{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(3)}"

    def stop(self) -> None:
        """End soon: unfinished work goes back to the queue."""
        self._stopping.set()

    def work(self) -> None:
        log.info("worker_started", worker=self._name, kind=self.kind.KIND)
        self._prepare_child()
        try:
            while not self._stopping.is_set():
                try:
                    worked = self.work_once()
                except OperationalError as error:
                    log.warning("database_unavailable", error=str(error.orig))
                    worked = False
                if worked:
                    self._prepare_child()
                else:
                    self._stopping.wait(POLL_SECONDS)
        finally:
            self._dismiss_spare()
        log.info("worker_stopped", worker=self._name, kind=self.kind.KIND)

    def work_once(self) -> bool:
        """Carry out one piece of work, if one waits; whether there was one."""
        with self._database.session_scope() as session:
            leases.recover_lost(session, self._caller(), self.kind, self._settings.run_attempts)
            work = self.claim(session)
        if work is None:
            return False
        log.info(f"{self.kind.KIND}_started", id=work.id, model=work.model, attempt=work.attempts)
        try:
            self._conclude(work, self._carry_out_safely(work))
        except LeaseLost:
            log.warning("lease_lost", kind=self.kind.KIND, id=work.id)
        return True

    def claim(self, session: Session) -> Work | None:
        """The work that is next, now held by this worker."""
        return leases.claim(session, self._caller(), self.kind, self._lease)

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
        limits: "Limits | None" = None,
        listen: Callable[[dict[str, Any]], None] = lambda told: None,  # noqa: ARG005 - who hears nothing
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Verdict:
        """Have ``python -m module`` do the request to its end, or end it at one of the limits.

        ``limits`` are by default those of this server, without one of time. ``listen`` is given every line
        that the child tells, in another thread; ``meanwhile`` is called again and again while the child
        works. Raises LeaseLost.
        """
        limits = limits or Limits(None, self._settings.run_memory_limit_bytes)
        (folder / REQUEST).write_text(json.dumps(request))
        with self._take_child(module) as child:
            progress = Progress(child, work.fraction_kept, listen)
            try:
                hand_over(child, folder)
                verdict = self._watch(work, child, progress, limits, meanwhile)
            finally:
                kill_group(child)
                child.wait()
                progress.join()
        if verdict is not None:
            return verdict
        if child.returncode == 0:
            return FINISHED
        if (folder / ERROR).exists():
            return Verdict("failed", json.loads((folder / ERROR).read_text()))
        return self._died(child.returncode, progress.step)

    def _died(self, code: int, step: str) -> Verdict:
        if code == -signal.SIGKILL:
            detail = (
                f"The {self.name}'s process was killed, most likely by the operating system because the "
                f"machine ran out of memory. Its last step: {step}. {self.kind.REMEDY}"
            )
            return Verdict("failed", {"code": f"{self.name}_killed", "detail": detail})
        detail = (
            f"The {self.name}'s process ended with code {code}. Its last step: {step}. The worker's log may "
            "say why."
        )
        return Verdict("failed", {"code": f"{self.name}_died", "detail": detail})

    def _prepare_child(self) -> None:
        if self.kept_ready is None or not self._settings.worker_spare or self._stopping.is_set():
            return
        self._spare = self._spare or start_child(self.kept_ready)

    def _take_child(self, module: str) -> subprocess.Popen[str]:
        if module == self.kept_ready and self._spare is not None and self._spare.poll() is None:
            spare, self._spare = self._spare, None
            return spare
        self._dismiss_spare()
        return start_child(module)

    def _dismiss_spare(self) -> None:
        if self._spare is not None:
            with self._spare as spare:
                kill_group(spare)
            self._spare = None

    def _watch(
        self,
        work: Work,
        child: subprocess.Popen[str],
        progress: Progress,
        limits: "Limits",
        meanwhile: Callable[[], None],
    ) -> Verdict | None:
        """None when the child has ended by itself, otherwise why it must end. Raises LeaseLost."""
        settings, started, renewed = self._settings, time.monotonic(), 0.0
        group = Group(child.pid)
        while child.poll() is None:
            if self._stopping.is_set():
                return STOPPED
            elapsed = time.monotonic() - started
            if limits.seconds is not None and elapsed > limits.seconds:
                what = f"took longer than {limits.seconds:g} s"
                own = limits.seconds < settings.run_time_limit_seconds
                return self._limit("time_limit", what, None if own else "RUN_TIME_LIMIT_SECONDS")
            if group.measure_memory() > limits.memory_bytes:
                what = f"used more than {limits.memory_bytes:,} bytes of memory"
                own = limits.memory_bytes < settings.run_memory_limit_bytes
                return self._limit("memory_limit", what, None if own else "RUN_MEMORY_LIMIT_BYTES")
            if elapsed - renewed >= RENEW_SECONDS or renewed == 0:
                if renewed:
                    self._prepare_child()  # the next piece of work is not to wait for what this one need not
                renewed = elapsed
                group.find_members()
                if self._renew(work, progress):
                    return CANCELLED
            meanwhile()
            try:
                child.wait(WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return None

    def _limit(self, code: str, what: str, setting: str | None) -> Verdict:
        whose = f"the limit of this server (ROUNDHOUSE_{setting})" if setting else "the limit it was given"
        detail = f"The {self.name} {what}, {whose}. {self.kind.REMEDY}"
        return Verdict("failed", {"code": code, "detail": detail})

    def _renew(self, work: Work, progress: Progress) -> bool:
        fraction, step = progress.fraction, progress.step
        try:
            with self._database.session_scope() as session:
                return leases.renew(session, self._caller(), work, self._lease, fraction=fraction, step=step)
        except OperationalError as error:  # the lease outlives a short absence of the database
            log.warning("lease_not_renewed", kind=self.kind.KIND, id=work.id, error=str(error.orig))
            return False

    def _caller(self) -> Caller:
        return Caller(self._name, Role.ADMIN, datetime.now(UTC))


class Limits(NamedTuple):
    """What a child and the processes that it starts may take in all."""

    seconds: float | None
    memory_bytes: int
