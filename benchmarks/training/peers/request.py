"""What a peer is asked, as files: rows to learn from, rows to answer, and what to make of them."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

TARGET = "target"


class Request:
    """``task`` is binary, multiclass or regression; ``metric`` roc_auc, log_loss or rmse."""

    def __init__(self, path: Path) -> None:
        told = json.loads(path.read_text())
        self.task: str = told["task"]
        self.metric: str = told["metric"]
        self.seed: int = told["seed"]
        self.cpu_seconds: float = told["cpu_seconds"]
        table = pd.read_parquet(told["table"])
        learnt, asked = (table.iloc[told[part]] for part in ("training", "holdout"))
        self.features, self.target = learnt.drop(columns=TARGET), learnt[TARGET]
        self.asked = asked.drop(columns=TARGET)

    def as_numbers_and_categories(self, rows: pd.DataFrame) -> pd.DataFrame:
        """For estimators that take no texts and no times; categories are those of the training rows."""
        made = {}
        for name, column in rows.items():
            if column.dtype.kind == "M":
                made[name] = column.astype("int64") / 1e9
            elif column.dtype.kind in "biuf":
                made[name] = column.astype(float)
            else:
                known = self.features[name].dropna().unique()
                made[name] = pd.Categorical(column, categories=sorted(known))
        return pd.DataFrame(made, index=rows.index)


def carry_out(fit: Callable[[Request], Any]) -> None:
    """Fit, answer the rows asked for, and write the scores, shape (n, classes) or (n, 1), and the seconds."""
    request = Request(Path(sys.argv[1]))
    began = time.process_time()
    model = fit(request)
    spent = time.process_time() - began
    if request.task == "regression":
        scores = np.asarray(model.predict(request.asked))[:, None]
    else:
        order = np.argsort(np.asarray(model.classes_))
        scores = np.asarray(model.predict_proba(request.asked))[:, order]
    answer = {"scores": scores.tolist(), "cpu_seconds": spent}
    Path(sys.argv[2]).write_text(json.dumps(answer))
