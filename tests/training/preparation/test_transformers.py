"""The pipeline's own transformers: as scikit-learn's, with less memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.impute import MissingIndicator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from app.training.preparation import transformers
from app.training.preparation.transformers import ColumnGroups, Imputer, Matrix, Standardizer

PARTS = (
    make_pipeline(Imputer("median"), Standardizer(copy=False)),
    OneHotEncoder(sparse_output=False, handle_unknown="ignore"),
    MissingIndicator(features="all"),
    make_pipeline(Imputer("constant"), TfidfTransformer()),
)


def draw(rows: int, columns: int, seed: int = 0) -> Matrix:
    """Counts from 0 to 3, some of them null, none of them in the first row."""
    cells = np.random.default_rng(seed).integers(-1, 4, (rows, columns)).astype(np.float64)
    cells[0] = 1.0
    cells[cells < 0] = np.nan
    return cells


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(PARTS), st.lists(st.integers(0, 5), min_size=1, max_size=3)), min_size=1
    ),
    st.booleans(),
)
def test_groups_of_columns_are_transformed_as_by_a_column_transformer(
    parts: list[tuple[object, list[int]]], by_row: bool
) -> None:
    named = [(f"part {number}", part, columns) for number, (part, columns) in enumerate(parts)]
    theirs, ours = ColumnTransformer(named, sparse_threshold=0), ColumnGroups(named, by_row=by_row)
    fitted, fresh = draw(40, 6), draw(9, 6, seed=1)
    for expected, found in (
        (theirs.fit_transform(fitted), ours.fit_transform(fitted)),
        (theirs.transform(fresh), ours.transform(fresh)),
    ):
        np.testing.assert_array_equal(found, expected)
        assert found.flags.c_contiguous == (by_row or expected.flags.c_contiguous)
        assert found.flags.f_contiguous or not expected.flags.f_contiguous or by_row
    np.testing.assert_array_equal(fresh, draw(9, 6, seed=1))


@pytest.mark.parametrize("cells", [1, 250, 10_000])
def test_columns_are_standardized_to_the_same_bits_however_many_at_a_time(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers, "SCALED_CELLS", cells)
    by_column = np.asfortranarray(np.random.default_rng(0).normal(1e6, 3.0, (100, 7)))
    by_column[:, 2] = 0.1
    expected = StandardScaler().fit_transform(by_column)
    for matrix in (by_column, np.ascontiguousarray(by_column)):
        scaler = Standardizer()
        np.testing.assert_array_equal(scaler.fit_transform(matrix), expected)
        assert scaler.n_samples_seen_ == 100


def test_numbers_are_prepared_without_a_second_copy_of_them() -> None:
    matrix = draw(500_000, 8)
    pipeline = make_pipeline(Imputer("median"), Standardizer(copy=False))
    prepare = ColumnGroups([("numeric", pipeline, list(range(8)))], by_row=True)
    tracemalloc.start()
    try:
        prepare.fit_transform(matrix)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * matrix.nbytes
