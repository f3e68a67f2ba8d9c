"""Holding one fit against another: what is identical, equivalent and different, and what is named."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from app.registry.signature import Signature
from app.training.spec import TrainingSpec
from app.training.verification.verification import (
    Fit,
    Result,
    compare,
    digest_json,
    largest_difference,
    without_search,
)

Scores = NDArray[np.float64]

SIGNATURE = Signature.model_validate(
    {"features": [], "target": "late", "target_type": "boolean", "task": "binary", "classes": [False, True]}
)
ENVIRONMENT = {
    "python": "3.11.7",
    "numpy": "2.4.6",
    "blas": {"numpy": "openblas 0.3.31", "scipy": "openblas 0.3.30"},
    "cpu": ["AVX2", "FMA3"],
    "threads": 1,
    "source": "sha256:aa",
}
CONFIGURATION = {"algorithm": "ridge", "params": {"alpha": 1.0}, "preparation": {}}
SCORES = np.array([[0.25, 0.75], [0.5, 0.5]])
FIT = Fit(
    artifact_digest="sha256:1f",
    scores=SCORES,
    configuration=CONFIGURATION,
    signature=SIGNATURE,
    runtime="compiled",
    environment=ENVIRONMENT,
)

scores_of_models = arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 3)), elements=st.floats(-1e12, 1e12)
)


def named(recorded: Fit, found: Fit) -> dict[str, tuple[Any, Any]]:
    differences = compare(recorded, found, found.scores).differences
    return {one["pointer"]: (one["recorded"], one["found"]) for one in differences}


def test_the_same_bytes_and_the_same_predictions_are_identical() -> None:
    found = replace(FIT, scores=SCORES.copy())
    comparison = compare(FIT, found, SCORES.copy())
    assert comparison.result is Result.IDENTICAL
    assert len(set(comparison.fingerprints.values())) == 1
    assert (comparison.largest_difference, comparison.differences, comparison.not_compared) == (0.0, [], [])


@given(scores_of_models, st.floats(-1e-13, 1e-13))
def test_predictions_within_the_tolerance_are_equivalent(scores: Scores, share: float) -> None:
    near = scores + share * np.maximum(1, np.abs(scores))
    found = replace(FIT, artifact_digest="sha256:2f", scores=near)
    comparison = compare(replace(FIT, scores=scores), found, scores)
    assert comparison.result is Result.EQUIVALENT
    assert comparison.largest_difference is not None
    assert comparison.largest_difference <= 1e-12
    same_bits = scores.tobytes() == near.tobytes()
    assert (comparison.fingerprints["recorded"] == comparison.fingerprints["found"]) == same_bits


@given(scores_of_models, st.data(), st.floats(3e-12, 1e3), st.booleans())
def test_one_prediction_beyond_the_tolerance_makes_it_different(
    scores: Scores, data: st.DataObject, share: float, stored: bool
) -> None:
    place = tuple(data.draw(st.integers(0, size - 1)) for size in scores.shape)
    other = scores.copy()
    other[place] += share * max(1.0, abs(scores[place]))
    recorded, found = (replace(FIT, scores=which) for which in (scores, scores if stored else other))
    comparison = compare(recorded, found, other if stored else scores)
    assert comparison.result is Result.DIFFERENT
    assert comparison.largest_difference == pytest.approx(share, rel=0.1)


def test_another_bit_of_the_same_bytes_is_equivalent_and_not_identical() -> None:
    found = replace(FIT, scores=np.nextafter(SCORES, 1))
    assert compare(FIT, found, SCORES).result is Result.EQUIVALENT


def test_equal_predictions_of_other_bytes_are_equivalent() -> None:
    found = replace(FIT, artifact_digest="sha256:2f")
    comparison = compare(FIT, found, SCORES)
    assert (comparison.result, comparison.largest_difference) == (Result.EQUIVALENT, 0.0)
    assert named(FIT, found) == {"/artifact_digest": ("sha256:1f", "sha256:2f")}


@pytest.mark.parametrize("scores", [np.zeros((2, 3)), np.full((2, 2), np.nan), np.full((2, 2), np.inf)])
def test_predictions_of_another_shape_or_that_are_no_numbers_are_different(scores: Scores) -> None:
    comparison = compare(FIT, replace(FIT, scores=scores), SCORES)
    assert (comparison.result, comparison.largest_difference) == (Result.DIFFERENT, None)


def test_a_difference_is_absolute_for_small_numbers_and_relative_for_great_ones() -> None:
    assert largest_difference(np.array([[0.001]]), np.array([[0.003]])) == pytest.approx(0.002)
    assert largest_difference(np.array([[1000.0]]), np.array([[1002.0]])) == pytest.approx(0.002)


def test_what_differs_is_named_with_both_values() -> None:
    environment = ENVIRONMENT | {
        "numpy": "2.5.0",
        "blas": {"numpy": "openblas 0.3.31", "scipy": "mkl 2026.0"},
        "cpu": ["AVX2"],
        "threads": 2,
        "source": "sha256:bb",
    }
    configuration = CONFIGURATION | {"params": {"alpha": 2.0}}
    found = replace(FIT, environment=environment, configuration=configuration, runtime="native")
    assert named(FIT, found) == {
        "/configuration/params/alpha": (1.0, 2.0),
        "/runtime": ("compiled", "native"),
        "/environment/numpy": ("2.4.6", "2.5.0"),
        "/environment/blas/scipy": ("openblas 0.3.30", "mkl 2026.0"),
        "/environment/cpu": (["AVX2", "FMA3"], ["AVX2"]),
        "/environment/threads": (1, 2),
        "/environment/source": ("sha256:aa", "sha256:bb"),
    }


def test_what_an_older_release_did_not_record_is_not_compared() -> None:
    recorded = replace(FIT, environment={"python": "3.11.7", "numpy": "2.4.5"}, scores=None)
    comparison = compare(recorded, FIT, None)
    assert comparison.result is Result.IDENTICAL
    assert [one["pointer"] for one in comparison.differences] == ["/environment/numpy"]
    assert comparison.not_compared == [
        "predictions: the version has no probe; it was made by an older release",
        *(f"environment: {name} was not recorded" for name in ("blas", "cpu", "threads", "source")),
    ]
    other = replace(FIT, artifact_digest="sha256:2f")
    assert compare(recorded, other, None).result is Result.DIFFERENT


def test_a_model_of_other_columns_is_different() -> None:
    found = replace(FIT, signature=SIGNATURE.model_copy(update={"classes": (True, False)}), scores=None)
    comparison = compare(FIT, found, None)
    assert comparison.result is Result.DIFFERENT
    assert [one["pointer"] for one in comparison.differences] == ["/signature"]
    assert "other columns" in comparison.not_compared[0]


def test_a_stored_model_that_cannot_be_read_here_is_told() -> None:
    comparison = compare(FIT, replace(FIT), "AttributeError: no such class")
    assert comparison.result is Result.IDENTICAL
    assert comparison.not_compared == ["predictions of the stored model: AttributeError: no such class"]
    assert comparison.fingerprints["stored"] is None


def test_the_digest_of_json_does_not_depend_on_the_order_of_its_fields() -> None:
    assert digest_json({"a": 1, "b": [2.5, "ü"]}) == digest_json({"b": [2.5, "ü"], "a": 1})
    assert digest_json({"a": 1}) != digest_json({"a": 2})


def test_the_spec_without_its_search_fits_the_configuration_that_it_chose() -> None:
    spec = TrainingSpec.model_validate(
        {"target": "late", "search": {"seconds": 5}, "calibration": "sigmoid", "seed": 7}
    )
    configuration = {
        "algorithm": "ridge",
        "params": {"alpha": 2.0},
        "preparation": {"numeric": {"scale": "robust"}},
    }
    fixed = without_search(spec, configuration)
    assert (fixed.algorithm, fixed.params, fixed.search) == ("ridge", {"alpha": 2.0}, None)
    assert fixed.preparation.model_dump(mode="json", exclude_unset=True) == configuration["preparation"]
    assert (fixed.calibration, fixed.seed, fixed.target) == ("sigmoid", 7, "late")
