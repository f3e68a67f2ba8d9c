"""The worker process, put together: ``roundhouse worker``, and what ``roundhouse serve`` starts beside it."""

import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta

import structlog

from app import telemetry
from app.db import Database
from app.owned import Scratch
from app.settings import Settings
from app.store import Store, StoreUnavailable
from app.training.worker import Worker

log = structlog.get_logger()

WITH_PARENT = "--with-parent"
ABANDONED_AFTER = timedelta(days=1)
"""No write to the store takes this long."""


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


if __name__ == "__main__":
    run_worker(Settings(), with_parent=WITH_PARENT in sys.argv)
