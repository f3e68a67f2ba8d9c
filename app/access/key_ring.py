"""The keys as one process knows them."""

import hashlib
from datetime import datetime

from sqlalchemy import select

from app.access.caller import Unauthorized
from app.access.models import ApiKey
from app.db import Database


def digest_of(secret: str) -> str:
    # A plain hash suffices: a key is 256 random bits, so there is nothing to guess it from.
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyRing:
    """The keys as one process knows them: a look-up in memory, at most a second old.

    A key that is not known yet is looked for in the database at once, so that a new key works at once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: dict[str, ApiKey] = {}
        self._read_at: datetime | None = None

    def find(self, secret: str, now: datetime) -> ApiKey:
        """Raises Unauthorized for a secret that is nobody's or was revoked."""
        digest = digest_of(secret)
        if self._read_at is None or (now - self._read_at).total_seconds() > 1 or digest not in self._keys:
            with self._database.session_scope(write=False) as session:
                active = session.scalars(select(ApiKey).filter_by(revoked_at=None)).all()
            self._keys = {key.digest: key for key in active}
            self._read_at = now
        key = self._keys.get(digest)
        if key is None:
            raise Unauthorized(
                "unknown_key", "The API key is unknown or revoked. Ask an admin for a new one."
            )
        return key
