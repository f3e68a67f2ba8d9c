"""Models on the same rows: their metrics, the differences row for row, and tests of these. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import binomtest, rankdata

from app.registry.signature import Task
from app.training.report.answers import Answers, Measured, assess, resample
from app.training.report.intervals import Numbers, Resampling, Z

Flags = NDArray[np.bool_]


class AreaTest(NamedTuple):
    """Two areas under ROC curves: the second less the first, its interval, and how likely it is by chance."""

    difference: float
    interval: tuple[float, float]
    statistic: float
    p_value: float


class AccuracyTest(NamedTuple):
    """Rows that only the first or only the second of two models answers rightly; how likely by chance."""

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A model beside the first one: its metrics less the first one's, and the tests that there are."""

    differences: dict[str, Measured]
    area: AreaTest | None
    accuracy: AccuracyTest | None


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """``metrics`` of each model; ``pairs`` of each but the first with the first."""

    resampling: Resampling
    metrics: list[dict[str, Measured]]
    pairs: list[Pair]


def compare(
    task: Task, actual: NDArray[Any], models: Sequence[Answers], *, seed: int, scorers: Sequence[str] = ()
) -> ModelComparison:
    """Compare the answers of two models or more to n ≥ 1 rows of which ``actual``, shape (n,), came true.

    Class indices and scores are in one order of classes for all. Intervals are of the bootstrap: each
    resample of rows is taken for all models, so that what makes rows hard for all of them cancels out.
    ``scorers`` are further metrics, of scikit-learn; they get no interval. What the rows do not define is
    left out.
    """
    with np.errstate(all="ignore"):  # values near the largest float overflow in squares
        resampling = resample(task, actual, seed)
        first, *others = (assess(task, actual, model, resampling, scorers) for model in models)
        metrics = [one.metrics() for one in (first, *others)]
        pairs = [
            _pair(task, actual, models[0], model, own.less(first))
            for model, own in zip(models[1:], others, strict=True)
        ]
    return ModelComparison(resampling, metrics, pairs)


def _pair(
    task: Task, actual: NDArray[Any], first: Answers, second: Answers, differences: dict[str, Measured]
) -> Pair:
    if task is Task.REGRESSION:
        return Pair(differences, None, None)
    area = None
    if task is Task.BINARY:
        area = compare_areas(actual == 1, first.scores[:, 1], second.scores[:, 1])
    return Pair(differences, area, compare_accuracies(first.predicted == actual, second.predicted == actual))


def compare_areas(positive: Flags, first: Numbers, second: Numbers) -> AreaTest | None:
    """The test of two areas under ROC curves over the same n rows, all of shape (n,).

    DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
    characteristic curves, 1988, computed by the ranks of Sun and Xu, 2014. None where a class has fewer than
    two rows, or where areas that differ do not vary.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if min(positives, negatives) < 2:
        return None
    areas, of_positives, of_negatives = [], [], []
    for scores in (first, second):
        ranks = rankdata(scores)
        # For each row, the share of the other class that it is on the right side of; ties count half.
        beaten = (ranks[positive] - rankdata(scores[positive])) / negatives
        kept = 1 - (ranks[~positive] - rankdata(scores[~positive])) / positives
        areas.append(float(beaten.mean()))
        of_positives.append(beaten)
        of_negatives.append(kept)
    difference = areas[1] - areas[0]
    variance = sum(
        float(np.var(components[1] - components[0], ddof=1)) / len(components[0])
        for components in (of_positives, of_negatives)
    )
    error = float(np.sqrt(variance))
    if error <= 1e-12:
        same = abs(difference) <= 1e-12
        return AreaTest(0.0, (0.0, 0.0), 0.0, 1.0) if same else None
    statistic = difference / error
    interval = (difference - Z * error, difference + Z * error)
    return AreaTest(difference, interval, statistic, float(2 * ndtr(-abs(statistic))))


def compare_accuracies(first: Flags, second: Flags) -> AccuracyTest:
    """McNemar's exact test (1947) of which rows, shape (n,), two models answer rightly.

    Where the models are equally good, a row that only one of them answers rightly is as likely to be the
    one's as the other's.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    apart = only_first + only_second
    chance = float(binomtest(only_second, apart).pvalue) if apart else 1.0
    return AccuracyTest(only_first, only_second, chance)
