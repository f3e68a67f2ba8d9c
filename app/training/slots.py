"""How much work of a kind a process of the server takes on at once, where each piece takes a core."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from app.errors import AppError

RETRY_SECONDS = 5


class ServerBusy(AppError):
    """The server does as much of this at once as it may (503)."""

    status = 503
    retry_after_seconds = RETRY_SECONDS


class Slots:
    """So many pieces of work at once; ``what`` names them, and ``code`` the refusal of one more."""

    def __init__(self, at_once: int, code: str, what: str) -> None:
        self._free = BoundedSemaphore(at_once)
        self._code = code
        self._refusal = f"{at_once} {what}; ask again in {RETRY_SECONDS} seconds."

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold one of the slots. Raises ServerBusy where none is free."""
        if not self._free.acquire(blocking=False):
            raise ServerBusy(self._code, self._refusal)
        try:
            yield
        finally:
            self._free.release()
