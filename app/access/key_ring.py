"""The keys as one process knows them."""

import hashlib
import threading
import time
from datetime import UTC, datetime

import structlog
from sqlalchemy import select

from app.access.caller import Caller, Unauthorized
from app.access.models import ApiKey
from app.access.policy import Role
from app.db import Database
from app.repeating import Repeating

log = structlog.get_logger()

FRESH_SECONDS = 1.0
READING_SECONDS = 0.5
LONGEST_WAIT = 1.0
GRACE_SECONDS = 300.0
"""How long known keys are believed while the database is away: predictions need nothing else of it."""


def caller_of(key: ApiKey, request_id: str | None = None) -> Caller:
    return Caller(key.name, Role(key.role), datetime.now(UTC), request_id, key.models)


def digest_of(secret: str) -> str:
    # A plain hash suffices: a key is 256 random bits, so there is nothing to guess it from.
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyRing:
    """The active keys in memory, at most a second old; a new key is looked up and works at once.

    From ``start`` to ``stop`` a thread keeps them fresh; else the next ``find`` does.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.keys: dict[str, ApiKey] = {}
        """By digest; another dictionary after each reading."""
        self._read_at = self._tried_at = float("-inf")
        self._reading = threading.Lock()
        self._following = Repeating("key-ring", READING_SECONDS, self.catch_up)

    def start(self) -> None:
        self.catch_up()
        self._following.start()

    def stop(self) -> None:
        self._following.stop()

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self._tried_at <= FRESH_SECONDS

    def recall(self, authorization: str) -> Caller | None:
        """Who sent this header, as far as is known without asking the database."""
        scheme, _, secret = authorization.partition(" ")
        key = self.known(secret.strip()) if scheme.lower() == "bearer" else None
        return caller_of(key) if key else None

    def known(self, secret: str) -> ApiKey | None:
        """The key of a secret, as far as is known without asking the database."""
        return self.keys.get(digest_of(secret)) if self.fresh else None

    def find(self, secret: str) -> ApiKey:
        """Raises Unauthorized for a secret that is nobody's or was revoked."""
        digest = digest_of(secret)
        if not self.fresh:
            self.catch_up()
        key = self.keys.get(digest) or self._read_one(digest)
        if key is None:
            raise Unauthorized(
                "unknown_key", "The API key is unknown or revoked. Ask an admin for a new one."
            )
        return key

    def catch_up(self) -> None:
        """Read all keys again. Who comes meanwhile waits for that reading, but not long."""
        tried_before = self._tried_at
        if not self._reading.acquire(timeout=LONGEST_WAIT):
            self._go_without(time.monotonic())  # a database that hangs is away
            return
        try:
            if self._tried_at == tried_before:
                self._read_all()
        finally:
            self._reading.release()

    def _read_all(self) -> None:
        started = time.monotonic()
        try:
            with self._database.session_scope(write=False) as session:
                keys = session.scalars(select(ApiKey).filter_by(revoked_at=None)).all()
        except Exception as error:  # whatever it is, the known keys hold for a while
            log.warning("keys_not_read", error=str(error))
            self._go_without(started)
        else:
            self.keys = {key.digest: key for key in keys}
            self._read_at = self._tried_at = started

    def _go_without(self, now: float) -> None:
        """Believe what is known, for a while."""
        if now - self._read_at > GRACE_SECONDS:
            self.keys = {}
        self._tried_at = now

    def _read_one(self, digest: str) -> ApiKey | None:
        with self._database.session_scope(write=False) as session:
            key = session.scalar(select(ApiKey).filter_by(digest=digest, revoked_at=None))
        if key is not None:
            self.keys[digest] = key
        return key
