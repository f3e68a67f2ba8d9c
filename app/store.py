"""The object store: content-addressed, immutable, verified on every read.

An object's name is the SHA-256 of its bytes. It is written under a temporary name while it is hashed,
and then given its name at once, so that a reader never sees half an object. Whoever writes bytes that are
there already writes them again: an object's time is when somebody last came to rely on it.

Removing what nobody relies on is safe beside writers, on any store and without a lock. A remover first
gives notice of the objects that it found old and unused, then looks again which of them are still old, and
removes those. A writer first writes its object, then looks for notices, and then whether the object is
there. Whichever of the two comes first, the other sees it: the remover finds a young object and leaves it,
or the writer finds the notice, waits for its end and writes again.
"""

import hashlib
import os
import re
import time
import uuid
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url
from sqlalchemy.orm import mapped_column

from app.errors import AppError
from app.owned import Scratch

if TYPE_CHECKING:
    from obstore.store import RetryConfig  # obstore has it for type checkers only

CHUNK_BYTES = 1024 * 1024
OBJECTS = "sha256"
TEMPORARY = "tmp"
NOTICES = "notices"
NOTICE_NAMES = "?" * 32
"""A longer name is of a notice that obstore is still writing ("name#1"), or was when its process died. That
is none yet: its remover removes nothing before it has looked at the objects once more, after the writing.
"""
SHARDS = tuple(f"{number:02x}" for number in range(256))
"""The parts in which the objects lie: the first two digits of their hashes."""
REMOVED_AT_ONCE = 1000  # what S3 deletes in one request
NOTICE_SECONDS = 60.0
"""A remover removes nothing later than this after its notice."""
DEAD_NOTICE_SECONDS = 180.0
"""Nor does a request that it began in time go on for so long: who gave a notice of this age is dead."""
NOTICE_POLL_SECONDS = 0.5
RETRY: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}


NAMES_OBJECTS = "names_objects"
ObjectDigest = Annotated[str, mapped_column(info={NAMES_OBJECTS: True})]
"""A column that names an object by its digest: while a row does, ``roundhouse gc`` keeps the object."""
ObjectDigests = Annotated[list[Any], mapped_column(info={NAMES_OBJECTS: True})]
"""The same for a list of digests."""


class StoredObject(NamedTuple):
    digest: str
    size: int


class StoreEntry(NamedTuple):
    """What the store holds under a path, and when it was last written."""

    path: str
    size: int
    last_modified: datetime

    @property
    def digest(self) -> str:
        return f"sha256:{self.path.rpartition('/')[2]}"


class StoreFault(AppError):
    """The store did not do what it must (503)."""

    status = 503


class StoreUnavailable(StoreFault):
    """The store did not answer, or refused."""


class ObjectMissing(StoreFault):
    """The store holds no object of this digest."""


class ObjectDamaged(StoreFault):
    """The object's bytes do not match its digest."""


class Store:
    """Objects under one URL or folder; ``scratch`` holds copies while they are read."""

    def __init__(self, url: str, *, folder: Path, scratch: Scratch) -> None:
        self._local = folder.resolve() if not url else None
        if self._local:
            self._objects: ObjectStore = LocalStore(self._local, mkdir=True)
        else:
            self._objects = open_store(url)
        self._scratch = scratch

    def write(self, chunks: Iterable[bytes]) -> StoredObject:
        """Store the bytes and return their ``sha256:…`` digest and their number."""
        digest, size = hashlib.sha256(), 0
        temporary = f"{TEMPORARY}/{self._scratch.owner}.{uuid.uuid4().hex}"

        def hashed() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        with reaching_the_store():
            try:
                obstore.put(self._objects, temporary, hashed())
                self._give_name(temporary, object_path(digest.hexdigest()))
            finally:
                with suppress(FileNotFoundError):
                    obstore.delete(self._objects, temporary)
        return StoredObject(f"sha256:{digest.hexdigest()}", size)

    def write_file(self, path: Path) -> StoredObject:
        return self.write(read_chunks(path))

    def take_file(self, path: Path, digest: str | None = None) -> StoredObject:
        """Store a file that nobody changes any more, whose digest may be known already.

        Where the store is a folder of the same file system, the object is the file, and nothing is copied.
        """
        if self._local is None:
            return self.write_file(path)
        digest = digest or digest_of(path)
        temporary = f"{TEMPORARY}/{self._scratch.owner}.{uuid.uuid4().hex}"
        link = self._local / temporary
        try:
            link.parent.mkdir(exist_ok=True)
            link.hardlink_to(path)
        except OSError:  # another file system, or one without links
            return self.write_file(path)
        try:
            os.utime(link)  # its time is now: see above
            with reaching_the_store():
                self._give_name(temporary, object_path(digest.removeprefix("sha256:")))
            return StoredObject(digest, link.stat().st_size)
        finally:
            link.unlink(missing_ok=True)

    @contextmanager
    def open_file(self, digest: str) -> Iterator[Path]:
        """The object as a local file, its bytes checked against the digest.

        Raises ObjectMissing and ObjectDamaged.
        """
        name = object_path(digest.removeprefix("sha256:"))
        if self._local:
            path = self._local / name
            if not path.exists():
                raise missing(digest)
            verify(path, digest)
            yield path
            return
        with self._scratch.folder() as folder:
            path = folder / "object"
            with reaching_the_store(), path.open("wb") as file:
                try:
                    file.writelines(obstore.get(self._objects, name).stream(CHUNK_BYTES))
                except FileNotFoundError:
                    raise missing(digest) from None
            verify(path, digest)
            yield path

    @contextmanager
    def open_files(self, digests: Iterable[str]) -> Iterator[list[Path]]:
        """``open_file`` for each of the objects."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.open_file(digest)) for digest in digests]

    def read(self, digest: str) -> bytes:
        with self.open_file(digest) as path:
            return path.read_bytes()

    def holds(self, digest: str) -> bool:
        """Raises StoreUnavailable."""
        with reaching_the_store():
            return self._exists(object_path(digest.removeprefix("sha256:")))

    # ── Removing ─────────────────────────────────────────────────────────────────────────────────

    def list_unused(self, shard: str, used: Container[str], before: datetime) -> list[StoreEntry]:
        """The objects of one of ``SHARDS``, last written ``before``, whose digests are not ``used``.

        Raises StoreUnavailable.
        """
        return [
            entry
            for entry in self._list(f"{OBJECTS}/{shard}")
            if entry.last_modified < before and is_object(entry.path) and entry.digest not in used
        ]

    def remove_unused(self, shard: str, used: Container[str], before: datetime) -> list[StoreEntry]:
        """Remove what ``list_unused`` lists, and return it. Safe beside writers and other removers.

        ``used`` must hold what was in use at some moment since which nothing written ``before`` can have come
        into use. Raises StoreUnavailable.
        """
        unused = self.list_unused(shard, used, before)
        removed: list[StoreEntry] = []
        for start in range(0, len(unused), REMOVED_AT_ONCE):
            batch = unused[start : start + REMOVED_AT_ONCE]
            with self._notice(batch) as deadline:
                old = {entry.path for entry in self.list_unused(shard, used, before)}
                batch = [entry for entry in batch if entry.path in old]
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        "store_slow", "The object store answers too slowly to clean it up."
                    )
                self._remove([entry.path for entry in batch])
            removed += batch
        return removed

    @contextmanager
    def _notice(self, entries: list[StoreEntry]) -> Iterator[float]:
        """Tell writers what is to be removed until the time, on the monotonic clock, that is yielded."""
        deadline = time.monotonic() + NOTICE_SECONDS
        path = f"{NOTICES}/{uuid.uuid4().hex}"
        with reaching_the_store():
            obstore.put(self._objects, path, "\n".join(entry.path for entry in entries).encode())
        yield deadline  # after a failure it stays: a request that failed here may still be carried out there
        self._remove([path])

    def _give_name(self, temporary: str, name: str) -> None:
        """Make what was written the object ``name``, which stays even where one is removing it."""
        seen: dict[str, float] = {}
        obstore.copy(self._objects, temporary, name, overwrite=True)
        while True:
            given = self._list(NOTICES, NOTICE_NAMES)
            notices = [notice.path for notice in given if self._tells_of(notice, name)]
            now = time.monotonic()
            dead = [path for path in notices if now - seen.setdefault(path, now) >= DEAD_NOTICE_SECONDS]
            self._remove(dead)  # lest the next writer waits as long
            if len(dead) < len(notices):
                time.sleep(NOTICE_POLL_SECONDS)
            elif self._exists(name):
                return
            else:
                obstore.copy(self._objects, temporary, name, overwrite=True)

    def _tells_of(self, notice: StoreEntry, name: str) -> bool:
        try:
            content = bytes(obstore.get(self._objects, notice.path).bytes())
        except FileNotFoundError:  # its remover is done, or only begins
            return False
        return name in content.decode().splitlines()

    def _exists(self, name: str) -> bool:
        try:
            obstore.head(self._objects, name)
        except FileNotFoundError:
            return False
        return True

    def list_abandoned(self, before: datetime) -> list[StoreEntry]:
        """What writers and removers that died left behind. Raises StoreUnavailable.

        Temporary files in a folder are those that belong to no living process of the home. Of a store by URL
        nobody can tell that, and they are what was last written ``before``.
        """
        left = self._list(NOTICES)
        if self._local:
            # A name with "#" is one that obstore is writing, or was when its process died.
            left += [entry for shard in SHARDS for entry in self._list(f"{OBJECTS}/{shard}", "*#*")]
        abandoned = [entry for entry in left if entry.last_modified < before]
        for entry in self._list(TEMPORARY):
            owner = entry.path.removeprefix(f"{TEMPORARY}/").partition(".")[0]
            living = self._scratch.is_living(owner) if self._local else entry.last_modified >= before
            if not living:
                abandoned.append(entry)
        return abandoned

    def sweep(self, before: datetime) -> list[StoreEntry]:
        """Remove what ``list_abandoned`` lists, and return it. Raises StoreUnavailable."""
        abandoned = self.list_abandoned(before)
        self._remove([entry.path for entry in abandoned])
        return abandoned

    def _list(self, prefix: str, pattern: str = "*") -> list[StoreEntry]:
        if self._local:
            # Not by obstore, which hides the files that it is writing ("name#1").
            return list(list_folder(self._local, prefix, pattern))
        with reaching_the_store():
            return [
                StoreEntry(entry["path"], entry["size"], entry["last_modified"])
                for page in obstore.list(self._objects, prefix)
                for entry in page
            ]

    def _remove(self, paths: list[str]) -> None:
        """Remove what is there of this: another remover may have been first."""
        if self._local:
            for path in paths:
                (self._local / path).unlink(missing_ok=True)
            return
        with reaching_the_store():
            try:
                obstore.delete(self._objects, paths)
            except FileNotFoundError:  # not every store lets that pass
                for path in paths:
                    with suppress(FileNotFoundError):
                        obstore.delete(self._objects, path)

    def ping(self) -> None:
        """Raises StoreUnavailable."""
        if self._local and not self._local.is_dir():  # to the local file system that is an empty store
            raise StoreUnavailable("store_unavailable", f"The store's folder {self._local} is gone.")
        with reaching_the_store():
            next(iter(obstore.list(self._objects, OBJECTS, chunk_size=1)), None)


@contextmanager
def reaching_the_store() -> Iterator[None]:
    try:
        yield
    except BaseError as error:
        reason = str(error).partition("\n")[0][:300]
        raise StoreUnavailable(
            "store_unavailable", f"The object store did not do what was asked: {reason}. Try again."
        ) from error


def missing(digest: str) -> ObjectMissing:
    return ObjectMissing("object_missing", f"The object store holds no object {digest}.")


def open_store(url: str) -> ObjectStore:
    return from_url(url, retry_config=RETRY)


def object_path(hexdigest: str) -> str:
    return f"{OBJECTS}/{hexdigest[:2]}/{hexdigest}"


def is_object(path: str) -> bool:
    return re.fullmatch(rf"{OBJECTS}/[0-9a-f]{{2}}/[0-9a-f]{{64}}", path) is not None


def list_folder(root: Path, prefix: str, pattern: str) -> Iterator[StoreEntry]:
    for path in (root / prefix).glob(pattern):
        with suppress(FileNotFoundError):  # removed a moment ago
            found = path.stat()
            modified = datetime.fromtimestamp(found.st_mtime, UTC)
            yield StoreEntry(f"{prefix}/{path.name}", found.st_size, modified)


def read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def verify(path: Path, digest: str) -> None:
    if digest != (found := digest_of(path)):
        raise ObjectDamaged("object_damaged", f"The stored bytes of object {digest} hash to {found}.")
