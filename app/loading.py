"""Loading a process's modules in three quarters of the time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Import modules without looking for garbage in them, now or ever after.

    Of a hundred thousand classes, functions and schemas nothing becomes garbage, and the collector goes
    through all of them again whenever their number has grown by a quarter.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
