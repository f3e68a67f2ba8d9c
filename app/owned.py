"""Folders that belong to one living process, and how to tell those whose process is gone.

A process holds a lock on a file in its folder for as long as it lives, however it dies. So whoever can
take the lock knows that the folder has been left behind. Folders are made, and such locks tried, under a
lock of their parent: nobody meets a folder that its process has not locked yet.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK = "owner.lock"


class OwnedFolder:
    """A new folder below ``parent``, this process's own until ``close`` or its death."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self.path = parent / uuid.uuid4().hex
        with locked(parent):
            self.path.mkdir()
            self._lock = (self.path / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Give the folder up; what is in it stays."""
        self._lock.close()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()


def abandoned_folders(parent: Path) -> Iterator[Path]:
    """The folders below ``parent`` whose process is gone; each is locked while the caller has it."""
    for path in sorted(parent.iterdir()):
        with _lock_abandoned(path) as lock:
            if lock:
                yield path


@contextmanager
def _lock_abandoned(folder: Path) -> Iterator[IO[str] | None]:
    with locked(folder.parent):
        lock = _try_to_lock(folder)
    if lock is None:
        yield None
    else:
        with lock:
            yield lock


def _try_to_lock(folder: Path) -> IO[str] | None:
    try:
        # Made where it is missing: a process died while it removed this folder.
        lock = (folder / LOCK).open("a")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    if os.fstat(lock.fileno()).st_nlink == 0:  # its folder was removed between the two calls
        lock.close()
        return None
    return lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While inside, nobody else - no thread, no process - is inside for the same folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Scratch:
    """The working files of one process; those of dead processes are swept when it starts."""

    def __init__(self, parent: Path) -> None:
        self._folder = OwnedFolder(parent)
        for path in abandoned_folders(parent):
            shutil.rmtree(path, ignore_errors=True)

    @property
    def owner(self) -> str:
        """A name for this process that no other ever has."""
        return self._folder.path.name

    def is_living(self, owner: str) -> bool:
        """Whether a process that works below the same parent may still be alive."""
        return (self._folder.path.parent / owner).exists()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder that is gone, with all in it, when the caller leaves it."""
        path = self._folder.path / uuid.uuid4().hex
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        self._folder.remove()
