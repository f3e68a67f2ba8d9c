"""The metrics by which models are measured, by name; ``evaluation`` and ``scoring`` compute them."""

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


_AVERAGES = ("macro", "micro", "weighted")
_OF_CLASSES = (
    "d2_brier_score",
    "d2_log_loss_score",
    "matthews_corrcoef",
    "neg_brier_score",
    "neg_log_loss",
    *(f"{name}_{average}" for name in ("f1", "jaccard", "precision", "recall") for average in _AVERAGES),
)

SCORERS: dict[str, tuple[Task, ...]] = {
    **dict.fromkeys(_OF_CLASSES, _BINARY + _MULTICLASS),
    "jaccard": _BINARY,
    "neg_negative_likelihood_ratio": _BINARY,
    "positive_likelihood_ratio": _BINARY,
    "roc_auc_ovo": _MULTICLASS,
    "roc_auc_ovo_weighted": _MULTICLASS,
    "roc_auc_ovr_weighted": _MULTICLASS,
    "top_k_accuracy": _MULTICLASS,
    **dict.fromkeys(
        (
            "d2_absolute_error_score",
            "explained_variance",
            "neg_max_error",
            "neg_mean_absolute_error",
            "neg_mean_absolute_percentage_error",
            "neg_mean_gamma_deviance",
            "neg_mean_poisson_deviance",
            "neg_mean_squared_error",
            "neg_mean_squared_log_error",
            "neg_median_absolute_error",
            "neg_root_mean_squared_error",
            "neg_root_mean_squared_log_error",
        ),
        _REGRESSION,
    ),
}
"""scikit-learn's scorers beyond the metrics above, and their tasks; of each, more is better.

They are listed, as the server that checks a spec does not load scikit-learn.
"""


def metrics_for(task: Task | None) -> list[str]:
    """The names that a spec may give as metrics for ``task``, or for any: first ours, then the scorers."""
    ours = [name for name, metric in METRICS.items() if task is None or task in metric.tasks]
    scorers = [name for name, tasks in SCORERS.items() if task is None or task in tasks]
    return ours + [name for name in scorers if name not in ours]


def greater_is_better(name: str) -> bool:
    return name not in METRICS or METRICS[name].greater_is_better
