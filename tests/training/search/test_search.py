"""The search by itself: candidates are measured by a formula in place of a fit."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from app.columns import ColumnType
from app.registry.signature import Feature, Role, Signature, Task
from app.training.algorithms.catalogue import ALGORITHMS
from app.training.fitting import Configuration
from app.training.search.search import FIRST_FOLDS, LEADING, Study
from app.training.search.trial_bench import Outcome
from app.training.spec import TrainingSpec

SIGNATURE = Signature(
    features=(
        Feature(name="x", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=True),
        Feature(
            name="c", type=ColumnType.STRING, role=Role.CATEGORICAL, nullable=True, categories=("a", "b", "c")
        ),
    ),
    target="y",
    target_type=ColumnType.NUMBER,
    task=Task.REGRESSION,
)
FOLDS = 5

Measure = Callable[[Configuration, int], Outcome]


def error_of(configuration: Configuration, fold: int) -> Outcome:
    """Histogram boosting is best, at a learning rate of 0.03 and with target encoding."""
    error = 3 + len(configuration.algorithm) / 100
    if configuration.algorithm == "hist_gradient_boosting":
        error = 1 + abs(math.log(configuration.params["learning_rate"] / 0.03))
        error -= 0.3 * (configuration.preparation.categorical.encode == "target")
    return Outcome({"rmse": error + fold / 100, "mae": error}, seconds=0.5)


class Bench:
    """Counts what it is asked to evaluate."""

    def __init__(self, measure: Measure = error_of) -> None:
        self.measure = measure
        self.asked: list[tuple[Configuration, int]] = []

    def __call__(self, tasks: Sequence[tuple[Configuration, int]]) -> list[Outcome]:
        self.asked += tasks
        return [self.measure(*task) for task in tasks]


def search(
    bench: Bench,
    *,
    told: Any = (),
    warm_start: Any = None,
    rows: int = 500,
    processes: int = 1,
    **spec: Any,
) -> Study:
    heard: list[dict[str, Any]] = []
    study = Study(
        TrainingSpec.model_validate({"target": "y"} | spec),
        SIGNATURE,
        ("rmse", "mae"),
        folds=FOLDS,
        rows=rows,
        fold_rows=rows // 2,
        evaluate=bench,
        tell=heard.append,
        report=lambda share, step: None,
        told=told,
        warm_start=warm_start,
        processes=processes,
    )
    study.run()
    new = {trial.number for trial in study.trials} - {one["number"] for one in told}
    assert sorted(one["number"] for one in heard) == sorted(new)
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))
    return study


def as_told(study: Study) -> list[dict[str, Any]]:
    return [trial.to_json("rmse") for trial in study.trials]


def test_the_linear_model_and_the_defaults_come_first_and_the_best_is_never_worse() -> None:
    study = search(Bench())
    names = [trial.configuration.algorithm for trial in study.trials]
    assert names[:4] == ["ridge", "hist_gradient_boosting", "random_forest", "extra_trees"]
    firsts = len(names) - 20
    assert len(set(names[:firsts])) == firsts
    for trial in study.trials[:firsts]:
        assert trial.configuration.params == ALGORITHMS[trial.configuration.algorithm].complete({})
        assert trial.status == "complete"
        assert len(trial.scores["rmse"]) == len(trial.scores["mae"]) == FOLDS
    assert len(set(names[firsts:])) <= LEADING
    best = study.ranking()[0]
    values = [trial.mean("rmse") for trial in study.trials if trial.status == "complete"]
    assert best.mean("rmse") == min(value for value in values if value is not None)
    assert best.configuration.algorithm == "hist_gradient_boosting"
    assert best.number >= firsts


def test_the_same_seed_proposes_the_same_trials_and_another_seed_others() -> None:
    first, again = (as_told(search(Bench())) for _ in range(2))
    assert first == again
    assert as_told(search(Bench(), seed=1)) != first


def test_trials_that_an_earlier_worker_finished_are_not_evaluated_again() -> None:
    whole = Bench()
    wanted = as_told(search(whole))
    for known in (0, 5, 10, len(wanted)):
        rest = Bench()
        assert as_told(search(rest, told=wanted[:known])) == wanted
        evaluated = {repr(configuration) for configuration, _ in rest.asked}
        assert not evaluated & {
            repr(trial.configuration) for trial in search(Bench(), told=wanted).trials[:known]
        }
    assert rest.asked == []


def test_a_trial_that_is_far_behind_is_given_up_after_the_first_folds_and_never_chosen() -> None:
    study = search(Bench(), search={"trials": 40, "patience": None})
    pruned = [trial for trial in study.trials if trial.status == "pruned"]
    assert pruned
    assert all(len(trial.scores["rmse"]) == FIRST_FOLDS for trial in pruned)
    assert all("behind the median" in str(trial.reason) for trial in pruned)
    assert not {trial.number for trial in pruned} & {trial.number for trial in study.ranking()}
    every = search(Bench(), search={"trials": 40, "patience": None, "pruning": False})
    assert {trial.status for trial in every.trials} == {"complete"}


def test_without_trials_the_defaults_alone_are_compared() -> None:
    study = search(Bench(), search={"trials": 0})
    assert len(study.trials) == len({trial.configuration.algorithm for trial in study.trials})


def test_patience_ends_a_search_that_finds_nothing_better() -> None:
    flat = Bench(lambda _, fold: Outcome({"rmse": 1.0, "mae": 1.0}, 0.1))
    study = search(flat, search={"trials": 1000, "patience": 8})
    assert study.stopped == "patience"
    firsts = len(search(Bench(), search={"trials": 0}).trials)
    assert len(study.trials) == firsts + 8
    assert study.ranking()[0].number == 0


def test_a_budget_in_seconds_ends_at_a_round() -> None:
    study = search(Bench(), search={"seconds": 0.000001})
    assert len(study.trials) == len(search(Bench(), search={"trials": 0}).trials)


def test_a_takeover_counts_the_time_that_passed_and_not_each_processs() -> None:
    firsts = as_told(search(Bench(), search={"trials": 0}))
    spent = sum(trial["seconds"] for trial in firsts)
    budget = {"seconds": spent * 0.9, "patience": 1}
    assert search(Bench(), told=firsts, processes=1, search=budget).stopped == "budget"
    assert search(Bench(), told=firsts, processes=4, search=budget).stopped == "patience"


def test_a_candidate_that_fails_or_is_refused_says_why_and_does_not_end_the_search() -> None:
    def measure(configuration: Configuration, fold: int) -> Outcome:
        match configuration.algorithm:
            case "ridge":
                return Outcome({}, 0.1, failed="singular")
            case "random_forest":
                return Outcome({}, 0.1, refused="it takes 9 bytes")
            case "extra_trees":
                return Outcome({}, 0.1)
        return error_of(configuration, fold)

    study = search(Bench(measure))
    ended = {trial.configuration.algorithm: (trial.status, trial.reason) for trial in reversed(study.trials)}
    assert ended["ridge"] == ("failed", "singular")
    assert ended["random_forest"] == ("refused", "it takes 9 bytes")
    assert ended["extra_trees"] == ("failed", "rmse is not defined on any fold")
    assert study.ranking()[0].configuration.algorithm == "hist_gradient_boosting"
    nothing = search(Bench(lambda *_: Outcome({}, 0.1, failed="no")))
    assert nothing.ranking() == []


def test_a_fold_that_does_not_define_the_metric_is_left_out_of_the_mean() -> None:
    def measure(configuration: Configuration, fold: int) -> Outcome:
        return Outcome({"mae": 1.0} if fold == 0 else {"rmse": float(fold), "mae": 1.0}, 0.1)

    trial = search(Bench(measure), search={"trials": 0}).trials[0]
    assert trial.scores["rmse"] == [None, 1.0, 2.0, 3.0, 4.0]
    assert trial.mean("rmse") == 2.5


def test_what_the_spec_says_itself_is_not_searched() -> None:
    study = search(
        Bench(),
        algorithm="hist_gradient_boosting",
        params={"learning_rate": 0.2},
        preparation={"categorical": {"encode": "ordinal"}},
        search={"trials": 12},
    )
    configurations = [trial.configuration for trial in study.trials]
    assert {one.params["learning_rate"] for one in configurations} == {0.2}
    assert len({one.params["max_leaf_nodes"] for one in configurations}) > 3
    assert {one.preparation.categorical.encode for one in configurations} == {"ordinal"}
    assert len({one.preparation.numeric.transform for one in configurations}) > 1
    as_it_is = search(Bench(), search={"trials": 12, "preparation": False})
    assert len({trial.configuration.preparation for trial in as_it_is.trials}) == 1


def test_only_the_algorithms_that_the_spec_names_are_tried() -> None:
    study = search(Bench(), search={"trials": 12, "algorithms": ["ridge", "k_neighbors"]})
    names = [trial.configuration.algorithm for trial in study.trials]
    assert names[:2] == ["ridge", "k_neighbors"]
    assert set(names[2:]) == {"ridge", "k_neighbors"}


def test_algorithms_for_few_rows_are_not_tried_on_many() -> None:
    def tried(rows: int) -> set[str]:
        study = search(Bench(), search={"trials": 0}, rows=rows)
        return {trial.configuration.algorithm for trial in study.trials}

    limited = {name for name in tried(500) if ALGORITHMS[name].search_rows is not None}
    assert limited
    assert tried(10**9) == tried(500) - limited


BEFORE = {
    "algorithm": "hist_gradient_boosting",
    "params": {"learning_rate": 0.03, "max_iter": 77},
    "preparation": {"categorical": {"encode": "target"}},
}


def test_a_search_begins_with_the_configuration_of_the_version_before() -> None:
    study = search(Bench(), warm_start=BEFORE, search={"trials": 0})
    last = study.trials[-1]
    assert last.configuration.params["max_iter"] == 77
    assert last.configuration.preparation.categorical.encode == "target"
    assert study.ranking()[0] is last
    stated = search(
        Bench(),
        warm_start=BEFORE,
        search={"trials": 0},
        preparation={"categorical": {"encode": "ordinal"}},
    )
    assert stated.trials[-1].configuration.params["max_iter"] == 77
    assert stated.trials[-1].configuration.preparation.categorical.encode == "ordinal"


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (BEFORE | {"params": {"trees": 3}}, "has no parameter 'trees'"),
        (BEFORE | {"preparation": {"interactions": {"columns": ["x", "gone"]}}}, "'gone'"),
        (BEFORE | {"preparation": {"colours": {}}}, "Extra inputs"),
        (BEFORE | {"algorithm": "no_longer_installed"}, None),
        (BEFORE | {"algorithm": "logistic_regression"}, None),
    ],
)
def test_a_configuration_that_does_not_fit_any_more_is_left_out(
    before: dict[str, Any], said: str | None
) -> None:
    study = search(Bench(), warm_start=before, search={"trials": 0})
    assert len(study.trials) == len(search(Bench(), search={"trials": 0}).trials)
    assert (said is None) == (study.notes == [])
    assert said is None or said in study.notes[0]


def test_proposed_configurations_are_valid_for_every_algorithm_of_a_task() -> None:
    names = [name for name, entry in ALGORITHMS.items() if Task.REGRESSION in entry.tasks]
    rng = np.random.default_rng(0)
    noise = Bench(lambda *_: Outcome({"rmse": float(rng.random()), "mae": 1.0}, 0.1))
    study = search(noise, search={"trials": 120, "patience": None, "algorithms": names}, rows=40)
    assert {trial.configuration.algorithm for trial in study.trials} == set(names)
    for trial in study.trials:
        entry = ALGORITHMS[trial.configuration.algorithm]
        assert entry.complete(trial.configuration.params) == trial.configuration.params
        if trial.number >= len(names):
            entry.check_rows(trial.configuration.params, 20)
