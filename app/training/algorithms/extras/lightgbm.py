"""LightGBM as an algorithm of the catalogue: ``pip install roundhouse[lightgbm]``."""

from typing import Any

from app.registry.signature import Task
from app.training.algorithms.algorithm import EVERY_TASK, Algorithm, SearchRange
from app.training.algorithms.tree_parameters import (
    COLSAMPLE_BYTREE,
    LEARNING_RATE,
    SUBSAMPLE,
    boosting_rounds,
    leaf_penalty,
    leaf_rows,
    most_leaves,
)


def build(task: Task, params: dict[str, Any], seed: int) -> Any:
    """One thread, and no choice by timing among its ways to add up: the same rows give the same model."""
    from app.training.algorithms.extras.lightgbm_rows_apart import Classifier, Regressor

    estimator = Regressor if task is Task.REGRESSION else Classifier
    return estimator(
        **params,
        subsample_freq=1,  # else it takes no notice of subsample
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        random_state=seed % 2**31,  # its seeds are signed
        verbosity=-1,
    )


ALGORITHM = Algorithm(
    id="lightgbm",
    title="LightGBM",
    tasks=EVERY_TASK,
    parameters=(
        LEARNING_RATE,
        boosting_rounds("n_estimators"),
        most_leaves("num_leaves"),
        leaf_rows("min_child_samples", 20, 100),
        SUBSAMPLE,
        COLSAMPLE_BYTREE,
        leaf_penalty("reg_lambda", 0.0, SearchRange(0.0, 10.0)),
    ),
    builder=f"{__name__}:build",
    choose_when="As hist_gradient_boosting, where its further parameters or its speed on wide tables gain; "
    "it is not served compiled.",
    cost="medium",
    scaling="linear in rounds, rows, columns and classes",
    requires=("lightgbm",),
)
