"""BentoML with adaptive batching: ``python bento.py FOLDER PORT``."""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import joblib
import numpy as np
import pandas as pd


@bentoml.service(workers=1, traffic={"timeout": 60})
class Benchmark:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(batchable=True, max_batch_size=4000, max_latency_ms=1000)
    def predict(self, rows: list[dict[str, Any]]) -> list[list[float]]:
        return self.model.predict_proba(pd.DataFrame(rows).fillna(np.nan)).tolist()


if __name__ == "__main__":
    folder, port = sys.argv[1:]
    os.environ["MODEL"] = str(Path(folder, "model.joblib"))
    serve = ["serve", "bento:Benchmark", "--working-dir", str(Path(__file__).parent)]
    os.execv(  # noqa: S606 - this process becomes the server
        sys.executable, [sys.executable, "-m", "bentoml", *serve, "--host", "127.0.0.1", "--port", port]
    )
