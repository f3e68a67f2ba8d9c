"""Intervals hold the truth as often as they say, and the weighted metrics are the metrics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from app.registry.signature import Task
from app.training.evaluation import evaluate
from app.training.report.intervals import (
    SUBSET_ROWS,
    Deviations,
    adjust_p_values,
    draw_resamples,
    mean_interval,
    proportion_difference,
    proportion_interval,
)
from app.training.report.weighted import weighted_metrics

REPEATS = 100


def resampled(
    task: Task, actual: np.ndarray, scores: np.ndarray, seed: int = 0
) -> tuple[dict[str, float], Deviations]:
    """The metrics of a sample, and how those of its resamples deviate from them."""
    predicted = scores[:, 0] if task is Task.REGRESSION else scores.argmax(axis=1)

    def statistic(rows: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        return weighted_metrics(task, actual[rows], predicted[rows], scores[rows], weights)

    found = evaluate(task, actual, predicted, None if task is Task.REGRESSION else scores)
    return found, draw_resamples(len(actual), seed).deviations(statistic)


def draw(rng: np.random.Generator, task: Task, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actual, predicted, and scores with ties."""
    if task is Task.REGRESSION:
        scores = rng.normal(size=(rows, 1)).round(1)
        return (scores[:, 0] + rng.normal(size=rows)).round(1), scores[:, 0], scores
    classes = 2 if task is Task.BINARY else 4
    scores = rng.dirichlet(np.ones(classes), rows).round(1) + 0.01
    scores /= scores.sum(axis=1, keepdims=True)
    return rng.integers(0, classes, rows), scores.argmax(axis=1), scores


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(Task), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_a_weighting_gives_the_metrics_of_the_rows_it_repeats(task: Task, seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    actual, predicted, scores = draw(rng, task, rows)
    weights = rng.integers(0, 4, rows)
    weights[0] += 1
    found = weighted_metrics(
        task, actual, predicted, scores, np.stack([np.ones(rows), weights]).astype(np.float64)
    )
    probabilities = None if task is Task.REGRESSION else scores
    drawn = np.repeat(np.arange(rows), weights)
    plain = evaluate(task, actual, predicted, probabilities)
    assert {name: found[name][0] for name in plain} == pytest.approx(plain, abs=1e-9)
    repeated = evaluate(
        task, actual[drawn], predicted[drawn], None if probabilities is None else probabilities[drawn]
    )
    for name in set(found) & set(repeated) - {"roc_auc_ovr"}:  # of which a weighting is a linear estimate
        assert found[name][1] == pytest.approx(repeated[name], abs=1e-9), name


def test_bootstrap_intervals_hold_the_truth_in_about_95_of_100_samples() -> None:
    rng = np.random.default_rng(1)

    def sample(rows: int) -> tuple[np.ndarray, np.ndarray]:
        actual = rng.integers(0, 2, rows)
        positive = norm.cdf(rng.normal(size=rows) + actual - 0.5)
        return actual, np.column_stack([1 - positive, positive])

    actual, scores = sample(200_000)
    truth = evaluate(Task.BINARY, actual, scores.argmax(axis=1), scores)
    held = dict.fromkeys(("roc_auc", "average_precision", "log_loss", "f1"), 0)
    for repeat in range(REPEATS):
        actual, scores = sample(300)
        found, deviations = resampled(Task.BINARY, actual, scores, seed=repeat)
        for name in held:
            interval = deviations.interval(name, found[name])
            assert interval is not None
            held[name] += interval[0] <= truth[name] <= interval[1]
    # Of 100 with a chance of 95 %, fewer than 87 come once in 1,000.
    assert all(count >= 87 for count in held.values()), held


def test_little_bootstraps_of_a_large_sample_are_as_wide_as_theory_has_it() -> None:
    rng = np.random.default_rng(2)
    rows = 8 * SUBSET_ROWS
    errors = rng.exponential(size=rows)
    assert len(draw_resamples(rows, 0).subsets) > 1
    _, deviations = resampled(Task.REGRESSION, errors, np.zeros((rows, 1)))
    interval = deviations.interval("mae", errors.mean())
    assert interval is not None
    expected = 2 * 1.96 * errors.std() / rows**0.5
    assert interval[1] - interval[0] == pytest.approx(expected, rel=0.15)


def test_a_paired_difference_is_narrower_than_the_intervals_of_two_like_models() -> None:
    rng = np.random.default_rng(3)
    actual = rng.normal(size=400)
    one = (actual + rng.normal(size=400))[:, None]
    other = one + 0.05
    (_, deviations), (_, rival) = (resampled(Task.REGRESSION, actual, scores) for scores in (one, other))
    alone, paired = deviations.interval("rmse", 1.0), deviations.interval("rmse", 0.0, rival)
    assert alone is not None
    assert paired is not None
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 5


def test_what_does_not_vary_among_the_resamples_gets_no_interval() -> None:
    actual = np.array([0, 0, 1, 1] * 10)
    scores = np.column_stack([1 - actual, actual]).astype(np.float64)
    found, deviations = resampled(Task.BINARY, actual, scores)
    assert found["roc_auc"] == 1
    assert deviations.interval("roc_auc", 1.0) is None


@given(st.integers(1, 500), st.data())
def test_the_interval_of_a_proportion_is_wilsons(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    low, high = proportion_interval(hits, count)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_difference_of_proportions_is_that_of_newcombes_example() -> None:
    # Newcombe (1998), table II, contrast (a): 56/70 - 48/80, method 10.
    difference, low, high = proportion_difference((56, 70), (48, 80))
    assert (difference, low, high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_the_interval_of_a_mean_is_students() -> None:
    low, high = mean_interval(10.0, 2.0, 4)
    assert (float(low), float(high)) == pytest.approx((10 - 3.18245, 10 + 3.18245), abs=1e-4)


def test_holms_method_adjusts_step_by_step_and_never_beyond_one() -> None:
    assert adjust_p_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_p_values([0.9, 0.8]) == [1.0, 1.0]
    assert adjust_p_values([0.02]) == [0.02]
    assert adjust_p_values([]) == []
