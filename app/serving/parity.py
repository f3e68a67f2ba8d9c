"""The parity gate: a compiled pipeline is served only where it answers as scikit-learn's own does."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.registry.signature import OTHER_CATEGORY, Feature, Role, Signature
from app.serving import kernels
from app.serving.compile import NotCompilable
from app.serving.compiled import CompiledPipeline, CompiledScorer

TOLERANCE = 1e-9
"""The largest difference: of a probability itself, of a value relative to it or, if that is greater, to the
mean size of the values of the holdout."""

MAX_HOLDOUT_ROWS = 2_000
MAX_ADVERSARIAL_CELLS = 1_000_000
MAX_CATEGORIES = 60
MAX_THRESHOLDS = 200
ROWS_ALONE = 200

EXTREMES = (0.0, -0.0, 5e-324, 0.5, -1.0, 2.0**53 + 2, -(2.0**63), 2.0**64, 1e300, -1e300, 1e308, -1e308)

TIMES = (
    *(0.0, -0.000001, -62_135_596_800.0, 253_402_300_799.999999, 951_782_399.5, 4_107_542_400.0),
    *(1_230_508_800.0, 1_262_476_800.0, 1_356_912_000.0, 1_609_459_199.999999),
)
"""Seconds: 1970, a moment before, the years 1 and 9999, about the leap days of 2000 and of 2100; then days
whose week belongs to another year than they do: 2008-12-29, 2010-01-03, 2012-12-31, the end of 2020."""


def check_parity(
    pipeline: Pipeline,
    signature: Signature,
    compiled: CompiledPipeline,
    holdout: NDArray[np.float64],
) -> str | None:
    """Why the compiled pipeline must not answer for the fitted one; None where it may.

    Compared are rows of the holdout, of shape (n, features), n > 0, and rows made to go wrong: in each
    column null, unseen, extreme, or beside a tree's threshold. Predicted classes must be equal, but for
    ties, and numbers within TOLERANCE; a row alone must get the bits that it gets in the batch.
    """
    holdout = _thinned(holdout, MAX_HOLDOUT_ROWS)
    hostile = _adversarial_rows(signature, compiled, holdout[0])
    scorer = CompiledScorer(compiled)
    # The extremes overflow until they are bounded. One thread: to wait for others costs more than it gains.
    with np.errstate(over="ignore", invalid="ignore"), threadpool_limits(1):
        expected = _expected(pipeline, signature, np.concatenate((holdout, hostile)))
    size = np.abs(expected[: len(holdout)]).mean() if signature.classes is None else None
    for which, rows, wanted in (
        ("the holdout", holdout, expected[: len(holdout)]),
        ("rows made to go wrong", hostile, expected[len(holdout) :]),
    ):
        reason = _difference(signature, scorer, rows, wanted, size)
        if reason is not None:
            return f"On {which}, {reason}."
    return None


def _difference(
    signature: Signature,
    scorer: CompiledScorer,
    rows: NDArray[np.float64],
    expected: NDArray[np.float64],
    size: float | None,
) -> str | None:
    """How the scorer fails to answer as expected; ``size`` is that of a regression's usual values."""
    answers = scorer.score(rows)
    if not np.isfinite(expected).all():
        return "the pipeline answers with numbers that are not finite"
    if size is None:
        # Between classes that scikit-learn itself holds for equally probable, rounding decides.
        losses = signature.losses(expected)
        chosen = np.take_along_axis(losses, signature.decide(answers)[:, None], axis=1)
        unit = max(1.0, np.max(signature.costs or 0))
        if (chosen - losses.min(axis=1, keepdims=True) > TOLERANCE * unit).any():
            return "the compiled pipeline predicts another class than scikit-learn's"
    unit = 1.0 if size is None else np.maximum(np.abs(expected), size)
    if not (np.abs(answers - expected) <= TOLERANCE * unit).all():
        return f"the compiled pipeline is off by up to {np.abs(answers - expected).max():.2g}"
    alone = np.array([scorer.row(row.tobytes()) for row in rows[:ROWS_ALONE]])
    if alone.tobytes() != answers[:ROWS_ALONE].tobytes():
        return "a row alone gets another answer than in a batch"
    return None


def _expected(pipeline: Pipeline, signature: Signature, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """scikit-learn's own answers, in the scorer's shape: (n, classes), or (n, 1)."""
    if signature.classes is None:
        return np.asarray(pipeline.predict(rows), dtype=np.float64)[:, None]
    probabilities = np.zeros((len(rows), len(signature.classes)))
    probabilities[:, pipeline.classes_] = pipeline.predict_proba(rows)
    return probabilities


def _adversarial_rows(
    signature: Signature, compiled: CompiledPipeline, usual: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Copies of the usual row, shape (features,), with one cell changed; then all null, all extreme."""
    changes = [
        (column, cell)
        for column, feature in enumerate(signature.features)
        for cell in _adversarial_cells(feature)
    ]
    changes += [*_threshold_cells(compiled), *_clipped_cells(compiled)]
    # Thinned before the rows are made: a wide table's would take more memory than the fit.
    kept = _thinned(np.arange(len(changes)), max(0, MAX_ADVERSARIAL_CELLS // len(usual) - 3))
    changes = [changes[place] for place in kept.tolist()]
    rows = np.tile(usual, (len(changes) + 3, 1))
    for row, (column, cell) in zip(rows, changes, strict=False):
        row[column] = cell
    rows[-3] = np.nan
    for row, end in ((rows[-2], 1), (rows[-1], -1)):
        row[:] = [max(cells, key=lambda cell: end * cell) for cells in map(_finite_cells, signature.features)]
    return rows


def _adversarial_cells(feature: Feature) -> list[float]:
    """Null, whether the column may be null or not, and what ``_finite_cells`` gives."""
    return [np.nan, *_finite_cells(feature)]


def _finite_cells(feature: Feature) -> list[float]:
    match feature.role:
        case Role.NUMERIC:
            return list(EXTREMES)
        case Role.BOOLEAN:
            return [0.0, 1.0]
        case Role.CATEGORICAL:
            return [OTHER_CATEGORY, *map(float, range(min(MAX_CATEGORIES, len(feature.categories or ()))))]
        case Role.DATETIME:
            return list(TIMES)
        case Role.TEXT:
            raise NotCompilable(f"The words of {feature.name!r} are not compiled.")


def _threshold_cells(compiled: CompiledPipeline) -> Iterator[tuple[int, float]]:
    """Columns, and numbers that their features' splits tell apart from the next ones up and down."""
    if compiled.nodes is None:
        return
    source = {
        feature: (kind, column, compiled.numbers[at:])
        for kind, column, feature, at, _ in compiled.steps.tolist()
        if kind in (kernels.VALUE, kernels.CURVE)
    }
    splits = compiled.nodes[(compiled.nodes["feature"] & kernels.SPLIT) > 0]
    for feature, threshold in _thinned(splits, MAX_THRESHOLDS)[["feature", "threshold"]].tolist():
        if feature >> kernels.FEATURE_SHIFT in source:
            kind, column, numbers = source[feature >> kernels.FEATURE_SHIFT]
            cell = (
                threshold * numbers[2] + numbers[1]
                if kind == kernels.VALUE
                else _uncurved(threshold, numbers)
            )
            yield from ((column, near) for near in _about(cell))


def _clipped_cells(compiled: CompiledPipeline) -> Iterator[tuple[int, float]]:
    """Columns, and numbers about those at which they are clipped."""
    for kind, column, _, at, _ in compiled.steps.tolist():
        if kind == kernels.CURVE:
            for end in compiled.numbers[at + 1 : at + 3]:
                yield from ((column, near) for near in _about(end))


def _uncurved(feature: float, numbers: NDArray[np.float64]) -> float:
    """About the number that a CURVE of these ``numbers`` makes the feature of; NaN where there is none."""
    _, _, _, power, shift, divisor, factor, offset = numbers[:8]
    with np.errstate(all="ignore"):
        value = (feature - offset) / factor * divisor + shift
        if np.isnan(power):
            return float(value)
        # The inverse of the kernel's power, whose signs are those of its arguments.
        exponent = power if value >= 0 else 2 - power
        grown = np.abs(value) if exponent == 0 else np.log1p(exponent * np.abs(value)) / exponent
        return float(np.copysign(np.expm1(grown), value))


def _about(cell: float) -> list[float]:
    """The number and its neighbours; none of one that is not finite."""
    return np.nextafter(cell, (-np.inf, cell, np.inf)).tolist() if np.isfinite(cell) else []


def _thinned(rows: NDArray[Any], most: int) -> NDArray[Any]:
    """At most so many of the rows, spread evenly; the first and the last among them."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]
