"""95 % intervals: of proportions, of means, of their differences, and of any statistic by the bootstrap.

And the correction of p-values for many tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import scipy  # loads its parts when they are first used
from numpy.typing import NDArray

LEVEL = 0.95
MAX_RESAMPLES = 1000
MIN_RESAMPLES = 400
RESAMPLED_CELLS = 2_000_000
SUBSET_ROWS = 5_000
MAX_SUBSETS = 8
DEFINED_SHARE = 0.95
"""A statistic that fewer of the resamples define gets no interval."""

Numbers = NDArray[np.float64]
Interval = tuple[float, float] | None
Method = Literal["bootstrap", "bag_of_little_bootstraps"]
Statistic = Callable[[NDArray[np.intp], Numbers], dict[str, Numbers]]
"""Of rows, shape (b,), and resamples of them as weights, shape (r, b): values of shape (r,) or (r, k)."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """Resamples of ``rows`` rows: pairs of a subset's rows, shape (b,), and weights, shape (r, b).

    Up to 5,000 rows it is the plain bootstrap (Efron, 1979): the one subset is all rows. Beyond, it is the
    bag of little bootstraps (Kleiner, Talwalkar, Sarkar and Jordan, 2014): each of a few random subsets of
    5,000 rows is resampled to the full number, with a Poisson weight for each row, and what is said of the
    deviations is the mean over the subsets. Its cost does not grow with the rows.
    """

    rows: int
    subsets: tuple[tuple[NDArray[np.intp], Numbers], ...]

    @property
    def method(self) -> Method:
        return "bootstrap" if len(self.subsets) == 1 else "bag_of_little_bootstraps"

    @property
    def resamples(self) -> int:
        return sum(len(weights) for _, weights in self.subsets)

    def deviations(self, statistic: Statistic) -> "Deviations":
        return Deviations(
            tuple(
                (statistic(rows, np.ones((1, len(rows)))), statistic(rows, weights))
                for rows, weights in self.subsets
            )
        )


@dataclass(frozen=True, slots=True)
class Deviations:
    """How the values of a statistic lie about its value in each subset."""

    samples: tuple[tuple[dict[str, Numbers], dict[str, Numbers]], ...]

    def interval(self, name: str, value: float, rival: "Deviations | None" = None) -> Interval:
        """The percentile interval about ``value``; of the difference to a rival, if given, pair by pair.

        None where too few resamples define it, or all say the same.
        """
        lows, highs = [], []
        for place, (centre, sample) in enumerate(self.samples):
            if name not in centre:
                return None
            centred, drawn = centre[name][0], sample[name]
            if rival is not None:
                other_centre, other = rival.samples[place]
                if name not in other_centre:
                    return None
                centred, drawn = centred - other_centre[name][0], drawn - other[name]
            drawn = drawn[np.isfinite(drawn)]
            if not np.isfinite(centred) or len(drawn) < DEFINED_SHARE * len(sample[name]):
                return None
            low, high = np.quantile(drawn, TAILS)
            lows.append(low - centred)
            highs.append(high - centred)
        low, high = value + float(np.mean(lows)), value + float(np.mean(highs))
        return (low, high) if high - low > 1e-12 * max(1.0, abs(value)) else None

    def band(self, name: str, values: Numbers) -> tuple[Numbers, Numbers]:
        """Pointwise percentile intervals about a curve of shape (k,)."""
        edges = [
            np.quantile(sample[name], TAILS, axis=0) - centre[name][0] for centre, sample in self.samples
        ]
        low, high = np.mean(edges, axis=0)
        return values + low, values + high


TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
Z = NormalDist().inv_cdf(TAILS[1])


def draw_resamples(rows: int, seed: int, *, least: int = 1) -> Resampling:
    """Seeded resamples of ``rows`` ≥ 1 rows; subsets hold at least ``least`` of them (at most 20,000)."""
    rng = np.random.default_rng(seed)
    size = max(SUBSET_ROWS, min(least, 4 * SUBSET_ROWS))
    resamples = max(MIN_RESAMPLES, min(MAX_RESAMPLES, RESAMPLED_CELLS // min(rows, size)))
    if rows <= size:
        drawn = rng.integers(0, rows, (resamples, rows))
        drawn += np.arange(resamples)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=resamples * rows).reshape(resamples, rows)
        return Resampling(rows, ((np.arange(rows), counts.astype(np.float64)),))
    subsets = min(MAX_SUBSETS, rows // size)
    shuffled = rng.permutation(rows)[: subsets * size].reshape(subsets, size)
    each = -(-resamples // subsets)
    return Resampling(
        rows,
        tuple(
            (np.sort(part), rng.poisson(rows / size, (each, size)).astype(np.float64)) for part in shuffled
        ),
    )


def proportion_interval(hits: Any, counts: Any, z: float = Z) -> tuple[Numbers, Numbers]:
    """Wilson's score interval of ``hits`` in ``counts`` > 0, elementwise (Wilson, 1927)."""
    counts = np.asarray(counts, dtype=np.float64)
    share = np.asarray(hits) / counts
    middle = (share + z**2 / (2 * counts)) / (1 + z**2 / counts)
    reach = z / (1 + z**2 / counts) * np.sqrt(share * (1 - share) / counts + z**2 / (4 * counts**2))
    return np.maximum(middle - reach, 0.0), np.minimum(middle + reach, 1.0)


def proportion_difference(
    first: tuple[float, float], second: tuple[float, float], z: float = Z
) -> tuple[float, float, float]:
    """The difference of two (hits, count) proportions and its interval: Newcombe's hybrid score method.

    Newcombe, Interval estimation for the difference between independent proportions, 1998, method 10.
    """
    p, q = first[0] / first[1], second[0] / second[1]
    (p_low, p_high), (q_low, q_high) = (
        proportion_interval(*first, z=z),
        proportion_interval(*second, z=z),
    )
    difference = p - q
    low = difference - np.hypot(p - p_low, q_high - q)
    high = difference + np.hypot(p_high - p, q - q_low)
    return difference, float(low), float(high)


def mean_interval(mean: Any, std: Any, counts: Any) -> tuple[Numbers, Numbers]:
    """Student's interval of a mean, elementwise; ``std`` is that of the rows (n - 1), ``counts`` ≥ 2."""
    counts = np.asarray(counts, dtype=np.float64)
    reach = scipy.special.stdtrit(counts - 1, TAILS[1]) * np.asarray(std) / np.sqrt(counts)
    return np.asarray(mean - reach), np.asarray(mean + reach)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """The p-values as they stand when all of these tests were made: Holm's step-down method, 1979."""
    adjusted, reached = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        reached = max(reached, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = reached
    return adjusted
