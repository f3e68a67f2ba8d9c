"""Do two samples, given as counts in the same cells, differ: by which test, and by how much?

One procedure serves every kind of column; null and unknown category are cells like others.

Three tests share the work, and the smallest of their p-values counts three times (Bonferroni):

1. Values: Pearson's chi-squared test of homogeneity of two samples. Not goodness of fit: the reference is a
   sample too, and a small reference taken for the truth cries wolf. Cells where the smaller sample is
   expected to hold fewer than ``SPARSE`` rows are pooled; what is expected comes from both samples
   together, so that the choice of cells favours neither.
2. New values: rows in cells that the reference hardly knows, by the exact test of two rates given their sum
   (Przyborowski and Wilenski, Biometrika 31, 1940), one-sided. A new category or a new extreme turns up in
   fresh rows without any drift, too, as often as the reference's singletons tell (Good, Biometrika 40,
   1953), so those count as new on its side.
3. Null rate: the chi-squared test of two shares, where nulls are not sparse; else they are new values.

The effect is the Jensen-Shannon distance to base 2 (``app.divergence``). It has one scale, 0 to 1, for every
kind of column, does not diverge at an empty cell, as PSI does, and does not depend on the ratio of the sample
sizes, as Cramer's V does. The mean of its square without drift is subtracted, and intervals are those of the
noncentral distribution.

For a feeling: 0.05 is a mean shift of 0.12 standard deviations, or a new category with 0.5 % of the rows;
0.1 is 0.24 standard deviations, or 2 % new, or nulls up from 5 % to 11.5 %; 0.2 half a standard deviation.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import NamedTuple

import numpy as np
import scipy  # loads its parts when they are first used
from numpy.typing import NDArray

from app.divergence import divergence_of, sampling_unit

SPARSE = 5.0
POWER = 0.8
CONFIDENCE = 0.95


class DriftTest(StrEnum):
    VALUES = "values_chi_squared"
    NEW_VALUES = "new_values_exact_binomial"
    NULL_RATE = "null_rate_chi_squared"


@dataclass(frozen=True, slots=True)
class Evidence:
    """``statistic`` is chi-squared or, of new values, their number. Effects are distances in [0, 1]."""

    test: DriftTest
    statistic: float
    p_value: float
    effect: float
    effect_interval: tuple[float, float]
    detectable_effect: float


def weigh(
    live: NDArray[np.int64], reference: NDArray[np.int64], *, singletons: int, level: float
) -> Evidence:
    """Compare two vectors of counts, shape (k,) each, whose last two cells are unknown and null.

    ``singletons`` are the reference rows that would have been new, had they been left out.
    ``detectable_effect`` is what a test at the significance ``level`` shows with probability ``POWER``.
    Each vector must hold a row.
    """
    samples = np.array([live, reference], dtype=np.float64)
    n, m = samples.sum(axis=1)
    partition = _partition(samples, singletons)
    pool, new = partition.pool, partition.new
    is_null = np.arange(len(live)) == len(live) - 1
    new_live, new_reference = samples[:, new].sum(axis=1)

    values, df, p_values = _homogeneity(_summed(samples, pool, partition.tested))
    # The probability of so many new rows or more, when each new row is live with probability n / (n + m).
    # One singleton is granted: seeing none of a few rare categories says little about how rare they are.
    granted = new_reference + singletons + 1
    p_new = float(scipy.special.betainc(new_live, granted + 1, n / (n + m))) if new_live else 1.0
    null_rate, _, p_null = _homogeneity(_summed(samples, is_null.astype(np.int64), ~new))
    tests = (
        (p_values, values, DriftTest.VALUES),
        (p_new, float(new_live), DriftTest.NEW_VALUES),
        (p_null, null_rate, DriftTest.NULL_RATE),
    )
    p_value, statistic, test = min(tests, key=lambda result: result[0])

    # No more singletons are lent to the new cell than match the live rows: fewer new rows are no drift.
    lent = min(float(singletons), max(0.0, new_live * m / n - new_reference))
    table = _summed(samples, pool, ~new)
    if partition.crowded is not None:
        table[1, partition.crowded] = max(0.0, table[1, partition.crowded] - lent)
    new_share = np.array([[new_live / n], [(new_reference + lent) / m]])
    shares = np.hstack([table / np.maximum(1, table.sum(axis=1, keepdims=True)) * (1 - new_share), new_share])
    divergence, unit = divergence_of(shares), sampling_unit(n, m)
    freedom = max(1, int(np.count_nonzero(shares.any(axis=0))) - 1)
    z = float(scipy.special.ndtri((1 + CONFIDENCE) / 2))
    critical = float(scipy.special.chdtri(max(1, df), level / len(tests)))
    return Evidence(
        test=test,
        statistic=statistic,
        p_value=min(1.0, len(tests) * p_value),
        effect=_distance(divergence - freedom * unit),
        effect_interval=(
            _distance(unit * _noncentrality(divergence / unit, freedom, -z)),
            _distance(unit * _noncentrality(divergence / unit, freedom, z)),
        ),
        detectable_effect=_distance(
            unit * _noncentrality(critical, max(1, df), float(scipy.special.ndtri(POWER)))
        ),
    )


class _Partition(NamedTuple):
    """For each cell: its pool, whether it is new, whether the test of values counts it; shape (k,) each.

    ``crowded`` is the pool of all sparse and new cells, where there is such a one.
    """

    pool: NDArray[np.int64]
    new: NDArray[np.bool_]
    tested: NDArray[np.bool_]
    crowded: int | None


def _partition(samples: NDArray[np.float64], singletons: int) -> _Partition:
    n, m = samples.sum(axis=1)
    expected = samples.sum(axis=0) * (min(n, m) / (n + m))
    sparse = expected < SPARSE
    new = samples[1] == 0
    new[-2:] |= sparse[-2:]
    # Where many new rows are expected, they would fill sparse cells, had those been seen: one pool for both.
    # Not so in a column of a single cell of values, which holds its own sparse ones.
    crowded = len(new) > 3 and singletons * n / m >= SPARSE
    poolable = sparse | new if crowded else sparse & ~new
    poolable[-1] = False
    pools = int(expected[poolable].sum() // SPARSE)
    pool = np.arange(len(new))
    if not pools:
        new |= poolable
        poolable[:] = False
    # Dealt out by size, so that each pool is a like mixture of frequent and rare cells.
    by_size = np.flatnonzero(poolable)[np.argsort(-expected[poolable], kind="stable")]
    pool[by_size] = by_size[np.arange(len(by_size)) % (1 if crowded else max(1, pools))]
    tested = ~new | poolable
    tested[-1] = False
    return _Partition(pool, new, tested, int(by_size[0]) if crowded and pools else None)


def _summed(
    samples: NDArray[np.float64], pool: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The chosen cells' counts by pool, shape (2, pools)."""
    return np.array([np.bincount(pool, counts * chosen) for counts in samples])


def _homogeneity(table: NDArray[np.float64]) -> tuple[float, int, float]:
    """Pearson's statistic, degrees of freedom and p-value of a (2, k) table; empty columns do not count."""
    table = table[:, table.any(axis=0)]
    rows, df = table.sum(axis=1, keepdims=True), table.shape[1] - 1
    if df < 1 or not rows.all():
        return 0.0, 0, 1.0
    expected = rows * (table.sum(axis=0) / rows.sum())
    statistic = float(((table - expected) ** 2 / expected).sum())
    return statistic, df, float(scipy.special.chdtrc(df, statistic))


def _noncentrality(statistic: float, df: int, z: float) -> float:
    """The noncentrality at which sqrt(statistic) lies ``z`` standard deviations below its mean.

    The root of a noncentral chi-squared variable is about normal (sqrt(noncentrality + df - 1), 1).
    """
    return max(0.0, sqrt(statistic) + z) ** 2 - (df - 1)


def _distance(divergence: float) -> float:
    return sqrt(min(1.0, max(0.0, divergence)))
