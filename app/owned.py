"""Folders that belong to one living process, and how to tell those whose process is gone.

A process holds a lock on a file in its folder for as long as it lives, however it dies. So whoever can
take the lock knows that the folder has been left behind.
"""

import fcntl
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
        # It gets its name only when it is locked, so nobody can find it unlocked.
        building = parent / f".{uuid.uuid4().hex}"
        building.mkdir()
        self._lock = (building / LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = building.rename(parent / building.name[1:])

    def close(self) -> None:
        """Give the folder up; what is in it stays."""
        self._lock.close()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()


def abandoned_folders(parent: Path) -> Iterator[Path]:
    """The folders below ``parent`` whose process is gone; each is locked while the caller has it."""
    for path in sorted(parent.glob("[!.]*")):
        with _lock_abandoned(path) as lock:
            if lock:
                yield path


@contextmanager
def _lock_abandoned(folder: Path) -> Iterator[IO[str] | None]:
    try:
        lock = (folder / LOCK).open("r+")
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock


class Scratch:
    """The working files of one process; those of dead processes are swept when it starts."""

    def __init__(self, parent: Path) -> None:
        self._folder = OwnedFolder(parent)
        for path in abandoned_folders(parent):
            shutil.rmtree(path, ignore_errors=True)

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
