"""What a comparison of model versions tells."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.registry.runtime import Runtime
from app.registry.signature import Task
from app.training.report.intervals import Method

EXAMPLE: dict[str, Any] = {
    "model": "flight-delays",
    "task": "binary",
    "target": "late",
    "classes": [False, True],
    "metric": "roc_auc",
    "basis": {
        "kind": "holdout",
        "dataset": "flights",
        "version": 3,
        "available": 1800,
        "rows": 1800,
    },
    "warnings": [],
    "intervals": {"level": 0.95, "method": "bootstrap", "resamples": 1000},
    "versions": [
        {
            "version": 2,
            "algorithm": "logistic_regression",
            "created_by": "ana",
            "created_at": "2026-11-23T08:00:00Z",
            "data": {"dataset": "flights", "version": 3, "digest": "sha256:2c26b46b68ff…", "rows": 9000},
            "training_rows": 7200,
            "search": None,
            "served": {
                "runtime": "compiled",
                "runtime_reason": None,
                "bytes": 5214,
                "row_microseconds": 0.9,
            },
            "scored": "at_training",
            "metrics": {
                "roc_auc": {"value": 0.712, "interval": [0.688, 0.735], "greater_is_better": True},
                "accuracy": {"value": 0.774, "interval": [0.755, 0.793], "greater_is_better": True},
            },
        },
        {
            "version": 5,
            "algorithm": "hist_gradient_boosting",
            "created_by": "ana",
            "created_at": "2026-11-24T08:00:00Z",
            "data": {"dataset": "flights", "version": 3, "digest": "sha256:2c26b46b68ff…", "rows": 9000},
            "training_rows": 7200,
            "search": {"trials": 24, "stopped": "budget", "metric": "roc_auc", "value": 0.741},
            "served": {
                "runtime": "compiled",
                "runtime_reason": None,
                "bytes": 61240,
                "row_microseconds": 4.2,
            },
            "scored": "at_training",
            "metrics": {
                "roc_auc": {"value": 0.743, "interval": [0.720, 0.766], "greater_is_better": True},
                "accuracy": {"value": 0.779, "interval": [0.760, 0.798], "greater_is_better": True},
            },
        },
    ],
    "pairs": [
        {
            "first": 2,
            "second": 5,
            "differences": {
                "roc_auc": {"value": 0.031, "interval": [0.014, 0.048], "better": 5},
                "accuracy": {"value": 0.005, "interval": [-0.008, 0.018], "better": None},
            },
            "tests": {
                "roc_auc": {
                    "method": "delong",
                    "difference": 0.031,
                    "interval": [0.014, 0.048],
                    "statistic": 3.57,
                    "p_value": 0.00036,
                    "p_adjusted": 0.00036,
                },
                "accuracy": {
                    "method": "mcnemar_exact",
                    "only_first_right": 61,
                    "only_second_right": 70,
                    "p_value": 0.485,
                    "p_adjusted": 0.485,
                },
            },
            "same_data": True,
            "data_diff": None,
            "spec": [
                {
                    "pointer": "/algorithm",
                    "first": "logistic_regression",
                    "second": "hist_gradient_boosting",
                }
            ],
            "fitted": [{"pointer": "/params/max_iter", "first": 1000, "second": 100}],
            "environment": [],
        }
    ],
}

BasisKind = Literal["holdout", "dataset"]
Scored = Literal["at_training", "now"]


class ComparisonBasis(BaseModel):
    """The rows that the versions are compared on."""

    kind: BasisKind = Field(
        description="`holdout`: rows that the newest version that tells of its holdout held out. `dataset`: "
        "the labelled rows of the data version that was asked for. Either way without those that any of the "
        "versions is known to have learnt from."
    )
    dataset: str
    version: int
    available: int = Field(description="Such rows as there are.")
    rows: int = Field(
        description="Those compared on: a random 100,000 of more; 10,000 where versions had to be scored."
    )


class ComparisonIntervals(BaseModel):
    level: float
    method: Method
    resamples: int


class ComparedMetric(BaseModel):
    value: float | None
    interval: tuple[float, float] | None
    greater_is_better: bool


class ServingCost(BaseModel):
    """What it costs to serve a version."""

    runtime: Runtime
    runtime_reason: str | None
    bytes: int = Field(description="The size of what it is served from.")
    row_microseconds: float | None = Field(
        description="The median time of a single row, on the worker that trained it; null for versions of "
        "older releases."
    )


class ComparedModelVersion(BaseModel):
    version: int
    algorithm: str
    created_by: str
    created_at: datetime
    data: dict[str, Any] = Field(description="The data version that it learnt from.")
    training_rows: int | None
    search: dict[str, Any] | None
    served: ServingCost
    scored: Scored = Field(
        description="Whether the scores were kept when it was trained, or made for this answer."
    )
    metrics: dict[str, ComparedMetric]


class MetricDifference(BaseModel):
    value: float | None = Field(description="Second less first.")
    interval: tuple[float, float] | None = Field(description="Of the resamples of rows, pair by pair.")
    better: int | None = Field(description="The better version, where the interval leaves out 0.")


class AreaFinding(BaseModel):
    method: Literal["delong"] = "delong"
    difference: float
    interval: tuple[float, float]
    statistic: float
    p_value: float
    p_adjusted: float


class AccuracyFinding(BaseModel):
    method: Literal["mcnemar_exact"] = "mcnemar_exact"
    only_first_right: int
    only_second_right: int
    p_value: float
    p_adjusted: float


class DifferenceTests(BaseModel):
    """Tests of no difference. ``p_adjusted`` allows for there being several pairs (Holm)."""

    roc_auc: AreaFinding | None = Field(description="DeLong's test; of binary models.")
    accuracy: AccuracyFinding | None = Field(description="McNemar's exact test; of classifiers.")


class FieldChange(BaseModel):
    """A field in which two versions differ; null where one has none."""

    pointer: str
    first: Any
    second: Any


class VersionPair(BaseModel):
    """A version beside the first one named."""

    first: int
    second: int
    differences: dict[str, MetricDifference]
    tests: DifferenceTests
    same_data: bool
    data_diff: str | None = Field(description="Where the difference of the data versions is told.")
    spec: list[FieldChange] = Field(description="What was asked for.")
    fitted: list[FieldChange] = Field(
        description="Algorithm, parameters and preparation as they were fitted."
    )
    environment: list[FieldChange]


class VersionComparison(BaseModel):
    """Versions of a model on the same rows."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    model: str
    task: Task
    target: str
    classes: list[Any] | None
    metric: str = Field(description="The first version's metric.")
    basis: ComparisonBasis
    warnings: list[str]
    intervals: ComparisonIntervals
    versions: list[ComparedModelVersion]
    pairs: list[VersionPair]
