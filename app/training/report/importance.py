"""Which columns a model leans on, and how its answer follows them."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from app.registry.signature import Feature, Role, Task
from app.training.report.grouping import cell_value, feature_columns
from app.training.report.intervals import Numbers, mean_interval
from app.training.report.numbers import rounded, rounded_all, rounded_interval
from app.training.report.subject import Judged, Subject
from app.training.report.weighted import losses

SCREENED_COLUMNS = 200
SCREENED_ROWS = 10_000
"""Rows scored in the first pass: each column shuffled once."""
TOP_COLUMNS = 10
TOP_ROWS = 25_000
"""Rows scored in the second pass: the foremost columns shuffled again."""
REPEATS = 5
MIN_ROWS, MAX_ROWS = 50, 2_000
DEPENDENCE_COLUMNS = 6
DEPENDENCE_ROWS, MIN_DEPENDENCE_ROWS = 100, 20
TIMED_ROWS = 500
QUICK_SECONDS = 15e-6
"""What a row may take to be scored before fewer rows are looked at."""
GRID_POINTS = 12
SHOWN_CLASSES = 4
SPREAD = (0.1, 0.9)


def measure_slowness(subject: Subject) -> int:
    """By how much fewer rows are to be looked at: 1 for compiled models, a power of 2 for slow ones.

    The best of two measurements, in coarse steps, so that the same model is looked at in the same way.
    """
    rows = subject.holdout[:TIMED_ROWS]
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        subject.score(rows)
        seconds.append(time.perf_counter() - begun)
    return int(2 ** max(0, math.ceil(math.log2(min(seconds) / len(rows) / QUICK_SECONDS))))


def permutation_importance(judged: Judged, seed: int, slowness: int = 1) -> dict[str, Any]:
    """How much worse the loss becomes when a column's values are shuffled among the rows.

    Breiman, Random Forests, 2001, section 10; on held-out rows. The loss is the logarithmic one
    (classifiers) or the absolute error. Every column is shuffled once; the foremost of them then ``REPEATS``
    times on more rows. An interval is Student's over the rows, of each row's mean rise over the repeats: it
    holds the chance of the holdout as well as that of the shuffling, of which ``repeat_std`` tells alone.
    Of more than 200 columns, only those are shuffled whose values go most with the model's own scores.
    """
    columns = feature_columns(judged)
    if len(judged.holdout) < 2 or not columns:
        return {"rows": len(judged.holdout), "columns": [], "left_out": len(columns)}
    rng = np.random.default_rng(seed)
    screened = _screened(judged, columns)
    sample = _sample(judged, rng, SCREENED_ROWS // len(screened) // slowness)
    rises = {place: float(sample.rises(place, 1, rng).mean()) for _, place in screened}
    ranked = sorted(screened, key=lambda column: -rises[column[1]])
    foremost, others = ranked[:TOP_COLUMNS], ranked[TOP_COLUMNS:]
    sample = _sample(judged, rng, TOP_ROWS // (len(foremost) * REPEATS) // slowness)
    found = [_importance(feature, sample.rises(place, REPEATS, rng)) for feature, place in foremost]
    found.sort(key=lambda one: -(one["value"] or 0.0))
    once = [
        {"column": feature.name, "value": rounded(rises[place]), "interval": None, "repeat_std": None}
        for feature, place in others
    ]
    return {
        "loss": "absolute_error" if judged.signature.task is Task.REGRESSION else "log_loss",
        "rows": len(sample.target),
        "repeats": REPEATS,
        "columns": found + once,
        "left_out": len(columns) - len(screened),
    }


def _screened(judged: Judged, columns: list[tuple[Feature, int]]) -> list[tuple[Feature, int]]:
    if len(columns) <= SCREENED_COLUMNS:
        return columns
    rows = slice(0, MAX_ROWS)
    cells = np.nan_to_num(judged.holdout[rows][:, [place for _, place in columns]])
    ranks = rankdata(cells, axis=0)
    ranks -= ranks.mean(axis=0)
    scores = rankdata(judged.score(judged.holdout[rows]), axis=0)
    scores -= scores.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.abs(scores.T @ ranks) / np.sqrt((ranks**2).sum(axis=0))
    strength = np.nan_to_num(strength).max(axis=0)
    kept = np.sort(np.argsort(-strength, kind="stable")[:SCREENED_COLUMNS])
    return [columns[place] for place in kept]


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some held-out rows, and the loss of each as they are, shape (rows,)."""

    judged: Judged
    matrix: NDArray[np.float64]
    target: NDArray[Any]
    before: Numbers

    def rises(self, place: int, repeats: int, rng: np.random.Generator) -> Numbers:
        """The rise of each row's loss with a column shuffled, shape (repeats, rows)."""
        task, matrix = self.judged.signature.task, self.matrix.copy()
        rises = np.empty((repeats, len(matrix)))
        for repeat in range(repeats):
            matrix[:, place] = rng.permutation(self.matrix[:, place])
            rises[repeat] = losses(task, self.target, self.judged.score(matrix)) - self.before
        return rises


def _sample(judged: Judged, rng: np.random.Generator, wanted: int) -> _Sample:
    count = len(judged.holdout)
    size = min(count, max(MIN_ROWS, min(MAX_ROWS, wanted)))
    rows = np.sort(rng.choice(count, size, replace=False))
    matrix, target = judged.holdout[rows], judged.target[rows]
    return _Sample(judged, matrix, target, losses(judged.signature.task, target, judged.score(matrix)))


def _importance(feature: Feature, rises: Numbers) -> dict[str, Any]:
    by_row = rises.mean(axis=0)
    interval = mean_interval(by_row.mean(), by_row.std(ddof=1), len(by_row))
    return {
        "column": feature.name,
        "value": rounded(by_row.mean()),
        "interval": rounded_interval(interval),
        "repeat_std": rounded(rises.mean(axis=1).std(ddof=1)),
    }


def partial_dependence(
    subject: Subject, names: list[str], seed: int, slowness: int = 1
) -> list[dict[str, Any]]:
    """The mean answer when a column is set to one value after the other, all else as it is.

    Friedman, Greedy function approximation, 2001. ``spread`` are the 10 % and 90 % quantiles of the rows'
    own curves, each shifted to the mean (Goldstein, Kapelner, Bleich and Pitkin, 2015): wide where the
    column acts differently on different rows. The answer is the probability of the positive class, of each
    of the most frequent classes, or the value.
    """
    places = {feature.name: (feature, place) for feature, place in feature_columns(subject)}
    rng = np.random.default_rng(seed)
    size = min(len(subject.holdout), max(MIN_DEPENDENCE_ROWS, DEPENDENCE_ROWS // slowness))
    rows = np.sort(rng.choice(len(subject.holdout), size, replace=False))
    outputs = _outputs(subject)
    parts = []
    for name in names[:DEPENDENCE_COLUMNS]:
        feature, place = places[name]
        grid = _grid(feature, subject.holdout[:, place])
        if len(grid) < 2:
            continue
        matrix = np.tile(subject.holdout[rows], (len(grid), 1))
        matrix[:, place] = np.repeat(grid, len(rows))
        curves = subject.score(matrix).reshape(len(grid), len(rows), -1)
        parts.append(
            {
                "column": name,
                "kind": "values" if _is_coded(feature) else "numbers",
                "type": feature.type.value,
                "at": [cell_value(feature, cell) for cell in grid],
                "positions": None if _is_coded(feature) else rounded_all(grid),
                "curves": [_curve(curves[:, :, code], label) for code, label in outputs],
            }
        )
    return parts


def _outputs(subject: Subject) -> list[tuple[int, Any]]:
    classes = subject.signature.classes
    if classes is None:
        return [(0, None)]
    if subject.signature.task is Task.BINARY:
        return [(1, classes[1])]
    frequent = np.argsort(-np.bincount(subject.training_target, minlength=len(classes)), kind="stable")
    return [(int(code), classes[code]) for code in frequent[:SHOWN_CLASSES]]


def _curve(curves: Numbers, label: Any) -> dict[str, Any]:
    mean = curves.mean(axis=1)
    shifted = curves - curves.mean(axis=0) + mean.mean()
    return {
        "class": label,
        "mean": rounded_all(mean),
        "spread": [rounded_all(edge) for edge in np.quantile(shifted, SPREAD, axis=1)],
    }


def _is_coded(feature: Feature) -> bool:
    return feature.role in (Role.CATEGORICAL, Role.BOOLEAN)


def _grid(feature: Feature, cells: Numbers) -> Numbers:
    """The values that a column is set to: its most frequent ones, or quantiles of the held-out rows."""
    cells = cells[~np.isnan(cells)]
    if _is_coded(feature):
        values, counts = np.unique(cells[cells >= 0], return_counts=True)
        return np.asarray(np.sort(values[np.argsort(-counts, kind="stable")[:GRID_POINTS]]))
    values = np.unique(cells[: 50 * GRID_POINTS])
    if len(values) <= GRID_POINTS:
        values = np.unique(cells)
    if len(values) <= GRID_POINTS:
        return np.asarray(values)
    shares = np.linspace(0.01, 0.99, GRID_POINTS)
    return np.unique(np.quantile(cells, shares, method="inverted_cdf"))
