"""The answer of a fitted pipeline: the same for a row alone and for that row in any batch, bit for bit.

scikit-learn's own ``predict`` does not promise this: linear models and neural networks are matrix products
there, and the order in which a product adds up depends on the shape of the batch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from app.registry.signature import Signature, Task

_ROWS_APART = (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    DummyClassifier,
    DummyRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    KNeighborsClassifier,  # with a tree: the catalogue's; by brute force it multiplies matrices
    KNeighborsRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    SVC,
    SVR,
)
"""Models that look at each row by itself."""

# Made once, after scikit-learn has loaded its OpenMP library: to look the libraries up takes milliseconds.
_threads = ThreadpoolController()


def predict(
    pipeline: Pipeline, signature: Signature, matrix: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Predictions for a matrix of shape (n, features) that ``signature.encode`` made.

    Classifiers: class indices of shape (n,), as ``signature.decide`` chooses them, and probabilities of shape
    (n, len(signature.classes)). Regression: values of shape (n,), and None.
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
        return _values(model, prepared), None
    probabilities = np.zeros((len(matrix), len(signature.classes)))
    # A class that the training part does not hold (a split by time) keeps the probability 0.
    probabilities[:, model.classes_] = _probabilities(model, prepared)
    return signature.decide(probabilities), probabilities


def _values(model: Any, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    match model:
        case TransformedTargetRegressor():
            values = _values(model.regressor_, prepared)[:, None]
            return np.asarray(model.transformer_.inverse_transform(values)[:, 0])
        case Ridge() | LinearRegression() | ElasticNet() | LinearSVR():
            return _linear_scores(model, prepared)
        case MLPRegressor():
            return _network_scores(model, prepared)
        case _:
            return _answers(model, "predict", prepared)


def _probabilities(model: Any, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    match model:
        case LogisticRegression():
            return _from_scores(_linear_scores(model, prepared))
        case CalibratedClassifierCV():
            return _calibrated(model, prepared)
        case HistGradientBoostingClassifier() | GradientBoostingClassifier():
            return _from_scores(model.decision_function(prepared))
        case MLPClassifier():
            return _from_scores(_network_scores(model, prepared))
        case GaussianNB():
            return _from_scores(_log_likelihoods(model, prepared))
        case _:
            return _answers(model, "predict_proba", prepared)


def _answers(model: Any, method: str, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a method of the model says; row by row, unless it is known to look at each by itself.

    A plug-in's estimator tells that it does by an attribute ``answers_rows_apart``.
    """
    answer = getattr(model, method)
    apart = isinstance(model, _ROWS_APART) or getattr(model, "answers_rows_apart", False)
    found = answer(prepared) if apart else np.concatenate([answer(row[None]) for row in prepared])
    return np.asarray(found, dtype=np.float64)


def _calibrated(model: CalibratedClassifierCV, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    """The calibrated share of each class, as ``CalibratedClassifierCV`` with ``ensemble=False`` has it."""
    (calibrated,) = model.calibrated_classifiers_
    scores = _uncalibrated(calibrated.estimator, prepared)
    columns = zip(calibrated.calibrators, scores.T, strict=True)
    shares = np.column_stack([calibrator.predict(column) for calibrator, column in columns])
    if shares.shape[1] == 1:
        return np.column_stack((1 - shares, shares))
    sums = shares.sum(axis=1, keepdims=True)
    uniform = np.full_like(shares, 1 / shares.shape[1])
    return np.asarray(np.divide(shares, sums, out=uniform, where=sums != 0))


def _uncalibrated(model: Any, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a calibrator learns from: decision values, else probabilities; of two classes the second's."""
    if isinstance(model, LogisticRegression | LinearSVC):
        scores = _linear_scores(model, prepared)
    elif hasattr(model, "decision_function"):
        scores = _answers(model, "decision_function", prepared)
    else:
        scores = _probabilities(model, prepared)
        scores = scores[:, 1] if scores.shape[1] == 2 else scores
    return scores.reshape(len(prepared), -1)


def _linear_scores(model: Any, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decision values of a linear model: shape (n,), or (n, classes) for more than two."""
    scores = _products(prepared, np.atleast_2d(model.coef_).T, model.intercept_)
    return scores[:, 0] if scores.shape[1] == 1 else scores


def _network_scores(
    model: MLPClassifier | MLPRegressor, prepared: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What a neural network's last layer adds up: shape (n,), or (n, classes) for more than two."""
    values = prepared
    for weights, intercepts in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        values = np.maximum(_products(values, weights, intercepts), 0)  # ReLU
    scores = _products(values, model.coefs_[-1], model.intercepts_[-1])
    return scores[:, 0] if scores.shape[1] == 1 else scores


def _products(
    values: NDArray[np.float64], weights: NDArray[np.float64], intercepts: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """The matrix product and intercepts, added up feature by feature in the same order for every row.

    Shapes (n, features), (features, outputs) and (outputs,) → (n, outputs).
    """
    scores = np.zeros((len(values), weights.shape[1]))
    for position, weight in enumerate(weights):
        scores += values[:, position, None] * weight
    scores += intercepts
    return scores


def _log_likelihoods(model: GaussianNB, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each class with each row, but for a constant of the row, shape (n, classes); added up as above."""
    scores = np.zeros((len(prepared), len(model.classes_)))
    for position, (means, variances) in enumerate(zip(model.theta_.T, model.var_.T, strict=True)):
        scores -= (prepared[:, position, None] - means) ** 2 / variances
    return np.asarray((scores - np.log(model.var_).sum(axis=1)) / 2 + np.log(model.class_prior_))


def _from_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic function of binary scores, shape (n,); softmax of others, shape (n, classes)."""
    if scores.ndim == 1:
        positive = expit(scores)
        return np.column_stack((1 - positive, positive))
    # One memory layout for every batch: the sum of a row is then added up in one order.
    powers = np.exp(np.ascontiguousarray(scores - scores.max(axis=1, keepdims=True)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
