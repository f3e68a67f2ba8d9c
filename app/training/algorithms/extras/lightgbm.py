"""LightGBM as an algorithm of the catalogue: ``pip install roundhouse[lightgbm]``."""

from typing import Any

from app.registry.signature import Task
from app.training.algorithms.algorithm import EVERY_TASK, Algorithm, Parameter, SearchRange


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
        Parameter(
            "learning_rate",
            "number",
            0.1,
            "The weight of each tree.",
            0.001,
            1.0,
            search=SearchRange(0.01, 0.3, log=True),
        ),
        Parameter(
            "n_estimators",
            "integer",
            100,
            "The number of boosting rounds.",
            1,
            5000,
            search=SearchRange(50, 500, log=True),
        ),
        Parameter(
            "num_leaves",
            "integer",
            31,
            "The most leaves of a tree.",
            2,
            1024,
            search=SearchRange(4, 128, log=True),
        ),
        Parameter(
            "min_child_samples",
            "integer",
            20,
            "The fewest rows in a leaf.",
            1,
            10_000,
            search=SearchRange(1, 100, log=True),
        ),
        Parameter(
            "subsample",
            "number",
            1.0,
            "The share of the rows that each tree learns from.",
            0.01,
            1.0,
            search=SearchRange(0.5, 1.0),
        ),
        Parameter(
            "colsample_bytree",
            "number",
            1.0,
            "The share of the encoded features that each tree looks at.",
            0.01,
            1.0,
            search=SearchRange(0.3, 1.0),
        ),
        Parameter(
            "reg_lambda",
            "number",
            0.0,
            "The L2 penalty on leaf values.",
            0.0,
            1e6,
            search=SearchRange(0.0, 10.0),
        ),
    ),
    builder=f"{__name__}:build",
    choose_when="As hist_gradient_boosting, where its further parameters or its speed on wide tables gain; "
    "it is not served compiled.",
    cost="medium",
    scaling="linear in rounds, rows, columns and classes",
    requires=("lightgbm",),
)
