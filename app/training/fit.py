"""One fit, in a child process of the worker.

It reads ``request.json`` in the folder, writes a line of JSON to standard output for every step, and leaves
``model.joblib``, ``scorer.npz`` where the model is served compiled, and ``result.json`` behind, or
``error.json``.
"""

import json
import platform
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from app import child
from app.columns import ColumnType
from app.registry.reference import build_reference
from app.registry.runtime import Runtime
from app.registry.signature import Feature, Role, Signature, format_time
from app.serving.compile import NotCompilable, compile_pipeline
from app.serving.parity import check_parity
from app.training.handover import MODEL, RESULT, SCORER
from app.training.spec import TrainingSpec
from app.training.trainer import TrainingResult, train

RECORDED_PACKAGES = ("roundhouse", "scikit-learn", "numpy", "scipy", "joblib", "duckdb")


def carry_out(folder: Path) -> int:
    """Do what the folder's request asks; the exit code of the process."""
    remedy = "Train on fewer rows or columns, or with smaller parameters."
    return child.carry_out(folder, _fit, name="fit", remedy=remedy)


def _fit(request: dict[str, Any], folder: Path) -> None:
    result = fit_model(Path(request["parquet"]), TrainingSpec.model_validate(request["spec"]), folder)
    (folder / RESULT).write_text(json.dumps(result, allow_nan=False))


def fit_model(parquet: Path, spec: TrainingSpec, folder: Path) -> dict[str, Any]:
    """Fit, leave the model's files in the folder, and return what its ``ModelVersion`` holds beside them."""
    result = train(parquet, spec, child.report)
    # Uncompressed and at one protocol: the same fit gives the same bytes.
    joblib.dump(result.pipeline, folder / MODEL, compress=0, protocol=5)
    reason = _compile(result, folder)
    reference = build_reference(result.signature, result.reference_matrix, result.reference_scores)
    return {
        "algorithm": result.algorithm,
        "params": result.params,
        "task": result.signature.task,
        "signature": result.signature.model_dump(mode="json"),
        "example": typical_row(result.signature, result.reference_matrix),
        "metrics": result.metrics,
        "evaluation": {
            "baseline_metrics": result.baseline_metrics,
            "confusion_matrix": result.confusion_matrix,
            "choice": result.choice,
            "dropped": result.dropped,
            "notes": result.notes,
            "rows": result.rows,
        },
        "reference": reference.model_dump(mode="json"),
        "environment": environment(),
        "runtime": Runtime.COMPILED if reason is None else Runtime.NATIVE,
        "runtime_reason": reason,
    }


def _compile(result: TrainingResult, folder: Path) -> str | None:
    """Leave ``scorer.npz`` in the folder, or say why scikit-learn is to serve the model itself."""
    try:
        compiled = compile_pipeline(result.pipeline, result.signature)
        reason = check_parity(result.pipeline, result.signature, compiled, result.holdout_matrix)
    except NotCompilable as refused:
        return str(refused)
    except Exception as error:  # whatever it is, the model is good, and scikit-learn can serve it
        traceback.print_exc()
        return f"the pipeline could not be compiled: {type(error).__name__}: {error}"
    if reason is None:
        (folder / SCORER).write_bytes(compiled.to_bytes())
    return reason


def typical_row(signature: Signature, matrix: NDArray[np.float64]) -> dict[str, Any]:
    """A row that the model takes and that is nobody's, of a matrix of shape (n, len(features)), n > 0.

    Each column's (upper) median or most frequent value; null only where the column holds nothing else.
    """
    columns = zip(signature.features, matrix.T, strict=True)
    return {feature.name: _typical_value(feature, values) for feature, values in columns}


def _typical_value(feature: Feature, values: NDArray[np.float64]) -> Any:
    present = np.sort(values[np.isfinite(values)])
    if not len(present):
        return None
    if feature.role in (Role.BOOLEAN, Role.CATEGORICAL):
        labels = feature.categories or (False, True)
        codes = present[present >= 0].astype(np.int64)
        return labels[int(np.bincount(codes, minlength=len(labels)).argmax())]
    middle = float(present[len(present) // 2])
    match feature.type:
        case ColumnType.INTEGER:
            return int(middle)
        case ColumnType.NUMBER:
            return middle
        case _:
            return format_time(middle, feature.type)


def environment() -> dict[str, Any]:
    """What the fit ran on, as far as it can change the outcome."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": 1,
        **{name: version(name) for name in RECORDED_PACKAGES},
    }
