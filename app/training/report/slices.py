"""Where a model does worse: the holdout cut by what columns hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr

from app.registry.signature import Task
from app.training.report.grouping import Groups, Label
from app.training.report.intervals import (
    Numbers,
    Z,
    adjust_p_values,
    mean_interval,
    proportion_interval,
)
from app.training.report.numbers import rounded, rounded_interval
from app.training.report.subject import Scores
from app.training.report.weighted import losses

SLICED_COLUMNS = 10
PAIRED_COLUMNS = 6
MIN_SLICE_ROWS = 30
MIN_SLICE_SHARE = 0.01
ERROR_RATE = 0.05
"""The chance that even one of the slices called worse is no worse in truth."""
MIN_EXCESS = 0.1
"""A slice is called worse only if its loss is above that of the other rows by this share of it."""
SHOWN_WORST = 10


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is known of each held-out row, shape (n,) each; ``right`` is None for regression."""

    loss: Numbers
    actual: Numbers
    predicted: Numbers
    right: Numbers | None


@dataclass(frozen=True, slots=True)
class _Slice:
    columns: tuple[str, ...]
    labels: tuple[Label, ...]
    codes: tuple[tuple[int, int], ...]
    """The slice's place: pairs of the number of a column and its group's code."""
    rows: int
    loss: float
    others: float
    error: float
    """The standard error of ``loss - others``."""
    p: float


def cut_slices(
    task: Task, actual: NDArray[Any], predicted: NDArray[Any], scores: Scores, columns: Sequence[Groups]
) -> dict[str, Any]:
    """Each column's groups with their metrics, and the slices that are worse than the other rows.

    All groups of up to 10 columns and all pairs of groups of the first 6 are tested, if they have 30 rows
    and 1 % of the holdout: Welch's test of the mean loss against the rest, one-sided. Holm's correction
    (1979) over all tests keeps the chance that even one slice is called worse by accident below 5 %. Losses
    lean to the right, which makes the test err on the side of calling too few. A pair is left out where it
    is not clearly worse, by Bonferroni's correction, than a slice of one of its columns that is called worse.
    """
    measured = _measure(task, actual, predicted, scores)
    least = max(MIN_SLICE_ROWS, int(np.ceil(MIN_SLICE_SHARE * len(actual))))
    columns = columns[:SLICED_COLUMNS]
    tested = [
        found for place, groups in enumerate(columns) for found in _single(groups, place, measured, least)
    ]
    singles = len(tested)
    for (first, left), (second, right) in combinations(list(enumerate(columns))[:PAIRED_COLUMNS], 2):
        tested += _paired(left, right, (first, second), measured, least)
    worse = _worse(tested)
    return {
        "loss": "absolute_error" if task is Task.REGRESSION else "log_loss",
        "overall": rounded(measured.loss.mean()),
        "columns": [
            _describe(
                groups,
                measured,
                {
                    found.codes[0][1]
                    for found, _ in worse
                    if found.codes[0][0] == place and len(found.codes) == 1
                },
            )
            for place, groups in enumerate(columns)
        ],
        "worst": [
            {
                "where": [
                    {"column": column, **label}
                    for column, label in zip(found.columns, found.labels, strict=True)
                ],
                "rows": found.rows,
                "loss": rounded(found.loss),
                "others": rounded(found.others),
                "p_value": rounded(adjusted),
                **_metrics(_rows_of(columns, found), measured),
            }
            for found, adjusted in worse[:SHOWN_WORST]
        ],
        "found": len(worse),
        "tested": {"slices": len(tested), "pairs": len(tested) - singles, "least_rows": least},
        "correction": "holm",
        "error_rate": ERROR_RATE,
        "least_excess": MIN_EXCESS,
    }


def _measure(task: Task, actual: NDArray[Any], predicted: NDArray[Any], scores: Scores) -> _Measured:
    loss = losses(task, actual, scores)
    if task is Task.REGRESSION:
        return _Measured(loss, actual.astype(np.float64), scores[:, 0], None)
    right = (actual == predicted).astype(np.float64)
    if task is Task.BINARY:
        return _Measured(loss, actual.astype(np.float64), scores[:, 1], right)
    return _Measured(loss, right, scores.max(axis=1), right)


def _describe(groups: Groups, measured: _Measured, worse: set[int]) -> dict[str, Any]:
    return {
        "column": groups.column,
        "groups": [
            {**label, "rows": int(size), "worse": code in worse, **_metrics(groups.codes == code, measured)}
            for code, (label, size) in enumerate(zip(groups.labels, groups.sizes, strict=True))
        ],
    }


def _metrics(chosen: NDArray[np.bool_], measured: _Measured) -> dict[str, Any]:
    """The mean loss with its interval, the accuracy with its own, and the means of truth and answer."""
    rows = np.flatnonzero(chosen)  # numpy takes places six times as fast as it takes by a mask
    loss = measured.loss[rows]
    interval = None
    if len(loss) > 1:
        low, high = mean_interval(loss.mean(), loss.std(ddof=1), len(loss))
        interval = rounded_interval((max(0.0, float(low)), high)) if high > low else None
    told: dict[str, Any] = {
        "loss": rounded(loss.mean()),
        "loss_interval": interval,
        "observed": rounded(measured.actual[rows].mean()),
        "predicted": rounded(measured.predicted[rows].mean()),
    }
    if measured.right is not None:
        right = measured.right[rows]
        told["accuracy"] = rounded(right.mean())
        told["accuracy_interval"] = rounded_interval(proportion_interval(right.sum(), len(right)))
    return told


def _rows_of(columns: Sequence[Groups], found: _Slice) -> NDArray[np.bool_]:
    rows = np.ones(len(columns[0].codes), dtype=np.bool_)
    for place, code in found.codes:
        rows &= columns[place].codes == code
    return rows


def _single(groups: Groups, place: int, measured: _Measured, least: int) -> list[_Slice]:
    return [
        _Slice((groups.column,), (groups.labels[code],), ((place, code),), *tested)
        for code, tested in _test(groups.codes, len(groups.labels), measured.loss, least)
    ]


def _paired(
    left: Groups, right: Groups, places: tuple[int, int], measured: _Measured, least: int
) -> list[_Slice]:
    width = len(right.labels)
    return [
        _Slice(
            (left.column, right.column),
            (left.labels[code // width], right.labels[code % width]),
            ((places[0], code // width), (places[1], code % width)),
            *tested,
        )
        for code, tested in _test(
            left.codes * width + right.codes, len(left.labels) * width, measured.loss, least
        )
    ]


def _test(
    codes: NDArray[np.intp], count: int, loss: Numbers, least: int
) -> list[tuple[int, tuple[int, float, float, float, float]]]:
    """Of each group that is large enough, and leaves as many others: Welch's one-sided test."""
    total = len(loss)
    centred = loss - loss.mean()
    rows = np.bincount(codes, minlength=count)
    chosen = np.flatnonzero((rows >= least) & (total - rows >= least))
    size, rest = rows[chosen].astype(np.float64), (total - rows[chosen]).astype(np.float64)
    sums, squares = (
        np.bincount(codes, weights=part, minlength=count)[chosen] for part in (centred, centred**2)
    )
    mean, other = sums / size, (centred.sum() - sums) / rest
    spread = np.maximum(squares - size * mean**2, 0) / (size - 1) / size
    other_spread = np.maximum((centred**2).sum() - squares - rest * other**2, 0) / (rest - 1) / rest
    variance = spread + other_spread
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / (spread**2 / (size - 1) + other_spread**2 / (rest - 1))
        statistic = (mean - other) / np.sqrt(variance)
    # Neither side varies: rounding alone is no evidence.
    p = np.where(variance > 1e-24, stdtr(freedom, -statistic), 1.0)
    return [
        (
            int(code),
            (int(rows[code]), float(m + loss.mean()), float(o + loss.mean()), float(error), float(chance)),
        )
        for code, m, o, error, chance in zip(chosen, mean, other, np.sqrt(variance), p, strict=True)
    ]


def _worse(tested: list[_Slice]) -> list[tuple[_Slice, float]]:
    """The slices that are significantly and noticeably worse, the surest excess first, and their p-values."""
    ordered = sorted(tested, key=lambda one: one.p)
    found = [
        (one, adjusted)
        for one, adjusted in zip(ordered, adjust_p_values([one.p for one in ordered]), strict=True)
        if adjusted <= ERROR_RATE and one.loss - one.others >= MIN_EXCESS * one.others
    ]
    parents = {one.codes[0]: one for one, _ in found if len(one.codes) == 1}
    # A pair is one of many: what is above its parent by chance must not be shown as finer than it.
    sure = float(ndtri(1 - ERROR_RATE / max(1, sum(len(one.codes) > 1 for one in tested))))
    found.sort(key=lambda each: each[0].others - each[0].loss + Z * each[0].error)
    return [
        (one, p)
        for one, p in found
        if len(one.codes) == 1
        or all(one.loss - sure * one.error > parents[code].loss for code in one.codes if code in parents)
    ]
