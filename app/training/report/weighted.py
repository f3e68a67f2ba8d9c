"""The metrics of ``app.training.evaluation`` for many weightings of the same rows at once.

A bootstrap resample is a weighting: how often each row was drawn. To weigh costs a fraction of what it costs
to draw the rows and evaluate them one resample after the other.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from app.registry.signature import Task
from app.training.report.intervals import Numbers
from app.training.report.subject import Scores

MAX_CURVES = 50
"""Classes up to which the areas under their curves get an interval: each costs a sort."""
EPSILON = np.finfo(np.float64).eps


def losses(task: Task, actual: NDArray[np.generic], scores: Scores) -> Numbers:
    """Each row's loss, shape (n,): the logarithmic one of a classifier, else the absolute error."""
    if task is Task.REGRESSION:
        return np.asarray(np.abs(scores[:, 0] - actual.astype(np.float64)))
    given = scores[np.arange(len(actual)), actual.astype(np.intp)]
    return np.asarray(-np.log(np.clip(given, EPSILON, 1.0)) + 0.0)


def weighted_metrics(
    task: Task,
    actual: NDArray[np.generic],
    predicted: NDArray[np.generic],
    scores: Scores,
    weights: Numbers,
) -> dict[str, Numbers]:
    """Metrics by name, each of shape (r,), of n rows under ``weights`` of shape (r, n), not negative.

    The names are those of ``evaluate``; NaN stands where a weighting does not define one.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        match task:
            case Task.BINARY:
                return _binary(actual, predicted, scores, weights)
            case Task.MULTICLASS:
                return _multiclass(actual.astype(np.intp), predicted.astype(np.intp), scores, weights)
            case Task.REGRESSION:
                return _regression(actual.astype(np.float64), scores[:, 0], weights)


def _binary(
    actual: NDArray[np.generic], predicted: NDArray[np.generic], scores: Scores, weights: Numbers
) -> dict[str, Numbers]:
    true, said, positive = actual == 1, predicted == 1, scores[:, 1]
    columns = np.column_stack(
        [
            np.ones(len(true)), true, said, true & said, true == said,
            losses(Task.BINARY, actual, scores), (positive - true) ** 2,
        ]
    )  # fmt: skip
    total, trues, saids, hits, right, loss, squares = (weights @ columns).T
    recall = hits / trues
    specificity = (total - trues - saids + hits) / (total - trues)
    return {
        "accuracy": right / total,
        "balanced_accuracy": np.where(
            trues == 0, specificity, np.where(trues == total, recall, (recall + specificity) / 2)
        ),
        "precision": np.where(saids > 0, hits / saids, 0.0),
        "recall": np.where(trues > 0, recall, 0.0),
        "f1": np.where(trues + saids > 0, 2 * hits / (trues + saids), 0.0),
        "roc_auc": area_under_roc(true, positive, weights),
        "average_precision": _average_precision(true, positive, weights),
        "log_loss": loss / total,
        "brier_score": squares / total,
    }


def area_under_roc(true: NDArray[np.bool_], score: Numbers, weights: Numbers) -> Numbers:
    """The chance that a positive row scores above a negative one, ties counting half; shape (r,)."""
    negatives = np.flatnonzero(~true)
    negatives = negatives[np.argsort(score[negatives], kind="stable")]
    ordered, positive = score[negatives], score[true]
    below = np.zeros((len(weights), len(negatives) + 1))
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    left, right = (np.searchsorted(ordered, positive, side=side) for side in ("left", "right"))
    beaten = below[:, left]
    if (left != right).any():
        beaten = (beaten + below[:, right]) / 2
    chosen = weights[:, true]
    return np.asarray(np.einsum("rn,rn->r", chosen, beaten) / (chosen.sum(axis=1) * below[:, -1]))


def _average_precision(true: NDArray[np.bool_], score: Numbers, weights: Numbers) -> Numbers:
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = np.cumsum(np.where(true[order], weights[:, order], 0.0), axis=1)[:, ends]
    precision = hits / np.cumsum(weights[:, order], axis=1)[:, ends]
    steps = np.diff(hits, axis=1, prepend=0.0)
    return np.asarray(np.where(steps > 0, steps * precision, 0.0).sum(axis=1) / hits[:, -1])


def _multiclass(
    actual: NDArray[np.intp], predicted: NDArray[np.intp], scores: Scores, weights: Numbers
) -> dict[str, Numbers]:
    classes = 1 + int(max(actual.max(), predicted.max(), scores.shape[1] - 1))
    right = actual == predicted
    total, loss = weights.sum(axis=1), weights @ losses(Task.MULTICLASS, actual, scores)
    support = _by_class(actual, weights, classes)
    said = _by_class(predicted, weights, classes)
    hits = _by_class(actual[right], weights[:, right], classes)
    metrics = {
        "accuracy": hits.sum(axis=1) / total,
        "balanced_accuracy": _mean_where(hits / support, support > 0),
        "f1_macro": _mean_where(2 * hits / (support + said), support + said > 0),
        "log_loss": loss / total,
    }
    if scores.shape[1] <= MAX_CURVES and np.unique(actual).size == scores.shape[1]:
        area, influence = _mean_area(actual, scores)
        metrics["roc_auc_ovr"] = area + weights @ influence / total
    return metrics


def _by_class(codes: NDArray[np.intp], weights: Numbers, classes: int) -> Numbers:
    members = sparse.csr_array(
        (np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(classes, len(codes))
    )
    return np.asarray((members @ weights.T).T)


def _mean_where(values: Numbers, where: NDArray[np.bool_]) -> Numbers:
    return np.asarray(np.where(where, values, 0.0).sum(axis=1) / where.sum(axis=1))


def _mean_area(actual: NDArray[np.intp], scores: Scores) -> tuple[float, Numbers]:
    """The mean of the areas of one class against the rest, and each row's influence on it, shape (n,).

    The influence is made of the structural components of DeLong, DeLong and Clarke-Pearson (1988).
    """
    areas, influence = [], np.zeros(len(actual))
    for index in range(scores.shape[1]):
        true = actual == index
        positives = int(true.sum())
        negatives = len(true) - positives
        ranks = rankdata(scores[:, index])
        beaten = np.empty(len(true))
        beaten[true] = (ranks[true] - rankdata(scores[true, index])) / negatives
        beaten[~true] = 1 - (ranks[~true] - rankdata(scores[~true, index])) / positives
        area = float(beaten[true].mean())
        shares = np.where(true, positives, negatives) / len(true)
        areas.append(area)
        influence += (beaten - area) / shares / scores.shape[1]
    return float(np.mean(areas)), influence


def _regression(actual: Numbers, predicted: Numbers, weights: Numbers) -> dict[str, Numbers]:
    errors = np.abs(predicted - actual)
    centred = actual - actual.mean()
    columns = [np.ones(len(errors)), errors, errors**2, centred, centred**2]
    varied = not np.any(actual == 0)
    if varied:
        columns.append(errors / np.abs(actual))
    total, absolute, squares, first, second, *relative = (weights @ np.column_stack(columns)).T
    metrics = {
        "rmse": np.sqrt(squares / total),
        "mae": absolute / total,
        "median_absolute_error": _median(errors, weights),
    }
    if varied:
        metrics["mape"] = relative[0] / total
    spread = second - first**2 / total
    metrics["r2"] = np.where(spread > 1e-12 * second, 1 - squares / spread, np.nan)
    return metrics


def _median(values: Numbers, weights: Numbers) -> Numbers:
    """Medians under whole weights: the mean of the two middle values where their number is even."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    total = reached[:, -1:]
    lower = (reached <= np.floor((total - 1) / 2)).sum(axis=1)
    upper = (reached <= np.floor(total / 2)).sum(axis=1)
    ordered = values[order]
    return np.asarray((ordered[lower] + ordered[np.minimum(upper, len(order) - 1)]) / 2)
