"""How rows are kept back: nothing is lost, nothing is in two parts, and what is to hold holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.training.validation import MIN_FOLD_ROWS, Split, Splitter, strata_of

seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0.05, 0.5)
counts = st.integers(2, 8)
labels = st.lists(st.integers(0, 4), min_size=20, max_size=120).map(
    lambda codes: np.unique(codes, return_inverse=True)[1]
)
moments = st.lists(st.floats(-5, 5), min_size=20, max_size=120).map(np.array)


def check_parts(split: Split, rows: int) -> None:
    learn, test = split
    assert len(learn) > 0
    assert len(test) > 0
    assert sorted([*learn.tolist(), *test.tolist()]) == list(range(rows))


def check_folds(folds: list[Split], rows: int, count: int) -> None:
    assert len(folds) <= count
    tested = [row for _, test in folds for row in test.tolist()]
    assert len(tested) == len(set(tested))
    for learn, test in folds:
        assert len(learn) > 0
        assert not set(learn.tolist()) & set(test.tolist())
        assert set(learn.tolist()) | set(test.tolist()) <= set(range(rows))


@settings(deadline=None, max_examples=40)
@given(labels, shares, counts, seeds)
def test_each_stratum_has_its_share_in_every_part_to_within_a_row(
    strata: NDArray[np.intp], share: float, count: int, seed: int
) -> None:
    splitter = Splitter(len(strata), seed, strata=strata)
    learn, test = splitter.hold_out(share)
    check_parts((learn, test), len(strata))
    for stratum, size in enumerate(np.bincount(strata)):
        assert abs((strata[test] == stratum).sum() - size * share) < 1
        assert size < 2 or (strata[learn] == stratum).any()
    folds = list(splitter.folds(count))
    check_folds(folds, len(strata), count)
    assert sum(len(test) for _, test in folds) == len(strata)
    for _, test in folds:
        for stratum, size in enumerate(np.bincount(strata)):
            assert abs((strata[test] == stratum).sum() - size / len(folds)) < 1


@settings(deadline=None, max_examples=40)
@given(labels, shares, counts, seeds)
def test_no_group_is_in_two_parts(groups: NDArray[np.intp], share: float, count: int, seed: int) -> None:
    if groups.max() == 0:
        return
    splitter = Splitter(len(groups), seed, groups=groups)
    split = splitter.hold_out(share)
    check_parts(split, len(groups))
    folds = list(splitter.folds(count))
    check_folds(folds, len(groups), count)
    for learn, test in [split, *folds]:
        assert not set(groups[learn].tolist()) & set(groups[test].tolist())


@settings(deadline=None, max_examples=40)
@given(moments, shares, counts, seeds)
def test_by_time_what_is_tested_is_never_before_what_is_learnt(
    order: NDArray[np.float64], share: float, count: int, seed: int
) -> None:
    splitter = Splitter(len(order), seed, order=order)
    split = splitter.hold_out(share)
    check_parts(split, len(order))
    folds = list(splitter.folds(count))
    check_folds(folds, len(order), count)
    for learn, test in [split, *folds]:
        assert order[learn].max() <= order[test].min()
        assert (np.diff(order[learn]) >= 0).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 300), shares, counts, seeds)
def test_a_random_split_loses_no_row_and_follows_the_seed(
    rows: int, share: float, count: int, seed: int
) -> None:
    learn, test = Splitter(rows, seed).hold_out(share)
    check_parts((learn, test), rows)
    assert abs(len(test) - rows * share) <= 1
    again = Splitter(rows, seed).hold_out(share)
    assert np.array_equal(test, again[1])
    folds = list(Splitter(rows, seed).folds(count))
    check_folds(folds, rows, count)
    assert len(folds) == min(count, rows // MIN_FOLD_ROWS)


def test_another_seed_holds_out_other_rows_and_groups() -> None:
    groups = np.arange(200) // 4
    for splitters in (
        [Splitter(200, seed) for seed in (0, 1)],
        [Splitter(200, seed, strata=groups % 3) for seed in (0, 1)],
        [Splitter(200, seed, groups=groups) for seed in (0, 1)],
    ):
        first, second = (splitter.hold_out(0.2)[1] for splitter in splitters)
        assert set(first.tolist()) != set(second.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_held_out_up_to_the_share_where_they_are_small(seed: int) -> None:
    many = np.arange(400) // 4
    assert abs(len(Splitter(400, seed, groups=many).hold_out(0.2)[1]) - 80) <= 4
    two = np.array([0] * 50 + [1] * 350)
    assert len(Splitter(400, seed, groups=two).hold_out(0.2)[1]) == 50


def test_a_part_of_the_rows_is_split_as_those_rows_alone() -> None:
    rng = np.random.default_rng(3)
    rows = np.sort(rng.choice(100, 60, replace=False))
    order, groups, strata = rng.normal(size=100), rng.integers(0, 9, 100), rng.integers(0, 3, 100)
    for whole, part in (
        (Splitter(100, 1, order=order), Splitter(60, 1, order=order[rows])),
        (Splitter(100, 1, groups=groups), Splitter(60, 1, groups=groups[rows])),
        (Splitter(100, 1, strata=strata), Splitter(60, 1, strata=strata[rows])),
    ):
        assert np.array_equal(whole.of(rows).hold_out(0.3)[1], part.hold_out(0.3)[1])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=200, unique=True))
def test_the_strata_of_a_number_are_tenths_of_its_values(values: list[float]) -> None:
    target = np.array(values)
    strata = strata_of(target, classes=False)
    assert (np.diff(strata[np.argsort(target)]) >= 0).all()
    assert abs(np.bincount(strata, minlength=10) - len(values) / 10).max() < 2


def test_the_strata_of_equal_numbers_are_one() -> None:
    assert set(strata_of(np.full(30, 2.5), classes=False).tolist()) == {0}
