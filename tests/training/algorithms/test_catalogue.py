import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.errors import InvalidInput
from app.registry.signature import Task
from app.training.algorithms.algorithm import Algorithm, Parameter, SearchChoices, SearchRange
from app.training.algorithms.catalogue import ALGORITHMS, algorithm, algorithms_for
from app.training.algorithms.estimators import build_estimator
from tests.client import Client

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


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"default": 2.0}, "share: 2.0 is not a number from 0 to 1"),
        ({"default": None}, "share: None is not a number from 0 to 1"),
        ({"search": SearchRange(0.5, 3.0)}, "share: 3.0 is not a number from 0 to 1"),
        ({"search": SearchRange(0.5, 0.5)}, "share: the search goes from a lower to a higher number"),
        ({"search": SearchRange(0.0, 0.5, log=True)}, "share: the search goes from a lower to a higher"),
        ({"search": SearchChoices((0.1, 7))}, "share: 7 is not a number from 0 to 1"),
        ({"maximum": None}, "share: numbers, and nothing else, have a minimum and a maximum"),
        ({"type": "string", "minimum": None, "maximum": None}, "share: strings, and nothing else, have"),
    ],
)
def test_a_parameter_that_contradicts_itself_is_refused(values: dict[str, Any], fault: str) -> None:
    sound: dict[str, Any] = {"name": "share", "type": "number", "default": 0.5, "description": "A share."}
    Parameter(**sound, minimum=0.0, maximum=1.0)
    with pytest.raises(ValueError, match=re.escape(fault)):
        Parameter(**{**sound, "minimum": 0.0, "maximum": 1.0, **values})


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"id": "auto"}, "the id 'auto'"),
        ({"id": "Ridge-2"}, "the id 'Ridge-2' is not in snake case"),
        ({"builder": "package.module"}, "is not of the form package.module:function"),
        ({"tasks": ()}, "there is no task"),
        ({"tasks": ("clustering",)}, "Input should be 'binary', 'multiclass' or 'regression'"),
        ({"cost": "cheap"}, "Input should be 'low', 'medium' or 'high'"),
        ({"requires": ("a.b",)}, "are not top-level modules"),
        ({"parameters": ALGORITHMS["ridge"].parameters * 2}, "two parameters have one name"),
    ],
)
def test_an_algorithm_that_contradicts_itself_is_refused(values: dict[str, Any], fault: str) -> None:
    sound = {field: getattr(ALGORITHMS["ridge"], field) for field in Algorithm.__dataclass_fields__}
    with pytest.raises(ValueError, match=re.escape(fault)):
        Algorithm(**{**sound, **values})


def test_rows_too_few_for_a_parameter_or_a_class_are_refused_with_the_field() -> None:
    neighbours, machine = algorithm("k_neighbors"), algorithm("svm_rbf")
    neighbours.check_rows({"n_neighbors": 20}, rows=20, class_rows=1)
    with pytest.raises(InvalidInput, match="n_neighbors of k_neighbors must be at most 19") as refused:
        neighbours.check_rows({"n_neighbors": 20}, rows=19)
    assert refused.value.errors[0].pointer == "/params/n_neighbors"
    with pytest.raises(InvalidInput, match="must be at most 14"):
        neighbours.check_rows({}, rows=14)
    machine.check_rows({}, rows=19, class_rows=3)
    with pytest.raises(InvalidInput, match="svm_rbf needs 3 rows of each class; one class has 2") as refused:
        machine.check_rows({}, rows=19, class_rows=2)
    assert refused.value.errors[0].pointer == "/algorithm"


def test_the_api_lists_all_that_there_is_to_know(shared: Client) -> None:
    items = {item["id"]: item for item in shared.get("/v1/algorithms").json()["items"]}
    assert set(items) == set(ALGORITHMS)
    assert {"logistic_regression", "ridge", "elastic_net", "hist_gradient_boosting", "dummy"} <= set(items)
    rate = items["hist_gradient_boosting"]["parameters"]["properties"]["learning_rate"]
    assert (rate["minimum"], rate["maximum"], rate["default"]) == (0.001, 1.0, 0.1)
    assert items["ridge"]["tasks"] == ["regression"]
    machine = items["svm_rbf"]
    assert machine["tasks"] == ["binary", "multiclass", "regression"]
    assert (machine["served"], machine["cost"], machine["weighted"]) == ("native", "high", True)
    assert machine["parameters"]["properties"]["gamma"] == {
        "type": ["number", "null"],
        "minimum": 1e-6,
        "maximum": 1e3,
        "default": None,
        "description": machine["parameters"]["properties"]["gamma"]["description"],
    }
    assert machine["search"]["gamma"] == {"minimum": 1e-4, "maximum": 1, "log": True}
    assert items["k_neighbors"]["search"]["weights"] == {"choices": ["uniform", "distance"]}
    assert not items["k_neighbors"]["weighted"]
    assert machine["provider"] == "roundhouse"
    assert all(item["choose_when"].endswith(".") and item["scaling"] for item in items.values())


def test_the_guide_has_each_algorithm_as_it_is() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "algorithms.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| (\w+) \| (\w+) \|", guide, re.MULTILINE)
    told = {name: rest for name, *rest in rows}
    words = {Task.BINARY: "classes", Task.MULTICLASS: "classes", Task.REGRESSION: "numbers"}
    for entry in ALGORITHMS.values():
        tasks = ", ".join(dict.fromkeys(words[task] for task in entry.tasks))
        assert told[entry.id] == [tasks, entry.cost, entry.served]
    assert set(told) - set(ALGORITHMS) <= {"lightgbm", "xgboost"}


def test_the_catalogue_is_read_without_scikit_learn() -> None:
    program = "import sys, app.training.algorithms.router; assert not {'sklearn', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
