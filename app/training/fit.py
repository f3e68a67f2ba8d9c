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

from app.datasets.table import preview
from app.errors import AppError
from app.registry.reference import build_reference
from app.training.handover import ERROR, MODEL, REQUEST, RESULT
from app.training.spec import TrainingSpec
from app.training.trainer import train

RECORDED_PACKAGES = ("roundhouse", "scikit-learn", "numpy", "scipy", "joblib", "duckdb")


def carry_out(folder: Path) -> int:
    """Do what the folder's request asks; the exit code of the process."""
    request = json.loads((folder / REQUEST).read_text())
    try:
        result = fit_model(Path(request["parquet"]), TrainingSpec.model_validate(request["spec"]), folder)
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
    _write(folder / RESULT, result)
    return 0


def fit_model(parquet: Path, spec: TrainingSpec, folder: Path) -> dict[str, Any]:
    """Fit, leave ``model.joblib`` in the folder, and return what its ``ModelVersion`` holds beside that."""
    result = train(parquet, spec, _report)
    # Uncompressed and at one protocol: the same fit gives the same bytes.
    joblib.dump(result.pipeline, folder / MODEL, compress=0, protocol=5)
    first_row = preview(parquet, limit=1)[0]
    reference = build_reference(result.signature, result.reference_matrix, result.reference_scores)
    return {
        "algorithm": result.algorithm,
        "params": result.params,
        "task": result.signature.task,
        "signature": result.signature.model_dump(mode="json"),
        "example": {feature.name: first_row[feature.name] for feature in result.signature.features},
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
