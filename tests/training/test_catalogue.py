import subprocess
import sys
from typing import Any

import pytest

from app.errors import InvalidInput
from app.registry.signature import Task
from app.training.catalogue import ALGORITHMS, Algorithm, Parameter, algorithm, algorithms_for
from app.training.estimators import build_estimator

entries = pytest.mark.parametrize("entry", ALGORITHMS.values(), ids=list(ALGORITHMS))
parameters = pytest.mark.parametrize(
    ("entry", "parameter"),
    [
        pytest.param(entry, parameter, id=f"{entry.id}-{parameter.name}")
        for entry in ALGORITHMS.values()
        for parameter in entry.parameters
    ],
)


def wrong_values(parameter: Parameter) -> list[Any]:
    wrong: list[Any] = [[], {}, float("nan"), float("inf")]
    if parameter.type in ("integer", "number"):
        assert parameter.minimum is not None
        assert parameter.maximum is not None
        wrong += [parameter.minimum - 1, parameter.maximum + 1, True, "1"]
    if parameter.type == "integer":
        wrong += [parameter.minimum, 1.5] if isinstance(parameter.minimum, float) else [1.5]
    if parameter.type == "string":
        wrong += ["no such choice", 1]
    if parameter.type == "boolean":
        wrong += [0, "true"]
    return wrong if parameter.nullable else [*wrong, None]


@entries
def test_an_algorithm_makes_an_estimator_for_each_of_its_tasks_from_its_defaults(entry: Algorithm) -> None:
    for task in entry.tasks:
        estimator = build_estimator(entry.id, task, {}, seed=2**32 - 1)
        assert estimator.__sklearn_tags__().estimator_type == (
            "regressor" if task is Task.REGRESSION else "classifier"
        )


@parameters
def test_a_value_out_of_a_parameters_range_is_refused_with_the_range(
    entry: Algorithm, parameter: Parameter
) -> None:
    for value in wrong_values(parameter):
        with pytest.raises(InvalidInput) as refused:
            entry.complete({parameter.name: value})
        (error,) = refused.value.errors
        assert error.pointer == f"/params/{parameter.name}"
        assert parameter.allowed() in error.detail


@parameters
def test_the_ends_of_a_parameters_range_and_its_default_are_accepted(
    entry: Algorithm, parameter: Parameter
) -> None:
    for value in (parameter.minimum, parameter.maximum, *parameter.choices, parameter.default):
        if value is not None:
            assert entry.complete({parameter.name: value})[parameter.name] == value


@entries
def test_params_are_completed_with_defaults_and_the_schema_tells_them(entry: Algorithm) -> None:
    properties = entry.parameters_schema()["properties"]
    assert entry.complete({}) == {name: schema["default"] for name, schema in properties.items()}


def test_every_unknown_parameter_is_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        algorithm("ridge").complete({"alfa": 1, "a/b": 2, "alpha": 3})
    assert [error.pointer for error in refused.value.errors] == ["/params/alfa", "/params/a~1b"]


def test_an_algorithm_for_another_task_is_refused_with_the_fitting_ones() -> None:
    with pytest.raises(InvalidInput, match="logistic_regression") as refused:
        build_estimator("ridge", Task.BINARY, {}, 0)
    assert refused.value.errors[0].pointer == "/algorithm"


def test_an_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="hist_gradient_boosting") as refused:
        algorithm("svm")
    assert refused.value.errors[0].pointer == "/algorithm"


def test_regression_has_ridge_where_classes_have_logistic_regression() -> None:
    assert "ridge" in algorithms_for(Task.REGRESSION)
    assert "logistic_regression" not in algorithms_for(Task.REGRESSION)
    assert "logistic_regression" in algorithms_for(Task.MULTICLASS)


def test_a_given_parameter_reaches_the_estimator() -> None:
    assert build_estimator("k_neighbors", Task.BINARY, {"n_neighbors": 3}, 0).n_neighbors == 3
    assert build_estimator("logistic_regression", Task.BINARY, {"C": 0.5}, 0).C == 0.5
    assert build_estimator("random_forest", Task.REGRESSION, {"max_features": 0.5}, 0).max_features == 0.5
    assert build_estimator("linear_svm", Task.BINARY, {"C": 0.5}, 0).estimator.C == 0.5


def test_the_catalogue_is_read_without_scikit_learn() -> None:
    program = "import sys, app.training.router; assert not {'sklearn', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
