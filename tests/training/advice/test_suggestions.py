"""Suggestions: each from evidence that is there, none where there is none, all of them postable."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier

from app.registry.signature import Task
from app.training.advice.suggestions import Suggestion, VersionFacts, suggest
from app.training.report.build import build_report
from app.training.report.subject import Rival, Scores, Subject
from app.training.spec import TrainingSpec
from tests.client import Client
from tests.conftest import Start
from tests.training.report.subjects import START, make_subject, with_score
from tests.versions import register, train_here

Matrix = NDArray[np.float64]
CONFIGURATION = {
    "algorithm": "hist_gradient_boosting",
    "params": {"max_iter": 50},
    "preparation": {"numeric": {"scale": "robust"}},
}
SEARCH = {
    "metric": "roc_auc",
    "budget": {"trials": 20},
    "best": 19,
    "value": 0.8,
    "trials": [
        {"number": number, "algorithm": "ridge", "status": "finished", "value": 0.7 + 0.1 * (number == 19)}
        for number in range(20)
    ],
}


def facts_of(subject: Subject, *, search: dict[str, Any] | None = None, **spec: Any) -> VersionFacts:
    """A version of this subject, as if ``auto`` had made it of a table with the same columns."""
    return VersionFacts(
        model="m",
        dataset="people",
        dataset_version=1,
        task=subject.signature.task,
        algorithm="hist_gradient_boosting",
        spec=TrainingSpec.model_validate({"target": "y", "seed": 3, **spec}),
        signature=subject.signature.model_dump(mode="json"),
        evaluation={"configuration": CONFIGURATION, "search": search},
    )


def scored(subject: Subject, change: Callable[[Matrix, Scores], Scores]) -> Subject:
    """The subject with other scores, made of the rows and its own."""
    return with_score(subject, lambda matrix: change(matrix, subject.score(matrix)))


def binary(positive: Any) -> Scores:
    return np.column_stack([1 - positive, positive])


def sound(folder: Path) -> Subject:
    """One whose scores are the true probabilities."""
    subject = make_subject(folder, rows=1500, holdout=800)
    return scored(
        subject,
        lambda matrix, _: binary(expit(np.nan_to_num(matrix[:, 0] - 5) + (matrix[:, 1] - 54) / 40)),
    )


def overconfident(folder: Path) -> Subject:
    return scored(sound(folder), lambda _, own: binary(expit(3 * logit(own[:, 1]))))


def as_good_as_linear(folder: Path) -> Subject:
    subject = sound(folder)
    linear = Rival("linear", "logistic regression", subject.score(subject.holdout))
    shaken = scored(subject, lambda matrix, own: binary(expit(logit(own[:, 1]) + np.sin(matrix[:, 1]) / 20)))
    return replace(shaken, rivals=(*subject.rivals, linear))


def bad_in_a_place(folder: Path) -> Subject:
    def turn(matrix: Matrix, target: NDArray[Any]) -> NDArray[Any]:
        return np.where(matrix[:, 2] == 1, 1 - target, target)

    return make_subject(folder, rows=1500, holdout=800, change=turn)


def of_few_positives(folder: Path) -> Subject:
    rng = np.random.default_rng(2)

    def thin(_: Matrix, target: NDArray[Any]) -> NDArray[Any]:
        return np.where(rng.random(len(target)) < 0.85, 0, target)

    subject = make_subject(folder, rows=1500, holdout=2000, change=thin)
    return scored(subject, lambda _, own: binary(expit(logit(own[:, 1]) - 2.4)))


def given_away(folder: Path) -> Subject:
    def follow(matrix: Matrix, _: NDArray[Any]) -> NDArray[Any]:
        return (np.nan_to_num(matrix[:, 0]) > 5).astype(np.intp)

    subject = make_subject(folder, change=follow)
    return scored(subject, lambda matrix, _: binary(np.where(np.nan_to_num(matrix[:, 0]) > 5, 0.98, 0.02)))


def with_noise_columns(folder: Path) -> Subject:
    subject = make_subject(folder, rows=1500, holdout=800, noise=3)

    def blind(matrix: Matrix) -> Matrix:
        matrix = matrix.copy()
        matrix[:, 5:] = 0
        return matrix

    return with_score(subject, lambda matrix: subject.score(blind(matrix)))


def of_a_rare_class(folder: Path) -> Subject:
    def thin(matrix: Matrix, target: NDArray[Any]) -> NDArray[Any]:
        return np.where((target == 2) & ~(matrix[:, 0] > 7.5), 1, target)

    def play_down(_: Matrix, own: Scores) -> Scores:
        weighed: Scores = own * [1, 1, 0.1]
        return np.asarray(weighed / weighed.sum(axis=1, keepdims=True))

    return scored(make_subject(folder, Task.MULTICLASS, rows=1500, holdout=1500, change=thin), play_down)


def of_its_time(folder: Path) -> Subject:
    middle = START + 3_600 * 4_500

    def follow(matrix: Matrix, target: NDArray[Any]) -> NDArray[Any]:
        late = (matrix[:, 4] > middle).astype(np.intp)
        return np.where(np.arange(len(target)) % 4 == 0, target, late)

    subject = make_subject(folder, change=follow)
    return scored(subject, lambda matrix, _: binary(np.where(matrix[:, 4] > middle, 0.8, 0.2)))


def of_its_seed(folder: Path) -> Subject:
    def one_tree(seed: int) -> Any:
        return DecisionTreeClassifier(max_depth=2, max_features=1, random_state=seed)

    return make_subject(folder, rows=600, holdout=2000, estimator=one_tree, seed=13, seeds=3)


CASES: dict[str, tuple[Callable[[Path], Subject], dict[str, Any]]] = {
    "calibrate": (overconfident, {}),
    "simplify": (as_good_as_linear, {}),
    "more_data_of_slice": (bad_in_a_place, {}),
    "set_costs": (of_few_positives, {}),
    "leak": (given_away, {}),
    "drop_columns": (with_noise_columns, {}),
    "class_weight": (of_a_rare_class, {}),
    "time_validation": (of_its_time, {}),
    "unstable": (of_its_seed, {}),
    "search_longer": (sound, {"search": SEARCH}),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Suggestion]]:
    folder = tmp_path_factory.mktemp("subjects")
    made = {}
    for kind, (make, more) in CASES.items():
        subject = make(folder)
        made[kind] = suggest(facts_of(subject, **more), build_report(subject, []))
    return made


@pytest.mark.parametrize("kind", CASES)
def test_evidence_of_each_kind_is_found(found: dict[str, list[Suggestion]], kind: str) -> None:
    suggestions = found[kind]
    assert kind in [one.kind for one in suggestions]
    assert [one.strength for one in suggestions] == sorted(
        (one.strength for one in suggestions), reverse=True
    )
    for one in suggestions:
        assert one.evidence
        assert one.expected
        assert (one.spec is None) == (one.action is not None)


def of_kind(found: dict[str, list[Suggestion]], kind: str) -> Suggestion:
    return next(one for one in found[kind] if one.kind == kind)


def test_a_suggestion_says_what_it_is_about(found: dict[str, list[Suggestion]]) -> None:
    assert of_kind(found, "leak").evidence["column"] == "size"
    assert {"noise_0", "noise_1", "noise_2"} <= set(of_kind(found, "drop_columns").evidence["columns"])
    assert "size" not in of_kind(found, "drop_columns").evidence["columns"]
    worst = of_kind(found, "more_data_of_slice")
    assert worst.spec is None
    assert "Köln & Deutz" in worst.title
    assert of_kind(found, "time_validation").evidence["column"] == "seen"
    assert [one["class"] for one in of_kind(found, "class_weight").evidence["classes"]] == ["high"]
    costs = of_kind(found, "set_costs").evidence
    assert costs["threshold"] < 0.5
    assert costs["recall"][1] > costs["recall"][0]
    assert costs["cost_per_row"][1] < costs["cost_per_row"][0]


def test_a_spec_changes_one_thing_and_keeps_what_a_search_has_found(
    found: dict[str, list[Suggestion]],
) -> None:
    base = {"model": "m", "dataset": "people", "dataset_version": 1, "target": "y", "seed": 3}
    assert of_kind(found, "calibrate").spec == base | CONFIGURATION | {"calibration": "sigmoid"}
    assert of_kind(found, "simplify").spec == base | {"algorithm": "logistic_regression"}
    assert of_kind(found, "search_longer").spec == base | {"search": {"trials": 60}}
    dropped = base | CONFIGURATION | {"features": {"size": {"role": "drop"}}}
    assert of_kind(found, "leak").spec == dropped
    validation = {"method": "time", "time_column": "seen"}
    assert of_kind(found, "time_validation").spec == base | CONFIGURATION | {"validation": validation}


def test_a_steadier_model_is_proposed_by_what_the_search_has_found(tmp_path: Path) -> None:
    subject = of_its_seed(tmp_path)
    report = build_report(subject, [])
    spread = report["stability"]["spread"]["roc_auc"]

    def proposed(algorithm: str = "hist_gradient_boosting", **means: float) -> Suggestion:
        params = {"max_iter": 50} if algorithm == "hist_gradient_boosting" else {"n_estimators": 300}
        candidates = [{"algorithm": name, "mean": mean} for name, mean in means.items()]
        facts = facts_of(subject)
        made = {
            "configuration": CONFIGURATION | {"algorithm": algorithm, "params": params},
            "choice": {"metric": "roc_auc", "candidates": candidates},
        }
        told = suggest(replace(facts, algorithm=algorithm, evaluation=made), report)
        return next(one for one in told if one.kind == "unstable")

    untried = proposed(hist_gradient_boosting=0.8)
    assert untried.spec is not None
    assert untried.spec["algorithm"] == "random_forest"
    assert "not known" in untried.expected
    near = proposed(
        hist_gradient_boosting=0.8,
        random_forest=0.8 - 2 * spread,
        extra_trees=0.8 - spread / 2,
        logistic_regression=0.8 - spread / 4,
    )
    assert near.spec is not None
    assert near.spec["algorithm"] == "logistic_regression"
    assert f"{0.8 - spread / 4:.4g}" in near.expected
    behind = proposed(hist_gradient_boosting=0.8, random_forest=0.8 - 2 * spread)
    assert behind.spec is None
    assert "No steadier algorithm" in str(behind.action)
    forest = proposed("extra_trees")
    assert forest.spec is not None
    assert (forest.spec["algorithm"], forest.spec["params"]) == ("extra_trees", {"n_estimators": 600})


def test_every_spec_is_accepted_as_a_training_run(found: dict[str, list[Suggestion]], start: Start) -> None:
    client = start()
    names = "size,age,place,fresh,seen,noise_0,noise_1,noise_2"
    # Two classes, and three, as the subjects have them.
    for dataset, labels in (("people", "true false"), ("peoples", "low high middle")):
        lines = [
            f"{row}.5,{row},Ulm,true,2013-01-{1 + row % 28:02}T00:00:00Z,1.5,2.5,3.5,"
            f"{labels.split()[row % len(labels.split())]}"
            for row in range(40)
        ]
        client.add_dataset(dataset, "\n".join([f"{names},y", *lines]).encode())
    posted = set()
    for suggestions in found.values():
        for one in suggestions:
            if one.spec is None:
                continue
            body = one.spec | {"dataset": "peoples" if one.kind == "class_weight" else "people"}
            answer = client.post("/v1/training-runs", json=body)
            assert answer.status_code == httpx.codes.ACCEPTED, (one.kind, answer.text)
            posted.add(one.kind)
    assert posted == CASES.keys() - {"more_data_of_slice"}


@pytest.mark.parametrize("seed", range(2))
def test_noise_is_no_evidence(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    subject = make_subject(
        tmp_path,
        noise=3,
        holdout=200,
        seed=seed,
        estimator=lambda fit_seed: HistGradientBoostingClassifier(max_iter=20, random_state=fit_seed),
        change=lambda _, target: rng.permutation(target),
    )
    assert suggest(facts_of(subject, search=SEARCH), build_report(subject, [])) == []


def test_a_sound_model_is_not_to_be_calibrated_or_called_leaky(tmp_path: Path) -> None:
    subject = sound(tmp_path)
    kinds = {one.kind for one in suggest(facts_of(subject), build_report(subject, []))}
    assert not kinds & {
        "calibrate",
        "leak",
        "class_weight",
        "unstable",
        "search_longer",
    }


def test_what_the_spec_does_already_is_not_suggested(tmp_path: Path) -> None:
    subject = overconfident(tmp_path)
    calibrated = facts_of(subject, calibration="isotonic")
    assert "calibrate" not in [one.kind for one in suggest(calibrated, build_report(subject, []))]


@pytest.mark.sqlite_alone
def test_suggestions_of_a_version_can_be_posted(shared: Client, delays: str) -> None:
    answer = shared.get(f"/v1/models/{delays}/versions/2/suggestions")
    assert answer.status_code == httpx.codes.OK, answer.text
    told = answer.json()
    assert "simplify" in [one["kind"] for one in told["items"]]
    for one in told["items"]:
        if one["spec"]:
            run = shared.post("/v1/training-runs", json=one["spec"])
            assert run.status_code in (httpx.codes.OK, httpx.codes.ACCEPTED), (one["kind"], run.text)
            if run.status_code == httpx.codes.ACCEPTED:
                shared.post(f"{run.headers['location']}:cancel")


@pytest.mark.sqlite_alone
def test_a_version_without_evidence_says_why_nothing_is_suggested(shared: Client, flights: str) -> None:
    trained = train_here(shared, flights, algorithm="dummy")
    register(shared, "blank", trained, trained | {"report_digest": None})
    for version, why in ((1, "not clearly better than the baseline"), (2, "no evaluation report")):
        told = shared.get(f"/v1/models/blank/versions/{version}/suggestions").json()
        assert told["items"] == []
        assert why in told["notes"][0]
    unknown = shared.get("/v1/models/blank/versions/9/suggestions")
    assert unknown.status_code == httpx.codes.NOT_FOUND
