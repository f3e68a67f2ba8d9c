"""Records of predictions that nobody made, for tests of the journal and the processes that they start."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.serving.journal import PredictionRecord

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
        "inputs": {"distance": number, "carrier": None},
        "prediction": bool(number % 2),
        "probabilities": [0.25, 0.75],
    }
    return PredictionRecord(**facts | changes)
