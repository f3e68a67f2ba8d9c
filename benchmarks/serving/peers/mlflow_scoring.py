"""MLflow's own model server: ``python mlflow_scoring.py FOLDER PORT``."""

import os
import sys
from pathlib import Path

import joblib
import mlflow.sklearn

folder, port = sys.argv[1:]
saved = Path(folder, "mlflow")
mlflow.sklearn.save_model(
    joblib.load(Path(folder, "model.joblib")),
    saved,
    serialization_format="cloudpickle",
    pyfunc_predict_fn="predict_proba",
    pip_requirements=[],
)
serve = ["models", "serve", "--model-uri", str(saved), "--env-manager", "local", "--workers", "1"]
os.execv(  # noqa: S606 - this process becomes the server
    sys.executable, [sys.executable, "-m", "mlflow", *serve, "--host", "127.0.0.1", "--port", port]
)
