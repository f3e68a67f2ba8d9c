"""AutoGluon's medium quality: ``python autogluon_medium.py REQUEST ANSWER``."""

from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
from autogluon.tabular import TabularPredictor
from request import Request, carry_out

METRICS = {"roc_auc": "roc_auc", "log_loss": "log_loss", "rmse": "root_mean_squared_error"}


def fit(request: Request) -> object:
    predictor = TabularPredictor(
        label="target",
        problem_type=request.task,
        eval_metric=METRICS[request.metric],
        path=mkdtemp(dir=Path.cwd()),
        verbosity=0,
    )
    table = request.features.assign(target=request.target)
    predictor.fit(table, presets="medium_quality", num_cpus=1)
    return _Answers(predictor)


class _Answers:
    def __init__(self, predictor: TabularPredictor) -> None:
        self._predictor = predictor
        if predictor.problem_type != "regression":
            self.classes_ = predictor.class_labels

    def predict(self, rows: pd.DataFrame) -> pd.Series:
        return self._predictor.predict(rows)

    def predict_proba(self, rows: pd.DataFrame) -> pd.DataFrame:
        return self._predictor.predict_proba(rows)[self.classes_].to_numpy()


carry_out(fit)
