"""Advice before training, over HTTP."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.access.route import CallerDep, GuardedRoute
from app.datasets.contracts.service import require_accepted
from app.datasets.profiles.profile import Finding
from app.datasets.service import get_rows_of
from app.http.fields import Name, Number
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, ScratchDep, StoreDep
from app.registry.signature import Task
from app.training.advice.service import give_advice, name_model
from app.training.roles import check_spec
from app.training.spec import FeatureOverride, TrainingSpec

router = APIRouter(prefix="/v1/datasets", tags=["training"], route_class=GuardedRoute)

EXAMPLE: dict[str, Any] = {
    "dataset": "flights",
    "dataset_version": 1,
    "rows": {"table": 43546, "without_target": 0, "sampled": 6000},
    "task": {"task": "binary", "reason": "'late' is true or false."},
    "balance": {
        "classes": [
            {"class": False, "rows": 33800, "share": 0.776191},
            {"class": True, "rows": 9746, "share": 0.223809},
        ],
        "rarest": 0.223809,
        "quantiles": None,
        "text": "The rarest of 2 classes, true, has 9,746 of 43,546 rows.",
    },
    "metric": "roc_auc",
    "learning": {
        "enough": "more_would_help",
        "text": "More rows would help: twice the 43,546 would bring 0.012 (between 0.005 and 0.019) of "
        "roc_auc.",
        "metric": "roc_auc",
        "algorithm": "hist_gradient_boosting",
        "points": [{"rows": 2400, "value": 0.68}, {"rows": 4800, "value": 0.7}],
        "doubled": {"rows": 69674, "from": 0.74, "to": 0.752, "gain": 0.012, "interval": [0.005, 0.019]},
    },
    "warnings": [
        {
            "code": "identifier",
            "severity": "warning",
            "columns": ["flight_id"],
            "text": "Column `flight_id` has a different value in every row: a model would learn the rows by "
            "heart. Leave it out.",
        }
    ],
    "leaks": None,
    "later": [],
    "importance": {
        "loss": "log_loss",
        "rows": 294,
        "repeats": 5,
        "columns": [{"column": "hour", "value": 0.03, "interval": [0.02, 0.04], "repeat_std": 0.002}],
        "left_out": 0,
    },
    "validation": {
        "method": "time",
        "time_column": "scheduled",
        "group_column": None,
        "reason": "The rows can be ordered by 'scheduled'.",
    },
    "algorithms": [
        {
            "algorithm": "logistic_regression",
            "title": "logistic regression",
            "reason": "The best roc_auc of those tried, from 2,000 rows.",
            "value": 0.69,
            "interval": [0.67, 0.71],
            "rows": 2000,
            "cost": {
                "seconds": 0.4,
                "memory_bytes": 320000000,
                "text": "An estimate, from fits of 2,000 rows on this machine.",
            },
        }
    ],
    "cost": {
        "seconds": 90.0,
        "memory_bytes": 400000000,
        "text": "An estimate, on one core, of the defaults of 7 algorithms, a search of 20 trials and the "
        "fit of the best.",
    },
    "spec": {
        "model": "flights-late",
        "dataset": "flights",
        "dataset_version": 1,
        "target": "late",
        "features": {"flight_id": {"role": "drop"}},
        "algorithm": "auto",
        "seed": 0,
        "validation": {"method": "time", "time_column": "scheduled"},
    },
    "reasons": ["'flight_id' is left out: every row has another value."],
    "notes": [],
}


class Question(BaseModel):
    """What is to be predicted."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"target": "late"}]})

    target: str = Field(description="The column to predict.")
    task: Task | None = Field(None, description="Default: inferred from the target.")
    features: list[str] | dict[str, FeatureOverride] | None = Field(
        None, description="As in a training spec."
    )
    model: Name | None = Field(None, description="For the suggested spec; by default dataset and target.")

    def spec(self) -> TrainingSpec:
        given = self.model_dump(include={"target", "task", "features"}, exclude_none=True)
        return TrainingSpec.model_validate(given)


class TaskAdvice(BaseModel):
    task: Task
    reason: str


class Balance(BaseModel):
    """Of a regression `classes` and `rarest` are null, and `quantiles` are 0, 5, 25, 50, 75, 95 and 100 %."""

    classes: list[dict[str, Any]] | None = Field(description="The 20 most frequent.")
    rarest: float | None = Field(description="The share of the rarest class.")
    quantiles: list[float | None] | None
    text: str


class LearningAdvice(BaseModel):
    """The learning curve of a fast model, and what twice the rows would bring by the power law through it."""

    enough: str = Field(
        description="`enough`, `more_would_help`, `uncertain`, `nothing_learnt` or `unknown` (too few rows)."
    )
    text: str
    metric: str
    algorithm: str | None
    points: list[dict[str, Any]] = Field(description="The mean `value` over folds, learning from `rows`.")
    doubled: dict[str, Any] | None = Field(
        description="`gain` is how much better the metric becomes with `rows` instead of half of them; its "
        "95 % interval is the jackknife's over the folds."
    )


class ExpectedCost(BaseModel):
    """An estimate from small fits; the one part of the answer that differs from time to time."""

    seconds: float
    memory_bytes: int
    text: str


class Candidate(BaseModel):
    algorithm: str
    title: str
    reason: str
    value: float | None = Field(description="The mean of the metric over folds, learning from `rows`.")
    interval: list[float | None]
    rows: int
    cost: ExpectedCost | None


class ValidationAdvice(BaseModel):
    method: str
    time_column: str | None
    group_column: str | None
    reason: str


class Advice(BaseModel):
    """What to expect of a training, and a spec to begin with."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    dataset: str
    dataset_version: int
    rows: dict[str, int] = Field(description="`table`, `without_target`, and `sampled` for what takes a fit.")
    task: TaskAdvice
    balance: Balance
    metric: str = Field(description="In which scores are given.")
    learning: LearningAdvice
    warnings: list[Finding] = Field(description="The most serious first.")
    leaks: dict[str, Any] | None = Field(
        description="The columns that give the target away, and the score `with` and `without` them: all "
        "that is measured else is without."
    )
    later: list[dict[str, Any]] = Field(description="Times that lie after the one that orders the rows.")
    importance: dict[str, Any] | None = Field(
        description="Which columns matter, as in the evaluation report, on rows that the fast model has not "
        "seen."
    )
    validation: ValidationAdvice
    algorithms: list[Candidate] = Field(description="The best first, the baseline last.")
    cost: ExpectedCost | None = Field(description="Of the suggested run.")
    spec: dict[str, Any] = Field(description="A body for `POST /v1/training-runs`.")
    reasons: list[str] = Field(description="Of what the spec says.")
    notes: list[str]


@router.post(
    "/{dataset}/versions/{version:segment}:advise",
    responses=problem_responses(404, 409),
)
def advise(
    dataset: str,
    version: Number,
    body: Question,
    request: Request,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
) -> Advice:
    """What to expect of a training, measured in seconds, and a training spec ready to post.

    The task, the classes and faults of the target are those of all rows. Scores, the learning curve and the
    importance of columns come from small fits on a seeded random sample of 6,000 rows (more where a class is
    rare). The same version and question have the same answer, but for the costs. Nothing is stored.
    """
    model = body.model or name_model(dataset, body.target)
    spec = body.spec()
    with database.session_scope(write=False) as session:
        data = get_rows_of(session, caller, dataset, version)
        require_accepted(data)
    check_spec(data.column_types, spec)
    memory_bytes = request.app.state.settings.run_memory_limit_bytes
    told = give_advice(database, store, scratch, data, spec, memory_bytes=memory_bytes)
    names = {"model": model, "dataset": dataset, "dataset_version": version}
    return Advice.model_validate(told | {**names, "spec": {**names, **told["spec"]}})
