"""The answer of a fitted pipeline: the same for a row alone and for that row in any batch, bit for bit.

scikit-learn's own ``predict`` does not promise this: a linear model is a matrix product there, and the
order in which a product adds up depends on the shape of the batch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from app.registry.signature import Signature, Task

# Made once, after scikit-learn has loaded its OpenMP library: to look the libraries up takes milliseconds.
_threads = ThreadpoolController()


def predict(
    pipeline: Pipeline, signature: Signature, matrix: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Predictions for a matrix of shape (n, features) that ``signature.encode`` made.

    Classifiers: class indices of shape (n,), each the most probable class (the first of equals), and
    probabilities of shape (n, len(signature.classes)). Regression: values of shape (n,), and None.
    """
    # Scaling a row far outside the training range may overflow, as may the sum by which scikit-learn looks
    # for infinite cells; the pipeline bounds the result. On a busy machine, boosted trees wait for their
    # OpenMP threads ten times as long as they compute.
    with np.errstate(over="ignore", invalid="ignore"), _threads.limit(limits=1, user_api="openmp"):
        return _predict(pipeline, signature, matrix)


def _predict(
    pipeline: Pipeline, signature: Signature, matrix: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    model = pipeline[-1]
    prepared = pipeline[:-1].transform(matrix)
    if signature.task is Task.REGRESSION or signature.classes is None:
        values = _linear_scores(model, prepared) if hasattr(model, "coef_") else model.predict(prepared)
        return np.asarray(values, dtype=np.float64), None
    probabilities = np.zeros((len(matrix), len(signature.classes)))
    # A class that the training part does not hold (a split by time) keeps the probability 0.
    probabilities[:, model.classes_] = _probabilities(model, prepared)
    return probabilities.argmax(axis=1), probabilities


def _probabilities(model: Any, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    match model:
        case LogisticRegression():
            return _from_scores(_linear_scores(model, prepared))
        case CalibratedClassifierCV():
            return _calibrated(model, prepared)
        case HistGradientBoostingClassifier() | GradientBoostingClassifier():
            return _from_scores(model.decision_function(prepared))
        case _:
            return np.asarray(model.predict_proba(prepared), dtype=np.float64)


def _calibrated(model: CalibratedClassifierCV, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    """A sigmoid of each linear score, as ``CalibratedClassifierCV`` with ``ensemble=False`` takes them."""
    (calibrated,) = model.calibrated_classifiers_
    scores = _linear_scores(calibrated.estimator, prepared).reshape(len(prepared), -1)
    columns = zip(calibrated.calibrators, scores.T, strict=True)
    shares = np.column_stack([calibrator.predict(column) for calibrator, column in columns])
    if shares.shape[1] == 1:
        return np.column_stack((1 - shares, shares))
    sums = shares.sum(axis=1, keepdims=True)
    uniform = np.full_like(shares, 1 / shares.shape[1])
    return np.asarray(np.divide(shares, sums, out=uniform, where=sums != 0))


def _linear_scores(model: Any, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decision values of a linear model, added up feature by feature in the same order for every row."""
    weights = np.atleast_2d(model.coef_)
    scores = np.zeros((len(prepared), len(weights)))
    for position in range(prepared.shape[1]):
        scores += prepared[:, position, None] * weights[:, position]
    scores += model.intercept_
    return scores[:, 0] if len(weights) == 1 else scores


def _from_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic function of binary scores, shape (n,); softmax of others, shape (n, classes)."""
    if scores.ndim == 1:
        positive = expit(scores)
        return np.column_stack((1 - positive, positive))
    # One memory layout for every batch: the sum of a row is then added up in one order.
    powers = np.exp(np.ascontiguousarray(scores - scores.max(axis=1, keepdims=True)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
