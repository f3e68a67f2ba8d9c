import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import joblib
import numpy as np
import pytest

from app.errors import InvalidInput
from app.registry.predictor import predict
from app.registry.signature import Task
from app.serving.compile import compile_pipeline
from app.serving.parity import check_parity
from app.training.algorithms.catalogue import ALGORITHMS, linear_algorithm
from app.training.fit import write_holdout
from app.training.fitting import TrainingFailed
from app.training.spec import TrainingSpec
from app.training.trainer import NOTHING_BEFORE, Before, TrainingResult, train

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

NO_TRIALS = {"trials": 0, "processes": 1}
"""Of a search: the defaults alone, in this process."""

Fit = Callable[..., TrainingResult]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Train on a table of 400 mixed rows with nulls, or on the SQL columns given."""
    folder = tmp_path_factory.mktemp("tables")

    def fit_to(
        task: Task = Task.BINARY,
        columns: str | None = None,
        rows: int = 400,
        before: Before = NOTHING_BEFORE,
        tell: Callable[[dict[str, Any]], None] = lambda _: None,
        **spec: Any,
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
            before=before,
            tell=tell,
        )
        assert steps[0][0] == 0
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
    assert not [note for note in result.notes if "could order them" not in note]
    matrix = np.vstack([result.training[:16], result.signature.encode(UNSEEN_ROWS)])
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
    result = fit(task, columns=AUTO_COLUMNS[task], validation={"folds": 3}, search=NO_TRIALS)
    assert result.choice is not None
    candidates = {candidate["algorithm"]: candidate for candidate in result.choice["candidates"]}
    assert {linear_algorithm(task), "random_forest", "hist_gradient_boosting"} <= set(candidates)
    assert result.algorithm == result.choice["algorithm"] == next(iter(candidates))
    for candidate in candidates.values():
        assert len(candidate["scores"]) == 3
        assert candidate["mean"] == pytest.approx(np.mean(candidate["scores"]))
        assert candidate["std"] == pytest.approx(np.std(candidate["scores"], ddof=1))
    assert ALGORITHMS[result.algorithm].title in result.choice["reason"]
    assert result.params == ALGORITHMS[result.algorithm].complete({})
    metric = result.choice["metric"]
    sign = 1 if metric == "roc_auc" else -1
    assert result.search is not None
    assert all(sign * one["mean"] <= sign * result.search["value"] for one in candidates.values())
    assert sign * result.metrics[metric] > sign * result.baseline_metrics[metric]


def test_the_result_tells_rows_classes_columns_and_scores(fit: Fit) -> None:
    binary = fit(Task.BINARY, algorithm="logistic_regression")
    assert binary.rows == {"training": 320, "holdout": 80, "without_target": 0}
    assert binary.training.shape == (320, len(binary.signature.features))
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
    assert not np.array_equal(result.training, other.training)


def test_a_class_of_two_rows_keeps_one_to_learn_from(fit: Fit) -> None:
    columns = "sin(i) AS x, CASE WHEN i < 2 THEN 'rare' ELSE 'c' || i % 2 END AS y"
    for seed in range(3):
        result = fit(columns=columns, algorithm="logistic_regression", seed=seed, rows=60)
        assert result.pipeline.classes_.tolist() == [0, 1, 2]


def test_a_holdout_by_time_is_the_latest_part_and_auto_learns_from_the_past_only(fit: Fit) -> None:
    result = fit(
        columns="sin(i) AS x, -i * 1.5 AS clock, sin(i) + i AS y",
        validation={"method": "time", "time_column": "clock", "holdout": 0.25, "folds": 2},
        search=NO_TRIALS,
    )
    clock = [feature.name for feature in result.signature.features].index("clock")
    assert result.training[:, clock].tolist() == [-1.5 * i for i in range(399, 99, -1)]
    assert result.choice is not None
    assert result.choice["folds"] == 2


def test_a_class_that_appears_only_in_the_holdout_has_the_probability_zero(fit: Fit) -> None:
    columns = "sin(i) AS x, i * 1.5 AS clock, CASE WHEN i > 380 THEN 'b-new' ELSE 'ac'[1 + i % 2] END AS y"
    result = fit(
        columns=columns,
        algorithm="logistic_regression",
        validation={"method": "time", "time_column": "clock"},
    )
    probabilities = predict(result.pipeline, result.signature, result.training)[1]
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
            search=NO_TRIALS,
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
    result = fit(columns=columns, rows=20, validation=validation, search=NO_TRIALS)
    assert result.rows == {"training": 16, "holdout": 4, "without_target": 0}
    assert result.search is not None
    failed = {one["algorithm"] for one in result.search["trials"] if one["status"] == "failed"}
    assert "k_neighbors" in failed


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


RARE = "sin(i) AS x, CASE WHEN hash(i) % 100 < 8 + 12 * (sin(i) > 0)::INT THEN 'yes' ELSE 'no' END AS y"


def positive_share(result: TrainingResult) -> float:
    """The mean probability of the last class on the holdout."""
    return float(result.scores[:, -1].mean())


@pytest.mark.parametrize("algorithm", ["logistic_regression", "hist_gradient_boosting", "linear_svm"])
def test_class_weights_raise_what_they_weigh(fit: Fit, algorithm: str) -> None:
    plain = fit(columns=RARE, algorithm=algorithm)
    assert positive_share(plain) == pytest.approx(0.14, abs=0.05)
    balanced = fit(columns=RARE, algorithm=algorithm, class_weight="balanced")
    assert positive_share(balanced) > 0.3
    heavy = fit(columns=RARE, algorithm=algorithm, class_weight=[{"class": "yes", "weight": 50}])
    assert positive_share(heavy) > positive_share(balanced)
    assert heavy.metrics["recall"] > plain.metrics["recall"]


def test_balanced_weights_are_those_of_scikit_learns_class_weight(fit: Fit) -> None:
    ours = fit(columns=RARE, algorithm="logistic_regression", class_weight="balanced")
    theirs = fit(columns=RARE, algorithm="logistic_regression", params={"class_weight": "balanced"})
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-9)


def test_auto_leaves_out_what_cannot_weigh_classes(fit: Fit) -> None:
    result = fit(columns=RARE, class_weight="balanced", search=NO_TRIALS, validation={"folds": 2})
    assert result.search is not None
    assert "k_neighbors" not in {trial["algorithm"] for trial in result.search["trials"]}


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTICLASS])
def test_calibration_brings_probabilities_nearer_to_frequencies(fit: Fit, task: Task, method: str) -> None:
    columns = AUTO_COLUMNS[task]
    params = {"n_neighbors": 2}
    plain = fit(task, columns=columns, algorithm="k_neighbors", params=params)
    calibrated = fit(task, columns=columns, algorithm="k_neighbors", params=params, calibration=method)
    assert calibrated.metrics["log_loss"] < plain.metrics["log_loss"] - 0.3
    np.testing.assert_allclose(calibrated.scores.sum(axis=1), 1)


@pytest.mark.parametrize(
    "algorithm", ["logistic_regression", "hist_gradient_boosting", "random_forest", "linear_svm"]
)
@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTICLASS])
def test_a_calibrated_model_is_compiled_and_answers_a_row_alone_as_in_a_batch(
    fit: Fit, algorithm: str, task: Task
) -> None:
    result = fit(task, algorithm=algorithm, params=small(algorithm), calibration="sigmoid")
    matrix = result.holdout[:20]
    _, together = predict(result.pipeline, result.signature, matrix)
    assert together is not None
    for place, row in enumerate(matrix):
        _, alone = predict(result.pipeline, result.signature, row[None])
        assert alone is not None
        assert alone.tobytes() == together[place].tobytes()
    np.testing.assert_allclose(together, result.pipeline.predict_proba(matrix), rtol=1e-9, atol=1e-12)
    compiled = compile_pipeline(result.pipeline, result.signature)
    assert check_parity(result.pipeline, result.signature, compiled, result.holdout) is None


def test_groups_are_held_out_whole_and_need_not_be_features(fit: Fit) -> None:
    columns = "sin(i) AS x, 'g' || i // 20 AS who, i AS number, i % 3 = 0 AS y"
    result = fit(
        columns=columns,
        algorithm="dummy",
        features=["x"],
        validation={"method": "grouped", "group_column": "who", "holdout": 0.25},
    )
    held = set((result.holdout_rows // 20).tolist())
    assert len(held) == 5
    assert sorted(result.holdout_rows) == [row for row in range(400) if row // 20 in held]
    assert [feature.name for feature in result.signature.features] == ["x"]


def test_further_metrics_are_reported_and_a_scorer_may_choose(fit: Fit) -> None:
    result = fit(
        Task.BINARY,
        metric="matthews_corrcoef",
        metrics=["f1_weighted"],
        search=NO_TRIALS | {"algorithms": ["logistic_regression", "k_neighbors"]},
    )
    assert {"matthews_corrcoef", "f1_weighted", "roc_auc"} <= set(result.metrics)
    assert result.search is not None
    assert result.search["metric"] == "matthews_corrcoef"
    best = result.search["trials"][result.search["best"]]["value"]
    assert best == max(trial["value"] for trial in result.search["trials"])


def test_a_search_gives_the_same_model_in_any_number_of_processes(fit: Fit) -> None:
    def run(processes: int) -> tuple[TrainingResult, list[dict[str, Any]]]:
        told: list[dict[str, Any]] = []
        search = {"trials": 6, "algorithms": ["logistic_regression", "decision_tree"], "processes": processes}
        result = fit(Task.BINARY, search=search, validation={"folds": 3}, tell=told.append)
        return result, sorted(told, key=lambda trial: int(trial["number"]))

    alone, first = run(1)
    together, second = run(2)
    assert len(first) == 8
    for one, other in zip(first, second, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    assert alone.scores.tobytes() == together.scores.tobytes()
    assert alone.search == together.search


def test_candidates_beyond_a_limit_are_refused_with_what_they_take(fit: Fit) -> None:
    search = NO_TRIALS | {"algorithms": ["logistic_regression", "random_forest"]}
    result = fit(columns=AUTO_COLUMNS[Task.BINARY], search=search | {"max_model_bytes": 20_000})
    assert result.algorithm == "logistic_regression"
    assert result.reproducible
    assert result.search is not None
    assert [trial["status"] for trial in result.search["trials"]] == ["complete", "refused"]
    with pytest.raises(InvalidInput, match="bytes, more than max_model_bytes, 10") as refused:
        fit(columns=AUTO_COLUMNS[Task.BINARY], search=search | {"max_model_bytes": 10})
    assert refused.value.errors[0].pointer == "/search"
    with pytest.raises(InvalidInput, match="to answer a row, more than max_row_microseconds"):
        fit(columns=AUTO_COLUMNS[Task.BINARY], search=search | {"max_row_microseconds": 1e-6})


def test_a_limit_on_time_marks_the_run_as_not_reproducible(fit: Fit) -> None:
    search = NO_TRIALS | {"algorithms": ["logistic_regression"], "max_row_microseconds": 1e9}
    assert not fit(columns=RARE, search=search).reproducible


def test_many_rows_are_compared_on_some_and_fitted_on_all(fit: Fit) -> None:
    search = NO_TRIALS | {"algorithms": ["logistic_regression"]}
    result = fit(columns="sin(i) AS x, hash(i) % 3 = 0 AS y", rows=15_000, search=search)
    assert result.search is not None
    assert result.search["rows"] == 10_000
    assert result.rows["training"] == 12_000
    assert "10,000 of the 12,000" in " ".join(result.notes)


def test_a_refit_with_another_seed_is_another_model_of_the_same_rows(fit: Fit) -> None:
    result = fit(Task.BINARY, algorithm="random_forest", params={"n_estimators": 5})
    same = predict(result.refit(0), result.signature, result.holdout)[1]
    other = predict(result.refit(1), result.signature, result.holdout)[1]
    assert same is not None
    assert other is not None
    assert same.tobytes() == result.scores.tobytes() != other.tobytes()


def test_the_baselines_answer_the_same_held_out_rows(fit: Fit) -> None:
    result = fit(Task.REGRESSION, algorithm="hist_gradient_boosting", params={"max_iter": 5})
    dummy, linear = result.rivals
    assert (dummy.name, linear.name) == ("dummy", "linear")
    assert set(dummy.scores[:, 0]) == {result.training_target.mean()}
    errors = linear.scores[:, 0] - result.target
    assert np.sqrt((errors**2).mean()) < result.baseline_metrics["rmse"]
    at = [feature.name for feature in result.signature.features].index("at")
    hours = (result.holdout[:, at] - 1356998400) / 3600
    assert hours.tolist() == result.holdout_rows.tolist()


def champion_of(result: TrainingResult, folder: Path, *, shared: int = 400) -> dict[str, Any]:
    """What a worker tells of the version that serves, where this is what it was trained to."""
    joblib.dump(result.pipeline, folder / "model")
    write_holdout(folder / "holdout", result.holdout_rows, result.target, result.scores)
    return {
        "model": "m",
        "version": 4,
        "path": str(folder / "model"),
        "compiled": False,
        "signature": result.signature.model_dump(mode="json"),
        "data": {"dataset": "earlier", "version": 1, "digest": "sha256:0", "rows": 400},
        "shared": shared,
        "holdout": str(folder / "holdout"),
    }


def names_of(result: TrainingResult) -> list[str]:
    return [rival.name for rival in result.rivals]


def test_the_champion_is_compared_where_its_columns_are_still_there(fit: Fit, tmp_path: Path) -> None:
    columns = AUTO_COLUMNS[Task.MULTICLASS]
    champion = fit(columns=columns, algorithm="random_forest", params={"n_estimators": 5})
    before = Before(champion=champion_of(champion, tmp_path))
    result = fit(columns=columns, algorithm="logistic_regression", before=before)
    assert names_of(result) == ["dummy", "linear", "champion"]
    expected = predict(champion.pipeline, champion.signature, result.holdout)[1]
    assert expected is not None
    assert np.array_equal(result.rivals[-1].scores, expected)
    assert not any("may have seen" in note for note in result.notes)
    fewer = fit(
        columns=columns.replace(" AS place", " AS town"), algorithm="logistic_regression", before=before
    )
    assert names_of(fewer) == ["dummy", "linear"]
    assert any("'place', of type string, is now not in the data" in note for note in fewer.notes)
    other = fit(Task.REGRESSION, algorithm="ridge", before=before)
    assert any("it predicts 'y' as multiclass" in note for note in other.notes)


def test_the_champion_is_not_compared_on_rows_that_it_has_learnt_from(fit: Fit, tmp_path: Path) -> None:
    told = champion_of(fit(algorithm="dummy", seed=3), tmp_path)
    result = fit(algorithm="dummy", before=Before(champion=told))
    assert names_of(result) == ["dummy", "linear"]
    (note,) = (note for note in result.notes if "learnt from" in note)
    assert "of the 80 held-out rows. GET /v1/models/m/compare" in note
    # Of unrelated data nothing is known, nor of a release that kept no record.
    for unknown in (told | {"shared": 0}, told | {"holdout": None}):
        result = fit(algorithm="dummy", before=Before(champion=unknown))
        assert names_of(result)[-1] == "champion"
        assert any(note.startswith("Version 4 may have seen these rows") for note in result.notes)


@pytest.mark.parametrize("fault", ["pickle", "compiled", "raises", "not finite", "width"])
def test_a_champion_that_cannot_answer_is_left_out(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    told = champion_of(fit(algorithm="dummy"), tmp_path)
    if fault in ("pickle", "compiled"):
        (tmp_path / "model").write_bytes(b"no model")
        told["compiled"] = fault == "compiled"
    else:
        broken = joblib.load(tmp_path / "model")
        model = broken.steps[-1][1]
        model.class_prior_ = {
            "raises": None, "not finite": np.array([np.nan, 1.0]), "width": np.array([0.2, 0.3, 0.5])
        }[fault]  # fmt: skip
        joblib.dump(broken, tmp_path / "model")
    result = fit(algorithm="dummy", before=Before(champion=told))
    assert names_of(result) == ["dummy", "linear"]
    assert any(note.startswith("There is no comparison with version 4") for note in result.notes)


def test_a_champions_probabilities_are_laid_out_by_this_datas_classes(fit: Fit, tmp_path: Path) -> None:
    champion = fit(columns="sin(i) AS x, 'bcd'[1 + i % 3] AS y", algorithm="dummy")
    before = Before(champion=champion_of(champion, tmp_path, shared=0))
    result = fit(columns="sin(i) AS x, 'abcd'[1 + i % 4] AS y", algorithm="dummy", before=before)
    assert result.rivals[-1].scores[0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.01)


@pytest.mark.parametrize("classes", ["i % 3", "i % 2 = 0"])
def test_a_champion_of_classes_that_are_not_in_the_data_is_left_out(
    fit: Fit, tmp_path: Path, classes: str
) -> None:
    """A probability of theirs would be nobody's; 1 is not true."""
    champion = fit(columns=f"sin(i) AS x, {classes} AS y", algorithm="dummy")
    before = Before(champion=champion_of(champion, tmp_path, shared=0))
    wanted = "i % 2" if classes == "i % 2 = 0" else "1 + i % 3"
    result = fit(columns=f"sin(i) AS x, ({wanted})::INT AS y", before=before, algorithm="dummy")
    assert names_of(result)[-1] != "champion"
    assert any("no comparison with version 4" in note for note in result.notes)


def test_a_search_of_nothing_that_fits_says_why(fit: Fit) -> None:
    search = NO_TRIALS | {"algorithms": ["k_neighbors"]}
    with pytest.raises(TrainingFailed, match="Of k_neighbors: "):
        fit(columns="sin(i) AS x, i % 2 = 0 AS y", rows=20, search=search)
