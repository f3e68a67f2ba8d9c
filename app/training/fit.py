"""One fit, in a child process of the worker.

It reads ``request.json`` in the folder, writes a line of JSON to standard output for every step and trial,
and leaves the files of ``handover`` behind (``scorer.npz`` where the model is served compiled), or
``error.json``.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from arro3.core import Array, Table
from arro3.io import write_parquet
from numpy.typing import NDArray

from app import child
from app.columns import ColumnType
from app.datasets.engine import Parquet
from app.registry.reference import build_reference
from app.registry.signature import Feature, Role, Signature, format_time
from app.serving.scorers import open_scorer
from app.training.environment import describe_environment
from app.training.fitting import Score
from app.training.handover import HOLDOUT, MODEL, PROBE, REPORT, RESULT, SCORER
from app.training.preparation.summary import describe_preparation
from app.training.remarks import remark
from app.training.report.build import build_report
from app.training.report.subject import Subject
from app.training.search.footprint import measure_served
from app.training.spec import TrainingSpec
from app.training.trainer import NOTHING_BEFORE, Before, TrainingResult, train

Matrix = NDArray[np.float64]

PROBE_ROWS = 256
MAX_REFERENCE_ROWS = 100_000
"""More tell drift of a size that matters no better: shares are known to 0.3 percentage points."""


def carry_out(folder: Path) -> int:
    """Do what the folder's request asks; the exit code of the process."""
    remedy = "Train on fewer rows or columns, or with smaller parameters."
    return child.carry_out(folder, _fit, name="fit", remedy=remedy)


def _fit(request: dict[str, Any], folder: Path) -> None:
    before = Before(request.get("trials", ()), request.get("warm_start"), request.get("champion"))
    parts = [Path(part) for part in request["parts"]]
    spec = TrainingSpec.model_validate(request["spec"])
    if (verified := request.get("verifies")) is not None:
        result = refit_model(parts, spec, folder, before, verified)
    else:
        result = fit_model(parts, spec, folder, before)
    (folder / RESULT).write_text(json.dumps(result, allow_nan=False))


def fit_model(
    parquet: Parquet, spec: TrainingSpec, folder: Path, before: Before = NOTHING_BEFORE
) -> dict[str, Any]:
    """Fit, leave the model's files in the folder, and return what its ``ModelVersion`` holds beside them."""
    result = train(parquet, spec, child.report, before=before, tell=_tell)
    _write_model(result, folder)
    child.report(0.9, "writing the evaluation report")
    subject = Subject(
        spec=spec,
        signature=result.signature,
        pipeline=result.pipeline,
        score=result.served.score,
        metric=result.metric,
        scores=result.scores,
        training=result.training,
        training_target=result.training_target,
        holdout=result.holdout,
        target=result.target,
        holdout_rows=result.holdout_rows,
        rivals=result.rivals,
        refit=result.refit,
        parquet=parquet,
        fit_seconds=result.fit_seconds,
    )
    report = build_report(subject, describe_preparation(result.pipeline, result.signature))
    (folder / REPORT).write_text(json.dumps(report, allow_nan=False))
    write_holdout(folder / HOLDOUT, result.holdout_rows, result.target, result.scores)
    _write_probe(folder / PROBE, result.training, result.served.score)
    drawn = _drawn(result.training, spec.seed)
    reference = build_reference(result.signature, drawn, _drawn(result.reference_scores, spec.seed))
    child.report(1.0, "done")
    return {
        "algorithm": result.algorithm,
        "params": result.params,
        "task": result.signature.task,
        "signature": result.signature.model_dump(mode="json"),
        "example": example_row(result.signature, drawn),
        "metrics": result.metrics,
        "evaluation": {
            "baseline_metrics": result.baseline_metrics,
            "confusion_matrix": result.confusion_matrix,
            "choice": result.choice,
            "search": result.search,
            "reproducible": result.reproducible,
            "configuration": result.configuration.to_json(),
            "dropped": result.dropped,
            "notes": [*result.notes, *remark(result, spec)],
            "rows": result.rows,
            "as_served": _measure(result, folder),
        },
        "reference": reference.model_dump(mode="json"),
        "environment": describe_environment(),
        "runtime": result.served.runtime,
        "runtime_reason": result.served.reason,
    }


def refit_model(
    parquet: Parquet, spec: TrainingSpec, folder: Path, before: Before, verified: Mapping[str, Any]
) -> dict[str, Any]:
    """Fit again what a version is said to be, and return what it is to be compared by.

    ``verified`` holds the version's ``signature``, the path of its ``probe``, or None, and that of its stored
    ``model`` as it is served, ``compiled`` or not. The model is left in the folder, and, if it takes the same
    columns, its ``scores`` of the probe's rows beside those of the ``stored`` model.
    """
    result = train(parquet, spec, child.report, before=before, tell=_tell)
    _write_model(result, folder)
    child.report(0.9, "comparing with the version")
    recorded, fault = Signature.model_validate(verified["signature"]), None
    if verified["probe"] is not None and result.signature == recorded:
        with np.load(verified["probe"], allow_pickle=False) as probe:
            matrix = probe["matrix"]
        answers = {"scores": result.served.score(matrix)}
        try:
            artifact = Path(verified["model"]).read_bytes()
            answers["stored"] = open_scorer(artifact, recorded, compiled=verified["compiled"]).score(matrix)
        except Exception as error:  # whatever another release's model raises, the comparison goes on
            fault = f"{type(error).__name__}: {error}"
        np.savez(folder / PROBE, allow_pickle=False, **answers)
    child.report(1.0, "done")
    return {
        "stored_fault": fault,
        "configuration": result.configuration.to_json(),
        "signature": result.signature.model_dump(mode="json"),
        "environment": describe_environment(),
        "runtime": result.served.runtime,
    }


def _tell(trial: dict[str, Any]) -> None:
    child.tell({"trial": trial})


def _write_model(result: TrainingResult, folder: Path) -> None:
    # Uncompressed and at one protocol: the same fit gives the same bytes.
    joblib.dump(result.pipeline, folder / MODEL, compress=0, protocol=5)
    if result.served.compiled is not None:
        (folder / SCORER).write_bytes(result.served.compiled.to_bytes())


def _measure(result: TrainingResult, folder: Path) -> dict[str, float]:
    compiled = result.served.compiled is not None
    artifact = (folder / (SCORER if compiled else MODEL)).read_bytes()
    found = measure_served(artifact, result.signature, result.holdout, compiled=compiled)
    return {"row_microseconds": found.row_microseconds, "bytes": found.model_bytes}


def write_holdout(path: Path, rows: NDArray[np.intp], target: NDArray[Any], scores: Matrix) -> None:
    """A Parquet file of the held-out rows: ``row`` in the table, ``actual`` class or value, ``score_<i>``.

    ``rows`` and ``target`` have shape (n,), ``scores`` (n, classes) or (n, 1).
    """
    columns: dict[str, Any] = {
        "row": Array.from_numpy(rows.astype(np.int64)),
        "actual": Array.from_numpy(target),
    }
    for place, column in enumerate(scores.T):
        columns[f"score_{place}"] = Array.from_numpy(np.ascontiguousarray(column))
    write_parquet(Table.from_pydict(columns), str(path), compression="zstd(3)")


def _write_probe(path: Path, training: Matrix, score: Score) -> None:
    """A few training rows, spread evenly, and their scores: the fingerprint of the model's answers."""
    places = np.linspace(0, len(training) - 1, min(PROBE_ROWS, len(training))).astype(np.intp)
    matrix = training[places]
    np.savez(path, allow_pickle=False, matrix=matrix, scores=score(matrix))


def _drawn(rows: NDArray[Any], seed: int) -> NDArray[Any]:
    """At most MAX_REFERENCE_ROWS of the rows, drawn at random, in their order."""
    if len(rows) <= MAX_REFERENCE_ROWS:
        return rows
    places = np.random.default_rng(seed).choice(len(rows), MAX_REFERENCE_ROWS, replace=False)
    return rows[np.sort(places)]


def example_row(signature: Signature, matrix: NDArray[np.float64]) -> dict[str, Any]:
    """A row of a matrix of shape (n, width), n > 0, as it is sent: the first of the fewest gaps.

    A gap is a null, or a category that the model does not know: a known one stands for that. A text is given
    by those of its words that the model knows.
    """
    categorical = np.array([feature.role is Role.CATEGORICAL for feature in signature.by_cell])
    gaps = np.isnan(matrix) | ((matrix < 0) & categorical)
    cells = matrix[gaps.sum(axis=1).argmin()]
    return {
        feature.name: _text(feature, cells[place])
        if isinstance(place, slice)
        else _value(feature, float(cells[place]))
        for feature, place in zip(signature.features, signature.places, strict=True)
    }


def _text(feature: Feature, cells: NDArray[np.float64]) -> str | None:
    if np.isnan(cells).any():
        return None
    if feature.tokens is None:
        return "a few words"
    return " ".join(
        feature.tokens[place] for place in np.flatnonzero(cells) if " " not in feature.tokens[place]
    )


def _value(feature: Feature, cell: float) -> Any:
    if not math.isfinite(cell):
        return None
    match feature.role, feature.type:
        case Role.BOOLEAN | Role.CATEGORICAL, _:
            return (feature.categories or (False, True))[max(0, int(cell))]
        case _, ColumnType.INTEGER:
            return int(cell)
        case _, ColumnType.NUMBER:
            return cell
        case _:
            return format_time(cell, feature.type)
