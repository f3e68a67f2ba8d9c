"""What the catalogue promises of its algorithms, of each. ``test_plugins`` runs this over the extras too."""

import io
import warnings
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.registry.signature import Task
from app.training.algorithms.algorithm import Algorithm, SearchRange
from app.training.algorithms.builtin import EARLY_STOPPING_ROWS
from app.training.algorithms.catalogue import ALGORITHMS
from app.training.algorithms.estimators import AlgorithmUnavailable, build_estimator

cases = pytest.mark.parametrize(
    ("entry", "task"),
    [
        pytest.param(entry, task, id=f"{entry.id}-{task}")
        for entry in ALGORITHMS.values()
        for task in entry.tasks
    ],
)


def table(task: Task, rows: int = 150) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Five columns, and a target that two of them explain: classes 0, 2 and 3 where there are several."""
    source = np.random.default_rng(1)
    matrix = source.normal(size=(rows, 5))
    signal = np.sin(2 * matrix[:, 0]) + matrix[:, 1] + source.normal(0, 0.3, rows)
    labels = {Task.BINARY: [0, 1], Task.MULTICLASS: [0, 2, 3], Task.REGRESSION: []}[task]
    return matrix, np.array(labels)[signal.argsort().argsort() * len(labels) // rows] if labels else signal


def few(entry: Algorithm) -> dict[str, Any]:
    """Rounds that cost little, where an algorithm counts them."""
    if entry.id in ("hist_gradient_boosting", "mlp"):
        return {"max_iter": 5}
    return {"n_estimators": 5} if "n_estimators" in entry.complete({}) else {}


def fit(
    entry: Algorithm, task: Task, params: dict[str, Any], weights: NDArray[np.float64] | None = None
) -> Any:
    matrix, target = table(task)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        sample_weight = {} if weights is None else {"sample_weight": weights}
        return build_estimator(entry.id, task, params, seed=2**32 - 1).fit(matrix, target, **sample_weight)


def answers(model: Any, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    found = model.predict_proba(matrix) if hasattr(model, "classes_") else model.predict(matrix)
    return np.asarray(found, np.float64)


@cases
def test_the_same_rows_and_seed_give_the_same_bytes_which_answer_as_before(
    entry: Algorithm, task: Task
) -> None:
    model = fit(entry, task, few(entry))
    first, again = io.BytesIO(), io.BytesIO()
    joblib.dump(model, first, protocol=5)
    joblib.dump(fit(entry, task, few(entry)), again, protocol=5)
    assert first.getvalue() == again.getvalue()
    matrix, _ = table(task)
    first.seek(0)
    assert answers(joblib.load(first), matrix).tobytes() == answers(model, matrix).tobytes()


@cases
def test_an_algorithm_says_whether_it_takes_weights_and_they_count(entry: Algorithm, task: Task) -> None:
    matrix, target = table(task)
    if not entry.weighted:
        assert not has_fit_parameter(build_estimator(entry.id, task, {}, 0), "sample_weight")
        return
    heavy = target >= np.quantile(target, 0.7)
    plain = answers(fit(entry, task, few(entry)), matrix)
    weighted = answers(fit(entry, task, few(entry), np.where(heavy, 20.0, 1.0)), matrix)
    if task is not Task.REGRESSION:
        plain, weighted = plain[:, -1], weighted[:, -1]
    assert weighted.mean() > plain.mean()


@cases
def test_a_classifier_keeps_the_numbers_of_the_classes_that_it_saw(entry: Algorithm, task: Task) -> None:
    model = fit(entry, task, few(entry))
    if task is Task.REGRESSION:
        assert not hasattr(model, "classes_")
        return
    assert model.classes_.tolist() == np.unique(table(task)[1]).tolist()
    assert answers(model, table(task)[0]).shape == (150, len(model.classes_))


@cases
@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_a_fit_takes_the_ends_of_what_a_search_tries(entry: Algorithm, task: Task, end: str) -> None:
    tried = {
        name: getattr(search, end)
        for name, search in entry.search_space().items()
        if isinstance(search, SearchRange)
    }
    assert np.isfinite(answers(fit(entry, task, tried | few(entry)), table(task)[0])).all()


@pytest.mark.parametrize("algorithm", ["svm_rbf", "mlp"])
def test_the_unit_of_the_target_does_not_matter(algorithm: str) -> None:
    matrix, target = table(Task.REGRESSION)
    metres, microns = (
        build_estimator(algorithm, Task.REGRESSION, {}, 0).fit(matrix, target * unit).predict(matrix)
        for unit in (1, 1e6)
    )
    np.testing.assert_allclose(microns, metres * 1e6, rtol=1e-6)
    assert np.corrcoef(metres, target)[0, 1] > 0.8


@pytest.mark.parametrize(
    ("algorithm", "params"),
    [
        ("svm_rbf", {"C": 1e6, "max_iter": 100}),
        ("mlp", {"max_iter": 2}),
        ("linear_svm", {"C": 1e6, "max_iter": 10}),
        ("logistic_regression", {"C": 1e6, "max_iter": 10}),
    ],
)
def test_a_fit_that_does_not_converge_ends_and_says_so(algorithm: str, params: dict[str, Any]) -> None:
    matrix, target = table(Task.MULTICLASS)
    with pytest.warns(ConvergenceWarning):
        build_estimator(algorithm, Task.MULTICLASS, params, 0).fit(matrix * 100, target)


def test_a_neural_network_stops_early_where_rows_can_be_spared_for_it() -> None:
    params = {"hidden_units": 4}
    many = build_estimator("mlp", Task.BINARY, params, 0).fit(*table(Task.BINARY, rows=EARLY_STOPPING_ROWS))
    assert many.validation_scores_ is not None
    assert many.n_iter_ < many.max_iter
    assert many.early_stopping is None
    few_rows = build_estimator("mlp", Task.BINARY, params, 0).fit(*table(Task.BINARY))
    assert few_rows.validation_scores_ is None
    asked = build_estimator("mlp", Task.BINARY, params | {"early_stopping": True}, 0).fit(*table(Task.BINARY))
    assert asked.validation_scores_ is not None


@pytest.mark.parametrize(
    "builder", ["no_such_package:build", "app.training.algorithms.estimators:no_such_function", "json:loads"]
)
def test_a_builder_that_fails_is_named_with_its_provider(
    monkeypatch: pytest.MonkeyPatch, builder: str
) -> None:
    broken = replace(ALGORITHMS["ridge"], builder=builder, provider="broken-plugin")
    monkeypatch.setitem(ALGORITHMS, "ridge", broken)
    with pytest.raises(
        AlgorithmUnavailable, match=f"ridge cannot be built here by {builder} of broken-plugin"
    ):
        build_estimator("ridge", Task.REGRESSION, {}, 0)
