"""How well predictions agree with what came true: metrics for each task.

Every function works on class indices, never on labels, and leaves out a metric that the sample does not
define rather than answer with a stand-in.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.registry.signature import Task


def evaluate(
    task: Task,
    actual: NDArray[Any],
    predicted: NDArray[Any],
    probabilities: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """The metrics of ``predicted`` against ``actual``, by name.

    ``actual`` and ``predicted`` have shape (n,), n ≥ 1: class indices for classifiers (1 is the positive
    class of a binary one), values for regression. ``probabilities`` has shape (n, classes). A metric that
    the sample does not define is left out: those of probabilities without them, roc_auc and
    average_precision where a class is absent, r2 where the actual values do not vary, mape where one is 0,
    any that overflows.
    """
    match task:
        case Task.BINARY:
            return _binary(actual, predicted, probabilities)
        case Task.MULTICLASS:
            return _multiclass(actual, predicted, probabilities)
        case Task.REGRESSION:
            return _regression(actual, predicted)


def confusion_matrix(actual: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> list[list[int]]:
    """Counts of shape (n_classes, n_classes): row the actual class, column the predicted one."""
    counts: list[list[int]] = _confusion(actual, predicted, n_classes).tolist()
    return counts


def _confusion(actual: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    cells = actual.astype(np.int64) * n_classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _binary(
    actual: NDArray[Any], predicted: NDArray[Any], probabilities: NDArray[np.float64] | None
) -> dict[str, float]:
    confusion = _confusion(actual, predicted, 2)
    hits, misses, false_alarms = (int(confusion[cell]) for cell in ((1, 1), (1, 0), (0, 1)))
    metrics = _shared(confusion) | {
        "precision": _ratio(hits, hits + false_alarms),
        "recall": _ratio(hits, hits + misses),
        "f1": _ratio(2 * hits, 2 * hits + misses + false_alarms),
    }
    if probabilities is None:
        return metrics
    positive = probabilities[:, 1]
    if confusion.sum(axis=1).all():
        metrics["roc_auc"], metrics["average_precision"] = _ranking(actual == 1, positive)
    metrics["log_loss"] = _log_loss(actual, probabilities)
    metrics["brier_score"] = float(np.mean((positive - actual) ** 2))
    return metrics


def _multiclass(
    actual: NDArray[Any], predicted: NDArray[Any], probabilities: NDArray[np.float64] | None
) -> dict[str, float]:
    n_classes = 1 + int(max(actual.max(), predicted.max()))
    confusion = _confusion(actual, predicted, n_classes)
    seen = confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = 2 * confusion.diagonal()[seen > 0] / seen[seen > 0]
    metrics = _shared(confusion) | {"f1_macro": float(f1.mean())}
    if probabilities is None:
        return metrics
    metrics["log_loss"] = _log_loss(actual, probabilities)
    classes = range(probabilities.shape[1])
    if np.count_nonzero(confusion.sum(axis=1)) == len(classes):
        areas = [_ranking(actual == index, probabilities[:, index])[0] for index in classes]
        metrics["roc_auc_ovr"] = float(np.mean(areas))
    return metrics


def _ranking(true: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[float, float]:
    """The area under the ROC curve, and the average precision; both kinds of rows are there.

    As scikit-learn defines them (``roc_auc_score``, ``average_precision_score``), which sorts for each, and
    looks several times at what the rows hold: that takes ten times as long.
    """
    order = np.argsort(score)[::-1]
    ordered = score[order]
    # Rows of one score are one step: in what order they were sorted does not matter.
    said = 1 + np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(order) - 1)
    hits = np.cumsum(true[order])[said - 1]
    found, false = np.diff(hits, prepend=0), np.diff(said - hits, prepend=0)
    beaten = int(np.sum(false * (2 * hits - found)))  # twice the pairs in order, a tie being half of one
    positives = int(hits[-1])
    area = beaten / (2 * positives * (len(true) - positives))
    return area, float(np.sum(found * (hits / said)) / positives)


def _shared(confusion: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy, and the mean recall of the classes that the sample holds."""
    support = confusion.sum(axis=1)
    recalls = confusion.diagonal()[support > 0] / support[support > 0]
    return {
        "accuracy": float(confusion.trace() / confusion.sum()),
        "balanced_accuracy": float(recalls.mean()),
    }


def _ratio(part: int, whole: int) -> float:
    # No prediction or no case of the positive class: 0, as scikit-learn's zero_division=0.
    return part / whole if whole else 0.0


def _log_loss(actual: NDArray[Any], probabilities: NDArray[np.float64]) -> float:
    """Mean negative log-likelihood; a probability of 0 counts as the machine epsilon, as in scikit-learn."""
    given = probabilities[np.arange(len(actual)), actual.astype(np.int64)]
    return float(-np.log(np.clip(given, np.finfo(np.float64).eps, 1.0)).mean() + 0.0)


def _regression(actual: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.abs(predicted - actual)
        squares = np.sum(errors**2)
        metrics = {
            "rmse": np.sqrt(squares / len(actual)),
            "mae": errors.mean(),
            "median_absolute_error": np.median(errors),
        }
        if not np.any(actual == 0):
            metrics["mape"] = np.mean(errors / np.abs(actual))
        if np.ptp(actual) > 0:  # the squares around a rounded mean are seldom 0
            metrics["r2"] = 1 - squares / np.sum((actual - actual.mean()) ** 2)
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}
