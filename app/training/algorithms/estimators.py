"""The catalogue's algorithms as scikit-learn estimators."""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
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
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from app.errors import AppError
from app.registry.signature import Task
from app.training.algorithms.builtin import CALIBRATION_FOLDS, EARLY_STOPPING_ROWS
from app.training.algorithms.catalogue import algorithm, check_task

Params = dict[str, Any]


class AlgorithmUnavailable(AppError):
    """The catalogue offers the algorithm, and this installation cannot build it (500)."""

    status = 500


def build_estimator(name: str, task: Task, params: Params, seed: int) -> BaseEstimator:
    """The unfitted estimator of an algorithm; ``params`` are completed with the defaults.

    Raises InvalidInput for a task that the algorithm does not do and for bad parameters,
    AlgorithmUnavailable where its builder cannot be imported or fails.
    """
    entry = algorithm(name)
    check_task(entry, task)
    complete = entry.complete(params)
    try:
        module, function = entry.builder.split(":")
        return getattr(import_module(module), function)(task, complete, seed)
    except Exception as error:  # a plug-in's code may raise anything
        raise AlgorithmUnavailable(
            "algorithm_unavailable",
            f"{name} cannot be built here by {entry.builder} of {entry.provider}: {type(error).__name__}: "
            f"{error}. Mend that installation, or choose another algorithm.",
        ) from error


def logistic_regression(_: Task, params: Params, seed: int) -> BaseEstimator:
    return LogisticRegression(**params, random_state=seed)


def ridge(_: Task, params: Params, seed: int) -> BaseEstimator:
    return Ridge(**params, random_state=seed)


def linear_regression(_task: Task, _params: Params, _seed: int) -> BaseEstimator:
    return LinearRegression()


def elastic_net(_: Task, params: Params, seed: int) -> BaseEstimator:
    return ElasticNet(**params, random_state=seed)


def linear_svm(task: Task, params: Params, seed: int) -> BaseEstimator:
    class_weight = params.pop("class_weight")
    if task is Task.REGRESSION:
        return LinearSVR(**params, random_state=seed)
    return _with_probabilities(LinearSVC(**params, class_weight=class_weight, random_state=seed))


def svm_rbf(task: Task, params: Params, _: int) -> BaseEstimator:
    gamma, epsilon = params.pop("gamma"), params.pop("epsilon")
    params["gamma"] = "scale" if gamma is None else gamma
    if task is Task.REGRESSION:
        return _of_standard_target(SVR(**params, epsilon=epsilon))
    return _with_probabilities(SVC(**params))


def _with_probabilities(machine: BaseEstimator) -> CalibratedClassifierCV:
    """A support vector machine has only distances: a sigmoid of them is fitted across folds."""
    return CalibratedClassifierCV(machine, method="sigmoid", cv=CALIBRATION_FOLDS, ensemble=False)


def _of_standard_target(model: BaseEstimator) -> TransformedTargetRegressor:
    """The parameters of some models suit a target of mean 0 and variance 1."""
    return TransformedTargetRegressor(model, transformer=StandardScaler())


def gaussian_nb(_task: Task, params: Params, _seed: int) -> BaseEstimator:
    return GaussianNB(**params)


def decision_tree(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = DecisionTreeRegressor if task is Task.REGRESSION else DecisionTreeClassifier
    return estimator(**params, random_state=seed)


def random_forest(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = RandomForestRegressor if task is Task.REGRESSION else RandomForestClassifier
    return estimator(**params | _share_of_features(task, params), n_jobs=1, random_state=seed)


def extra_trees(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = ExtraTreesRegressor if task is Task.REGRESSION else ExtraTreesClassifier
    return estimator(**params | _share_of_features(task, params), n_jobs=1, random_state=seed)


def _share_of_features(task: Task, params: Params) -> Params:
    usual = 1 / 3 if task is Task.REGRESSION else "sqrt"
    share = params["max_features"]
    return {"max_features": usual if share is None else share}


def gradient_boosting(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = GradientBoostingRegressor if task is Task.REGRESSION else GradientBoostingClassifier
    return estimator(**params, random_state=seed)


def hist_gradient_boosting(task: Task, params: Params, seed: int) -> BaseEstimator:
    estimator = HistGradientBoostingRegressor if task is Task.REGRESSION else HistGradientBoostingClassifier
    return estimator(**params, random_state=seed)


def k_neighbors(task: Task, params: Params, _: int) -> BaseEstimator:
    estimator = KNeighborsRegressor if task is Task.REGRESSION else KNeighborsClassifier
    # The brute-force search takes its distances from one matrix product, whose rounding depends on the
    # other rows of the batch; the tree computes each distance by itself.
    return estimator(**params, algorithm="ball_tree", n_jobs=1)


class _StopsEarly:
    """Of a neural network: ``early_stopping`` None stands for whether the fit has rows enough for it."""

    early_stopping: bool | None

    def fit(self, rows: NDArray[np.float64], target: ArrayLike, sample_weight: Any = None) -> Any:
        asked = self.early_stopping
        self.early_stopping = len(rows) >= EARLY_STOPPING_ROWS if asked is None else asked
        try:
            return super().fit(rows, target, sample_weight)  # type: ignore[misc] # the class beside it has it
        finally:
            self.early_stopping = asked


class StoppedMLPClassifier(_StopsEarly, MLPClassifier):  # type: ignore[misc] # scikit-learn is not typed
    pass


class StoppedMLPRegressor(_StopsEarly, MLPRegressor):  # type: ignore[misc] # scikit-learn is not typed
    pass


def mlp(task: Task, params: Params, seed: int) -> BaseEstimator:
    params["hidden_layer_sizes"] = (params.pop("hidden_units"),) * params.pop("hidden_layers")
    if task is Task.REGRESSION:
        return _of_standard_target(StoppedMLPRegressor(**params, random_state=seed))
    return StoppedMLPClassifier(**params, random_state=seed)


def dummy(task: Task, _: Params, seed: int) -> BaseEstimator:
    if task is Task.REGRESSION:
        return DummyRegressor(strategy="mean")
    return DummyClassifier(strategy="prior", random_state=seed)
