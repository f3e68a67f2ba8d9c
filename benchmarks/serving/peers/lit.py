"""LitServe with batching: ``python lit.py FOLDER PORT``."""

import sys
from pathlib import Path
from typing import Any

import joblib
import litserve
import numpy as np
import pandas as pd

Rows = list[dict[str, Any]]


class Benchmark(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe calls it so
        self.model = joblib.load(Path(sys.argv[1], "model.joblib"))

    def decode_request(self, request: dict[str, Rows]) -> Rows:
        return request["rows"]

    def batch(self, inputs: list[Rows]) -> tuple[pd.DataFrame, list[int]]:
        together = pd.DataFrame([row for rows in inputs for row in rows]).fillna(np.nan)
        return together, [len(rows) for rows in inputs]

    def predict(self, batch: tuple[pd.DataFrame, list[int]]) -> tuple[list[list[float]], list[int]]:
        rows, sizes = batch
        return self.model.predict_proba(rows).tolist(), sizes

    def unbatch(self, output: tuple[list[list[float]], list[int]]) -> list[list[list[float]]]:
        answers, sizes = iter(output[0]), output[1]
        return [[next(answers) for _ in range(size)] for size in sizes]

    def encode_response(self, output: list[list[float]]) -> dict[str, list[list[float]]]:
        return {"probabilities": output}


if __name__ == "__main__":
    server = litserve.LitServer(Benchmark(max_batch_size=32, batch_timeout=0.01), accelerator="cpu")
    server.run(port=int(sys.argv[2]), host="127.0.0.1", num_api_servers=1, generate_client_file=False)
