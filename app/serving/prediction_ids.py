"""Prediction ids that speak for themselves.

An id carries the time, the model version, the deployment and a keyed checksum, so that feedback on it
can be checked and routed without a look-up. 40 characters of base32 hold 25 bytes:

    6 time (ms since 1970) | 4 version | 4 deployment (0: none) | 6 random | 5 BLAKE2s of the rest
"""

import base64
import hashlib
import io
import os
import secrets
import struct
from collections import deque
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.serving.kernels import base32
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
        self._keyed = hashlib.blake2s(key=secret, digest_size=_MAC_BYTES)
        self._noise: deque[bytes] = deque()

    def make(self, microseconds: int, version_id: int, deployment_id: int | None, count: int) -> list[str]:
        """``count`` new ids of predictions made at a time, in microseconds since 1970."""
        head = _HEAD.pack((microseconds // 1000).to_bytes(6, "big"), version_id, deployment_id or 0)
        made = []
        for _ in range(count):
            payload = head + self._draw()
            made.append(base32(payload + self._mac(payload)))
        return made

    def _draw(self) -> bytes:
        """Random bytes; the system is asked for those of many ids at once."""
        try:
            return self._noise.pop()
        except IndexError:
            many = io.BytesIO(os.urandom(_RANDOM_BYTES * 512))
            self._noise.extend(iter(partial(many.read, _RANDOM_BYTES), b""))
            return self._draw()

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

    def _mac(self, payload: bytes) -> bytes:
        mac = self._keyed.copy()  # half the time of taking up the key anew
        mac.update(payload)
        return mac.digest()


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
