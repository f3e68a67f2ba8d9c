"""The catalogue's algorithms as scikit-learn estimators."""

from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
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
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from app.registry.signature import Task
from app.training.catalogue import algorithm

CALIBRATION_FOLDS = 3
"""As many rows each class needs for a linear support vector machine."""

Params = dict[str, Any]


def build_estimator(name: str, task: Task, params: Params, seed: int) -> BaseEstimator:
    """The unfitted estimator of an algorithm; ``params`` are completed with the defaults.

    Raises InvalidInput for a task that the algorithm does not do and for bad parameters.
    """
    entry = algorithm(name)
    entry.check_task(task)
    return _BUILDERS[name](task, entry.complete(params), seed)


def _logistic_regression(_: Task, params: Params, seed: int) -> BaseEstimator:
    return LogisticRegression(**params, random_state=seed)


def _ridge(_: Task, params: Params, seed: int) -> BaseEstimator:
    return Ridge(**params, random_state=seed)


def _linear_regression(_task: Task, _params: Params, _seed: int) -> BaseEstimator:
    return LinearRegression()


def _elastic_net(_: Task, params: Params, seed: int) -> BaseEstimator:
    return ElasticNet(**params, random_state=seed)


def _linear_svm(task: Task, params: Params, seed: int) -> BaseEstimator:
    class_weight = params.pop("class_weight")
    if task is Task.REGRESSION:
        return LinearSVR(**params, random_state=seed)
    # A machine has no probabilities of its own: a sigmoid of the distance is fitted across folds.
    machine = LinearSVC(**params, class_weight=class_weight, random_state=seed)
    return CalibratedClassifierCV(machine, method="sigmoid", cv=CALIBRATION_FOLDS, ensemble=False)


def _decision_tree(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = DecisionTreeRegressor if task is Task.REGRESSION else DecisionTreeClassifier
    return estimator(**params, random_state=seed)


def _random_forest(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = RandomForestRegressor if task is Task.REGRESSION else RandomForestClassifier
    return estimator(**params | _share_of_features(task, params), n_jobs=1, random_state=seed)


def _extra_trees(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = ExtraTreesRegressor if task is Task.REGRESSION else ExtraTreesClassifier
    return estimator(**params | _share_of_features(task, params), n_jobs=1, random_state=seed)


def _share_of_features(task: Task, params: Params) -> Params:
    usual = 1 / 3 if task is Task.REGRESSION else "sqrt"
    share = params["max_features"]
    return {"max_features": usual if share is None else share}


def _gradient_boosting(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = GradientBoostingRegressor if task is Task.REGRESSION else GradientBoostingClassifier
    return estimator(**params, random_state=seed)


def _hist_gradient_boosting(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = HistGradientBoostingRegressor if task is Task.REGRESSION else HistGradientBoostingClassifier
    return estimator(**params, random_state=seed)


def _k_neighbors(task: Task, params: Params, _: int) -> BaseEstimator:
    estimator = KNeighborsRegressor if task is Task.REGRESSION else KNeighborsClassifier
    # The brute-force search takes its distances from one matrix product, whose rounding depends on the
    # other rows of the batch; the tree computes each distance by itself.
    return estimator(**params, algorithm="ball_tree", n_jobs=1)


def _dummy(task: Task, _: Params, seed: int) -> BaseEstimator:
    if task is Task.REGRESSION:
        return DummyRegressor(strategy="mean")
    return DummyClassifier(strategy="prior", random_state=seed)


_BUILDERS: dict[str, Callable[[Task, Params, int], BaseEstimator]] = {
    "logistic_regression": _logistic_regression,
    "ridge": _ridge,
    "linear_regression": _linear_regression,
    "elastic_net": _elastic_net,
    "linear_svm": _linear_svm,
    "decision_tree": _decision_tree,
    "random_forest": _random_forest,
    "extra_trees": _extra_trees,
    "gradient_boosting": _gradient_boosting,
    "hist_gradient_boosting": _hist_gradient_boosting,
    "k_neighbors": _k_neighbors,
    "dummy": _dummy,
}
