"""Prediction ids that speak for themselves.

An id carries the time, the model version, the deployment and a keyed checksum, so that feedback on it
can be checked and routed without a look-up. 40 characters of base32 hold 25 bytes:

    6 time (16 µs since 1970) | 4 version | 4 deployment (0: none) | 5 random | 2 row | 4 of a keyed BLAKE2b

The rows of a request share all but the last two. A BLAKE2b of what they share and of the number of sixteen
rows together gives each of the sixteen its four bytes: a thousand ids take 63 digests.
"""

import base64
import hashlib
import io
import os
import secrets
import struct
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import numpy as np
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.serving.kernels import base32
from app.serving.models import SigningKey

ID_LENGTH = 40
TICK = timedelta(microseconds=16)
"""How exact the time in an id is."""

_HEAD = struct.Struct(">6sII")
_RANDOM_BYTES, _ROW_BYTES, _MAC_BYTES = 5, 2, 4
_SHARED_BYTES = _HEAD.size + _RANDOM_BYTES
_ROWS_OF_DIGEST = hashlib.blake2b.MAX_DIGEST_SIZE // _MAC_BYTES
_MAX_ROWS = 2 ** (8 * _ROW_BYTES)
_KEY_NAME = "prediction-ids"


class PredictionId(NamedTuple):
    at: datetime
    version_id: int
    deployment_id: int | None


class PredictionIds:
    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=secret)
        self._noise: deque[bytes] = deque()

    def make(self, microseconds: int, version_id: int, deployment_id: int | None, count: int) -> list[str]:
        """``count`` new ids of predictions made at a time, in microseconds since 1970."""
        head = _HEAD.pack((microseconds // 16).to_bytes(6, "big"), version_id, deployment_id or 0)
        if count == 1:
            shared = head + self._draw()
            return [base32(shared + bytes(_ROW_BYTES) + self._digest(shared, 0)[:_MAC_BYTES])]
        made: list[str] = []
        while len(made) < count:
            made += self._make_many(head + self._draw(), min(count - len(made), _MAX_ROWS))
        return made

    def _make_many(self, shared: bytes, count: int) -> list[str]:
        digests = [self._digest(shared, row) for row in range(0, count, _ROWS_OF_DIGEST)]
        macs = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _MAC_BYTES)
        table = np.empty((count, _SHARED_BYTES + _ROW_BYTES + _MAC_BYTES), np.uint8)
        table[:, :_SHARED_BYTES] = np.frombuffer(shared, np.uint8)
        table[:, _SHARED_BYTES:-_MAC_BYTES] = np.arange(count, dtype=">u2").view(np.uint8).reshape(count, -1)
        table[:, -_MAC_BYTES:] = macs[:count]
        text = base32(table.tobytes())
        return [text[start : start + ID_LENGTH] for start in range(0, len(text), ID_LENGTH)]

    def _draw(self) -> bytes:
        """Random bytes; the system is asked for those of many requests at once."""
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
        shared, mac = raw[:_SHARED_BYTES], raw[-_MAC_BYTES:]
        row = int.from_bytes(raw[_SHARED_BYTES:-_MAC_BYTES], "big")
        start = row % _ROWS_OF_DIGEST * _MAC_BYTES
        expected = self._digest(shared, row)[start : start + _MAC_BYTES]
        if text != text.lower() or not secrets.compare_digest(mac, expected):
            return None
        ticks, version_id, deployment_id = _HEAD.unpack(raw[: _HEAD.size])
        at = datetime.fromtimestamp(0, UTC) + int.from_bytes(ticks, "big") * TICK
        return PredictionId(at, version_id, deployment_id or None)

    def _digest(self, shared: bytes, row: int) -> bytes:
        """The checksums of the sixteen rows that this row is one of."""
        digest = self._keyed.copy()  # half the time of taking up the key anew
        digest.update(shared + (row // _ROWS_OF_DIGEST).to_bytes(_ROW_BYTES, "big"))
        return digest.digest()


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
