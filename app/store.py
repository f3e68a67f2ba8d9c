"""The object store: content-addressed, immutable, verified on every read.

An object's name is the SHA-256 of its bytes. It is written under a temporary name while it is hashed,
and then given its name with create-only semantics, so that a reader never sees half an object and a
writer never replaces one.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from app.errors import AppError
from app.owned import Scratch

if TYPE_CHECKING:
    from obstore.store import RetryConfig  # obstore has it for type checkers only

CHUNK_BYTES = 1024 * 1024
OBJECTS = "sha256"
TEMPORARY = "tmp"
RETRY: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}


class StoredObject(NamedTuple):
    digest: str
    size: int


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
                obstore.copy(self._objects, temporary, object_path(digest.hexdigest()), overwrite=False)
            except AlreadyExistsError:
                pass  # the same bytes, stored before
            finally:
                with suppress(FileNotFoundError):
                    obstore.delete(self._objects, temporary)
        return StoredObject(f"sha256:{digest.hexdigest()}", size)

    def write_file(self, path: Path) -> StoredObject:
        return self.write(read_chunks(path))

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

    def read(self, digest: str) -> bytes:
        with self.open_file(digest) as path:
            return path.read_bytes()

    def sweep(self, before: datetime) -> None:
        """Remove what writers that died left under temporary names.

        In a folder that is what belongs to no living process of the home. Of a store by URL nobody can
        tell that, and it is what was last written ``before``. Raises StoreUnavailable.
        """
        if self._local:
            # Not listed by obstore, which hides the files that it is writing ("name#1").
            for path in (self._local / TEMPORARY).glob("*"):
                if not self._scratch.is_living(path.name.partition(".")[0]):
                    path.unlink(missing_ok=True)
            return
        with reaching_the_store():
            for page in obstore.list(self._objects, TEMPORARY):
                for entry in page:
                    if entry["last_modified"] < before:
                        obstore.delete(self._objects, entry["path"])

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
    if url.startswith("s3://"):
        # S3's copy has no create-only form of its own; a multipart copy has.
        return S3Store.from_url(url, copy_if_not_exists="multipart", retry_config=RETRY)
    return from_url(url, retry_config=RETRY)


def object_path(hexdigest: str) -> str:
    return f"{OBJECTS}/{hexdigest[:2]}/{hexdigest}"


def read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def verify(path: Path, digest: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != f"sha256:{found}":
        raise ObjectDamaged("object_damaged", f"The stored bytes of object {digest} hash to sha256:{found}.")
