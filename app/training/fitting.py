"""One fit: a configuration and a matrix of training rows in, a fitted pipeline out."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_sample_weight

from app.errors import AppError
from app.registry.predictor import predict
from app.registry.signature import Signature, Task
from app.training.algorithms.builtin import CALIBRATION_FOLDS
from app.training.algorithms.catalogue import algorithm
from app.training.algorithms.estimators import build_estimator
from app.training.preparation.pipeline import build_pipeline
from app.training.preparation.steps import Preparation, resolve_plan
from app.training.roles import own_preparation
from app.training.spec import TrainingSpec
from app.training.spec_rules import is_label

Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Answers a matrix of shape (n, features): (n, classes) probabilities, or (n, 1) values."""


class TrainingFailed(AppError):
    """The spec and the data are sound, and the fit still did not yield a model (422)."""

    status = 422


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that a search decides; ``params`` are complete, with the defaults."""

    algorithm: str
    params: dict[str, Any]
    preparation: Preparation

    def to_json(self) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "params": self.params,
            "preparation": self.preparation.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class Fitter:
    """Fits configurations under the rest of a training spec."""

    spec: TrainingSpec
    signature: Signature

    def fit(
        self,
        configuration: Configuration,
        matrix: NDArray[np.float64],
        target: NDArray[Any],
        *,
        seed: int | None = None,
    ) -> tuple[Pipeline, list[str]]:
        """The fitted pipeline, and what the fit warned of, in sentences.

        ``matrix`` has shape (n, features), ``target`` shape (n,); ``seed`` stands in for the spec's. Raises
        TrainingFailed.
        """
        title = algorithm(configuration.algorithm).title
        pipeline = self._build(configuration, self.spec.seed if seed is None else seed)
        weights = self._weigh(target)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                pipeline.fit(matrix, target, **({} if weights is None else {"model__sample_weight": weights}))
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                raise TrainingFailed("fit_failed", f"The {title} could not be fitted: {error}") from error
            except MemoryError as error:
                raise TrainingFailed(
                    "out_of_memory",
                    f"The {title} needs more memory than a run may use. Choose fewer features, "
                    "smaller parameters or another algorithm.",
                ) from error
        notes = []
        for warning in caught:
            text = f"The {title} warned: {' '.join(str(warning.message).split())}"
            if issubclass(warning.category, ConvergenceWarning):
                text = f"The {title} stopped at max_iter before it had converged: raise max_iter."
            notes.append(text)
        return pipeline, list(dict.fromkeys(notes))

    def answer(
        self, pipeline: Pipeline, matrix: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """``predict``. Raises TrainingFailed as ``checked_scores`` does."""
        scores = checked_scores(native_score(pipeline, self.signature), matrix)
        return self.signature.decide(scores), None if self.signature.task is Task.REGRESSION else scores

    def _build(self, configuration: Configuration, seed: int) -> Pipeline:
        estimator = build_estimator(configuration.algorithm, self.signature.task, configuration.params, seed)
        if self.spec.calibration is not None:
            estimator = _calibrated(estimator, self.spec.calibration)
        plan = resolve_plan(
            self.signature.features, configuration.preparation, own_preparation(self.spec), seed
        )
        return build_pipeline(self.signature, plan, estimator)

    def _weigh(self, target: NDArray[Any]) -> NDArray[np.float64] | None:
        """The weight of each row, shape (n,), that ``class_weight`` asks for; None where all weigh alike."""
        if self.spec.class_weight is None:
            return None
        if self.spec.class_weight == "balanced":
            return np.asarray(compute_sample_weight("balanced", target))
        weights = np.ones(len(self.signature.classes or ()))
        for entry in self.spec.class_weight:
            for index, label in enumerate(self.signature.classes or ()):
                if is_label(entry.label, label):
                    weights[index] = entry.weight
        return np.asarray(weights[target])


def _calibrated(estimator: BaseEstimator, method: str) -> BaseEstimator:
    if isinstance(estimator, CalibratedClassifierCV):
        return estimator.set_params(method=method)
    return CalibratedClassifierCV(estimator, method=method, cv=CALIBRATION_FOLDS, ensemble=False)


def native_score(pipeline: Pipeline, signature: Signature) -> Score:
    """scikit-learn's own answers, in a scorer's shape."""
    return lambda matrix: scores_of(signature, *predict(pipeline, signature, matrix))


def checked_scores(score: Score, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """``score(matrix)``. Raises TrainingFailed where an answer cannot be had, or is not a finite number."""
    try:
        scores = score(matrix)
    except ValueError as error:  # such as more neighbours than there are rows
        raise TrainingFailed("fit_failed", f"The fitted model cannot answer: {error}") from error
    if not np.isfinite(scores).all():
        raise TrainingFailed(
            "not_finite",
            "The fitted model answers with numbers that are not finite. Look for extreme values in the "
            "data, or choose another algorithm.",
        )
    return scores


def scores_of(
    signature: Signature, predicted: NDArray[Any], probabilities: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Answers in a scorer's shape: probabilities (n, classes), or values (n, 1)."""
    if signature.task is Task.REGRESSION or probabilities is None:
        return np.asarray(predicted, np.float64)[:, None]
    return probabilities
