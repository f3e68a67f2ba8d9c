"""What a process does again and again beside its requests."""

import threading
from collections.abc import Callable


class Repeating:
    """A thread that does something every ``seconds``, from ``start`` until ``stop``.

    ``action`` tells its faults by itself: what it raises would end the repetition.
    """

    def __init__(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._seconds = seconds
        self._action = action
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the repetition, and wait for what is being done."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _repeat(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._action()
