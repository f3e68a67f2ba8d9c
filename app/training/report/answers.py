"""What models answer to the same rows: their metrics, the differences, and how far these are chance."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.registry.signature import Task
from app.training.metrics import greater_is_better
from app.training.report.intervals import Deviations, Interval, Numbers, Resampling, draw_resamples
from app.training.report.subject import Scores
from app.training.report.weighted import weighted_metrics
from app.training.scoring import score_all

RARE_ROWS = 50
"""A subset of many rows is made large enough to hold so many of the rarest class."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to n rows, as class indices or values, shape (n,), and the scores behind them."""

    predicted: NDArray[Any]
    scores: Scores


class Measured(NamedTuple):
    """A value with its 95 % interval; None where that cannot be told."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Assessment:
    """A model's metrics on some rows, and how they deviate where the rows are drawn again."""

    values: dict[str, float]
    deviations: Deviations

    def metrics(self) -> dict[str, Measured]:
        return {
            name: Measured(value, self.deviations.interval(name, value))
            for name, value in self.values.items()
        }

    def less(self, other: "Assessment") -> dict[str, Measured]:
        """The differences to another model on the same resamples, so that what is hard for both cancels."""
        found = {}
        for name, value in self.values.items():
            if name in other.values:
                difference = value - other.values[name]
                interval = self.deviations.interval(name, difference, other.deviations)
                found[name] = Measured(difference, interval)
        return found


def resample(task: Task, actual: NDArray[Any], seed: int) -> Resampling:
    """Resamples of n ≥ 1 rows of which ``actual``, shape (n,), came true: class indices or values."""
    rows, least = len(actual), 1
    if task is not Task.REGRESSION:
        counts = np.bincount(actual)
        least = min(rows, RARE_ROWS * rows // int(counts[counts > 0].min()))
    return draw_resamples(rows, seed, least=least)


def assess(
    task: Task,
    actual: NDArray[Any],
    answers: Answers,
    resampling: Resampling,
    scorers: Collection[str] = (),
) -> Assessment:
    """Judge answers by what came true; ``scorers`` are further metrics, which get no interval."""

    def resampled(rows: NDArray[np.intp], weights: Numbers) -> dict[str, Numbers]:
        return weighted_metrics(task, actual[rows], answers.predicted[rows], answers.scores[rows], weights)

    probabilities = None if task is Task.REGRESSION else answers.scores
    values = score_all(task, scorers, actual, answers.predicted, probabilities)
    return Assessment(values, resampling.deviations(resampled))


def favours(name: str, difference: Measured) -> int:
    """1 where the model less another is better by a metric, -1 the other, 0 where it cannot be told."""
    if difference.interval is None or difference.interval[0] <= 0 <= difference.interval[1]:
        return 0
    return 1 if (difference.value > 0) == greater_is_better(name) else -1
