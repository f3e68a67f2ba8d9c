"""How columns are prepared for an algorithm: the part of the training spec that says so, by role.

What is given under a role holds for all its columns; a feature's own ``prepare`` overrides it there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator

from app.errors import InputError, InvalidInput, pointer
from app.registry.signature import Feature, Role

Quantile = Annotated[float, Field(ge=0, le=1)]
DatetimePart = Literal[
    "year", "quarter", "month", "week", "day", "day_of_year", "weekday", "hour", "minute", "elapsed"
]


class Steps(BaseModel):
    """What a column goes through on its way to features."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NumericSteps(Steps):
    """Null is filled, then values are clipped, transformed and scaled, in this order."""

    impute: Literal["median", "mean", "most_frequent", "constant"] = Field(
        default="median", description="What stands in for null."
    )
    fill_value: Annotated[float, Field(ge=-1e150, le=1e150)] = Field(
        default=0.0, description="With `impute` `constant`: the value that stands in."
    )
    indicator: bool = Field(default=True, description="Add a feature that tells where a null was.")
    clip: tuple[Quantile, Quantile] | None = Field(
        default=None,
        description="Hold outliers at these two quantiles of the training rows.",
        examples=[[0.01, 0.99]],
    )
    transform: Literal["yeo_johnson", "quantile_uniform", "quantile_normal"] | None = Field(
        default=None,
        description="`yeo_johnson`: the power that comes nearest to a normal distribution (Yeo and Johnson, "
        "2000); `quantile_*`: ranks, laid out evenly or normally.",
    )
    scale: Literal["standard", "robust", "minmax"] | None = Field(
        default="standard",
        description="`standard`: mean 0, deviation 1; `robust`: median 0, interquartile range 1; `minmax`: "
        "from 0 to 1; null: as it is.",
    )

    @field_validator("clip")
    @classmethod
    def _in_order(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and clip[0] >= clip[1]:
            raise ValueError("the first quantile must be less than the second")
        return clip


class BooleanSteps(Steps):
    impute: Literal["most_frequent", "constant"] = "most_frequent"
    fill_value: Annotated[bool, Strict()] = Field(
        default=False, description="With `impute` `constant`: the value that stands in."
    )
    indicator: bool = True


class CategoricalSteps(Steps):
    encode: Literal["one_hot", "ordinal", "target"] = Field(
        default="one_hot",
        description="`one_hot`: a feature a category; `ordinal`: its place in order; `target`: the target's "
        "mean there, shrunken, and cross-fitted in training so that no row sees its own target. The numbers "
        "of the last two are brought to mean 0 and deviation 1.",
    )
    min_frequency: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.01,
        description="Categories of a smaller share count as one: with `one_hot` they share a feature with "
        "unknown ones, with `ordinal` the last place.",
    )
    max_categories: int = Field(default=50, ge=2, le=1000, description="Most features of a column (one_hot).")


class DatetimeSteps(Steps):
    parts: tuple[DatetimePart, ...] = Field(
        default=("year", "month", "day", "weekday", "hour"),
        min_length=1,
        description="UTC calendar parts, each a feature; `week` is that of ISO 8601, `weekday` 0 is Monday, "
        "`elapsed` is the time itself, in days.",
    )
    impute: Literal["median", "mean"] = "median"
    indicator: bool = True
    scale: Literal["standard", "robust", "minmax"] | None = "standard"

    @field_validator("parts")
    @classmethod
    def _once_each(cls, parts: tuple[DatetimePart, ...]) -> tuple[DatetimePart, ...]:
        if len(set(parts)) < len(parts):
            raise ValueError("each part may be named once")
        return parts


class TextSteps(Steps):
    vectorize: Literal["tfidf", "hashing"] = Field(
        default="tfidf",
        description="`tfidf`: the most frequent words, each weighed by its rarity; `hashing`: every word, in "
        "so many buckets.",
    )
    max_features: int = Field(default=200, ge=10, le=4096, description="Words, or buckets.")
    ngrams: int = Field(default=1, ge=1, le=2, description="2: pairs of neighbouring words count too.")


class Interactions(Steps):
    """Products of pairs of prepared numeric columns."""

    columns: tuple[str, ...] = Field(
        min_length=2, max_length=20, description="Numeric columns; every pair of them becomes a feature."
    )


class Selection(Steps):
    """Of the prepared features, only the most telling are kept."""

    method: Literal["univariate", "importance"] = Field(
        default="univariate",
        description="`univariate`: by an F test of each feature alone; `importance`: by a small forest.",
    )
    keep: Annotated[float, Field(gt=0, le=1)] = Field(default=0.5, description="The share that is kept.")


class Preparation(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"numeric": {"transform": "yeo_johnson"}}]},
    )

    numeric: NumericSteps = NumericSteps()
    boolean: BooleanSteps = BooleanSteps()
    categorical: CategoricalSteps = CategoricalSteps()
    datetime: DatetimeSteps = DatetimeSteps()
    text: TextSteps = TextSteps()
    interactions: Interactions | None = None
    select: Selection | None = None

    def of(self, role: Role) -> Steps:
        """The steps that hold for all columns of a role."""
        steps: dict[Role, Steps] = {
            Role.NUMERIC: self.numeric,
            Role.BOOLEAN: self.boolean,
            Role.CATEGORICAL: self.categorical,
            Role.DATETIME: self.datetime,
            Role.TEXT: self.text,
        }
        return steps[role]

    def with_choices(self, choices: Mapping[str, Any]) -> Preparation:
        """Itself but for fields that are named as ``preparation_space`` does: ``numeric.transform``."""
        changed: dict[str, Any] = self.model_dump()
        for name, value in choices.items():
            role, _, field = name.rpartition(".")
            (changed[role] if role else changed)[field] = value
        return Preparation.model_validate(changed)


@dataclass(frozen=True, slots=True)
class Plan:
    """How the features of one signature are prepared: ``steps`` of each, in their order.

    ``interactions`` are places of numeric features, whose pairs are multiplied. ``seed`` is that of the
    random choices that target encoding and a selection by importance make.
    """

    steps: tuple[Steps, ...]
    interactions: tuple[int, ...] = ()
    select: Selection | None = None
    seed: int = 0


Overrides = Mapping[str, Mapping[str, Any]]
"""What the spec's features say of their own preparation, by name."""


def resolve_plan(
    features: Sequence[Feature], preparation: Preparation, overrides: Overrides, seed: int
) -> Plan:
    """The plan for these features. Raises InvalidInput with JSON pointers into the training spec."""
    numeric = {feature.name: place for place, feature in enumerate(features) if feature.role is Role.NUMERIC}
    check_interactions(preparation, numeric)
    return Plan(
        steps=tuple(
            resolve_steps(feature.name, feature.role, preparation, overrides.get(feature.name, {}))
            for feature in features
        ),
        interactions=tuple(
            numeric[name] for name in (preparation.interactions.columns if preparation.interactions else ())
        ),
        select=preparation.select,
        seed=seed,
    )


def resolve_steps(name: str, role: Role, preparation: Preparation, override: Mapping[str, Any]) -> Steps:
    """The steps of one feature: its role's, but for what its own ``prepare`` says.

    Raises InvalidInput with a pointer to each wrong field of the feature's ``prepare``.
    """
    usual = preparation.of(role)
    if not override:
        return usual
    try:
        return type(usual).model_validate({**usual.model_dump(), **override})
    except ValidationError as error:
        fitting = ", ".join(type(usual).model_fields)
        errors = [
            InputError(
                pointer("features", name, "prepare", *wrong["loc"]),
                f"{name!r} is {role}, whose preparation has no {wrong['loc'][0]!r}; its fields are {fitting}."
                if wrong["type"] == "extra_forbidden"
                else f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}",
            )
            for wrong in error.errors()
        ]
        raise InvalidInput("invalid_preparation", errors[0].detail, errors=errors) from error


def check_interactions(preparation: Preparation, numeric: Collection[str]) -> None:
    """Refuse interactions of columns that are named twice or that are not among the ``numeric`` features."""
    seen = set[str]()
    errors = []
    for place, name in enumerate(preparation.interactions.columns if preparation.interactions else ()):
        fault = None
        if name not in numeric:
            some = ", ".join(islice(numeric, 30)) or "none"
            fault = f"{name!r} is not a numeric feature; such are: {some}."
        elif name in seen:
            fault = f"{name!r} is named twice."
        if fault:
            errors.append(InputError(pointer("preparation", "interactions", "columns", place), fault))
        seen.add(name)
    if errors:
        raise InvalidInput("invalid_preparation", errors[0].detail, errors=errors)
