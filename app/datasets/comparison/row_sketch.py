"""Which rows of two tables may differ: found from hashes of rows, in bounded memory and without sorting.

Every row comes with the number of one of ``BUCKETS`` and with a 64-bit hash, which are independent of each
other. Each bucket holds the sum, modulo 2^64, of the hashes of one table less that of the other (an additive
multiset hash: Clarke et al., ASIACRYPT 2003). Where it is zero, both tables hold the same rows, as often;
the rows of other buckets are suspects, few where few rows differ, and are compared by their values.

So two rows are never taken for the same because their hashes are equal, if they are suspects; and a pair that
differs escapes suspicion only if it agrees in bucket and hash, 87 bits, or if the differences of a bucket sum
to zero: for two tables of ten million rows that all differ, a chance below one in 10^11.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BUCKETS = 1 << 23

Positions = NDArray[np.int64]


class Batch(NamedTuple):
    """Consecutive rows of a table, the first one at ``position``: buckets and hashes, shape (n,) each."""

    position: int
    buckets: NDArray[np.int64]
    hashes: NDArray[np.uint64]


class RowSketch:
    """Two tables' rows: first all are entered, then suspects are asked for.

    Their buckets wait in the file ``spool``, of 4 bytes a row.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._spooled: dict[tuple[str, int], int] = {}
        self._size = 0
        self._sums = np.zeros(BUCKETS, dtype=np.uint64)

    def add(self, table: str, batches: Iterable[Batch]) -> None:
        self._enter(table, batches, np.add)

    def subtract(self, table: str, batches: Iterable[Batch]) -> None:
        self._enter(table, batches, np.subtract)

    def suspects(self, table: str, begin: int, end: int) -> NDArray[np.bool_]:
        """Which rows may differ, of the batch that begins and ends here; none, if it was not entered."""
        if (offset := self._spooled.get((table, begin))) is None:
            return np.zeros(end - begin, dtype=np.bool_)
        suspects: NDArray[np.bool_] = self._differs.take(
            np.fromfile(self._spool, np.uint32, end - begin, offset=offset)
        )
        return suspects

    @cached_property
    def _differs(self) -> NDArray[np.bool_]:
        differs: NDArray[np.bool_] = self._sums != 0  # an eighth of the sums: more of it fits a cache
        return differs

    def _enter(self, table: str, batches: Iterable[Batch], operation: np.ufunc) -> None:
        with self._spool.open("ab") as file:
            for position, buckets, hashes in batches:
                operation.at(self._sums, buckets, hashes)
                kept = buckets.astype(np.uint32)
                kept.tofile(file)
                self._spooled[table, position] = self._size
                self._size += kept.nbytes
