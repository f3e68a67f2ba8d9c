"""How far a model depends on the seed of its fit."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.registry.predictor import predict
from app.registry.signature import Task
from app.training.evaluation import evaluate
from app.training.report.numbers import rounded
from app.training.report.subject import Scores, Subject

SMALL_ROWS = 5_000
DEFAULT_SEEDS = 3
PATIENCE_SECONDS = 0.5


def measure_stability(subject: Subject, scores: Scores) -> dict[str, Any] | None:
    """The metrics of fits with other seeds, and how often they answer otherwise; None where none is made.

    ``scores`` are the model's own on the holdout. What is asked for is made. By default up to three fits
    are made on small data, as long as all of them together took under half a second: they are a picture of
    the spread, and not worth a long wait.
    """
    wanted = subject.spec.evaluation.seeds
    patience = float("inf")
    if wanted is None:
        wanted = DEFAULT_SEEDS if len(subject.training) <= SMALL_ROWS else 0
        patience = PATIENCE_SECONDS
    task, begun = subject.signature.task, time.perf_counter()
    fits: list[dict[str, Any]] = []
    predicted = subject.signature.decide(scores)
    for number in range(wanted):
        if time.perf_counter() - begun + subject.fit_seconds * (patience < float("inf")) > patience:
            break
        seed = (subject.spec.seed + 1 + number) % 2**32
        answers, probabilities = predict(subject.refit(seed), subject.signature, subject.holdout)
        other = answers[:, None] if probabilities is None else probabilities
        fits.append(
            {
                "seed": seed,
                "metrics": {
                    name: rounded(value)
                    for name, value in evaluate(
                        task, subject.target, subject.signature.decide(other), probabilities
                    ).items()
                },
                "changed": rounded(
                    np.abs(other - scores).mean()
                    if task is Task.REGRESSION
                    else np.mean(subject.signature.decide(other) != predicted)
                ),
            }
        )
    if not fits:
        return None
    names = fits[0]["metrics"]
    return {
        "fits": fits,
        "spread": {name: _spread([fit["metrics"].get(name) for fit in fits]) for name in names},
        "changed_is": "mean_absolute_difference" if task is Task.REGRESSION else "share_of_answers",
    }


def _spread(values: Sequence[float | None]) -> float | None:
    """The standard deviation that fits with any seed have, as these suggest; None of fewer than two."""
    known = [value for value in values if value is not None]
    return rounded(np.std(known, ddof=1)) if len(known) > 1 else None
