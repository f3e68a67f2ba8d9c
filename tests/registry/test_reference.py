import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from app.columns import ColumnType
from app.registry.reference import MAX_CELLS, ColumnProfile, ReferenceProfile, build_reference
from app.registry.signature import Feature, Role, Signature, Task


def feature(role: Role, *, categories: int = 0, name: str = "x") -> Feature:
    types = {
        Role.NUMERIC: ColumnType.NUMBER,
        Role.BOOLEAN: ColumnType.BOOLEAN,
        Role.CATEGORICAL: ColumnType.STRING,
        Role.DATETIME: ColumnType.DATETIME,
        Role.TEXT: ColumnType.STRING,
    }
    known = tuple(f"c{code}" for code in range(categories)) or None
    tokens = ("word",) if role is Role.TEXT else None
    return Feature(name=name, type=types[role], role=role, nullable=True, categories=known, tokens=tokens)


def signature_of(*features: Feature, classes: tuple[str, ...] | None = None) -> Signature:
    task = Task.MULTICLASS if classes else Task.REGRESSION
    return Signature(features=features, target="y", target_type=ColumnType.STRING, task=task, classes=classes)


def profile_of(column: Feature, values: NDArray[np.float64]) -> ColumnProfile:
    return build_reference(signature_of(column), values[:, None], np.zeros(len(values))).columns[0]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_continuous_values_fill_ten_bins_equally(rng: np.random.Generator) -> None:
    profile = profile_of(feature(Role.NUMERIC), rng.lognormal(sigma=3, size=1000))
    assert profile.counts == (0, *[100] * 10, 0)


def test_values_beyond_the_range_are_counted_apart(rng: np.random.Generator) -> None:
    profile = profile_of(feature(Role.NUMERIC), rng.uniform(0, 1, 1000))
    cells = profile.count(np.array([-0.1, 1.1, 1e300, 0.5, np.nan]))
    assert cells[0] == 1
    assert cells[len(profile.counts) - 1] == 2
    assert cells[-1] == 1
    assert cells.sum() == 5


def test_zeros_of_a_zero_inflated_column_have_a_bin_to_themselves(rng: np.random.Generator) -> None:
    values = np.where(rng.random(1000) < 0.6, 0.0, rng.exponential(size=1000))
    profile = profile_of(feature(Role.NUMERIC), values)
    zeros = np.count_nonzero(values == 0)
    assert zeros in profile.counts
    assert profile.count(np.zeros(3)).max() == 3
    at_zero = profile.count(np.zeros(1)).argmax()
    assert profile.count(np.array([-1e-9])).argmax() < at_zero < profile.count(np.array([1e-9])).argmax()


def test_each_of_few_distinct_values_has_a_bin_and_the_gaps_are_empty(rng: np.random.Generator) -> None:
    profile = profile_of(feature(Role.NUMERIC), rng.integers(1, 4, 900).astype(float))
    gaps = profile.count(np.array([0.0, 1.5, 2.5, 4.0]))
    assert not (gaps * profile.cells).any()
    at_values = profile.count(np.array([1.0, 2, 3]))
    assert at_values.max() == 1
    assert (at_values * profile.cells).sum() == 900


def test_moments_are_those_of_the_present_values() -> None:
    profile = profile_of(feature(Role.NUMERIC), np.array([1.0, np.nan, 2, 3, 6]))
    assert (profile.rows, profile.nulls) == (5, 1)
    assert (profile.minimum, profile.maximum, profile.mean) == (1, 6, 3)
    assert profile.std == pytest.approx(np.std([1, 2, 3, 6]))


def test_codes_unknown_codes_and_nulls_are_counted() -> None:
    values = np.array([0.0, 0, 2, -1, np.nan, 2, 2])
    profile = profile_of(feature(Role.CATEGORICAL, categories=3), values)
    assert (profile.counts, profile.unknown, profile.nulls) == ((2, 0, 3), 1, 1)


def test_booleans_are_counted_as_false_and_true() -> None:
    profile = profile_of(feature(Role.BOOLEAN), np.array([0.0, 1, 1, np.nan]))
    assert (profile.counts, profile.nulls, profile.unknown) == ((1, 2), 1, 0)


@pytest.mark.parametrize(
    ("role", "values", "singletons"),
    [
        (Role.CATEGORICAL, [0, 0, 1, 2], 2),
        (Role.NUMERIC, [1, 2, 3, 4], 2),
        (Role.NUMERIC, [1, 1, 3, 4], 1),
        (Role.NUMERIC, [5, 5, 5], 0),
        (Role.NUMERIC, [5], 1),
    ],
)
def test_rows_that_nothing_else_foretold_are_singletons(
    role: Role, values: list[float], singletons: int
) -> None:
    profile = profile_of(feature(role, categories=3), np.array(values, dtype=float))
    assert profile.singletons == singletons


def test_classes_are_counted_as_categories_and_values_as_numbers(rng: np.random.Generator) -> None:
    column, matrix = feature(Role.NUMERIC), rng.normal(size=(60, 1))
    classes = build_reference(
        signature_of(column, classes=("a", "b", "c")), matrix, np.repeat([0.0, 2], [20, 10])
    )
    assert (classes.prediction.counts, classes.prediction.rows) == ((20, 0, 10), 30)
    values = build_reference(signature_of(column), matrix, rng.normal(size=60))
    assert values.prediction.role is Role.NUMERIC


def test_fifty_wide_columns_stay_below_100_kilobytes(rng: np.random.Generator) -> None:
    many = 3 * MAX_CELLS
    columns = [feature(Role.NUMERIC, name=f"n{i}") for i in range(20)]
    columns += [feature(Role.CATEGORICAL, categories=MAX_CELLS, name=f"c{i}") for i in range(15)]
    columns += [feature(Role.CATEGORICAL, categories=many, name=f"m{i}") for i in range(15)]
    matrix = np.c_[
        rng.normal(size=(5000, 20)),
        rng.integers(0, MAX_CELLS, (5000, 15)),
        rng.integers(0, many, (5000, 15)),
    ]
    reference = build_reference(signature_of(*columns), matrix, rng.normal(size=5000))
    assert len(reference.model_dump_json()) < 100_000


def test_a_matrix_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="2 columns, the signature 1"):
        build_reference(signature_of(feature(Role.NUMERIC)), np.zeros((3, 2)), np.zeros(3))


any_float = st.floats(allow_infinity=False, allow_subnormal=True)
columns = arrays.arrays(np.float64, st.integers(0, 80), elements=any_float | st.sampled_from([0.0, 1, 2, -1]))


@settings(max_examples=150, deadline=None)
@given(values=columns, role=st.sampled_from(Role))
def test_any_column_is_counted_once_and_survives_json(values: NDArray[np.float64], role: Role) -> None:
    signature = signature_of(feature(role, categories=3))
    reference = build_reference(signature, values[:, None], values)
    profile = reference.columns[0]
    assert profile.cells.sum() == profile.rows == len(values)
    restored = ReferenceProfile.model_validate_json(reference.model_dump_json())
    assert restored == reference
    assert (restored.columns[0].count(values) == profile.cells).all()
