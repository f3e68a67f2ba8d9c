"""Records of predictions that nobody made, for tests of the journal and the processes that they start."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from arro3.core import Array, Table
from arro3.io import write_ipc_stream

from app.serving.journal import Journal
from app.serving.records import PredictionRecord

NOW = datetime(2026, 11, 23, 23, 59, 59, 900_000, tzinfo=UTC)
"""So late in the day that records of one test lie on both sides of midnight."""


def record(number: int, **changes: Any) -> PredictionRecord:
    facts: dict[str, Any] = {
        "prediction_id": f"id-{number}",
        "at": NOW + timedelta(milliseconds=number),
        "model": "m",
        "version": 1,
        "deployment": 3,
        "variant": "champion",
        "caller": "shop",
        "request_id": f"request-{number}",
        "client_id": None,
        "inputs": {"distance": number, "carrier": None},
        "prediction": bool(number % 2),
        "probabilities": [0.25, 0.75],
    }
    return PredictionRecord(**facts | changes)


def entry(*rows: PredictionRecord) -> bytes:
    """The journal's line of a request whose rows these are."""
    first = rows[0]
    answer = {
        "predictions": [row.prediction for row in rows],
        "prediction_ids": [row.prediction_id for row in rows],
        "model": first.model,
        "version": first.version,
        "variant": first.variant,
    }
    if first.probabilities is not None:
        answer["probabilities"] = [row.probabilities for row in rows]
    at = (first.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    facts = {name: getattr(first, name) for name in ("caller", "request_id", "client_id", "deployment")}
    inputs = [row.inputs for row in rows]
    return msgspec.json.encode(facts | {"at": at, "inputs": inputs, "answer": answer}) + b"\n"


def arrow_entry(*rows: PredictionRecord) -> bytes:
    """The same where the rows came as an Arrow stream, whose columns hold integers only."""
    columns: dict[str, Any] = {
        name: Array.from_numpy(np.array([row.inputs[name] for row in rows])) for name in rows[0].inputs
    }
    written = io.BytesIO()
    write_ipc_stream(Table.from_pydict(columns), written, compression=None)
    line = msgspec.json.decode(entry(*rows))
    answer = line.pop("answer")
    scores = answer.pop("probabilities", None) or [[value] for value in answer["predictions"]]
    del line["inputs"], answer["predictions"]
    line["arrow"] = written.getvalue()
    line["scored"] = answer | {
        "scores": np.array(scores, np.float64).tobytes(),
        "classes": None if rows[0].probabilities is None else [False, True],
        "prediction_ids": "".join(answer["prediction_ids"]),
    }
    return msgspec.json.encode(line) + b"\n"


def append(journal: Journal, *rows: PredictionRecord) -> None:
    """Record requests of one row each."""
    for row in rows:
        journal.append(entry(row), 1)
