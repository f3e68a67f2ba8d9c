"""XGBoost as an algorithm of the catalogue: ``pip install roundhouse[xgboost]``."""

from typing import Any

from app.registry.signature import Task
from app.training.algorithms.algorithm import EVERY_TASK, Algorithm, Parameter, SearchRange


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
            1.0,
            "The L2 penalty on leaf values.",
            0.0,
            1e6,
            search=SearchRange(0.01, 100.0, log=True),
        ),
    ),
    builder=f"{__name__}:build",
    choose_when="As hist_gradient_boosting, where its penalties gain; it computes in 32 bits, and is not "
    "served compiled.",
    cost="medium",
    scaling="linear in rounds, rows, columns and classes",
    requires=("xgboost",),
)
