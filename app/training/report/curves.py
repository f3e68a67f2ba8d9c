"""How scores tell classes apart and agree with frequencies, and how predicted values lie about the actual."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from app.registry.signature import Task
from app.training.evaluation import confusion_matrix
from app.training.report.intervals import (
    Numbers,
    Resampling,
    mean_interval,
    proportion_interval,
)
from app.training.report.numbers import rounded, rounded_all, rounded_interval
from app.training.report.subject import Scores

GRID = np.linspace(0, 1, 51)
BAND_RESAMPLES = 200
CALIBRATION_BINS = 10
SCORE_BINS = 25
MAX_CLASSES = 12
"""Classes, the most frequent, that get a part of their own; and those that a confusion matrix may have."""
MAX_CONFUSION = 60
RESIDUAL_BINS = 30
DENSITY_BINS = 24
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def draw_curves(
    task: Task,
    actual: NDArray[Any],
    predicted: NDArray[Any],
    scores: Scores,
    resampling: Resampling,
    labels: Sequence[Any],
) -> dict[str, Any]:
    """The report's curves by name. What the holdout does not define is left out."""
    if task is Task.REGRESSION:
        return {"residuals": residuals(actual.astype(np.float64), scores[:, 0])}
    counts = np.bincount(actual, minlength=len(labels))
    parts: dict[str, Any] = {"classes": _classes(actual, predicted, labels)}
    if len(labels) <= MAX_CONFUSION:
        parts["confusion"] = {
            "labels": list(labels),
            "counts": confusion_matrix(actual, predicted, len(labels)),
        }
    if task is Task.BINARY:
        true, score = actual == 1, scores[:, 1]
        parts["calibration"] = calibration(true, score)
        parts["thresholds"] = thresholds(true, score)
        parts["score_histogram"] = _score_histogram(true, score)
        shown = [1]
    else:
        confidence = scores.max(axis=1)
        parts["calibration"] = calibration(actual == predicted, confidence)
        shown = [int(code) for code in np.argsort(-counts, kind="stable")[:MAX_CLASSES]]
    curves = [
        {"class": labels[code], **_ranking_curves(actual == code, scores[:, code], resampling)}
        for code in shown
        if 0 < counts[code] < len(actual)
    ]
    if curves:
        parts["ranking"] = curves
    return parts


def _ranking_curves(true: NDArray[np.bool_], score: Numbers, resampling: Resampling) -> dict[str, Any]:
    """The ROC curve and the precision-recall curve of one class, on a grid, with pointwise intervals."""
    ones = np.ones((1, len(true)))
    roc, precision = (curve[0] for curve in _grid_curves(true, score, ones))

    def drawn(rows: NDArray[np.intp], weights: Numbers) -> dict[str, Numbers]:
        few = weights[: -(-BAND_RESAMPLES // len(resampling.subsets))]
        kept = (few[:, true[rows]].any(axis=1)) & (few[:, ~true[rows]].any(axis=1))
        if not kept.any():
            return {}
        curves = _grid_curves(true[rows], score[rows], few[kept])
        return {"roc": curves[0], "precision": curves[1]}

    deviations = resampling.deviations(drawn)
    bands: dict[str, Any] = {"roc": None, "precision": None}
    if all(centre and sample for centre, sample in deviations.samples):
        bands = {
            name: [rounded_all(np.clip(edge, 0, 1)) for edge in deviations.band(name, curve)]
            for name, curve in (("roc", roc), ("precision", precision))
        }
    return {
        "roc": {
            "false_positive_rate": rounded_all(GRID),
            "true_positive_rate": rounded_all(roc),
            "interval": bands["roc"],
        },
        "precision_recall": {
            "recall": rounded_all(GRID),
            "precision": rounded_all(precision),
            "interval": bands["precision"],
            "prevalence": rounded(true.mean()),
        },
    }


def _grid_curves(true: NDArray[np.bool_], score: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """True positive rates at grid points of the false positive rate, and precisions at those of the recall.

    Shape (r, grid) each, for r weightings with both classes. Of several precisions at one recall the curve
    takes that of the highest threshold; between thresholds the ROC curve is a straight line.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    drawn = weights[:, order]
    hits = np.cumsum(np.where(true[order], drawn, 0.0), axis=1)[:, ends]
    false = np.cumsum(drawn, axis=1)[:, ends] - hits
    recall, alarms = hits / hits[:, -1:], false / false[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = hits / (hits + false)
    roc, precisions = np.empty((2, len(weights), len(GRID)))
    for row in range(len(weights)):
        roc[row] = np.interp(GRID, np.append(0.0, alarms[row]), np.append(0.0, recall[row]))
        # At 0 the line rises at once; interp would take the last of the points there, as it should.
        places = np.searchsorted(recall[row], np.maximum(GRID, 1e-12) - 1e-12)
        precisions[row] = precision[row, np.minimum(places, len(ends) - 1)]
    return roc, precisions


def calibration(true: NDArray[np.bool_], score: Numbers) -> dict[str, Any]:
    """How far probabilities are frequencies: shape (n,) outcomes and scores.

    Bins hold about equally many rows. ``expected_calibration_error`` is the mean distance of a bin's
    frequency from its mean score (Naeini, Cooper and Hauskrecht, 2015), and ``by_chance`` what it would be
    on average if every score were true, as no finite sample agrees exactly. The parts of the Brier score
    are those of Dimitriadis, Gneiting and Jordan (2021), by isotonic regression, without bins:
    score = miscalibration - discrimination + uncertainty.
    """
    order = np.argsort(score, kind="stable")
    ordered, outcomes = score[order], true[order].astype(np.float64)
    edges = np.unique(ordered[np.linspace(0, len(order) - 1, CALIBRATION_BINS + 1)[1:-1].astype(np.intp)])
    codes = np.searchsorted(edges, ordered, side="left")
    counts = np.bincount(codes, minlength=len(edges) + 1)
    filled = counts > 0
    counts = counts[filled]
    hits, said, variances = (
        np.bincount(codes, weights=part, minlength=len(edges) + 1)[filled]
        for part in (outcomes, ordered, ordered * (1 - ordered))
    )
    low, high = proportion_interval(hits, counts)
    rows = len(order)
    base = outcomes.mean()
    # Rows of one score are one block, that its order does not make a staircase of chance.
    distinct, starts, sizes = np.unique(ordered, return_index=True, return_counts=True)
    fitted = isotonic_regression(np.add.reduceat(outcomes, starts) / sizes, weights=sizes).x
    fitted = np.repeat(fitted, sizes)
    brier, recalibrated = np.mean((ordered - outcomes) ** 2), np.mean((fitted - outcomes) ** 2)
    uncertainty = base * (1 - base)
    return {
        "bins": [
            {
                "rows": int(count),
                "predicted": rounded(mean),
                "observed": rounded(share),
                "interval": rounded_all(interval),
            }
            for count, mean, share, *interval in zip(
                counts, said / counts, hits / counts, low, high, strict=True
            )
        ],
        "expected_calibration_error": rounded(np.abs(hits - said).sum() / rows),
        "by_chance": rounded(np.sqrt(2 / np.pi * variances).sum() / rows),
        "brier": {
            "score": rounded(brier),
            "miscalibration": rounded(brier - recalibrated),
            "discrimination": rounded(uncertainty - recalibrated),
            "uncertainty": rounded(uncertainty),
        },
        "curve": {
            "predicted": rounded_all(distinct[_even(len(distinct))]),
            "observed": rounded_all(fitted[starts][_even(len(distinct))]),
        },
    }


def _even(count: int, most: int = 100) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))


def thresholds(true: NDArray[np.bool_], score: Numbers) -> list[dict[str, Any]]:
    """What answering "positive" from a threshold on would mean, at steps of 0.05."""
    cuts = np.round(np.linspace(0, 1, 21), 2)
    ordered, positives = np.sort(score), np.sort(score[true])
    said = len(ordered) - np.searchsorted(ordered, cuts)
    hits = len(positives) - np.searchsorted(positives, cuts)
    negatives = len(ordered) - len(positives)
    return [
        {
            "threshold": float(cut),
            "selected": rounded(count / len(ordered)),
            "precision": rounded(hit / count) if count else None,
            "recall": rounded(hit / len(positives)) if len(positives) else None,
            "false_positive_rate": rounded((count - hit) / negatives) if negatives else None,
        }
        for cut, count, hit in zip(cuts, said.tolist(), hits.tolist(), strict=True)
    ]


def _score_histogram(true: NDArray[np.bool_], score: Numbers) -> dict[str, Any]:
    counts = [np.histogram(score[part], SCORE_BINS, (0, 1))[0].tolist() for part in (~true, true)]
    return {"negative": counts[0], "positive": counts[1]}


def _classes(actual: NDArray[Any], predicted: NDArray[Any], labels: Sequence[Any]) -> list[dict[str, Any]]:
    """Of each class, the most frequent first: precision and recall with Wilson's intervals."""
    support = np.bincount(actual, minlength=len(labels))
    said = np.bincount(predicted, minlength=len(labels))
    hits = np.bincount(actual[actual == predicted], minlength=len(labels))
    order = np.argsort(-support, kind="stable")[:MAX_CONFUSION]
    return [
        {
            "class": labels[code],
            "rows": int(support[code]),
            "predicted": int(said[code]),
            "recall": _proportion(hits[code], support[code]),
            "precision": _proportion(hits[code], said[code]),
        }
        for code in order.tolist()
    ]


def _proportion(hits: int, count: int) -> dict[str, Any] | None:
    if not count:
        return None
    return {
        "value": rounded(hits / count),
        "interval": rounded_interval(proportion_interval(hits, count)),
    }


def residuals(actual: Numbers, predicted: Numbers) -> dict[str, Any]:
    """How actual values lie about the predicted ones: residual = actual - predicted, shape (n,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        errors = actual - predicted
        if not np.isfinite(errors).all() or not np.isfinite(np.sum(errors**2)):
            return {}
        low, high = np.quantile(errors, (0.005, 0.995))
        counts, edges = np.histogram(np.clip(errors, low, high), RESIDUAL_BINS if high > low else 1)
        everything = np.concatenate((actual, predicted))
        span = np.quantile(everything, (0.005, 0.995))
        density, *_ = np.histogram2d(
            np.clip(predicted, *span),
            np.clip(actual, *span),
            bins=DENSITY_BINS,
            range=[(span[0], span[1] if span[1] > span[0] else span[0] + 1)] * 2,
        )
    parts: dict[str, Any] = {
        "quantiles": dict(zip(map(str, QUANTILES), rounded_all(np.quantile(errors, QUANTILES)), strict=True)),
        "histogram": {"edges": rounded_all(edges), "counts": counts.tolist()},
        "density": {"from": rounded(span[0]), "to": rounded(span[1]), "counts": density.astype(int).tolist()},
        "bins": _residual_bins(actual, predicted),
    }
    if len(errors) > 1:
        interval = mean_interval(errors.mean(), errors.std(ddof=1), len(errors))
        parts["bias"] = {"value": rounded(errors.mean()), "interval": rounded_interval(interval)}
    return parts


def _residual_bins(actual: Numbers, predicted: Numbers) -> list[dict[str, Any]]:
    """Tenths of the rows by predicted value: what came true there, and how residuals spread."""
    order = np.argsort(predicted, kind="stable")
    bins = []
    for rows in np.array_split(order, min(CALIBRATION_BINS, len(order))):
        values = actual[rows]
        mean, interval = values.mean(), None
        if len(rows) > 1:
            interval = mean_interval(mean, values.std(ddof=1), len(rows))
        bins.append(
            {
                "rows": len(rows),
                "predicted": rounded(predicted[rows].mean()),
                "observed": rounded(mean),
                "interval": rounded_interval(interval),
                "residuals": rounded_all(np.quantile(values - predicted[rows], QUANTILES)),
            }
        )
    return bins
