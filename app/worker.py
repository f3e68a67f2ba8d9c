"""The worker process, put together: ``roundhouse worker``, and what ``roundhouse serve`` starts beside it."""

import os
import signal
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from app import telemetry
from app.db import Database
from app.leaseholder import Leaseholder
from app.owned import Scratch
from app.serving.batch_worker import BatchWorker
from app.settings import Settings
from app.store import Store, StoreUnavailable
from app.training.worker import TrainingWorker

log = structlog.get_logger()

ABANDONED_AFTER = timedelta(days=1)
"""No write to the store takes this long."""


class Worker:
    """Carries out training runs and one batch prediction at a time, side by side, until ``stop``.

    A thread for each, so that none waits for the other's hours; the work is in child processes.
    """

    def __init__(self, settings: Settings, database: Database, store: Store, scratch: Scratch) -> None:
        self._leaseholders: list[Leaseholder[Any]] = [
            *(TrainingWorker(settings, database, store, scratch) for _ in range(settings.worker_runs)),
            BatchWorker(settings, database, store, scratch),
        ]

    def stop(self) -> None:
        """End soon: unfinished work goes back to the queue."""
        for leaseholder in self._leaseholders:
            leaseholder.stop()

    def work(self) -> None:
        with ThreadPoolExecutor(len(self._leaseholders)) as pool:
            ends = [pool.submit(leaseholder.work) for leaseholder in self._leaseholders]
            wait(ends, return_when=FIRST_EXCEPTION)
            self.stop()  # one that failed ends the others too: the process is started again
        for end in ends:
            end.result()


def run_worker(settings: Settings, *, with_parent: bool = False) -> None:
    """Work until SIGTERM or SIGINT, or, ``with_parent``, until standard input closes.

    A parent that dies, however it does, closes the pipe that it holds open as our standard input.
    """
    telemetry.configure_logging(settings.log_format)
    database = Database(settings.sqlalchemy_url)
    if not database.schema_is_current():
        raise SystemExit("The database's schema is not this version's. Run `roundhouse migrate` first.")
    scratch = Scratch(settings.scratch)
    store = Store(settings.store_url, folder=settings.home / "objects", scratch=scratch)
    _sweep(store)
    worker = Worker(settings, database, store, scratch)
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: the handler may interrupt the worker while it holds the lock that stop() takes.
        signal.signal(number, lambda *_: threading.Thread(target=worker.stop).start())
    if with_parent:
        threading.Thread(target=_stop_with_parent, args=(worker,), daemon=True).start()
    try:
        worker.work()
    finally:
        scratch.close()
        database.dispose()


def _sweep(store: Store) -> None:
    try:
        store.sweep(before=datetime.now(UTC) - ABANDONED_AFTER)
    except StoreUnavailable as fault:  # the next worker's start will do
        log.warning("store_not_swept", error=fault.detail)


def _stop_with_parent(worker: Worker) -> None:
    # Not sys.stdin.read: a daemon thread that holds sys.stdin's lock would abort the interpreter's exit.
    while os.read(0, 1024):
        pass
    worker.stop()
