"""Shifts of distributions: what scipy says of the raw data, and no alarm without one."""

from typing import Any

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.datasets.comparison.shift import ColumnShift, Samples, ShiftStatus, ShiftTest, judge_shifts

REPETITIONS = 200


def numeric(old: Any, new: Any) -> Samples:
    return Samples(numeric=True, old=np.array(old, dtype=float), new=np.array(new, dtype=float))


def categories(old: NDArray[np.int64], new: NDArray[np.int64]) -> Samples:
    """Of two samples of small numbers that stand for values."""
    width = int(max(old.max(), new.max())) + 1
    counts = [np.bincount(values, minlength=width).astype(float) for values in (old, new)]
    return Samples(numeric=False, old=counts[0], new=counts[1])


def judge(samples: Samples) -> ColumnShift:
    (shift,) = judge_shifts({"x": samples})
    return shift


@given(
    st.lists(st.integers(-20, 20), min_size=50, max_size=120),
    st.lists(st.integers(-15, 25), min_size=50, max_size=120),
)
@settings(max_examples=50, deadline=None)
def test_numbers_are_judged_as_scipy_judges_the_raw_data(old: list[int], new: list[int]) -> None:
    shift = judge(numeric(old, new))
    raw = scipy.stats.ks_2samp(old, new, method="asymp")
    assert shift.test is ShiftTest.KOLMOGOROV_SMIRNOV
    assert shift.effect == shift.statistic == pytest.approx(raw.statistic)
    assert shift.p_value == shift.p_adjusted == pytest.approx(raw.pvalue)
    assert (shift.n_old, shift.n_new) == (len(old), len(new))


@given(st.lists(st.integers(30, 500), min_size=2, max_size=8), st.data())
@settings(max_examples=50, deadline=None)
def test_categories_are_judged_as_scipy_judges_their_table(old: list[int], data: st.DataObject) -> None:
    new = data.draw(st.lists(st.integers(30, 500), min_size=len(old), max_size=len(old)))
    shift = judge(Samples(numeric=False, old=np.array(old, float), new=np.array(new, float)))
    raw = scipy.stats.chi2_contingency([old, new], correction=False)
    assert shift.test is ShiftTest.CHI_SQUARED
    assert shift.statistic == pytest.approx(raw.statistic)
    assert shift.p_value == pytest.approx(raw.pvalue)
    distance = scipy.spatial.distance.jensenshannon(old, new, base=2)
    bias = (len(old) - 1) * (1 / sum(old) + 1 / sum(new)) / (8 * np.log(2))
    assert shift.effect == pytest.approx(np.sqrt(max(0.0, distance**2 - bias)), abs=1e-6)


def test_p_values_are_adjusted_over_all_columns_that_were_tested() -> None:
    source = np.random.default_rng(1)
    columns = {f"c{number}": numeric(source.normal(size=300), source.normal(size=300)) for number in range(5)}
    columns["moved"] = numeric(source.normal(size=300), source.normal(0.5, size=300))
    columns["short"] = numeric([1.0] * 49, [2.0] * 300)
    *tested, short = judge_shifts(columns)
    adjusted = scipy.stats.false_discovery_control([shift.p_value for shift in tested])
    assert [shift.p_adjusted for shift in tested] == pytest.approx(adjusted)
    assert [shift.name for shift in tested if shift.status is ShiftStatus.SHIFTED] == ["moved"]
    assert (short.status, short.p_value, short.effect) == (ShiftStatus.INSUFFICIENT_DATA, None, None)


@pytest.mark.parametrize("sizes", [(60, 60), (60, 5_000), (1_000, 1_000), (20_000, 500)])
def test_samples_of_one_source_are_hardly_ever_called_shifted(sizes: tuple[int, int]) -> None:
    source = np.random.default_rng(sum(sizes))
    alarms = 0
    for _ in range(REPETITIONS):
        n, m = sizes
        with_nulls = [source.normal(size=size) for size in sizes]
        for values in with_nulls:
            values[source.random(len(values)) < 0.2] = -np.inf
        columns = {
            "normal": numeric(source.normal(size=n), source.normal(size=m)),
            "skewed": numeric(source.lognormal(size=n), source.lognormal(size=m)),
            "small numbers": numeric(source.poisson(2, n), source.poisson(2, m)),
            "with nulls": numeric(*with_nulls),
            "even": categories(source.integers(5, size=n), source.integers(5, size=m)),
            "rare values": categories(source.geometric(0.05, n), source.geometric(0.05, m)),
        }
        alarms += any(shift.status is ShiftStatus.SHIFTED for shift in judge_shifts(columns))
    assert alarms <= 0.02 * REPETITIONS + 3  # at most 1 % are to be expected; three more hardly ever


def test_a_trifle_in_many_rows_is_significant_and_no_shift() -> None:
    source = np.random.default_rng(2)
    shift = judge(numeric(source.normal(size=100_000), source.normal(0.05, size=100_000)))
    assert shift.p_value is not None
    assert shift.p_value < 1e-6
    assert shift.status is ShiftStatus.OK


@pytest.mark.parametrize(
    "samples",
    [
        numeric(np.linspace(0, 1, 400), np.linspace(0.3, 1.3, 400)),
        numeric(np.linspace(0, 1, 400), [*np.linspace(0, 1, 300), *[-np.inf] * 100]),
        numeric([-np.inf] * 400, np.linspace(0, 1, 400)),
        categories(np.repeat([0, 1], 200), np.repeat([0, 1], [100, 300])),
        categories(np.repeat([0, 1], 200), np.repeat([0, 1, 2], [180, 180, 40])),
        categories(np.repeat([0], 400), np.repeat([1], 400)),
    ],
    ids=["moved", "more nulls", "no nulls any more", "other shares", "a new value", "another constant"],
)
def test_a_shift_is_called(samples: Samples) -> None:
    shift = judge(samples)
    assert shift.status is ShiftStatus.SHIFTED
    assert shift.effect is not None
    assert 0.1 <= shift.effect <= 1


@pytest.mark.parametrize("samples", [numeric([1.0] * 80, [1.0] * 90), categories(*[np.ones(80, int)] * 2)])
def test_a_constant_column_has_not_shifted(samples: Samples) -> None:
    shift = judge(samples)
    assert (shift.status, shift.effect, shift.p_value) == (ShiftStatus.OK, 0.0, 1.0)


def test_texts_that_never_repeat_cannot_be_judged() -> None:
    shift = judge(categories(np.arange(500), np.arange(500, 1000)))
    assert (shift.status, shift.p_value) == (ShiftStatus.INSUFFICIENT_DATA, None)
