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
    area, precision = _ranking(true, positive, weights)
    specificity = (total - trues - saids + hits) / (total - trues)
    return {
        "accuracy": right / total,
        "balanced_accuracy": np.where(
            trues == 0, specificity, np.where(trues == total, recall, (recall + specificity) / 2)
        ),
        "precision": np.where(saids > 0, hits / saids, 0.0),
        "recall": np.where(trues > 0, recall, 0.0),
        "f1": np.where(trues + saids > 0, 2 * hits / (trues + saids), 0.0),
        "roc_auc": area,
        "average_precision": precision,
        "log_loss": loss / total,
        "brier_score": squares / total,
    }


def _ranking(true: NDArray[np.bool_], score: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """The areas under the ROC curve, ties counting half, and the average precisions; shape (r,) each.

    Both are sums over the positive rows, of the rows that score at least as high: one sort does for both.
    """
    falling = -score
    order = np.argsort(falling, kind="stable")
    falling, places = falling[order], np.flatnonzero(true[order])
    chosen = np.take(weights, order[places], axis=1)
    rows, hits = _sums(np.take(weights, order, axis=1)), _sums(chosen)
    # Of each positive row: how many rows score higher, and how many at least as high.
    higher, reached = (np.searchsorted(falling, falling[places], side=side) for side in ("left", "right"))
    said = np.take(rows, reached, axis=1)
    right = np.take(hits, np.searchsorted(places, reached), axis=1)
    alarms = said - right
    if (reached - higher > 1).any():
        alarms += np.take(rows, higher, axis=1) - np.take(hits, np.searchsorted(places, higher), axis=1)
        alarms /= 2
    positives = hits[:, -1]
    pairs = positives * (rows[:, -1] - positives)
    area = (pairs - np.einsum("rn,rn->r", chosen, alarms)) / pairs
    precisions = np.divide(right, said, out=np.zeros_like(right), where=said > 0)
    return area, np.einsum("rn,rn->r", chosen, precisions) / positives


def _sums(weights: Numbers) -> Numbers:
    """Cumulative sums of each row, the first of nothing: (r, n) → (r, n + 1)."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


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
