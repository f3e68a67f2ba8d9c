"""The metrics by which models are measured, by name; ``evaluation`` computes them."""

from dataclasses import dataclass

from app.registry.signature import Task


@dataclass(frozen=True, slots=True)
class Metric:
    """Which way a metric points, and the tasks that have it."""

    greater_is_better: bool
    tasks: tuple[Task, ...]


_BINARY = (Task.BINARY,)
_MULTICLASS = (Task.MULTICLASS,)
_REGRESSION = (Task.REGRESSION,)

METRICS: dict[str, Metric] = {
    "accuracy": Metric(greater_is_better=True, tasks=_BINARY + _MULTICLASS),
    "balanced_accuracy": Metric(greater_is_better=True, tasks=_BINARY + _MULTICLASS),
    "precision": Metric(greater_is_better=True, tasks=_BINARY),
    "recall": Metric(greater_is_better=True, tasks=_BINARY),
    "f1": Metric(greater_is_better=True, tasks=_BINARY),
    "f1_macro": Metric(greater_is_better=True, tasks=_MULTICLASS),
    "roc_auc": Metric(greater_is_better=True, tasks=_BINARY),
    "average_precision": Metric(greater_is_better=True, tasks=_BINARY),
    "roc_auc_ovr": Metric(greater_is_better=True, tasks=_MULTICLASS),
    "log_loss": Metric(greater_is_better=False, tasks=_BINARY + _MULTICLASS),
    "brier_score": Metric(greater_is_better=False, tasks=_BINARY),
    "rmse": Metric(greater_is_better=False, tasks=_REGRESSION),
    "mae": Metric(greater_is_better=False, tasks=_REGRESSION),
    "median_absolute_error": Metric(greater_is_better=False, tasks=_REGRESSION),
    "mape": Metric(greater_is_better=False, tasks=_REGRESSION),
    "r2": Metric(greater_is_better=True, tasks=_REGRESSION),
}

DEFAULT_METRIC = {Task.BINARY: "roc_auc", Task.MULTICLASS: "log_loss", Task.REGRESSION: "rmse"}
