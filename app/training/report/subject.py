"""What an evaluation report is about: a fitted model, and the rows by which it is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from app.datasets.engine import Parquet
from app.registry.signature import Signature
from app.training.spec import TrainingSpec

Scores = NDArray[np.float64]
"""Probabilities of shape (n, classes), or values of shape (n, 1)."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another model's scores on the same held-out rows. ``name`` is ``dummy``, ``linear`` or ``champion``."""

    name: str
    title: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class Judged:
    """What answers, and the held-out rows by which it is judged.

    ``score`` answers a matrix as the model will be served (compiled, where it is). ``holdout`` has shape
    (n, matrix columns), ``target`` shape (n,): class indices (classifiers) or values.
    """

    signature: Signature
    score: Callable[[NDArray[np.float64]], Scores]
    holdout: NDArray[np.float64]
    target: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Subject(Judged):
    """A fitted model, the rows that it learnt from, and its holdout.

    ``scores`` are what ``score`` answers to the holdout. ``training_target`` is as ``target``, and
    ``holdout_rows`` of shape (n,): each row's place in ``parquet``, from 0. ``refit`` fits the same
    configuration with another seed on the same training rows; ``fit_seconds`` is what a fit costs, if known.
    """

    spec: TrainingSpec
    pipeline: Pipeline
    metric: str
    scores: Scores
    training: NDArray[np.float64]
    training_target: NDArray[Any]
    holdout_rows: NDArray[np.intp]
    rivals: tuple[Rival, ...]
    refit: Callable[[int], Pipeline]
    parquet: Parquet
    fit_seconds: float = 0.0
