"""What a caller asks of a training run: the training spec."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from app.errors import InputError, InvalidInput, pointer
from app.registry.signature import Role, Task


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


class Validation(BaseModel):
    """How rows are kept back from the fit, to measure the model on rows that it has not seen."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"method": "time", "time_column": "departure", "holdout": 0.2}]},
    )

    method: Literal["random", "time"] = Field(
        default="random",
        description="`random` keeps back a random sample (stratified by class); `time` the latest rows: "
        "the honest choice where the model will answer for days after those it learned from.",
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
        description="The folds of the cross-validation by which `auto` chooses an algorithm.",
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
    validation: Validation = Field(
        default=Validation(), description="How the rows are split into training and holdout."
    )
    metric: str | None = Field(
        default=None,
        description="The metric by which `auto` chooses. Default: roc_auc (binary), log_loss (multiclass), "
        "rmse (regression).",
        examples=["roc_auc"],
    )
    seed: StrictInt = Field(
        default=0,
        ge=0,
        le=2**32 - 1,
        description="The seed of every random choice: same data, spec and seed, same model.",
    )


def refusal(code: str, at: tuple[str | int, ...], detail: str) -> InvalidInput:
    """The error that one field of a training spec, at the path ``at``, asks for something impossible."""
    return InvalidInput(code, detail, errors=[InputError(pointer(*at), detail)])
