"""Prediction ids that speak for themselves.

An id carries the time, the model version, the deployment and a keyed checksum, so that feedback on it
can be checked and routed without a look-up. 40 characters of base32 hold 25 bytes:

    6 time (16 µs since 1970) | 3 version | 3 deployment (0: none) | 5 random | 2 row | 6 of a keyed BLAKE2b

The rows of a request share all but the last two. A BLAKE2b of what they share and of the number of ten rows
together gives each of the ten its six bytes: a thousand ids take a hundred digests.
"""

import base64
import hashlib
import io
import os
import re
import secrets
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from app.serving.kernels import base32

KEY_NAME = "prediction-ids"
ID_LENGTH = 40
TICK = timedelta(microseconds=16)
"""How exact the time in an id is."""

_FORM = re.compile(rf"[a-z2-7]{{{ID_LENGTH}}}")
_TIME_BYTES, _NUMBER_BYTES, _RANDOM_BYTES, _ROW_BYTES, _MAC_BYTES = 6, 3, 5, 2, 6
_SHARED_BYTES = _TIME_BYTES + 2 * _NUMBER_BYTES + _RANDOM_BYTES
_ROWS_OF_DIGEST = hashlib.blake2b.MAX_DIGEST_SIZE // _MAC_BYTES
_MAX_ROWS = 2 ** (8 * _ROW_BYTES)
_GROUPS = [group.to_bytes(_ROW_BYTES, "big") for group in range(-(-_MAX_ROWS // _ROWS_OF_DIGEST))]
_ROW = np.dtype([("shared", f"V{_SHARED_BYTES}"), ("row", f">u{_ROW_BYTES}"), ("mac", f"V{_MAC_BYTES}")])


class PredictionId(NamedTuple):
    at: datetime
    version_id: int
    deployment_id: int | None


def split_ids(ids: str) -> list[str]:
    """Each of the ids that ``PredictionIds.make`` made."""
    return [ids[start : start + ID_LENGTH] for start in range(0, len(ids), ID_LENGTH)]


def is_prediction_id(text: str) -> bool:
    """Whether a text has the form of an id, whoever made it."""
    return _FORM.fullmatch(text) is not None


class PredictionIds:
    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=secret, digest_size=_ROWS_OF_DIGEST * _MAC_BYTES)
        self._noise: deque[bytes] = deque()

    def make(self, microseconds: int, version_id: int, deployment_id: int | None, count: int) -> str:
        """``count`` new ids, one behind the other, of predictions made then: microseconds since 1970."""
        head = b"%b%b%b" % (
            (microseconds // 16).to_bytes(_TIME_BYTES, "big"),
            version_id.to_bytes(_NUMBER_BYTES, "big"),
            (deployment_id or 0).to_bytes(_NUMBER_BYTES, "big"),
        )
        if count == 1:
            shared = head + self._draw()
            return base32(shared + bytes(_ROW_BYTES) + self._digest(shared, 0)[:_MAC_BYTES])
        return "".join(
            self._make_many(head + self._draw(), min(count - made, _MAX_ROWS))
            for made in range(0, count, _MAX_ROWS)
        )

    def _make_many(self, shared: bytes, count: int) -> str:
        started = self._keyed.copy()
        started.update(shared)
        digests = []
        for group in _GROUPS[: -(-count // _ROWS_OF_DIGEST)]:
            digest = started.copy()
            digest.update(group)
            digests.append(digest.digest())
        table = np.empty(count, _ROW)
        table["shared"] = np.void(shared)
        table["row"] = np.arange(count)
        table["mac"] = np.frombuffer(b"".join(digests), _ROW["mac"], count)
        return base32(table.tobytes())

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
        if not is_prediction_id(text):
            return None
        raw = base64.b32decode(text.upper())
        shared, mac = raw[:_SHARED_BYTES], raw[-_MAC_BYTES:]
        row = int.from_bytes(raw[_SHARED_BYTES:-_MAC_BYTES], "big")
        start = row % _ROWS_OF_DIGEST * _MAC_BYTES
        expected = self._digest(shared, row)[start : start + _MAC_BYTES]
        if not secrets.compare_digest(mac, expected):
            return None
        ends = accumulate((_TIME_BYTES, _NUMBER_BYTES, _NUMBER_BYTES), initial=0)
        ticks, version_id, deployment_id = (int.from_bytes(raw[a:b], "big") for a, b in pairwise(ends))
        return PredictionId(datetime.fromtimestamp(0, UTC) + ticks * TICK, version_id, deployment_id or None)

    def _digest(self, shared: bytes, row: int) -> bytes:
        """The checksums of the ten rows that this row is one of."""
        digest = self._keyed.copy()  # half the time of taking up the key anew
        digest.update(shared + _GROUPS[row // _ROWS_OF_DIGEST])
        return digest.digest()
