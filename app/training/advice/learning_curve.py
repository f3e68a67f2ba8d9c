"""Whether more rows would help: how a fast model's score grows with the rows that it learns from.

Losses fall as a power of the rows, towards a floor that no number of rows goes below: loss = floor +
scale · rows^-rate (Viering and Loog, The shape of learning curves, 2023, find it to fit most often).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Numbers = NDArray[np.float64]

RATES = np.linspace(0.1, 1.0, 19)
"""What a model has still to learn falls by the rows themselves at best: a steeper curve is chance."""
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class PowerLaw:
    floor: float
    scale: float
    rate: float

    def at(self, rows: float) -> float:
        return self.floor + self.scale * float(rows**-self.rate)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


def fit_power_law(rows: Numbers, losses: Numbers) -> PowerLaw:
    """Least squares, of losses of shape (k,) at so many rows: neither floor nor scale is below 0.

    Where losses do not fall, the law is their mean.
    """
    best = PowerLaw(float(losses.mean()), 0.0, 1.0)
    error = float(np.sum((losses - best.floor) ** 2))
    for rate in RATES.tolist():
        powers = rows**-rate
        spread = powers - powers.mean()
        scale = float(spread @ losses / (spread @ spread))
        floor = float(losses.mean() - scale * powers.mean())
        if floor < 0:
            floor, scale = 0.0, float(powers @ losses / (powers @ powers))
        if scale < 0:
            continue
        tried = PowerLaw(floor, scale, rate)
        off = float(np.sum((losses - floor - scale * powers) ** 2))
        if off < error:
            best, error = tried, off
    return best


def estimate_gain(rows: Sequence[int], losses: Numbers, now: float, tested: float) -> Estimate:
    """By how much the loss would fall with twice ``now`` rows.

    ``losses`` has shape (folds, k), at ``rows`` learnt from; ``tested`` is the ratio of the rows tested in a
    fold to those learnt. The interval is the jackknife's over the folds.
    """
    sizes = np.asarray(rows, dtype=np.float64)

    def gain(some: Numbers) -> float:
        law = fit_power_law(sizes, some.mean(axis=0))
        return law.at(now) - law.at(2 * now)

    folds = len(losses)
    whole = gain(losses)
    left = np.array([gain(np.delete(losses, fold, axis=0)) for fold in range(folds)])
    around = estimate_mean(folds * whole - (folds - 1) * left, tested)
    reach = around.high - around.value
    return Estimate(whole, whole - reach, whole + reach)


def estimate_mean(values: Numbers, tested: float) -> Estimate:
    """The mean over folds, shape (folds,), folds > 1, and its interval.

    The folds learn from mostly the same rows, so that their variance says too little: it is corrected as
    Nadeau and Bengio do (Inference for the generalization error, 2003).
    """
    folds = len(values)
    error = float(values.std(ddof=1)) * np.sqrt(1 / folds + tested)
    reach = float(stdtrit(folds - 1, (1 + LEVEL) / 2) * error)
    mean = float(values.mean())
    return Estimate(mean, mean - reach, mean + reach)


def grow(most: int, least: int, count: int = 4) -> list[int]:
    """Up to ``count`` sizes, each half of the next, the last ``most``, none below ``least``."""
    sizes = [most]
    while len(sizes) < count and sizes[0] // 2 >= least:
        sizes.insert(0, sizes[0] // 2)
    return sizes
