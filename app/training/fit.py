"""One fit, in a child process of the worker.

It reads ``request.json`` in the folder, writes a line of JSON to standard output for every step, and leaves
``model.joblib``, ``scorer.npz`` where the model is served compiled, and ``result.json`` behind, or
``error.json``.
"""

import hashlib
import json
import math
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
from app.datasets.engine import Parquet
from app.registry.reference import build_reference
from app.registry.runtime import Runtime
from app.registry.signature import Feature, Role, Signature, format_time
from app.serving.compile import NotCompilable, compile_pipeline
from app.serving.parity import check_parity
from app.training.handover import MODEL, RESULT, SCORER
from app.training.spec import TrainingSpec
from app.training.trainer import TrainingResult, train

PACKAGE = Path(__file__).parent.parent
RECORDED_PACKAGES = ("roundhouse", "scikit-learn", "numpy", "scipy", "joblib", "duckdb")


def carry_out(folder: Path) -> int:
    """Do what the folder's request asks; the exit code of the process."""
    remedy = "Train on fewer rows or columns, or with smaller parameters."
    return child.carry_out(folder, _fit, name="fit", remedy=remedy)


def _fit(request: dict[str, Any], folder: Path) -> None:
    parts = [Path(part) for part in request["parts"]]
    result = fit_model(parts, TrainingSpec.model_validate(request["spec"]), folder)
    (folder / RESULT).write_text(json.dumps(result, allow_nan=False))


def fit_model(parquet: Parquet, spec: TrainingSpec, folder: Path) -> dict[str, Any]:
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
        "example": example_row(result.signature, result.reference_matrix),
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


def example_row(signature: Signature, matrix: NDArray[np.float64]) -> dict[str, Any]:
    """A row of a matrix of shape (n, len(features)), n > 0, as it is sent: the first of the fewest gaps.

    A gap is a null, or a category that the model does not know: a known one stands for that.
    """
    categorical = np.array([feature.role is Role.CATEGORICAL for feature in signature.features])
    gaps = np.isnan(matrix) | ((matrix < 0) & categorical)
    cells = matrix[gaps.sum(axis=1).argmin()].tolist()
    return {
        feature.name: _value(feature, cell) for feature, cell in zip(signature.features, cells, strict=True)
    }


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


def source_digest() -> str:
    """``sha256:…`` of this server's own code: a version's number does not tell every state of it."""
    digest = hashlib.sha256()
    for path in sorted((*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.so"))):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"


def environment() -> dict[str, Any]:
    """What the fit ran on, as far as it can change the outcome."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": 1,
        "source": source_digest(),
        **{name: version(name) for name in RECORDED_PACKAGES},
    }
