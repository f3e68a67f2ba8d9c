import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from app.registry.signature import Task
from app.training.evaluation import confusion_matrix, evaluate
from app.training.metrics import DEFAULT_METRIC, METRICS

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 40)


def classified(seed: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), size).round(2)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return rng.integers(0, classes, size), probabilities.argmax(axis=1), probabilities


@settings(max_examples=60, deadline=None)
@given(seeds, sizes)
def test_binary_metrics_agree_with_scikit_learn_where_the_sample_defines_them(seed: int, size: int) -> None:
    actual, predicted, probabilities = classified(seed, size, 2)
    metrics = evaluate(Task.BINARY, actual, predicted, probabilities)
    expected = {
        "accuracy": reference.accuracy_score(actual, predicted),
        "precision": reference.precision_score(actual, predicted, zero_division=0),
        "recall": reference.recall_score(actual, predicted, zero_division=0),
        "f1": reference.f1_score(actual, predicted, zero_division=0),
        "log_loss": reference.log_loss(actual, probabilities, labels=[0, 1]),
        "brier_score": reference.brier_score_loss(actual, probabilities[:, 1], pos_label=1),
    }
    if np.unique(actual).size == 2:
        expected["balanced_accuracy"] = reference.balanced_accuracy_score(actual, predicted)
        expected["roc_auc"] = reference.roc_auc_score(actual, probabilities[:, 1])
        expected["average_precision"] = reference.average_precision_score(actual, probabilities[:, 1])
    else:
        expected["balanced_accuracy"] = expected["accuracy"]
    assert metrics == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, sizes)
def test_multiclass_metrics_agree_with_scikit_learn_where_the_sample_defines_them(
    seed: int, size: int
) -> None:
    actual, predicted, probabilities = classified(seed, size, 4)
    metrics = evaluate(Task.MULTICLASS, actual, predicted, probabilities)
    recalls = [(predicted[actual == label] == label).mean() for label in np.unique(actual)]
    expected = {
        "accuracy": reference.accuracy_score(actual, predicted),
        "balanced_accuracy": np.mean(recalls),
        "f1_macro": reference.f1_score(actual, predicted, average="macro"),
        "log_loss": reference.log_loss(actual, probabilities, labels=range(4)),
    }
    if np.unique(actual).size == 4:
        expected["roc_auc_ovr"] = reference.roc_auc_score(actual, probabilities, multi_class="ovr")
    assert metrics == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, sizes)
def test_regression_metrics_agree_with_scikit_learn(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    actual, predicted = rng.integers(-3, 4, size).astype(float), rng.normal(size=size)
    metrics = evaluate(Task.REGRESSION, actual, predicted)
    expected = {
        "rmse": reference.root_mean_squared_error(actual, predicted),
        "mae": reference.mean_absolute_error(actual, predicted),
        "median_absolute_error": reference.median_absolute_error(actual, predicted),
    }
    if 0 not in actual:
        expected["mape"] = reference.mean_absolute_percentage_error(actual, predicted)
    if np.unique(actual).size > 1:
        expected["r2"] = reference.r2_score(actual, predicted)
    assert metrics == pytest.approx(expected)


def test_a_certain_and_wrong_answer_has_a_finite_log_loss() -> None:
    metrics = evaluate(Task.BINARY, np.array([1]), np.array([0]), np.array([[1.0, 0.0]]))
    assert metrics["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps))


def test_without_probabilities_only_the_metrics_of_labels_are_given() -> None:
    actual, predicted = np.array([0, 1, 1]), np.array([0, 1, 0])
    assert set(evaluate(Task.BINARY, actual, predicted)) == {
        "accuracy",
        "balanced_accuracy",
        "precision",
        "recall",
        "f1",
    }


def test_a_metric_that_overflows_is_left_out() -> None:
    metrics = evaluate(Task.REGRESSION, np.array([1e300, 1.0]), np.array([-1e300, 2.0]))
    assert "rmse" not in metrics
    assert metrics["mae"] == 1e300


def test_confusion_matrix_has_the_actual_class_in_rows() -> None:
    actual, predicted = np.array([0, 0, 1, 1, 1]), np.array([1, 0, 1, 1, 0])
    assert confusion_matrix(actual, predicted, 3) == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]


@pytest.mark.parametrize("task", Task)
def test_every_metric_of_a_task_is_in_the_table_with_its_default(task: Task) -> None:
    actual, predicted = np.array([0, 1, 2, 1]) % (2 if task is Task.BINARY else 3), np.array([0, 1, 1, 1])
    probabilities = np.full((4, 2 if task is Task.BINARY else 3), 1 / 2 if task is Task.BINARY else 1 / 3)
    metrics = evaluate(task, actual + 1 if task is Task.REGRESSION else actual, predicted, probabilities)
    assert set(metrics) == {name for name, metric in METRICS.items() if task in metric.tasks}
    assert DEFAULT_METRIC[task] in metrics
