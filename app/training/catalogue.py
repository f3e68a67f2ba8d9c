"""The algorithms that a training run can name, and the parameters that each takes."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from app.errors import InputError, InvalidInput, pointer
from app.registry.signature import Task, shown
from app.training.spec import refusal

CLASSIFICATION = (Task.BINARY, Task.MULTICLASS)
EVERY_TASK = tuple(Task)

json_types: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: its JSON type, the range or the choices, and the default.

    ``nullable`` allows null, whose meaning the description gives.
    """

    name: str
    type: Literal["integer", "number", "boolean", "string"]
    default: bool | int | float | str | None
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    nullable: bool = False

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.nullable
        if type(value) not in json_types[self.type] or (self.choices and value not in self.choices):
            return False
        if self.minimum is None or self.maximum is None:
            return True
        return isfinite(value) and self.minimum <= value <= self.maximum

    def allowed(self) -> str:
        """What the parameter takes, in words."""
        if self.choices:
            words = "one of " + ", ".join(repr(choice) for choice in self.choices)
        elif self.type == "boolean":
            words = "true or false"
        else:
            article = "an" if self.type == "integer" else "a"
            words = f"{article} {self.type} from {self.minimum:g} to {self.maximum:g}"
        return f"{words}, or null" if self.nullable else words

    def json_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": [self.type, "null"] if self.nullable else self.type}
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        if self.choices:
            schema["enum"] = [*self.choices, None] if self.nullable else list(self.choices)
        return schema | {"default": self.default, "description": self.description}


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An algorithm of the catalogue. ``build`` makes its estimator from complete, valid parameters."""

    id: str
    title: str
    tasks: tuple[Task, ...]
    parameters: tuple[Parameter, ...]
    build: Callable[[Task, dict[str, Any], int], BaseEstimator]

    def complete(self, params: dict[str, Any]) -> dict[str, Any]:
        """Every parameter with its value: the given one, else the default.

        Raises InvalidInput with a pointer to each parameter that is unknown or out of its range.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        errors = []
        for name, value in params.items():
            if name not in known:
                takes = f"its parameters are {', '.join(known)}" if known else "it has no parameters"
                errors.append(
                    InputError(pointer("params", name), f"{self.id} has no parameter {name!r}; {takes}.")
                )
            elif not known[name].accepts(value):
                errors.append(
                    InputError(
                        pointer("params", name),
                        f"{name} of {self.id} must be {known[name].allowed()}, not {shown(value)}.",
                    )
                )
        if errors:
            raise InvalidInput("invalid_parameter", errors[0].detail, errors=errors)
        return {name: params.get(name, parameter.default) for name, parameter in known.items()}

    def make(self, task: Task, params: dict[str, Any], seed: int) -> BaseEstimator:
        """The unfitted scikit-learn estimator; ``params`` are completed with the defaults.

        Raises InvalidInput for a task that the algorithm does not do and for bad parameters.
        """
        if task not in self.tasks:
            raise refusal(
                "unfit_algorithm",
                ("algorithm",),
                f"{self.id} does not do {task}; choose auto, {', '.join(algorithms_for(task))}.",
            )
        return self.build(task, self.complete(params), seed)

    def parameters_schema(self) -> dict[str, Any]:
        """The JSON Schema of ``params``."""
        return {
            "type": "object",
            "properties": {parameter.name: parameter.json_schema() for parameter in self.parameters},
            "additionalProperties": False,
        }


def algorithm(name: str) -> Algorithm:
    """The algorithm with this id; raises InvalidInput with the known ids."""
    if name not in ALGORITHMS:
        raise refusal(
            "unknown_algorithm",
            ("algorithm",),
            f"There is no algorithm {name!r}; choose auto, {', '.join(ALGORITHMS)}.",
        )
    return ALGORITHMS[name]


def algorithms_for(task: Task) -> list[str]:
    """The ids of the algorithms that do ``task``."""
    return [name for name, candidate in ALGORITHMS.items() if task in candidate.tasks]


def linear_algorithm(task: Task) -> str:
    """The id of the linear model for ``task``: the simplest model that uses the features."""
    return "ridge" if task is Task.REGRESSION else "logistic_regression"


def _logistic_regression(_: Task, params: dict[str, Any], seed: int) -> BaseEstimator:
    return LogisticRegression(
        C=params["C"],
        class_weight=params["class_weight"],
        max_iter=params["max_iter"],
        random_state=seed,
    )


def _ridge(_: Task, params: dict[str, Any], seed: int) -> BaseEstimator:
    return Ridge(alpha=params["alpha"], random_state=seed)


def _random_forest(task: Task, params: dict[str, Any], seed: int) -> BaseEstimator:
    classify = task in CLASSIFICATION
    share = params["max_features"]
    if share is None:
        share = "sqrt" if classify else 1 / 3
    estimator = RandomForestClassifier if classify else RandomForestRegressor
    return estimator(
        n_estimators=params["n_estimators"],
        max_depth=params["max_depth"],
        min_samples_leaf=params["min_samples_leaf"],
        max_features=share,
        n_jobs=1,
        random_state=seed,
    )


def _hist_gradient_boosting(task: Task, params: dict[str, Any], seed: int) -> BaseEstimator:
    classify = task in CLASSIFICATION
    estimator = HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor
    return estimator(**params, random_state=seed)


def _k_neighbors(task: Task, params: dict[str, Any], _: int) -> BaseEstimator:
    estimator = KNeighborsClassifier if task in CLASSIFICATION else KNeighborsRegressor
    # The brute-force search takes its distances from one matrix product, whose rounding depends on the
    # other rows of the batch; the tree computes each distance by itself.
    return estimator(
        n_neighbors=params["n_neighbors"], weights=params["weights"], algorithm="ball_tree", n_jobs=1
    )


def _dummy(task: Task, _: dict[str, Any], seed: int) -> BaseEstimator:
    if task in CLASSIFICATION:
        return DummyClassifier(strategy="prior", random_state=seed)
    return DummyRegressor(strategy="mean")


_MAX_DEPTH = Parameter(
    "max_depth", "integer", None, "The depth limit of a tree; null for none.", 1, 100, nullable=True
)

ALGORITHMS: dict[str, Algorithm] = {
    entry.id: entry
    for entry in (
        Algorithm(
            "logistic_regression",
            "logistic regression",
            CLASSIFICATION,
            (
                Parameter(
                    "C",
                    "number",
                    1.0,
                    "The inverse of the L2 penalty: smaller values hold the weights closer to zero.",
                    1e-6,
                    1e6,
                ),
                Parameter(
                    "class_weight",
                    "string",
                    None,
                    "`balanced` weighs every class alike, however rare; null weighs every row alike.",
                    choices=("balanced",),
                    nullable=True,
                ),
                Parameter("max_iter", "integer", 1000, "The most iterations of the solver.", 10, 100_000),
            ),
            _logistic_regression,
        ),
        Algorithm(
            "ridge",
            "ridge regression",
            (Task.REGRESSION,),
            (
                Parameter(
                    "alpha",
                    "number",
                    1.0,
                    "The L2 penalty: greater values hold the weights closer to zero.",
                    1e-6,
                    1e6,
                ),
            ),
            _ridge,
        ),
        Algorithm(
            "random_forest",
            "random forest",
            EVERY_TASK,
            (
                Parameter("n_estimators", "integer", 100, "The number of trees.", 1, 2000),
                _MAX_DEPTH,
                Parameter("min_samples_leaf", "integer", 5, "The fewest rows in a leaf.", 1, 10_000),
                Parameter(
                    "max_features",
                    "number",
                    None,
                    "The share of the encoded features looked at for each split; null for their square root "
                    "(classification) or a third (regression).",
                    0.01,
                    1.0,
                    nullable=True,
                ),
            ),
            _random_forest,
        ),
        Algorithm(
            "hist_gradient_boosting",
            "histogram gradient boosting",
            EVERY_TASK,
            (
                Parameter("learning_rate", "number", 0.1, "The weight of each tree.", 0.001, 1.0),
                Parameter("max_iter", "integer", 100, "The number of boosting rounds.", 1, 5000),
                Parameter("max_leaf_nodes", "integer", 31, "The most leaves of a tree.", 2, 1024),
                _MAX_DEPTH,
                Parameter("min_samples_leaf", "integer", 20, "The fewest rows in a leaf.", 1, 10_000),
                Parameter("l2_regularization", "number", 0.0, "The L2 penalty on leaf values.", 0.0, 1e6),
                Parameter(
                    "early_stopping",
                    "boolean",
                    False,
                    "Stop when a tenth of the training rows, kept aside, no longer gains.",
                ),
            ),
            _hist_gradient_boosting,
        ),
        Algorithm(
            "k_neighbors",
            "k-nearest neighbours",
            EVERY_TASK,
            (
                Parameter("n_neighbors", "integer", 15, "The number of neighbours that vote.", 1, 1000),
                Parameter(
                    "weights",
                    "string",
                    "uniform",
                    "`uniform` counts each neighbour alike, `distance` nearer ones for more.",
                    choices=("uniform", "distance"),
                ),
            ),
            _k_neighbors,
        ),
        Algorithm("dummy", "baseline without features", EVERY_TASK, (), _dummy),
    )
}
