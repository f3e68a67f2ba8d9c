"""Prediction ids that speak for themselves.

An id carries the time, the model version, the deployment and a keyed checksum, so that feedback on it
can be checked and routed without a look-up. 40 characters of base32 hold 25 bytes:

    6 time (ms since 1970) | 4 version | 4 deployment (0: none) | 6 random | 5 BLAKE2s of the rest
"""

import base64
import hashlib
import os
import secrets
import struct
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.serving.models import SigningKey

ID_LENGTH = 40
_RANDOM_BYTES, _MAC_BYTES = 6, 5
_HEAD = struct.Struct(">6sII")
_KEY_NAME = "prediction-ids"


class PredictionId(NamedTuple):
    at: datetime
    version_id: int
    deployment_id: int | None


class PredictionIds:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, at: datetime, version_id: int, deployment_id: int | None, count: int) -> list[str]:
        milliseconds = int(at.timestamp() * 1000)
        head = _HEAD.pack(milliseconds.to_bytes(6, "big"), version_id, deployment_id or 0)
        noise = os.urandom(_RANDOM_BYTES * count)
        return [
            self._encode(head + noise[start : start + _RANDOM_BYTES])
            for start in range(0, len(noise), _RANDOM_BYTES)
        ]

    def parse(self, text: str) -> PredictionId | None:
        """What an id says, or None where this installation has not made it."""
        if len(text) != ID_LENGTH or not text.isascii():
            return None
        try:
            raw = base64.b32decode(text.upper())
        except ValueError:
            return None
        payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if text != text.lower() or not secrets.compare_digest(mac, self._mac(payload)):
            return None
        milliseconds, version_id, deployment_id = _HEAD.unpack(payload[: _HEAD.size])
        at = datetime.fromtimestamp(int.from_bytes(milliseconds, "big") / 1000, UTC)
        return PredictionId(at, version_id, deployment_id or None)

    def _encode(self, payload: bytes) -> str:
        return base64.b32encode(payload + self._mac(payload)).decode().lower()

    def _mac(self, payload: bytes) -> bytes:
        return hashlib.blake2s(payload, key=self._secret, digest_size=_MAC_BYTES).digest()


def ensure_signing_key(session: Session, caller: Caller) -> bytes:
    """The installation's secret for prediction ids, made on first use."""
    if session.get(SigningKey, _KEY_NAME) is None:
        try:
            with session.begin_nested():
                secret = secrets.token_hex(32)
                session.add(SigningKey(name=_KEY_NAME, secret=secret, created_at=caller.now))
        except IntegrityError:  # another process has made it in the meantime
            pass
    return bytes.fromhex(session.get_one(SigningKey, _KEY_NAME).secret)
