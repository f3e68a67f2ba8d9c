"""What it costs to serve a fitted pipeline: its size as stored, and the time of one row."""

import io
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from app.registry.signature import Signature
from app.serving.compile import NotCompilable, compile_pipeline
from app.serving.compiled import CompiledScorer
from app.serving.scorers import open_scorer
from app.training.spec import Search

TIMED_ROWS = 100


class Footprint(NamedTuple):
    model_bytes: int
    row_microseconds: float


def measure(pipeline: Pipeline, signature: Signature, matrix: NDArray[np.float64]) -> Footprint:
    """The footprint of a fitted pipeline, compiled where it can be, on rows of shape (n, features), n > 0."""
    try:
        artifact, compiled = compile_pipeline(pipeline, signature).to_bytes(), True
    except NotCompilable:
        file = io.BytesIO()
        joblib.dump(pipeline, file)
        artifact, compiled = file.getvalue(), False
    return measure_served(artifact, signature, matrix, compiled=compiled)


def measure_served(
    artifact: bytes, signature: Signature, matrix: NDArray[np.float64], *, compiled: bool
) -> Footprint:
    """The footprint of a stored model, on rows of shape (n, features), n > 0.

    The time is the median of single rows.
    """
    rows = [matrix[place % len(matrix)][None] for place in range(TIMED_ROWS)]
    scorer = open_scorer(artifact, signature, compiled=compiled)
    if isinstance(scorer, CompiledScorer):
        times = [_seconds(scorer.row, row.tobytes()) for row in rows]
    else:
        times = [_seconds(scorer.score, row) for row in rows]
    return Footprint(len(artifact), float(np.median(times) * 1e6))


def _seconds(answer: Callable[[Any], object], row: Any) -> float:
    started = time.perf_counter()
    answer(row)
    return time.perf_counter() - started


def excess(footprint: Footprint, search: Search) -> str | None:
    """How a model breaks the search's limits, in words; None where it keeps them."""
    largest, slowest = search.max_model_bytes, search.max_row_microseconds
    if largest is not None and footprint.model_bytes > largest:
        return f"it takes {footprint.model_bytes:,} bytes, more than max_model_bytes, {largest:,}"
    if slowest is not None and footprint.row_microseconds > slowest:
        took = f"{footprint.row_microseconds:.3g} µs"
        return f"it takes {took} to answer a row, more than max_row_microseconds, {slowest:g}"
    return None
