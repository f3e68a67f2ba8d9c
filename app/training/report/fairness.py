"""How differently a model treats the groups of a column."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from app.registry.signature import Task
from app.training.report.grouping import Groups
from app.training.report.intervals import (
    LEVEL,
    Numbers,
    mean_interval,
    proportion_difference,
    proportion_interval,
)
from app.training.report.numbers import rounded, rounded_interval
from app.training.report.subject import Scores

MIN_GROUP_ROWS = 20
"""Smaller groups, and shares of fewer rows, are listed but have no part in a gap."""
MAX_CLASSES = 10

Measure = tuple[str, Any, NDArray[np.bool_], Numbers, bool]
"""Name, class, the rows it is of, a value for each of them, and whether that is 0 or 1."""


def compare_groups(
    task: Task,
    actual: NDArray[Any],
    predicted: NDArray[Any],
    scores: Scores,
    labels: Sequence[Any],
    groups: Groups,
) -> dict[str, Any]:
    """The measures of each group with their intervals, and the widest gap in each measure.

    Binary: selection rate (share answered with the positive class), true and false positive rate, accuracy
    and calibration (observed less predicted rate). Multiclass: accuracy and calibration of the answer, and
    of each class selection rate and true positive rate. Regression: mean prediction, bias (actual less
    predicted) and mean absolute error. Shares have Wilson's intervals, means Student's.

    A gap is that of the two groups that are farthest apart. As they were picked out of all pairs, its
    interval (Newcombe's; Welch's for means) is at the level that Bonferroni's correction over the pairs asks
    for. ``ratio`` is the smaller rate by the larger one.
    """
    measures = _measures(task, actual, predicted, scores, labels)
    sizes = groups.sizes
    return {
        "column": groups.column,
        "least_rows": MIN_GROUP_ROWS,
        "groups": [
            {
                **label,
                "rows": int(sizes[code]),
                "measures": [_measured(measure, groups.codes == code) for measure in measures],
            }
            for code, label in enumerate(groups.labels)
        ],
        "gaps": [gap for measure in measures if (gap := _gap(measure, groups)) is not None],
    }


def _measures(
    task: Task, actual: NDArray[Any], predicted: NDArray[Any], scores: Scores, labels: Sequence[Any]
) -> list[Measure]:
    every = np.ones(len(actual), dtype=np.bool_)
    if task is Task.REGRESSION:
        errors = actual - scores[:, 0]
        return [
            ("mean_prediction", None, every, scores[:, 0], False),
            ("bias", None, every, errors, False),
            ("mean_absolute_error", None, every, np.abs(errors), False),
        ]
    right = (actual == predicted).astype(np.float64)
    if task is Task.BINARY:
        said = (predicted == 1).astype(np.float64)
        return [
            ("selection_rate", None, every, said, True),
            ("true_positive_rate", None, actual == 1, said, True),
            ("false_positive_rate", None, actual == 0, said, True),
            ("accuracy", None, every, right, True),
            ("calibration", None, every, actual - scores[:, 1], False),
        ]
    measures: list[Measure] = [
        ("accuracy", None, every, right, True),
        ("calibration", None, every, right - scores.max(axis=1), False),
    ]
    frequent = np.argsort(-np.bincount(actual, minlength=len(labels)), kind="stable")[:MAX_CLASSES]
    for code in frequent.tolist():
        said = (predicted == code).astype(np.float64)
        measures.append(("selection_rate", labels[code], every, said, True))
        measures.append(("true_positive_rate", labels[code], actual == code, said, True))
    return measures


def _measured(measure: Measure, members: NDArray[np.bool_]) -> dict[str, Any]:
    name, label, of, values, is_share = measure
    held = values[members & of]
    told: dict[str, Any] = {
        "measure": name,
        "class": label,
        "rows": len(held),
        "value": None,
        "interval": None,
    }
    if len(held):
        told["value"] = rounded(held.mean())
    if len(held) > 1 or (is_share and len(held)):
        interval = (
            proportion_interval(held.sum(), len(held))
            if is_share
            else mean_interval(held.mean(), held.std(ddof=1), len(held))
        )
        told["interval"] = rounded_interval(interval)
    return told


def _gap(measure: Measure, groups: Groups) -> dict[str, Any] | None:
    name, label, of, values, is_share = measure
    held = [values[(groups.codes == code) & of] for code in range(len(groups.labels))]
    large = [code for code, part in enumerate(held) if len(part) >= MIN_GROUP_ROWS]
    if len(large) < 2:
        return None
    pairs = len(list(combinations(large, 2)))
    tail = 1 - (1 - LEVEL) / 2 / pairs
    low, high = (pick(large, key=lambda code: held[code].mean()) for pick in (min, max))
    difference: Callable[[Numbers, Numbers, float], tuple[float, float, float]] = (
        _share_difference if is_share else _mean_difference
    )
    value, *interval = difference(held[high], held[low], tail)
    told: dict[str, Any] = {
        "measure": name,
        "class": label,
        "value": rounded(value),
        "interval": rounded_interval((interval[0], interval[1])),
        "high": groups.labels[high],
        "low": groups.labels[low],
        "pairs": pairs,
    }
    if is_share:
        top = held[high].mean()
        told["ratio"] = rounded(held[low].mean() / top) if top > 0 else None
    return told


def _share_difference(first: Numbers, second: Numbers, tail: float) -> tuple[float, float, float]:
    return proportion_difference(
        (float(first.sum()), len(first)), (float(second.sum()), len(second)), z=float(ndtri(tail))
    )


def _mean_difference(first: Numbers, second: Numbers, tail: float) -> tuple[float, float, float]:
    difference = float(first.mean() - second.mean())
    spreads = [float(part.var(ddof=1)) / len(part) for part in (first, second)]
    variance = sum(spreads)
    if variance == 0:
        return difference, difference, difference
    freedom = variance**2 / sum(
        spread**2 / (len(part) - 1) for spread, part in zip(spreads, (first, second), strict=True)
    )
    reach = float(stdtrit(freedom, tail)) * variance**0.5
    return difference, difference - reach, difference + reach
