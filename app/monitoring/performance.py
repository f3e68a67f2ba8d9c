"""How good a model's answers turned out to be, in windows of time. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from app.registry.signature import Signature
from app.training.evaluation import evaluate


class JudgedPrediction(NamedTuple):
    """A prediction and its true outcome; ``at`` is the time that puts it into a window."""

    at: datetime
    version: int
    prediction: Any
    probabilities: list[float] | None
    actual: Any


class Window(NamedTuple):
    """The realised metrics of one version's predictions in [start, end)."""

    start: datetime
    end: datetime
    version: int
    rows: int
    metrics: dict[str, float]


def evaluate_windows(
    judged: Iterable[JudgedPrediction], signatures: dict[int, Signature], length: timedelta
) -> list[Window]:
    """Group by window, then version. Windows begin at whole multiples of ``length`` since 1970."""
    groups: dict[tuple[int, int], list[JudgedPrediction]] = defaultdict(list)
    for one in judged:
        groups[int(one.at.timestamp() // length.total_seconds()), one.version].append(one)
    windows = []
    for (number, version), members in sorted(groups.items(), key=lambda group: group[0]):
        start = datetime.fromtimestamp(number * length.total_seconds(), UTC)
        metrics = _metrics(members, signatures[version])
        windows.append(Window(start, start + length, version, len(members), metrics))
    return windows


def _metrics(judged: list[JudgedPrediction], signature: Signature) -> dict[str, float]:
    actual = [one.actual for one in judged]
    predicted = [one.prediction for one in judged]
    if signature.classes is None:
        return evaluate(signature.task, np.array(actual, float), np.array(predicted, float), None)
    index = {label: number for number, label in enumerate(signature.classes)}
    return evaluate(
        signature.task,
        np.array([index[label] for label in actual]),
        np.array([index[label] for label in predicted]),
        np.array([one.probabilities for one in judged]),
    )
