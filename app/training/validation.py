"""How rows are kept back: the holdout of a run, and the folds of its search.

Rows are positions in arrays of shape (n,). Every split is seeded, and loses no row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

Rows = NDArray[np.intp]
Split = tuple[Rows, Rows]
"""Rows to learn from and rows to test on."""

MIN_FOLD_ROWS = 5
STRATA = 10


@dataclass(frozen=True, slots=True)
class Splitter:
    """Divides rows by what each of them has, in arrays of shape (n,); at most one is given.

    With ``strata`` each stratum has its share in every part, to within one row. With ``groups`` (codes from
    0) no group is in two parts. With ``order`` the later rows are for testing. With none, chance decides.
    """

    rows: int
    seed: int
    strata: NDArray[np.intp] | None = None
    groups: NDArray[np.intp] | None = None
    order: NDArray[np.float64] | None = None

    def hold_out(self, share: float) -> Split:
        """The training and the held-out rows: about ``share`` (0.05 to 0.5) of 20 rows or more.

        Both are in the table's order, or in that of ``order``. A stratum of two rows keeps one to learn from.
        """
        if self.order is not None:
            rows = np.argsort(self.order, kind="stable")
            cut = self.rows - max(1, round(self.rows * share))
            return rows[:cut], rows[cut:]
        if self.groups is not None:
            held = self._hold_out_groups(self.groups, share)
        else:
            held = np.zeros(self.rows, bool)
            held[self._shuffled()[np.diff(np.floor(np.arange(self.rows + 1) * share)) > 0]] = True
        return np.flatnonzero(~held), np.flatnonzero(held)

    def folds(self, count: int) -> Iterator[Split]:
        """At most ``count`` splits, fewer of few rows or groups; every row is tested once.

        By time, the rows before the first test are only learnt from, and each test lies after its learning.
        """
        count = min(count, self.rows // MIN_FOLD_ROWS)
        if self.order is not None:
            rows = np.argsort(self.order, kind="stable")
            blocks = np.array_split(rows, min(count, self.rows // MIN_FOLD_ROWS - 1) + 1)
            for index in range(1, len(blocks)):
                yield np.concatenate(blocks[:index]), blocks[index]
        elif self.groups is not None:
            count = min(count, np.unique(self.groups).size)
            if count > 1:
                yield from GroupKFold(count).split(self.groups, groups=self.groups)
        else:
            dealt = self._shuffled()
            for index in range(count):
                test = np.arange(self.rows) % count == index
                yield np.sort(dealt[~test]), np.sort(dealt[test])

    def of(self, rows: Rows) -> "Splitter":
        """One for these rows alone, which it numbers from 0."""
        return Splitter(
            len(rows),
            self.seed,
            None if self.strata is None else self.strata[rows],
            None if self.groups is None else self.groups[rows],
            None if self.order is None else self.order[rows],
        )

    def _shuffled(self) -> Rows:
        """A seeded shuffle, in which the rows of a stratum then stand together."""
        shuffled = np.random.default_rng(self.seed).permutation(self.rows)
        if self.strata is None:
            return shuffled
        return shuffled[np.argsort(self.strata[shuffled], kind="stable")]

    def _hold_out_groups(self, groups: NDArray[np.intp], share: float) -> NDArray[np.bool_]:
        """Whether each row is held out: group after group of a shuffle, where it brings the share nearer."""
        sizes = np.bincount(groups)
        wanted, taken = share * self.rows, 0
        held = np.zeros(len(sizes), bool)
        for group in np.random.default_rng(self.seed).permutation(len(sizes)).tolist():
            if taken + sizes[group] / 2 <= wanted:
                held[group] = True
                taken += sizes[group]
        if not held.any():
            held[sizes.argmin()] = True
        return held[groups]


def strata_of(target: NDArray[Any], *, classes: bool) -> NDArray[np.intp]:
    """The stratum of each row: its class, or the tenth of the values that it lies in."""
    if classes:
        return target.astype(np.intp, copy=False)
    tenths = np.quantile(target, np.arange(1, STRATA) / STRATA)
    return np.searchsorted(tenths, target).astype(np.intp)
