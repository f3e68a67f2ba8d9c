"""One fit, in a child process of the worker.

It reads ``request.json`` in the folder, writes a line of JSON to standard output for every step, and leaves
``model.joblib`` and ``result.json`` behind, or ``error.json``.
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

from app.columns import ColumnType
from app.errors import AppError
from app.registry.reference import build_reference
from app.registry.signature import Feature, Role, Signature, format_time
from app.training.handover import ERROR, MODEL, REQUEST, RESULT
from app.training.spec import TrainingSpec
from app.training.trainer import train

RECORDED_PACKAGES = ("roundhouse", "scikit-learn", "numpy", "scipy", "joblib", "duckdb")


def carry_out(folder: Path) -> int:
    """Do what the folder's request asks; the exit code of the process."""
    request = json.loads((folder / REQUEST).read_text())
    try:
        result = fit_model(Path(request["parquet"]), TrainingSpec.model_validate(request["spec"]), folder)
        _write(folder / RESULT, result)
    except AppError as error:
        errors = [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.errors]
        _write(folder / ERROR, {"code": error.code, "detail": error.detail, "errors": errors})
        return 1
    except MemoryError:
        detail = "The fit ran out of memory. Train on fewer rows or columns, or with smaller parameters."
        _write(folder / ERROR, {"code": "out_of_memory", "detail": detail})
        return 1
    except Exception as error:
        traceback.print_exc()
        detail = f"The fit failed: {type(error).__name__}: {error}. The worker's log has the trace."
        _write(folder / ERROR, {"code": "fit_failed", "detail": detail})
        return 1
    return 0


def fit_model(parquet: Path, spec: TrainingSpec, folder: Path) -> dict[str, Any]:
    """Fit, leave ``model.joblib`` in the folder, and return what its ``ModelVersion`` holds beside that."""
    result = train(parquet, spec, _report)
    # Uncompressed and at one protocol: the same fit gives the same bytes.
    joblib.dump(result.pipeline, folder / MODEL, compress=0, protocol=5)
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
    }


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


def _report(fraction: float, step: str) -> None:
    print(json.dumps({"fraction": fraction, "step": step}), flush=True)  # noqa: T201 - the worker reads it


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, allow_nan=False))
