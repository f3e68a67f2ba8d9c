"""XGBoost as an algorithm of the catalogue: ``pip install roundhouse[xgboost]``."""

from typing import Any

from app.registry.signature import Task
from app.training.algorithms.algorithm import EVERY_TASK, Algorithm, Parameter, SearchRange
from app.training.algorithms.tree_parameters import (
    COLSAMPLE_BYTREE,
    LEARNING_RATE,
    SUBSAMPLE,
    boosting_rounds,
    leaf_penalty,
)


def build(task: Task, params: dict[str, Any], seed: int) -> Any:
    """One thread, as a sum over several depends on how many there are."""
    from xgboost import XGBClassifier

    from app.training.algorithms.extras.numbered_classes import NumberedClasses
    from app.training.algorithms.extras.xgboost_rows_apart import Regressor

    fixed: dict[str, Any] = {"tree_method": "hist", "n_jobs": 1, "random_state": seed % 2**31, "verbosity": 0}
    if task is Task.REGRESSION:
        return Regressor(**params, **fixed)
    return NumberedClasses(XGBClassifier(**params, **fixed))


ALGORITHM = Algorithm(
    id="xgboost",
    title="XGBoost",
    tasks=EVERY_TASK,
    parameters=(
        LEARNING_RATE,
        boosting_rounds("n_estimators"),
        Parameter("max_depth", "integer", 6, "The depth limit of a tree.", 1, 30, search=SearchRange(2, 10)),
        Parameter(
            "min_child_weight",
            "number",
            1.0,
            "The least sum of the rows' weights (their second derivatives of the loss) in a leaf.",
            0.0,
            1e6,
            search=SearchRange(0.1, 100.0, log=True),
        ),
        SUBSAMPLE,
        COLSAMPLE_BYTREE,
        leaf_penalty("reg_lambda", 1.0, SearchRange(0.01, 100.0, log=True)),
    ),
    builder=f"{__name__}:build",
    choose_when="As hist_gradient_boosting, where its penalties gain; it computes in 32 bits, and is not "
    "served compiled.",
    cost="medium",
    scaling="linear in rounds, rows, columns and classes",
    requires=("xgboost",),
)
