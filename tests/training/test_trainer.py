import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pytest

from app.errors import InvalidInput
from app.registry.predictor import predict
from app.registry.signature import Task
from app.training.catalogue import ALGORITHMS
from app.training.spec import TrainingSpec
from app.training.trainer import TrainingResult, train

FEATURES = """
    CASE WHEN hash(i) % 10 > 0 THEN (hash(i, 1) % 1000) / 100 END AS size,
    (hash(i, 2) % 90)::INT AS age,
    CASE WHEN hash(i, 3) % 8 > 0 THEN 'place ' || hash(i, 3) % 6 END AS place,
    CASE WHEN hash(i, 4) % 5 > 0 THEN hash(i, 4) % 3 = 0 END AS fresh,
    CASE WHEN hash(i, 5) % 9 > 0 THEN TIMESTAMP '2013-01-01' + to_hours((hash(i, 5) % 9000)::INT) END AS seen,
    TIMESTAMP '2013-01-01' + to_hours(i::INT) AS at,
    'row ' || i AS label
"""
SIGNAL = "hash(i, 2) % 90 / 30 + hash(i, 3) % 6 / 2"
TARGETS = {
    Task.BINARY: f"CASE WHEN {SIGNAL} + hash(i, 9) % 100 / 50 > 4 THEN 'yes' ELSE 'no' END",
    Task.MULTICLASS: "(hash(i, 2) % 90 // 9 + (hash(i, 9) % 5 = 0)::INT) % 10",
    Task.REGRESSION: f"{SIGNAL} + hash(i, 9) % 100 / 50",
}
AUTO_COLUMNS = {task: f"{FEATURES}, {target} AS y" for task, target in TARGETS.items()} | {
    Task.MULTICLASS: f"{FEATURES}, (hash(i, 2) % 90 // 30)::INT AS y"
}
UNSEEN_ROWS: list[dict[str, Any]] = [
    {"size": None, "age": 3, "place": "elsewhere", "fresh": None, "seen": None, "at": "1970-01-01"},
    {"size": 1e308, "age": -(2**62), "place": None, "fresh": True, "seen": "9999-12-31", "at": "0001-01-01"},
]

Fit = Callable[..., TrainingResult]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Train on a table of 400 mixed rows with nulls, or on the SQL columns given."""
    folder = tmp_path_factory.mktemp("tables")

    def fit_to(
        task: Task = Task.BINARY, columns: str | None = None, rows: int = 400, **spec: Any
    ) -> TrainingResult:
        path = folder / "table.parquet"
        with duckdb.connect() as connection:
            selected = columns or f"{FEATURES}, {TARGETS[task]} AS y"
            numbers = connection.table_function("range", [rows]).project("range AS i")
            numbers.project(selected).to_parquet(str(path))
        steps: list[tuple[float, str]] = []
        result = train(
            path,
            TrainingSpec.model_validate({"target": "y", "task": None if columns else task} | spec),
            lambda fraction, step: steps.append((fraction, step)),
        )
        assert steps[0][0] == 0
        assert steps[-1][0] == 1
        assert all(before[0] <= after[0] for before, after in pairwise(steps))
        return result

    return fit_to


def small(algorithm: str) -> dict[str, Any]:
    """Parameters with which an algorithm is fitted in little time."""
    return {
        "random_forest": {"n_estimators": 12},
        "extra_trees": {"n_estimators": 12},
        "gradient_boosting": {"n_estimators": 12},
        "hist_gradient_boosting": {"max_iter": 12},
    }.get(algorithm, {})


cases = pytest.mark.parametrize(
    ("algorithm", "task"),
    [
        pytest.param(entry.id, task, id=f"{entry.id}-{task}")
        for entry in ALGORITHMS.values()
        for task in entry.tasks
    ],
)


@cases
def test_a_row_is_answered_alone_as_in_a_batch_bit_for_bit(fit: Fit, algorithm: str, task: Task) -> None:
    result = fit(task, algorithm=algorithm, params=small(algorithm))
    assert result.notes == []
    matrix = np.vstack([result.reference_matrix[:16], result.signature.encode(UNSEEN_ROWS)])
    predicted, probabilities = predict(result.pipeline, result.signature, matrix)
    answers = predicted if probabilities is None else probabilities
    assert np.isfinite(answers).all()
    for size in (1, 7):
        for start in range(0, len(matrix), size):
            some, chances = predict(result.pipeline, result.signature, matrix[start : start + size])
            assert np.array_equal(some, predicted[start : start + size])
            alone = some if chances is None else chances
            assert alone.tobytes() == answers[start : start + size].tobytes()
    with np.errstate(over="ignore"):
        if probabilities is None:
            np.testing.assert_allclose(answers, result.pipeline.predict(matrix), rtol=1e-12)
        else:
            assert np.array_equal(predicted, answers.argmax(axis=1))
            np.testing.assert_allclose(answers, result.pipeline.predict_proba(matrix), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("algorithm", ["logistic_regression", "random_forest", "hist_gradient_boosting"])
def test_the_same_data_spec_and_seed_give_the_same_model(fit: Fit, algorithm: str) -> None:
    first, again = (fit(algorithm=algorithm, params=small(algorithm), seed=5) for _ in range(2))
    assert first.metrics == again.metrics
    assert first.reference_scores.tobytes() == again.reference_scores.tobytes()
    other = fit(algorithm=algorithm, params=small(algorithm), seed=6)
    assert first.reference_scores.tobytes() != other.reference_scores.tobytes()


@pytest.mark.parametrize("task", Task)
def test_auto_compares_the_candidates_and_beats_the_baseline(fit: Fit, task: Task) -> None:
    result = fit(task, columns=AUTO_COLUMNS[task], validation={"folds": 3})
    assert result.choice is not None
    candidates = {candidate["algorithm"]: candidate for candidate in result.choice["candidates"]}
    assert len(candidates) == 4
    assert result.algorithm == result.choice["algorithm"]
    assert result.algorithm in candidates
    for candidate in candidates.values():
        assert len(candidate["scores"]) == 3
        assert candidate["mean"] == pytest.approx(np.mean(candidate["scores"]))
        assert candidate["std"] == pytest.approx(np.std(candidate["scores"], ddof=1))
    assert ALGORITHMS[result.algorithm].title in result.choice["reason"]
    assert result.params == ALGORITHMS[result.algorithm].complete({})
    metric = result.choice["metric"]
    sign = 1 if metric == "roc_auc" else -1
    assert sign * result.metrics[metric] > sign * result.baseline_metrics[metric]


def test_the_linear_model_is_preferred_only_within_one_standard_error_of_the_best(fit: Fit) -> None:
    x, z, noise = (f"(hash(i, {salt}) % 1000) / 500 - 1" for salt in (1, 2, 3))
    few = {"folds": 3}
    linear = fit(columns=f"{x} AS x, {z} AS z, {x} + 2 * ({z}) + {noise} AS y", validation=few)
    assert linear.algorithm == "ridge"
    curved = fit(columns=f"{x} AS x, {z} AS z, ({x}) * ({z}) + ({noise}) / 20 AS y", validation=few)
    assert curved.algorithm != "ridge"


def test_the_result_tells_rows_classes_columns_and_scores(fit: Fit) -> None:
    binary = fit(Task.BINARY, algorithm="logistic_regression")
    assert binary.rows == {"training": 320, "holdout": 80, "without_target": 0}
    assert binary.reference_matrix.shape == (320, len(binary.signature.features))
    assert binary.dropped == {"label": "every row has its own value: an identifier"}
    assert np.sum(binary.confusion_matrix or []) == 80
    assert binary.reference_scores.shape == (80,)
    assert ((binary.reference_scores > 0) & (binary.reference_scores < 1)).all()
    multiclass = fit(Task.MULTICLASS, algorithm="random_forest", params={"n_estimators": 5})
    assert set(multiclass.reference_scores) <= set(range(len(multiclass.signature.classes or ())))
    regression = fit(Task.REGRESSION, algorithm="ridge")
    assert regression.confusion_matrix is None
    assert regression.choice is None


def test_a_random_holdout_has_each_class_in_its_share_and_follows_the_seed(fit: Fit) -> None:
    columns = "sin(i) AS x, CASE WHEN i % 20 = 0 THEN 'rare' ELSE 'common' END AS y"
    result = fit(columns=columns, algorithm="dummy")
    assert [sum(row) for row in result.confusion_matrix or []] == [76, 4]
    other = fit(columns=columns, algorithm="dummy", seed=1)
    assert not np.array_equal(result.reference_matrix, other.reference_matrix)


def test_a_class_of_two_rows_keeps_one_to_learn_from(fit: Fit) -> None:
    columns = "sin(i) AS x, CASE WHEN i < 2 THEN 'rare' ELSE 'c' || i % 2 END AS y"
    for seed in range(3):
        result = fit(columns=columns, algorithm="logistic_regression", seed=seed, rows=60)
        assert result.pipeline.classes_.tolist() == [0, 1, 2]


def test_a_holdout_by_time_is_the_latest_part_and_auto_learns_from_the_past_only(fit: Fit) -> None:
    result = fit(
        columns="sin(i) AS x, -i * 1.5 AS clock, sin(i) + i AS y",
        validation={"method": "time", "time_column": "clock", "holdout": 0.25, "folds": 2},
    )
    clock = [feature.name for feature in result.signature.features].index("clock")
    assert result.reference_matrix[:, clock].tolist() == [-1.5 * i for i in range(399, 99, -1)]
    assert result.choice is not None
    assert result.choice["folds"] == 2


def test_a_class_that_appears_only_in_the_holdout_has_the_probability_zero(fit: Fit) -> None:
    columns = "sin(i) AS x, i * 1.5 AS clock, CASE WHEN i > 380 THEN 'b-new' ELSE 'ac'[1 + i % 2] END AS y"
    result = fit(
        columns=columns,
        algorithm="logistic_regression",
        validation={"method": "time", "time_column": "clock"},
    )
    probabilities = predict(result.pipeline, result.signature, result.reference_matrix)[1]
    assert probabilities is not None
    assert probabilities.shape[1] == 3
    assert (probabilities[:, 1] == 0).all()
    assert "roc_auc_ovr" in result.metrics


def test_a_target_that_does_not_vary_before_the_holdout_is_refused(fit: Fit) -> None:
    with pytest.raises(InvalidInput, match="same value in every row of the training part"):
        fit(
            columns="sin(i) AS x, i * 1.5 AS clock, i > 350 AS y",
            validation={"method": "time", "time_column": "clock"},
        )


def test_auto_without_a_fold_of_two_classes_says_what_to_do(fit: Fit) -> None:
    with pytest.raises(InvalidInput, match="no fold with two classes"):
        fit(
            columns="sin(i) AS x, i * 1.5 AS clock, i = 319 OR i = 399 AS y",
            validation={"method": "time", "time_column": "clock"},
        )


@pytest.mark.parametrize(
    ("target", "validation"),
    [
        ("'c' || i % 3", {"method": "random"}),
        ("i % 2 = 0", {"method": "time", "time_column": "clock"}),
        ("sin(i)", {"method": "time", "time_column": "clock", "folds": 20}),
    ],
)
def test_auto_works_on_the_fewest_rows(fit: Fit, target: str, validation: dict[str, Any]) -> None:
    columns = f"cos(i) AS x, i * 1.5 AS clock, {target} AS y"
    result = fit(columns=columns, rows=20, validation=validation)
    assert result.rows == {"training": 16, "holdout": 4, "without_target": 0}
    assert "k_neighbors was not compared" in " ".join(result.notes)


def test_too_few_rows_beside_the_holdout_are_refused(fit: Fit) -> None:
    with pytest.raises(InvalidInput, match="leaves 10 rows"):
        fit(columns="sin(i) AS x, i % 2 AS y", rows=20, validation={"holdout": 0.5})


def test_more_neighbours_than_training_rows_are_refused(fit: Fit) -> None:
    with pytest.raises(InvalidInput, match="at most 80") as refused:
        fit(columns="sin(i) AS x, i % 2 AS y", rows=100, algorithm="k_neighbors", params={"n_neighbors": 81})
    assert refused.value.errors[0].pointer == "/params/n_neighbors"


def test_a_fit_that_stops_before_it_converged_is_noted(fit: Fit) -> None:
    result = fit(Task.BINARY, algorithm="logistic_regression", params={"max_iter": 10, "C": 1e6})
    assert any(re.search("before it had converged: raise max_iter", note) for note in result.notes)


def test_columns_that_are_empty_in_the_training_part_are_no_obstacle(fit: Fit) -> None:
    columns = """
        sin(i) AS x, i * 1.5 AS clock, sin(i) + i AS y,
        CASE WHEN i > 370 THEN i * 0.7 END AS late_number,
        CASE WHEN i > 370 THEN 'c' || i % 3 END AS late_word,
        CASE WHEN i > 370 THEN i % 2 = 0 END AS late_flag,
        CASE WHEN i > 370 THEN DATE '2013-01-01' + i::INT END AS late_day
    """
    result = fit(columns=columns, algorithm="ridge", validation={"method": "time", "time_column": "clock"})
    assert len(result.signature.features) == 6
    assert result.notes == []
    assert np.isfinite(list(result.metrics.values())).all()
