"""What a caller asks of a training run: the training spec."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, StrictInt, field_serializer, model_validator

from app.errors import InputError, InvalidInput, pointer
from app.registry.signature import Role, Task
from app.training.preparation.steps import Preparation

Label = bool | Annotated[int, Strict()] | Annotated[float, Strict()] | str
"""A class of the target, as its column holds it."""
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class FeatureOverride(BaseModel):
    """What the caller knows better than the inference; what is left out is inferred."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"role": "categorical"}]}
    )

    role: Role | Literal["drop"] | None = Field(
        default=None,
        description="How the column enters the model; `drop` leaves it out. Default: inferred.",
        examples=["categorical"],
    )
    nullable: bool | None = Field(
        default=None,
        description="Whether a row may hold null here. Default: whether the training data does.",
        examples=[True],
    )
    prepare: dict[str, Any] = Field(
        default_factory=dict,
        description="How this column is prepared, where it is not as `preparation` says for its role.",
        examples=[{"clip": [0.01, 0.99]}],
    )


class Validation(BaseModel):
    """How rows are kept back from the fit, to measure the model on rows that it has not seen."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"method": "time", "time_column": "departure", "holdout": 0.2}]},
    )

    method: Literal["stratified", "random", "grouped", "time"] = Field(
        default="stratified",
        description="`stratified` keeps back a random sample with each class, or each tenth of a number, in "
        "proportion; `random` a plain random one; `grouped` whole groups of rows, for a model that will meet "
        "new ones; `time` the latest rows: the honest choice where the model will answer for days after "
        "those it learned from.",
    )
    group_column: str | None = Field(
        default=None,
        description="The column whose equal values hold rows together, for the method `grouped`.",
        examples=["tail_number"],
    )
    time_column: str | None = Field(
        default=None,
        description="The date, datetime or numeric column that orders the rows for the method `time`. "
        "Default: the only date or datetime column of the table.",
        examples=["departure"],
    )
    holdout: float = Field(
        default=0.2, ge=0.05, le=0.5, description="The share of the rows kept back for the final metrics."
    )
    folds: int = Field(
        default=5,
        ge=2,
        le=20,
        description="The folds of the cross-validation by which a search compares candidates.",
    )


DEFAULT_TRIALS = 20


class Search(BaseModel):
    """How candidates are looked for: algorithms (with `auto`), their parameters and the preparation.

    The defaults of the catalogue are always tried first, and the best candidate seen is what is fitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"trials": 40}]})

    trials: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="The budget in trials beyond the defaults: the same data, spec, seed and start "
        f"(`warm_start`), the same model. Default, where `seconds` is not given: {DEFAULT_TRIALS}.",
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="The budget in time instead. What it finds depends on the machine, so that the run is "
        "marked as not reproducible; the model that it fits is, from its recorded parameters.",
    )
    patience: int | None = Field(
        default=20, ge=1, description="Stop after so many trials without a better one; null: never."
    )
    pruning: bool = Field(
        default=True, description="Give a trial up after the first folds where it is far behind."
    )
    algorithms: list[str] | None = Field(
        default=None,
        min_length=1,
        description="With `auto`: the only algorithms to try.",
        examples=[["hist_gradient_boosting", "random_forest"]],
    )
    preparation: bool = Field(default=True, description="Search the preparation of the columns too.")
    processes: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Trials at a time: they change the speed, never the outcome. Default: the cores.",
    )
    max_row_microseconds: float | None = Field(
        default=None,
        gt=0,
        description="Refuse candidates that take longer to answer one row, as served, on the worker's "
        "machine. As this is measured, the run is marked as not reproducible.",
    )
    max_model_bytes: int | None = Field(
        default=None, gt=0, description="Refuse candidates that are larger, as stored for serving."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.trials is not None and self.seconds is not None:
            raise ValueError("give a budget in trials or in seconds, not both")
        return self

    @property
    def budget(self) -> int | None:
        """The trials beyond the defaults; None for a search by time."""
        if self.seconds is not None:
            return None
        return DEFAULT_TRIALS if self.trials is None else self.trials


class ClassWeight(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    label: Label = Field(alias="class")
    weight: Weight


class Cost(BaseModel):
    """What it costs to answer ``predicted`` where ``actual`` is true."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actual: Label
    predicted: Label
    cost: Weight


class EvaluationOptions(BaseModel):
    """What the evaluation report looks at beyond the usual."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fairness: list[str] = Field(
        default_factory=list,
        max_length=10,
        description="Columns whose groups are compared for gaps; they need not be features.",
        examples=[["sex"]],
    )
    slices: list[str] | None = Field(
        default=None, description="The columns to slice by. Default: the features, the most important first."
    )
    seeds: int | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Fits with other seeds, to show how far the metrics depend on chance. Default: 3 for "
        "small data, else none.",
    )


class TrainingSpec(BaseModel):
    """A training run, all but the model's name and the data version."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "target": "late",
                    "features": {"flight": {"role": "categorical"}, "tail_number": {"role": "drop"}},
                    "algorithm": "auto",
                    "validation": {"method": "time", "time_column": "departure", "holdout": 0.2},
                    "seed": 7,
                }
            ]
        },
    )

    target: str = Field(description="The column that the model learns to predict.", examples=["late"])
    task: Task | None = Field(
        default=None, description="Default: inferred from the values of the target.", examples=["binary"]
    )
    features: list[str] | dict[str, FeatureOverride] | None = Field(
        default=None,
        description="A list names the only columns to use. An object overrides the named columns; every "
        "other column is inferred. Default: every column, inferred.",
        examples=[["carrier", "distance"], {"flight": {"role": "categorical"}}],
    )
    algorithm: str = Field(
        default="auto",
        description="An id of `GET /v1/algorithms`, or `auto`: the best by cross-validation.",
        examples=["auto", "hist_gradient_boosting"],
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters of the algorithm, as `GET /v1/algorithms` describes them; the rest take "
        "their defaults. Not with `auto`.",
        examples=[{"learning_rate": 0.05, "max_iter": 200}],
    )
    search: Search | None = Field(
        default=None,
        description="How candidates are looked for. Default: with `auto`, 20 trials; with a named algorithm, "
        "none: its parameters are taken as they stand.",
    )
    preparation: Preparation = Field(default=Preparation(), description="How columns are prepared, by role.")
    class_weight: Literal["balanced"] | list[ClassWeight] | None = Field(
        default=None,
        description="Weights of the rows of each class while fitting: `balanced` gives all classes the same "
        "sum; classes that are not named weigh 1.",
        examples=["balanced", [{"class": True, "weight": 4}]],
    )
    calibration: Literal["sigmoid", "isotonic"] | None = Field(
        default=None, description="Fit the probabilities to frequencies, across folds of the training rows."
    )
    costs: list[Cost] = Field(
        default_factory=list,
        max_length=10_000,
        description="What wrong answers cost; each that is not named costs 1, and right ones cost 0. The "
        "model then answers with the class of the least expected cost instead of the most probable one.",
        examples=[[{"actual": True, "predicted": False, "cost": 5}]],
    )
    validation: Validation = Field(
        default=Validation(), description="How the rows are split into training and holdout."
    )
    evaluation: EvaluationOptions = Field(
        default=EvaluationOptions(), description="What the evaluation report looks at."
    )
    metric: str | None = Field(
        default=None,
        description="The metric by which a search chooses: one of ours, or the name of a scikit-learn scorer "
        "such as `f1_weighted`. Default: roc_auc (binary), log_loss (multiclass), rmse (regression).",
        examples=["roc_auc"],
    )
    metrics: list[str] = Field(
        default_factory=list,
        max_length=20,
        description="Further metrics, or scikit-learn scorers, to be reported beside the usual ones.",
    )
    seed: StrictInt = Field(
        default=0,
        ge=0,
        le=2**32 - 1,
        description="The seed of every random choice: same data, spec and seed (and, of a search, the same "
        "start, `warm_start`), same model.",
    )

    @property
    def searches(self) -> bool:
        """Whether candidates are compared, and not one configuration fitted."""
        return self.algorithm == "auto" or self.search is not None

    @field_serializer("preparation")
    def _as_stated(self, preparation: Preparation) -> dict[str, Any]:
        """Without the defaults: what is left open is for a search to choose."""
        return preparation.model_dump(mode="json", exclude_unset=True)


def refusal(code: str, at: tuple[str | int, ...], detail: str) -> InvalidInput:
    """The error that one field of a training spec, at the path ``at``, asks for something impossible."""
    return InvalidInput(code, detail, errors=[InputError(pointer(*at), detail)])
