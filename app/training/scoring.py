"""Metrics by name: those of ``evaluation``, and scikit-learn's scorers."""

import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer

from app.registry.signature import Task
from app.training.evaluation import evaluate
from app.training.metrics import METRICS


def score(
    task: Task,
    metrics: Collection[str],
    actual: NDArray[Any],
    predicted: NDArray[Any],
    probabilities: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """The named metrics of ``predicted`` against ``actual``, each of ``metrics_for(task)``.

    The arrays are those of ``evaluate``. A metric that the sample does not define is left out.
    """
    known = score_all(task, metrics, actual, predicted, probabilities)
    return {name: known[name] for name in metrics if name in known}


def score_all(
    task: Task,
    scorers: Collection[str],
    actual: NDArray[Any],
    predicted: NDArray[Any],
    probabilities: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """All that ``evaluate`` tells, and of ``scorers`` those that it does not."""
    values = evaluate(task, actual, predicted, probabilities)
    for name in scorers:
        if name not in METRICS or task not in METRICS[name].tasks:
            value = _by_scorer(name, _answers(task, predicted, probabilities), actual)
            if value is not None:
                values[name] = value
    return values


def _by_scorer(name: str, answers: BaseEstimator, actual: NDArray[Any]) -> float | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics that the sample defines by convention only
        try:
            value = float(get_scorer(name)(answers, actual[:, None], actual))
        except ValueError:  # such as the logarithm of a negative value, or a class that is absent
            return None
    return value if np.isfinite(value) else None


def _answers(
    task: Task, predicted: NDArray[Any], probabilities: NDArray[np.float64] | None
) -> "_ClassAnswers | _ValueAnswers":
    if task is Task.REGRESSION or probabilities is None:
        return _ValueAnswers(predicted)
    return _ClassAnswers(predicted, probabilities)


class _ClassAnswers(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Answers given before, in the form in which a scorer asks for them."""

    def __init__(self, predicted: NDArray[Any], probabilities: NDArray[np.float64]) -> None:
        self.predicted = predicted
        self.probabilities = probabilities
        self.classes_ = np.arange(probabilities.shape[1])

    def predict(self, _: NDArray[Any]) -> NDArray[Any]:
        return self.predicted

    def predict_proba(self, _: NDArray[Any]) -> NDArray[np.float64]:
        return self.probabilities


class _ValueAnswers(RegressorMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    def __init__(self, predicted: NDArray[Any]) -> None:
        self.predicted = predicted

    def predict(self, _: NDArray[Any]) -> NDArray[Any]:
        return self.predicted
