"""Learning curves: the law through them, and what twice the rows would bring."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.training.advice.learning_curve import estimate_gain, estimate_mean, fit_power_law, grow

SIZES = [300, 600, 1200, 2400]


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.1, 5), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_a_power_law_is_found_from_losses_that_follow_it(floor: float, scale: float, rate: float) -> None:
    rows = np.array(SIZES, dtype=float)
    law = fit_power_law(rows, floor + scale * rows**-rate)
    assert law.at(4800) == pytest.approx(floor + scale * 4800**-rate, rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=4, max_size=4))
def test_a_law_never_falls_below_zero_and_never_rises_with_rows(losses: list[float]) -> None:
    law = fit_power_law(np.array(SIZES, dtype=float), np.array(losses))
    values = [law.at(rows) for rows in (10, 300, 2400, 1e6)]
    assert all(value >= 0 for value in values)
    assert values == sorted(values, reverse=True)


def test_a_curve_that_still_falls_promises_a_gain_and_a_flat_one_none() -> None:
    rng = np.random.default_rng(1)
    rows = np.array(SIZES, dtype=float)
    falling = 0.1 + 3 * rows**-0.4 + rng.normal(0, 0.003, (5, 4))
    gain = estimate_gain(SIZES, falling, 2400, 0.25)
    truth = 3 * (2400**-0.4 - 4800**-0.4)
    assert 0 < gain.low < truth < gain.high
    flat = 0.4 + rng.normal(0, 0.003, (5, 4))
    none = estimate_gain(SIZES, flat, 2400, 0.25)
    assert none.low <= 0 <= none.high
    assert none.value < truth / 4


def test_the_interval_of_a_mean_over_folds_is_wider_than_that_of_independent_ones() -> None:
    values = np.array([0.7, 0.72, 0.74, 0.71, 0.73])
    independent, corrected = estimate_mean(values, 0.0), estimate_mean(values, 0.25)
    assert independent.value == corrected.value == pytest.approx(0.72)
    assert corrected.high - corrected.low == pytest.approx(1.5 * (independent.high - independent.low))


def test_sizes_double_up_to_all_rows() -> None:
    assert grow(4800, 300) == [600, 1200, 2400, 4800]
    assert grow(100, 30) == [50, 100]
    assert grow(20, 30) == [20]
