"""Records of predictions that nobody made, for tests of the journal and the processes that they start."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

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


def append(journal: Journal, *rows: PredictionRecord) -> None:
    """Record requests of one row each."""
    for row in rows:
        journal.append(entry(row), 1)
