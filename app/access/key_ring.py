"""The keys as one process knows them."""

import hashlib
import threading
import time

import structlog
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.access.caller import Unauthorized
from app.access.models import ApiKey
from app.db import Database

log = structlog.get_logger()

FRESH_SECONDS = 1.0
GRACE_SECONDS = 300.0
"""How long known keys are believed while the database is away: predictions need nothing else of it."""


def digest_of(secret: str) -> str:
    # A plain hash suffices: a key is 256 random bits, so there is nothing to guess it from.
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyRing:
    """The active keys in memory, at most a second old; a new key is looked up and works at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: dict[str, ApiKey] = {}
        self._read_at = self._tried_at = float("-inf")
        self._reading = threading.Lock()

    def find(self, secret: str) -> ApiKey:
        """Raises Unauthorized for a secret that is nobody's or was revoked."""
        digest = digest_of(secret)
        # One request reads them again; the others need not wait for it.
        if time.monotonic() - self._tried_at > FRESH_SECONDS and self._reading.acquire(blocking=False):
            try:
                self._read_all()
            finally:
                self._reading.release()
        key = self._keys.get(digest) or self._read_one(digest)
        if key is None:
            raise Unauthorized(
                "unknown_key", "The API key is unknown or revoked. Ask an admin for a new one."
            )
        return key

    def _read_all(self) -> None:
        self._tried_at = time.monotonic()
        try:
            with self._database.session_scope(write=False) as session:
                keys = session.scalars(select(ApiKey).filter_by(revoked_at=None)).all()
        except (OperationalError, PoolTimeoutError) as error:
            if self._tried_at - self._read_at > GRACE_SECONDS:
                self._keys = {}
            log.warning("keys_not_read", error=str(error))
        else:
            self._keys = {key.digest: key for key in keys}
            self._read_at = self._tried_at

    def _read_one(self, digest: str) -> ApiKey | None:
        with self._database.session_scope(write=False) as session:
            key = session.scalar(select(ApiKey).filter_by(digest=digest, revoked_at=None))
        if key is not None:
            self._keys[digest] = key
        return key
