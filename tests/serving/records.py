"""Records of predictions that nobody made, for tests of the journal and the processes that they start."""

import io
from collections.abc import Sequence
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


def arrow_entry(*rows: PredictionRecord) -> list[bytes]:
    """The entry, in parts, where the rows came as an Arrow stream, whose columns hold integers only."""
    asked = _stream({name: [row.inputs[name] for row in rows] for name in rows[0].inputs})
    answer: dict[str, Sequence[Any]] = {"prediction": [row.prediction for row in rows]}
    for place in range(len(rows[0].probabilities or ())):
        answer[f"probability_{place}"] = [row.probabilities[place] for row in rows if row.probabilities]
    answered = _stream(answer | {"prediction_id": [row.prediction_id for row in rows]})
    line = msgspec.json.decode(entry(*rows))
    facts = {name: line["answer"][name] for name in ("model", "version", "variant")}
    del line["answer"], line["inputs"]
    sizes = {"streams": [len(asked), len(answered)], "rows": len(rows)}
    return [msgspec.json.encode(sizes | line | facts), b"\n", asked, answered, b"\n"]


def _stream(columns: dict[str, Sequence[Any]]) -> bytes:
    written = io.BytesIO()
    table = Table.from_pydict({name: Array.from_numpy(np.array(cells)) for name, cells in columns.items()})
    write_ipc_stream(table, written, compression=None)
    return written.getvalue()


def append(journal: Journal, *rows: PredictionRecord) -> None:
    """Record requests of one row each."""
    for row in rows:
        journal.append([entry(row)], 1)
