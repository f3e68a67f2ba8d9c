from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from app.columns import ColumnType
from app.monitoring.drift import ColumnDrift, DriftReport, DriftStatus, compare
from app.monitoring.evidence import DriftTest
from app.registry.reference import MAX_CELLS, build_reference
from app.registry.signature import Feature, Role, Signature, Task

Matrix = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Matrix]


def numeric(name: str = "x") -> Feature:
    return Feature(name=name, type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=True)


def categorical(categories: int, name: str = "x") -> Feature:
    known = tuple(f"c{code}" for code in range(categories))
    return Feature(name=name, type=ColumnType.STRING, role=Role.CATEGORICAL, nullable=True, categories=known)


def boolean(name: str = "x") -> Feature:
    return Feature(name=name, type=ColumnType.BOOLEAN, role=Role.BOOLEAN, nullable=True)


def signature_of(*features: Feature) -> Signature:
    return Signature(
        features=features,
        target="y",
        target_type=ColumnType.BOOLEAN,
        task=Task.BINARY,
        classes=(False, True),
    )


def compared(column: Feature, reference: Matrix, live: Matrix) -> ColumnDrift:
    """The verdict on one column among predictions that do not drift."""
    signature = signature_of(column)
    profile = build_reference(signature, reference[:, None], np.linspace(0, 1, len(reference)))
    return compare(profile, signature, live[:, None], np.linspace(0, 1, len(live))).columns[0]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


MIXED = signature_of(
    *(numeric(name) for name in ("normal", "lognormal", "zero_inflated", "count", "with_nulls", "constant")),
    *(categorical(size, f"of_{size}") for size in (3, 12, 20)),
    boolean("flag"),
)


def draw_mixed(rng: np.random.Generator, n: int) -> Matrix:
    rare = np.r_[0.9, np.full(11, 0.1 / 11)]
    matrix: Matrix = np.c_[
        rng.normal(size=n),
        rng.lognormal(sigma=2, size=n),
        np.where(rng.random(n) < 0.6, 0, rng.exponential(size=n)),
        rng.poisson(3, n),
        np.where(rng.random(n) < 0.03, np.nan, rng.normal(size=n)),
        np.full(n, 5.0),
        rng.choice(3, n, p=[0.02, 0.97, 0.01]),
        rng.choice(12, n, p=rare),
        rng.integers(0, 20, n),
        rng.random(n) < 0.3,
    ]
    return matrix


@pytest.mark.parametrize(("n_reference", "n"), [(5000, 100), (500, 5000), (5000, 5000)])
def test_ten_columns_without_drift_raise_no_more_alerts_than_alpha_allows(n_reference: int, n: int) -> None:
    rng = np.random.default_rng(1)
    repetitions, significant, alerts = 300, 0, 0
    for _ in range(repetitions):
        reference = build_reference(MIXED, draw_mixed(rng, n_reference), rng.beta(2, 5, n_reference))
        report = compare(reference, MIXED, draw_mixed(rng, n), rng.beta(2, 5, n))
        every = (*report.columns, report.prediction)
        significant += any(column.p_adjusted is not None and column.p_adjusted <= 0.01 for column in every)
        alerts += report.status is DriftStatus.DRIFT
    # At a true rate of 0.01, more than 9 in 300 have a probability below 0.002.
    assert significant <= 0.03 * repetitions
    assert alerts <= significant


@pytest.mark.parametrize(
    ("categories", "n_reference", "n"),
    [(40, 500, 5000), (400, 1000, 1000), (3000, 500, 5000), (3000, 5000, 5000)],
)
def test_categories_that_the_reference_missed_by_chance_are_no_drift(
    categories: int, n_reference: int, n: int
) -> None:
    rng = np.random.default_rng(2)
    shares = 1 / np.arange(1, categories + 1) ** 1.2
    significant, effects = 0, []
    for _ in range(150):
        drawn = rng.choice(categories, n_reference + n, p=shares / shares.sum())
        known, codes = np.unique(drawn[:n_reference], return_inverse=True)
        position = np.minimum(np.searchsorted(known, drawn[n_reference:]), len(known) - 1)
        live = np.where(known[position] == drawn[n_reference:], position, -1)
        verdict = compared(categorical(len(known)), codes.astype(float), live.astype(float))
        assert verdict.p_value is not None
        significant += verdict.p_value <= 0.01
        effects.append(verdict.effect or 0.0)
    assert significant <= 0.04 * 150
    assert np.median(effects) < 0.03


def with_nulls(values: Matrix, share: float, rng: np.random.Generator) -> Matrix:
    return np.where(rng.random(len(values)) < share, np.nan, values)


def with_new(share: float, rng: np.random.Generator, n: int) -> Matrix:
    return np.where(rng.random(n) < share, -1.0, rng.integers(0, 5, n))


DRIFTS: dict[str, tuple[Feature, Draw, Draw, DriftTest]] = {
    "mean shifted by 0.5 sd": (
        numeric(),
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.normal(0.5, 1, n),
        DriftTest.VALUES,
    ),
    "variance doubled": (
        numeric(),
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.normal(0, 2**0.5, n),
        DriftTest.VALUES,
    ),
    "null rate doubled": (
        numeric(),
        lambda rng, n: with_nulls(rng.normal(size=n), 0.06, rng),
        lambda rng, n: with_nulls(rng.normal(size=n), 0.12, rng),
        DriftTest.NULL_RATE,
    ),
    "new category": (
        categorical(5),
        lambda rng, n: rng.integers(0, 5, n).astype(float),
        lambda rng, n: with_new(0.1, rng, n),
        DriftTest.NEW_VALUES,
    ),
    "tail beyond the range": (
        numeric(),
        lambda rng, n: rng.exponential(size=n),
        lambda rng, n: rng.exponential(size=n) * np.where(rng.random(n) < 0.03, 1000, 1),
        DriftTest.NEW_VALUES,
    ),
    "flag turned": (
        boolean(),
        lambda rng, n: (rng.random(n) < 0.3).astype(float),
        lambda rng, n: (rng.random(n) < 0.45).astype(float),
        DriftTest.VALUES,
    ),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_a_drifted_column_among_ten_is_found_in_1000_rows(name: str, rng: np.random.Generator) -> None:
    column, before, after, test = DRIFTS[name]
    signature = signature_of(column, *(numeric(f"still {index}") for index in range(9)))
    found = 0
    for _ in range(20):
        reference = build_reference(
            signature, np.c_[before(rng, 5000), rng.normal(size=(5000, 9))], rng.random(5000)
        )
        live = np.c_[after(rng, 1000), rng.normal(size=(1000, 9))]
        verdict = compare(reference, signature, live, rng.random(1000)).columns[0]
        found += verdict.status is DriftStatus.DRIFT and verdict.test is test
    assert found >= 18


def test_a_trifle_in_a_million_rows_is_significant_and_no_drift(rng: np.random.Generator) -> None:
    verdict = compared(numeric(), rng.normal(size=1_000_000), rng.normal(0.01, 1, 1_000_000))
    assert verdict.p_adjusted is not None
    assert verdict.p_adjusted < 0.001
    assert verdict.effect is not None
    assert 0 < verdict.effect < 0.01
    assert verdict.status is DriftStatus.OK


def test_the_effect_is_the_distance_of_the_distributions_whatever_the_sample_sizes(
    rng: np.random.Generator,
) -> None:
    # One row in ten in a new category: JS divergence = H(mixture) - mean H, in bits.
    new = 0.1
    mixture = np.array([new / 2, 1 - new / 2])
    after = np.array([new, 1 - new])
    divergence = -(mixture @ np.log2(mixture)) + (after @ np.log2(after)) / 2
    for n_reference, n in ((5000, 1000), (500, 5000), (20_000, 20_000)):
        verdict = compared(categorical(1), np.zeros(n_reference), np.where(np.arange(n) < new * n, -1.0, 0.0))
        assert verdict.effect == pytest.approx(np.sqrt(divergence), rel=0.02)
        assert verdict.unknown_share == pytest.approx(new)


def test_the_interval_covers_the_true_effect_and_the_detectable_effect_is_detected() -> None:
    rng = np.random.default_rng(5)
    covered, found, detectable = 0, 0, 0.0
    shift = 0.2
    truth = compared(numeric(), rng.normal(size=400_000), rng.normal(shift, 1, 400_000)).effect
    assert truth is not None
    assert truth == pytest.approx(shift / np.sqrt(8 * np.log(2)), rel=0.05)
    for _ in range(100):
        verdict = compared(numeric(), rng.normal(size=5000), rng.normal(shift, 1, 800))
        assert verdict.effect_interval is not None
        assert verdict.detectable_effect is not None
        assert verdict.p_adjusted is not None
        covered += verdict.effect_interval[0] <= truth <= verdict.effect_interval[1]
        found += verdict.p_adjusted <= 0.01
        detectable = verdict.detectable_effect
    assert covered >= 90
    assert detectable == pytest.approx(truth, rel=0.1)
    assert 65 <= found <= 92


def test_without_drift_the_effect_is_near_zero_though_the_sample_is_small(rng: np.random.Generator) -> None:
    effects = [compared(numeric(), rng.normal(size=5000), rng.normal(size=100)).effect for _ in range(50)]
    assert np.median([effect for effect in effects if effect is not None]) < 0.05


@pytest.mark.parametrize(("n_reference", "n"), [(5000, 49), (49, 5000), (5000, 0), (0, 100)])
def test_too_few_rows_are_insufficient_and_never_ok(
    n_reference: int, n: int, rng: np.random.Generator
) -> None:
    reference = build_reference(MIXED, draw_mixed(rng, n_reference), rng.random(n_reference))
    report = compare(reference, MIXED, draw_mixed(rng, n) + 100, rng.random(n))
    assert report.status is DriftStatus.INSUFFICIENT_DATA
    for column in (*report.columns, report.prediction):
        assert column.status is DriftStatus.INSUFFICIENT_DATA
        assert (column.p_value, column.effect, column.detectable_effect) == (None, None, None)
        assert column.reason is not None
        assert f"{n} are live" in column.reason


CONSTANT = np.full(5000, 5.0)


@pytest.mark.parametrize(
    ("column", "reference", "live", "status"),
    [
        (numeric(), CONSTANT, np.full(100, 5.0), DriftStatus.OK),
        (numeric(), CONSTANT, np.full(100, 6.0), DriftStatus.DRIFT),
        (numeric(), CONSTANT, np.r_[np.full(90, 5.0), np.full(10, 5.5)], DriftStatus.DRIFT),
        (numeric(), CONSTANT, np.full(100, np.nan), DriftStatus.DRIFT),
        (numeric(), np.full(5000, np.nan), np.full(100, np.nan), DriftStatus.OK),
        (numeric(), np.full(5000, np.nan), np.full(100, 5.0), DriftStatus.DRIFT),
        (numeric(), np.tile([1.0, np.nan], 50), np.full(100, np.nan), DriftStatus.DRIFT),
        (categorical(1), np.zeros(5000), np.zeros(100), DriftStatus.OK),
        (categorical(1), np.zeros(5000), np.full(100, -1.0), DriftStatus.DRIFT),
        (categorical(2), np.repeat([0.0, 1], [2450, 50]), np.repeat([0.0, 1], [70, 30]), DriftStatus.DRIFT),
        (boolean(), np.ones(5000), np.repeat([1.0, 0], [90, 10]), DriftStatus.DRIFT),
        (boolean(), np.zeros(50), np.zeros(5000), DriftStatus.OK),
    ],
)
def test_degenerate_columns_get_a_sensible_verdict(
    column: Feature, reference: Matrix, live: Matrix, status: DriftStatus
) -> None:
    verdict = compared(column, reference, live)
    assert verdict.status is status
    assert verdict.detectable_effect is not None
    assert 0 < verdict.detectable_effect <= 1


def test_new_rows_are_not_lost_among_rare_categories(rng: np.random.Generator) -> None:
    reference = np.r_[rng.integers(0, 40, 5000), np.full(3, -1)].astype(float)
    live = np.r_[rng.integers(0, 40, 90), np.full(10, -1)].astype(float)
    verdict = compared(categorical(40), reference, live)
    assert (verdict.status, verdict.test) == (DriftStatus.DRIFT, DriftTest.NEW_VALUES)


def test_of_very_many_categories_only_new_ones_and_nulls_are_judged(rng: np.random.Generator) -> None:
    column, many = categorical(2 * MAX_CELLS), 2 * MAX_CELLS
    reference = np.r_[np.arange(many), rng.integers(0, many, 20_000)].astype(float)
    concentrated = compared(column, reference, np.zeros(1000))
    assert concentrated.status is DriftStatus.OK
    assert concentrated.reason is not None
    renewed = compared(column, reference, np.repeat([0.0, -1.0], [800, 200]))
    assert renewed.status is DriftStatus.DRIFT


def test_predictions_that_drift_alone_raise_the_report(rng: np.random.Generator) -> None:
    signature = MIXED.model_copy(update={"task": Task.MULTICLASS, "classes": ("a", "b", "c")})
    reference = build_reference(
        signature, draw_mixed(rng, 5000), rng.choice(3, 5000, p=[0.6, 0.3, 0.1]).astype(float)
    )
    report = compare(
        reference, signature, draw_mixed(rng, 1000), rng.choice(3, 1000, p=[0.3, 0.6, 0.1]).astype(float)
    )
    assert report.status is report.prediction.status is DriftStatus.DRIFT
    assert {column.status for column in report.columns} == {DriftStatus.OK}


def test_p_values_are_adjusted_over_columns_and_prediction(rng: np.random.Generator) -> None:
    reference = build_reference(MIXED, draw_mixed(rng, 500), rng.random(500))
    report = compare(reference, MIXED, draw_mixed(rng, 500), rng.random(500))
    every = (*report.columns, report.prediction)
    expected = false_discovery_control([column.p_value for column in every])
    assert [column.p_adjusted for column in every] == pytest.approx(expected.tolist())


def test_the_floor_decides_over_a_significant_difference(rng: np.random.Generator) -> None:
    signature = signature_of(numeric())
    reference = build_reference(signature, rng.normal(size=(5000, 1)), rng.random(5000))
    live, scores = rng.normal(0.5, 1, (1000, 1)), rng.random(1000)
    statuses = [
        compare(reference, signature, live, scores, minimum_effect=floor).columns[0].status
        for floor in (0.05, 0.5)
    ]
    assert statuses == [DriftStatus.DRIFT, DriftStatus.OK]


def test_a_reference_of_another_signature_is_refused(rng: np.random.Generator) -> None:
    reference = build_reference(signature_of(numeric("a")), rng.normal(size=(100, 1)), rng.random(100))
    with pytest.raises(ValueError, match="another signature"):
        compare(reference, signature_of(numeric("b")), rng.normal(size=(100, 1)), rng.random(100))


FOUR = signature_of(numeric("n"), boolean("b"), categorical(3, "c"), categorical(MAX_CELLS + 1, "m"))
cell = st.floats(allow_infinity=False) | st.sampled_from([np.nan, -1.0, 0.0, 1.0, 2.0])
matrices = st.integers(0, 120).flatmap(
    lambda n: arrays.arrays(np.float64, (n, len(FOUR.features)), elements=cell, fill=cell)
)


@settings(max_examples=150, deadline=None)
@given(reference=matrices, live=matrices)
def test_any_rows_compare_without_a_warning(reference: Matrix, live: Matrix) -> None:
    report = compare(build_reference(FOUR, reference, reference[:, 0]), FOUR, live, live[:, 0])
    for column in (*report.columns, report.prediction):
        if column.status is not DriftStatus.INSUFFICIENT_DATA:
            assert column.p_value is not None
            assert column.p_adjusted is not None
            assert column.effect is not None
            assert column.effect_interval is not None
            assert 0 <= column.p_value <= column.p_adjusted <= 1
            lower, upper = column.effect_interval
            assert 0 <= lower <= column.effect <= upper <= 1
    assert DriftReport.model_validate_json(report.model_dump_json()) == report


@settings(max_examples=100, deadline=None)
@given(rows=matrices)
def test_rows_compared_with_themselves_never_drift(rows: Matrix) -> None:
    report = compare(build_reference(FOUR, rows, rows[:, 0]), FOUR, rows, rows[:, 0])
    for column in (*report.columns, report.prediction):
        enough = len(rows) >= 50
        assert column.status is (DriftStatus.OK if enough else DriftStatus.INSUFFICIENT_DATA)
        assert column.effect == (0 if enough else None)
