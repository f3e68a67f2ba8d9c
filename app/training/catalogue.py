"""The algorithms that a training run can name, and the parameters that each takes."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from app.errors import InputError, InvalidInput, pointer
from app.registry.runtime import Runtime
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
    """An algorithm of the catalogue; ``served`` is how its versions are, if nothing speaks against it."""

    id: str
    title: str
    tasks: tuple[Task, ...]
    parameters: tuple[Parameter, ...]
    served: Runtime = Runtime.COMPILED

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

    def check_task(self, task: Task) -> None:
        """Raise InvalidInput for a task that the algorithm does not do."""
        if task not in self.tasks:
            raise refusal(
                "unfit_algorithm",
                ("algorithm",),
                f"{self.id} does not do {task}; choose auto, {', '.join(algorithms_for(task))}.",
            )

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


_CLASS_WEIGHT = Parameter(
    "class_weight",
    "string",
    None,
    "`balanced` weighs every class alike, however rare; null weighs every row alike.",
    choices=("balanced",),
    nullable=True,
)
_TREES = Parameter("n_estimators", "integer", 100, "The number of trees.", 1, 2000)
_LEARNING_RATE = Parameter("learning_rate", "number", 0.1, "The weight of each tree.", 0.001, 1.0)
_MAX_DEPTH = Parameter(
    "max_depth", "integer", None, "The depth limit of a tree; null for none.", 1, 100, nullable=True
)
_MAX_FEATURES = Parameter(
    "max_features",
    "number",
    None,
    "The share of the encoded features looked at for each split; null for their square root "
    "(classification) or a third (regression).",
    0.01,
    1.0,
    nullable=True,
)


def _min_samples_leaf(default: int) -> Parameter:
    return Parameter("min_samples_leaf", "integer", default, "The fewest rows in a leaf.", 1, 10_000)


def _max_iter(default: int) -> Parameter:
    return Parameter("max_iter", "integer", default, "The most iterations of the solver.", 10, 100_000)


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
                _CLASS_WEIGHT,
                _max_iter(1000),
            ),
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
        ),
        Algorithm("linear_regression", "linear regression", (Task.REGRESSION,), ()),
        Algorithm(
            "elastic_net",
            "elastic net",
            (Task.REGRESSION,),
            (
                Parameter(
                    "alpha",
                    "number",
                    0.1,
                    "The penalty: greater values hold the weights closer to zero.",
                    1e-6,
                    1e6,
                ),
                Parameter(
                    "l1_ratio",
                    "number",
                    0.5,
                    "The share of the L1 penalty, which sets weights to zero; the rest is L2.",
                    0.0,
                    1.0,
                ),
                _max_iter(10_000),
            ),
        ),
        Algorithm(
            "linear_svm",
            "linear support vector machine",
            EVERY_TASK,
            (
                Parameter(
                    "C",
                    "number",
                    0.1,
                    "The inverse of the L2 penalty: smaller values hold the weights closer to zero.",
                    1e-6,
                    1e6,
                ),
                Parameter(
                    "class_weight",
                    "string",
                    None,
                    "Classifiers only: `balanced` weighs every class alike, however rare; null weighs every "
                    "row alike.",
                    choices=("balanced",),
                    nullable=True,
                ),
                _max_iter(10_000),
            ),
        ),
        Algorithm("decision_tree", "decision tree", EVERY_TASK, (_MAX_DEPTH, _min_samples_leaf(20))),
        Algorithm(
            "random_forest",
            "random forest",
            EVERY_TASK,
            (_TREES, _MAX_DEPTH, _min_samples_leaf(5), _MAX_FEATURES),
        ),
        Algorithm(
            "extra_trees",
            "extremely randomised trees",
            EVERY_TASK,
            (_TREES, _MAX_DEPTH, _min_samples_leaf(5), _MAX_FEATURES),
        ),
        Algorithm(
            "gradient_boosting",
            "gradient boosting",
            EVERY_TASK,
            (
                _LEARNING_RATE,
                _TREES,
                Parameter("max_depth", "integer", 3, "The depth limit of a tree.", 1, 100),
                _min_samples_leaf(20),
                Parameter(
                    "subsample", "number", 1.0, "The share of the rows that each tree learns from.", 0.01, 1.0
                ),
            ),
        ),
        Algorithm(
            "hist_gradient_boosting",
            "histogram gradient boosting",
            EVERY_TASK,
            (
                _LEARNING_RATE,
                Parameter("max_iter", "integer", 100, "The number of boosting rounds.", 1, 5000),
                Parameter("max_leaf_nodes", "integer", 31, "The most leaves of a tree.", 2, 1024),
                _MAX_DEPTH,
                _min_samples_leaf(20),
                Parameter("l2_regularization", "number", 0.0, "The L2 penalty on leaf values.", 0.0, 1e6),
                Parameter(
                    "early_stopping",
                    "boolean",
                    False,
                    "Stop when a tenth of the training rows, kept aside, no longer gains.",
                ),
            ),
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
            Runtime.NATIVE,
        ),
        Algorithm("dummy", "baseline without features", EVERY_TASK, ()),
    )
}
