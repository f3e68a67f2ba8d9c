"""The shapes of the server's answers, as far as the story reads them; each in one place."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.registry.signature import Task
from app.training.evaluation import evaluate

Metrics = Mapping[str, float | None]


class StoryFailed(Exception):
    """The server answered something that the contract does not promise here."""


def late_probabilities(answer: Mapping[str, Any], asked: int) -> list[float]:
    """How probably each of the flights asked about is late. Raises StoryFailed if an answer is missing."""
    late = answer["classes"].index(True)
    chances = [row[late] for row in answer["probabilities"]]
    if not len(chances) == len(answer["prediction_ids"]) == asked:
        raise StoryFailed(f"{asked} flights were asked about, and {len(chances)} were answered.")
    return chances


def performance_rows(body: Mapping[str, Any], version: int) -> dict[str, Metrics]:
    """What the holdout promised for the version, then what each window of time with outcomes brought."""
    promise = {"the holdout's promise": body["holdout"].get(str(version), {})}
    windows = body["windows"]
    return promise | {
        f"30 days from {one['start'][:10]}, {one['rows']:,} flights": one["metrics"] for one in windows
    }


def drift_columns(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The verdict on each feature, and on the prediction."""
    return [*body["columns"], body["prediction"]]


def measure(outcomes: Sequence[bool], chances: Sequence[float]) -> dict[str, float]:
    """The metrics of probabilities of being late against what came true."""
    late = np.array(chances)
    both = np.column_stack([1 - late, late])
    return evaluate(Task.BINARY, np.array(outcomes, dtype=np.intp), both.argmax(axis=1), both)
