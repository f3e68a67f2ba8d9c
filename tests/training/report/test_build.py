"""The evaluation report: whole, JSON-ready, and right in what it says of planted data."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.inspection import partial_dependence as reference_dependence
from sklearn.metrics import matthews_corrcoef, roc_curve
from sklearn.tree import DecisionTreeClassifier

from app.registry.signature import Task
from app.training.report import importance
from app.training.report.build import build_report
from app.training.report.curves import calibration
from app.training.report.grouping import group_feature
from app.training.report.slices import cut_slices
from app.training.report.subject import Rival
from tests.training.report.subjects import draw_rows, make_subject, sexes_of, signature_of, with_score

PARTS = {"metrics", "rivals", "curves", "importance", "dependence", "slices", "fairness", "stability"}


def report_of(folder: Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
    report = build_report(make_subject(folder, *args, **kwargs), [])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    return report


@pytest.mark.parametrize("task", Task)
def test_a_report_has_every_part_and_is_the_same_each_time(tmp_path: Path, task: Task) -> None:
    subject = make_subject(tmp_path, task, fairness=["sex"], seeds=2)
    report = build_report(subject, [{"column": "age"}])
    assert report.keys() >= PARTS
    assert all(report[part] for part in PARTS)
    assert report["preparation"] == [{"column": "age"}]
    assert report["metrics"][subject.metric]["interval"]
    assert len(report["stability"]["fits"]) == 2
    assert build_report(subject, [{"column": "age"}]) == report


@pytest.mark.parametrize("task", Task)
def test_a_metric_lies_in_its_interval_and_beats_the_dummy(tmp_path: Path, task: Task) -> None:
    report = report_of(tmp_path, task)
    for name, one in report["metrics"].items():
        if one["interval"]:
            assert one["interval"][0] <= one["value"] <= one["interval"][1], name
    (dummy,) = report["rivals"]
    assert dummy["differences"][report["metric"]]["better"] == "model"
    own, theirs = (part["metrics"][report["metric"]]["value"] for part in (report, dummy))
    assert dummy["differences"][report["metric"]]["value"] == pytest.approx(own - theirs, abs=1e-5)


def test_a_scorer_of_scikit_learn_is_told_without_an_interval(tmp_path: Path) -> None:
    subject = make_subject(tmp_path)
    spec = subject.spec.model_copy(update={"metrics": ["matthews_corrcoef"]})
    report = build_report(replace(subject, spec=spec), [])
    answered = subject.score(subject.holdout).argmax(axis=1)
    value = report["metrics"]["matthews_corrcoef"]["value"]
    assert value == pytest.approx(matthews_corrcoef(subject.target, answered), abs=1e-5)
    assert report["metrics"]["matthews_corrcoef"]["interval"] is None
    assert any("matthews_corrcoef" in note for note in report["notes"])


def test_no_difference_is_claimed_to_a_rival_that_only_chance_sets_apart(tmp_path: Path) -> None:
    subject = make_subject(tmp_path, holdout=300)
    scores = subject.score(subject.holdout)
    rng = np.random.default_rng(0)
    positive = np.clip(scores[:, 1] + rng.normal(0, 0.02, 300), 0.001, 0.999)
    rival = Rival("champion", "Version 1", np.column_stack([1 - positive, positive]))
    (found,) = build_report(replace(subject, rivals=(rival,)), [])["rivals"]
    assert found["differences"]["roc_auc"]["better"] is None


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(Task),
    st.sampled_from([1, 2, 5, 31]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 100),
)
def test_no_holdout_is_too_small_or_too_plain(
    tmp_path_factory: pytest.TempPathFactory, task: Task, rows: int, one_class: bool, plain: bool, seed: int
) -> None:
    def change(_: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.full_like(target, target[0]) if one_class else target

    folder = tmp_path_factory.getbasetemp()
    subject = make_subject(
        folder, task, holdout=rows, rows=80, seed=seed, change=change, fairness=["sex", "income", "none"]
    )
    if plain:
        answer = subject.score(subject.holdout[:1])
        subject = with_score(subject, lambda matrix: np.tile(answer, (len(matrix), 1)))
    report = build_report(subject, [])
    json.dumps(report, allow_nan=False)
    assert "The data has no column 'none'." in report["notes"]
    assert any("rows: too few to say much" in note for note in report["notes"]) == (rows < 30)


def test_a_class_that_the_holdout_lacks_is_said_to_be_missing(tmp_path: Path) -> None:
    report = report_of(tmp_path, change=lambda _, target: np.zeros_like(target))
    assert "roc_auc" not in report["metrics"]
    assert "ranking" not in report["curves"]
    assert any("no row of class True" in note for note in report["notes"])
    assert "The holdout does not define roc_auc." in report["notes"]


def test_values_near_the_largest_float_leave_out_what_overflows(tmp_path: Path) -> None:
    subject = make_subject(tmp_path, Task.REGRESSION)
    report = build_report(replace(subject, target=np.sign(subject.target) * 1e308), [])
    json.dumps(report, allow_nan=False)
    assert "rmse" not in report["metrics"]


def test_the_roc_curve_is_scikit_learns(tmp_path: Path) -> None:
    subject = make_subject(tmp_path)
    (curve,) = build_report(subject, [])["curves"]["ranking"]
    alarms, hits, _ = roc_curve(subject.target, subject.score(subject.holdout)[:, 1], drop_intermediate=False)
    grid = curve["roc"]["false_positive_rate"]
    inside = [place for place, rate in enumerate(grid) if 0 < rate < 1]
    told = np.array(curve["roc"]["true_positive_rate"])
    upper, lower = (np.interp(np.array(grid) + step, alarms, hits) for step in (1e-9, -1e-9))
    assert all(lower[place] - 1e-5 <= told[place] <= upper[place] + 1e-5 for place in inside)


def test_the_parts_of_the_brier_score_add_up_to_it() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(3000)
    true = rng.random(3000) < score**2
    found = calibration(true, score)
    parts = found["brier"]
    assert parts["score"] == pytest.approx(
        parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"], abs=1e-5
    )
    assert parts["miscalibration"] > 0.02
    assert found["expected_calibration_error"] > 5 * found["by_chance"]
    honest = calibration(rng.random(3000) < score, score)
    assert honest["expected_calibration_error"] < 2 * honest["by_chance"]
    assert sum(one["rows"] for one in found["bins"]) == 3000


def test_the_planted_column_is_the_most_important_and_noise_is_not_sure_to_matter(tmp_path: Path) -> None:
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    report = report_of(tmp_path, rows=1500, holdout=1000, noise=4, estimator=lambda _: tree)
    first, second, *_ = report["importance"]["columns"]
    assert (first["column"], second["column"]) == ("size", "age")
    assert first["interval"][0] > second["interval"][1]
    found = {one["column"]: one for one in report["importance"]["columns"]}
    assert all(found[f"noise_{place}"]["interval"][0] <= 0 for place in range(4))


def test_of_many_columns_the_ones_the_scores_follow_are_shuffled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importance, "SCREENED_COLUMNS", 6)
    report = report_of(tmp_path, noise=20, rows=3000, holdout=1000)
    assert report["importance"]["columns"][0]["column"] == "size"
    assert len(report["importance"]["columns"]) == 6
    assert report["importance"]["left_out"] == 19


def test_partial_dependence_is_scikit_learns_in_the_columns_own_terms(tmp_path: Path) -> None:
    subject = make_subject(tmp_path, holdout=90)
    found = {one["column"]: one for one in build_report(subject, [])["dependence"]}
    reference = reference_dependence(
        subject.pipeline,
        subject.holdout,
        [1],
        custom_values={1: np.array(found["age"]["positions"])},
        response_method="predict_proba",
    )
    assert found["age"]["curves"][0]["mean"] == pytest.approx(reference["average"][0], abs=1e-5)
    assert all(isinstance(value, int) for value in found["age"]["at"])
    assert found["seen"]["at"][0].startswith("2013-")
    assert set(found["place"]["at"]) == {"<b>Bonn</b>", "Köln & Deutz", "Ulm"}


def break_a_place(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The opposite class in Bonn."""
    return np.where(matrix[:, 2] == 0, 1 - target, target)


def test_a_planted_bad_slice_is_found(tmp_path: Path) -> None:
    slices = report_of(tmp_path, holdout=1500, noise=3, change=break_a_place)["slices"]
    bonn = {"column": "place", "value": "<b>Bonn</b>"}
    alone, *_ = [found for found in slices["worst"] if len(found["where"]) == 1]
    assert alone["where"] == [bonn]
    assert alone["p_value"] < 1e-6
    assert alone["loss"] > 1.5 * alone["others"]
    (place,) = [one for one in slices["columns"] if one["column"] == "place"]
    assert [group["value"] for group in place["groups"] if group["worse"]] == [bonn["value"]]


def test_a_bad_pair_of_columns_is_found_as_a_pair(tmp_path: Path) -> None:
    def change(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.where((matrix[:, 2] == 0) & (matrix[:, 3] == 1), 1 - target, target)

    slices = report_of(tmp_path, holdout=3000, change=change)["slices"]
    wanted = [{"column": "fresh", "value": True}, {"column": "place", "value": "<b>Bonn</b>"}]
    assert sorted(slices["worst"][0]["where"], key=lambda one: one["column"]) == wanted


@pytest.mark.parametrize("task", [Task.BINARY, Task.REGRESSION])
def test_in_pure_noise_a_slice_is_called_worse_no_more_often_than_stated(task: Task) -> None:
    rng = np.random.default_rng(5)
    claimed = 0
    for _ in range(60):
        matrix, _ = draw_rows(rng, 600, task, noise=3)
        features = signature_of(task, noise=3).features
        columns = [group_feature(feature, matrix[:, place]) for place, feature in enumerate(features)]
        if task is Task.BINARY:
            # Every row has the same chance of either class, so that no slice is worse in truth.
            score = np.clip(rng.beta(2, 5, 600), 0.01, 0.99)
            actual, scores = (rng.random(600) < score).astype(int), np.column_stack([1 - score, score])
        else:
            actual, scores = rng.standard_t(4, 600), np.zeros((600, 1))
        slices = cut_slices(task, actual, scores.argmax(axis=1), scores, columns)
        assert slices["tested"]["pairs"] > 50
        claimed += slices["found"] > 0
    assert claimed <= 8  # of 60 with a chance of at most 5 %: more comes once in 200


def test_slices_of_named_columns_need_not_be_features(tmp_path: Path) -> None:
    slices = report_of(tmp_path, slices=["sex", "income"])["slices"]
    assert [column["column"] for column in slices["columns"]] == ["sex", "income"]
    assert [group["value"] for group in slices["columns"][0]["groups"]] == ["f", "m"]
    assert sum(group["rows"] for group in slices["columns"][1]["groups"]) == 400
    assert slices["columns"][1]["groups"][-1]["to"] == 996


def test_a_fairness_gap_is_the_one_counted_by_hand(tmp_path: Path) -> None:
    subject = make_subject(tmp_path, fairness=["sex"])
    (found,) = build_report(subject, [])["fairness"]
    predicted = subject.score(subject.holdout).argmax(axis=1)
    sexes = sexes_of(subject)
    rates = {
        "selection_rate": {sex: predicted[sexes == sex].mean() for sex in "fm"},
        "true_positive_rate": {sex: predicted[(sexes == sex) & (subject.target == 1)].mean() for sex in "fm"},
        "false_positive_rate": {
            sex: predicted[(sexes == sex) & (subject.target == 0)].mean() for sex in "fm"
        },
    }
    gaps = {gap["measure"]: gap for gap in found["gaps"]}
    for name, by_sex in rates.items():
        high, low = max(by_sex, key=by_sex.__getitem__), min(by_sex, key=by_sex.__getitem__)
        assert gaps[name]["value"] == pytest.approx(by_sex[high] - by_sex[low], abs=1e-5)
        assert gaps[name]["ratio"] == pytest.approx(by_sex[low] / by_sex[high], abs=1e-5)
        assert (gaps[name]["high"], gaps[name]["low"]) == ({"value": high}, {"value": low})
        assert gaps[name]["interval"][0] < gaps[name]["value"] < gaps[name]["interval"][1]
    assert {group["value"]: group["rows"] for group in found["groups"]} == {
        sex: int((sexes == sex).sum()) for sex in "fm"
    }


def test_small_groups_are_listed_and_have_no_part_in_a_gap(tmp_path: Path) -> None:
    (found,) = report_of(tmp_path, holdout=60, fairness=["income"])["fairness"]
    assert len(found["groups"]) == 5
    assert found["gaps"] == []


def test_stability_tells_how_much_other_seeds_change(tmp_path: Path) -> None:
    report = report_of(
        tmp_path, estimator=lambda seed: DummyClassifier(strategy="uniform", random_state=seed), seeds=3
    )
    assert [fit["seed"] for fit in report["stability"]["fits"]] == [1, 2, 3]
    accuracies = [fit["metrics"]["accuracy"] for fit in report["stability"]["fits"]]
    assert report["stability"]["spread"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1), rel=1e-4)
    steady = report_of(tmp_path, seeds=1)
    assert steady["stability"]["fits"][0]["changed"] == 0
    assert steady["stability"]["spread"]["accuracy"] is None
    assert steady["stability"]["fits"][0]["metrics"]["roc_auc"] == pytest.approx(
        steady["metrics"]["roc_auc"]["value"]
    )


def test_other_seeds_are_tried_by_default_only_where_a_fit_is_cheap(tmp_path: Path) -> None:
    assert report_of(tmp_path, seeds=0)["stability"] is None
    costly = replace(make_subject(tmp_path), fit_seconds=60.0)
    assert build_report(costly, [])["stability"] is None


def test_a_large_holdout_is_resampled_in_subsets(tmp_path: Path) -> None:
    report = report_of(tmp_path, rows=500, holdout=30_000)
    assert report["intervals"]["method"] == "bag_of_little_bootstraps"
    low, high = report["metrics"]["accuracy"]["interval"]
    accuracy = report["metrics"]["accuracy"]["value"]
    assert high - low == pytest.approx(2 * 1.96 * (accuracy * (1 - accuracy) / 30_000) ** 0.5, rel=0.2)
