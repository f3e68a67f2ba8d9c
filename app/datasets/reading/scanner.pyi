"""One pass over the bytes of a CSV file, in C: its faults, its rows and what its columns can be."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

STRAY_QUOTE: Final[int]
OPEN_QUOTE: Final[int]
NOT_UTF8: Final[int]
NULL_BYTE: Final[int]
BARE_RETURN: Final[int]
OTHER_LINE_END: Final[int]
WIDTH: Final[int]
BLANK: Final[int]

MAX_NULLS: Final[int]
SHOWN_MISFITS: Final[int]
COUNTS: Final[int]
COLUMN_BYTES: Final[int]

def scan(
    block: bytes | bytearray,
    columns: NDArray[np.void] | bytearray,
    delimiter: int,
    quote: int,
    crlf: bool,
    completed: bool,
    nulls: tuple[bytes, ...],
    /,
) -> tuple[int, int, int, int, int, int, int]:
    """Scan whole records, the last of which ends at the block's end; without the lock of the interpreter.

    ``columns`` are ``FACTS``, one for each field of a record, and are added to. ``quote`` is -1 where
    nothing is quoted; ``crlf`` says how records end; ``completed`` that the last line feed was added.

    Returns the first fault (0 for none) and its place in the block; how many records were scanned, with
    how many line feeds in all, and the size of the longest; the number and the place of the first of the
    blank records at the end, or -1. With a fault, only the first two count. Raises ValueError for a block
    that does not end in a line feed.
    """

def last_end(data: bytes | bytearray, quote: int, /) -> int:
    """Where the last record ends that begins at the begin of the data, or 0."""

def read_as(text: bytes, /) -> int:
    """The kinds that a text can be read as, added up; see ``infer.Kind``."""
