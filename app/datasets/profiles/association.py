"""How strongly two columns hang together, by the measure that fits their types.

Two numbers: Pearson's correlation, signed; a number and a boolean: the same, called point-biserial. Two
columns of categories (strings and booleans): Cramér's V. Categories and numbers: the correlation ratio.
Those two are never negative, and grow with the number of categories by chance alone. They are corrected for
that: of their square, what chance would make of it is taken off and the rest scaled, so that 0 is expected
where nothing hangs together and 1 is reached where one column follows from the other. Of the correlation
ratio that is Kelley's epsilon (PNAS 21, 1935); of V, for which chance makes (max(r, c) - 1) / (n - 1), it is
the same where either column has two values. Rows in which either value is null do not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

MAX_CATEGORIES = 300
BINS = 200
ROWS_IN_BIN = 5


class Measure(StrEnum):
    PEARSON = "pearson"
    POINT_BISERIAL = "point_biserial"
    CORRELATION_RATIO = "correlation_ratio"
    CRAMERS_V = "cramers_v"


@dataclass(frozen=True)
class Variable:
    """A column of n rows, as numbers, as categories, or (a boolean) as both."""

    numbers: NDArray[np.float64] | None
    """Shape (n,), of mean 0 and standard deviation 1; NaN is null. All 0 where the column is constant."""
    codes: NDArray[np.int64] | None
    """Shape (n,), from 0 on; -1 is null."""
    categories: int = 0

    @classmethod
    def of_numbers(cls, values: NDArray[np.generic], nulls: NDArray[np.bool_]) -> Self:
        return cls(_standardized(values, nulls), None)

    @classmethod
    def of_categories(
        cls, values: NDArray[np.generic], nulls: NDArray[np.bool_], *, ordered: bool = False
    ) -> Self | None:
        """None for text: more than MAX_CATEGORIES different values, or fewer than two rows to each.

        ``ordered`` makes it a number too, as a boolean is.
        """
        present = values[~nulls]
        known = np.unique(present)
        if len(known) > min(MAX_CATEGORIES, max(2, len(present) // 2)):
            return None
        codes = np.where(nulls, -1, np.searchsorted(known, values))
        return cls(_standardized(values, nulls) if ordered else None, codes, len(known))

    @property
    def varies(self) -> bool:
        if self.numbers is None:
            return self.categories > 1
        return bool(np.any(np.nan_to_num(self.numbers)))

    def as_bins(self) -> Variable:
        """As categories alone; of a number, bins of about equal counts."""
        if self.codes is not None or self.numbers is None:
            return Variable(None, self.codes, self.categories)
        present = np.sort(self.numbers[~np.isnan(self.numbers)])
        bins = max(1, min(BINS, len(present) // ROWS_IN_BIN))
        edges = np.unique(present[np.arange(1, bins) * len(present) // bins])
        codes = np.searchsorted(edges, self.numbers, side="right")
        return Variable(None, np.where(np.isnan(self.numbers), -1, codes), len(edges) + 1)


def associate(left: Variable, right: Variable) -> tuple[Measure, float | None]:
    """The measure that fits the two, and its value; None where one does not vary or all rows differ."""
    if left.codes is not None and right.codes is not None:
        counts = _contingency(left.codes, left.categories, right.codes, right.categories)
        return Measure.CRAMERS_V, _cramers_v(counts)
    if left.numbers is not None and right.numbers is not None:
        boolean = left.codes is not None or right.codes is not None
        value = float(_pearson(np.stack([left.numbers, right.numbers], axis=1))[0, 1])
        return Measure.POINT_BISERIAL if boolean else Measure.PEARSON, _or_none(value)
    if left.codes is not None and right.numbers is not None:
        return Measure.CORRELATION_RATIO, _correlation_ratio(left.codes, left.categories, right.numbers)
    return associate(right, left)


def correlate(variables: list[Variable]) -> list[list[float | None]]:
    """``associate`` for all pairs, as a symmetric matrix with 1 in the diagonal."""
    size = len(variables)
    found = np.eye(size)
    numeric = [index for index, variable in enumerate(variables) if variable.numbers is not None]
    if numeric:
        columns = [numbers for index in numeric if (numbers := variables[index].numbers) is not None]
        found[np.ix_(numeric, numeric)] = _pearson(np.stack(columns, axis=1))
    for row, left in enumerate(variables):
        for column, right in enumerate(variables[:row]):
            categories = left.codes is not None and right.codes is not None
            if categories or left.numbers is None or right.numbers is None:
                value = associate(left, right)[1]
                found[row, column] = found[column, row] = math.nan if value is None else value
    np.fill_diagonal(found, 1)
    return [[_or_none(round(value, 4)) for value in row] for row in found.tolist()]


def _standardized(values: NDArray[np.generic], nulls: NDArray[np.bool_]) -> NDArray[np.float64]:
    numbers = np.where(nulls, np.nan, values.astype(np.float64))
    present = numbers[~nulls]
    # Scaled first, so that sums of the largest floats stay finite.
    scale = float(np.max(np.abs(present), initial=0.0)) or 1.0
    numbers = numbers / scale
    present = numbers[~nulls]
    if not len(present):
        return numbers
    spread = float(np.std(present))
    # What is left of a constant after rounding is no variation.
    return (numbers - np.mean(present)) / spread if spread > 1e-12 else numbers * 0.0


def _pearson(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations of columns, each pair over the rows that have both; shape (n, k) to (k, k)."""
    nulls = np.isnan(numbers)
    present = (~nulls).astype(np.float64)
    values = np.where(nulls, 0.0, numbers)
    rows = present.T @ present
    sums = values.T @ present
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = (values.T @ values) / rows - (sums / rows) * (sums.T / rows)
        variance = ((values**2).T @ present) / rows - (sums / rows) ** 2
        variance[variance < 1e-12] = np.nan
        correlation: NDArray[np.float64] = covariance / np.sqrt(variance * variance.T)
    return np.clip(correlation, -1, 1)


def _correlation_ratio(
    codes: NDArray[np.int64], categories: int, numbers: NDArray[np.float64]
) -> float | None:
    both = (codes >= 0) & ~np.isnan(numbers)
    codes, values = (codes, numbers) if both.all() else (codes[both], numbers[both])
    counts = np.bincount(codes, minlength=categories)
    rows, groups = len(codes), int(np.count_nonzero(counts))
    if groups < 2 or rows <= groups:
        return None
    values = values - np.mean(values)
    total = float(values @ values)
    if total < 1e-12 * rows:
        return None
    sums = np.bincount(codes, weights=values, minlength=categories)
    within = max(0.0, total - float(np.sum(sums[counts > 0] ** 2 / counts[counts > 0])))
    return math.sqrt(max(0.0, 1 - (within / (rows - groups)) / (total / (rows - 1))))


def _contingency(
    left: NDArray[np.int64], height: int, right: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Rows of each pair of categories that come together at all, shape (at most height, at most width)."""
    both = (left >= 0) & (right >= 0)
    cells = np.bincount(left[both] * width + right[both], minlength=height * width).reshape(height, width)
    table: NDArray[np.int64] = cells[cells.sum(axis=1) > 0][:, cells.sum(axis=0) > 0]
    return table


def _cramers_v(table: NDArray[np.int64]) -> float | None:
    rows = int(table.sum())
    height, width = table.shape
    if min(height, width) < 2 or rows <= max(height, width):
        return None
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / rows
    squared = float(np.sum((table - expected) ** 2 / expected)) / rows / (min(height, width) - 1)
    by_chance = (max(height, width) - 1) / (rows - 1)
    return math.sqrt(min(1.0, max(0.0, (squared - by_chance) / (1 - by_chance))))


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
