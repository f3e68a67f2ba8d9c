"""The statistics of comparisons: against their definitions, and by simulation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

from app.registry.signature import Task
from app.training.comparison.statistics import compare, compare_accuracies, compare_areas
from app.training.report.answers import Answers, Measured, favours

Numbers = NDArray[np.float64]


def two_models(rows: int, seed: int, *, better: float = 0.0) -> tuple[NDArray[np.bool_], Numbers, Numbers]:
    """Rows of two classes, and scores of two models whose errors go together."""
    rng = np.random.default_rng(seed)
    positive = rng.random(rows) < 0.4
    shared = rng.normal(size=rows)
    first = positive + shared + rng.normal(size=rows)
    second = (1 + better) * positive + shared + rng.normal(size=rows)
    return positive, first, second


def answers(positive_scores: Numbers) -> Answers:
    chances = 1 / (1 + np.exp(-positive_scores))
    scores = np.column_stack([1 - chances, chances])
    return Answers(scores.argmax(axis=1), scores)


# ── Areas under ROC curves ───────────────────────────────────────────────────────────────────────


def delong_by_definition(positive: NDArray[np.bool_], first: Numbers, second: Numbers) -> tuple[float, float]:
    """The difference and its variance, from the kernel over all pairs of rows of the two classes."""
    areas, of_positives, of_negatives = [], [], []
    for scores in (first, second):
        kernel = np.array(
            [
                [1.0 if high > low else 0.5 if high == low else 0.0 for low in scores[~positive]]
                for high in scores[positive]
            ]
        )
        areas.append(kernel.mean())
        of_positives.append(kernel.mean(axis=1))
        of_negatives.append(kernel.mean(axis=0))
    covariance = np.cov(of_positives) / positive.sum() + np.cov(of_negatives) / (~positive).sum()
    contrast = np.array([-1.0, 1.0])
    return float(areas[1] - areas[0]), float(contrast @ covariance @ contrast)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6)), min_size=6, max_size=40).filter(
        lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2
    )
)
def test_delongs_test_is_that_of_its_definition_with_ties(rows: list[tuple[bool, int, int]]) -> None:
    positive, first, second = (np.array(column) for column in zip(*rows, strict=True))
    difference, variance = delong_by_definition(positive, first, second)
    found = compare_areas(positive, first.astype(float), second.astype(float))
    if variance < 1e-12:
        assert found is None if abs(difference) > 1e-9 else found is not None and found.p_value == 1.0
        return
    assert found is not None
    assert found.difference == pytest.approx(difference)
    assert found.difference == pytest.approx(
        roc_auc_score(positive, second) - roc_auc_score(positive, first), abs=1e-12
    )
    assert found.statistic == pytest.approx(difference / np.sqrt(variance), abs=1e-9)
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * 1.959964 * np.sqrt(variance), rel=1e-5)


def test_delongs_p_values_are_uniform_where_the_models_are_equally_good() -> None:
    found = [compare_areas(*two_models(150, seed)) for seed in range(400)]
    p_values = [one.p_value for one in found if one is not None]
    assert len(p_values) == 400
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_delongs_test_finds_a_better_model() -> None:
    found = compare_areas(*two_models(1000, 1, better=0.5))
    assert found is not None
    assert found.p_value < 1e-4
    assert found.interval[0] > 0


def test_areas_of_one_row_of_a_class_have_no_test() -> None:
    one = np.array([True, False, False, False])
    assert compare_areas(one, np.arange(4.0), np.arange(4.0)) is None


# ── Accuracy ─────────────────────────────────────────────────────────────────────────────────────


def test_mcnemars_test_is_that_of_a_fair_coin() -> None:
    first = np.array([True] * 8 + [False] * 2 + [True] * 50)
    second = np.array([False] * 8 + [True] * 2 + [True] * 50)
    found = compare_accuracies(first, second)
    assert (found.only_first, found.only_second) == (8, 2)
    throws = [sum(throw) for throw in product((0, 1), repeat=10)]
    assert found.p_value == pytest.approx(np.mean([abs(heads - 5) >= 3 for heads in throws]))
    assert compare_accuracies(second, first).p_value == pytest.approx(found.p_value)
    assert compare_accuracies(first, first).p_value == 1.0


# ── Together ─────────────────────────────────────────────────────────────────────────────────────


def test_intervals_of_differences_cover_the_true_one_and_are_narrower_than_unpaired_ones() -> None:
    populous = two_models(200_000, 7, better=0.3)
    truth = roc_auc_score(populous[0], populous[2]) - roc_auc_score(populous[0], populous[1])
    covered = 0
    for seed in range(30):
        positive, first, second = two_models(120, seed, better=0.3)
        found = compare(Task.BINARY, positive.astype(np.intp), [answers(first), answers(second)], seed=0)
        interval = found.pairs[0].differences["roc_auc"].interval
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
        own = [one["roc_auc"].interval or (0.0, 0.0) for one in found.metrics]
        assert interval[1] - interval[0] < np.linalg.norm([high - low for low, high in own])
    assert covered >= 25  # at 95 % of 30, fewer have a chance of 3 in 1,000


def test_the_bootstrap_agrees_with_delong() -> None:
    positive, first, second = two_models(600, 3, better=0.2)
    pair = compare(Task.BINARY, positive.astype(np.intp), [answers(first), answers(second)], seed=0).pairs[0]
    assert pair.area is not None
    assert pair.differences["roc_auc"].value == pytest.approx(pair.area.difference)
    assert pair.differences["roc_auc"].interval == pytest.approx(pair.area.interval, abs=0.01)


def test_the_same_answers_differ_in_nothing() -> None:
    positive, first, _ = two_models(200, 5)
    found = compare(Task.BINARY, positive.astype(np.intp), [answers(first), answers(first)], seed=0)
    pair = found.pairs[0]
    assert {one.value for one in pair.differences.values()} == {0.0}
    assert {one.interval for one in pair.differences.values()} == {None}
    assert pair.area is not None
    assert pair.accuracy is not None
    assert (pair.area.p_value, pair.accuracy.p_value) == (1.0, 1.0)


def test_regressions_have_differences_and_no_tests_of_classes() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=300)
    models = [
        Answers(predicted, predicted[:, None])
        for predicted in (actual + rng.normal(size=300), actual + rng.normal(size=300) / 3)
    ]
    found = compare(Task.REGRESSION, actual, models, seed=0, scorers=["neg_max_error"])
    pair = found.pairs[0]
    assert (pair.area, pair.accuracy) == (None, None)
    rmse = pair.differences["rmse"]
    assert rmse.interval is not None
    assert rmse.interval[1] < 0
    assert favours("rmse", rmse) == 1
    assert pair.differences["neg_max_error"].interval is None
    assert pair.differences["neg_max_error"].value > 0


def test_of_many_rows_the_bag_of_little_bootstraps_is_taken() -> None:
    positive, first, second = two_models(30_000, 2, better=0.2)
    found = compare(Task.BINARY, positive.astype(np.intp), [answers(first), answers(second)], seed=0)
    assert len(found.resampling.subsets) > 1
    area = found.pairs[0].area
    assert area is not None
    assert found.pairs[0].differences["roc_auc"].interval == pytest.approx(area.interval, abs=0.002)


@pytest.mark.parametrize(
    ("name", "difference", "who"),
    [
        ("roc_auc", Measured(0.1, (0.05, 0.15)), 1),
        ("roc_auc", Measured(-0.1, (-0.15, -0.05)), -1),
        ("log_loss", Measured(-0.1, (-0.15, -0.05)), 1),
        ("roc_auc", Measured(0.1, (-0.05, 0.25)), 0),
        ("roc_auc", Measured(0.1, None), 0),
    ],
)
def test_a_model_is_better_where_the_interval_leaves_out_zero(
    name: str, difference: Measured, who: int
) -> None:
    assert favours(name, difference) == who
