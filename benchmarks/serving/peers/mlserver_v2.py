"""MLServer with its scikit-learn runtime: ``python mlserver_v2.py FOLDER PORT``."""

import json
import os
import sys
from pathlib import Path

folder, port = sys.argv[1:]
served = Path(folder, "mlserver")
served.mkdir(exist_ok=True)
settings = {
    "host": "127.0.0.1",
    "http_port": int(port),
    "grpc_port": int(port) + 1,
    "metrics_port": int(port) + 2,
    "debug": False,
    "parallel_workers": 0,  # score in the server's process: on one core the faster way
}
model = {
    "name": "benchmark",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": str(Path(folder, "model.joblib").resolve())},
}
Path(served, "settings.json").write_text(json.dumps(settings))
Path(served, "model-settings.json").write_text(json.dumps(model))
command = str(Path(sys.executable).with_name("mlserver"))
os.execv(  # noqa: S606 - this process becomes the server
    command, [command, "start", str(served)]
)
