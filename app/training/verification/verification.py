"""Holding a fit against an earlier one of the same data, spec and seed.

Pure: what was recorded of the one and found of the other goes in, what they have in common comes out.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.registry.signature import Signature
from app.training.differences import find_differences
from app.training.spec import TrainingSpec

TOLERANCE = 1e-12
"""Answers that differ by no more, absolutely or in proportion, are those of an equivalent model."""


class Result(StrEnum):
    IDENTICAL = "identical"
    EQUIVALENT = "equivalent"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Fit:
    """What is known of a fitted model.

    ``artifact_digest`` is that of its stored bytes. ``scores`` are its answers to the rows of the version's
    probe, of shape (rows, classes) or (rows, 1), or None where it has not been asked.
    """

    artifact_digest: str
    scores: NDArray[np.float64] | None
    configuration: Mapping[str, Any]
    signature: Signature
    runtime: str
    environment: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FitComparison:
    """How two fits compare.

    ``fingerprints`` are those of the predictions for the rows of the probe: as they were ``recorded``, as the
    ``stored`` model makes them now, and as the ``found`` one does; where they are equal, so is every bit.
    ``largest_difference`` is that of the other two from the recorded ones: see the function of this name.
    ``differences`` name by JSON pointer what else is not the same, with both values; ``not_compared`` says
    in words what could not be compared.
    """

    result: Result
    fingerprints: dict[str, str | None]
    largest_difference: float | None
    differences: list[dict[str, Any]]
    not_compared: list[str]


def compare(recorded: Fit, found: Fit, stored: NDArray[np.float64] | str | None) -> FitComparison:
    """Hold what a retraining found against what is recorded of the version.

    ``stored`` are the scores that the stored model gives the rows of the probe now, or why it gives none.
    Without a probe, the artifacts alone decide: other bytes may be an equivalent model, which then nobody
    can tell from a different one.
    """
    not_compared = []
    largest = None
    same = recorded.artifact_digest == found.artifact_digest
    answers = {"recorded": recorded.scores, "stored": stored, "found": found.scores}
    known = [scores for scores in answers.values() if isinstance(scores, np.ndarray)]
    fingerprints = {name: _fingerprint(scores) for name, scores in answers.items()}
    if recorded.scores is None:
        not_compared.append("predictions: the version has no probe; it was made by an older release")
        result = Result.IDENTICAL if same else Result.DIFFERENT
    elif found.scores is None:
        not_compared.append("predictions: the retrained model takes other columns, or has other classes")
        result = Result.DIFFERENT
    else:
        if isinstance(stored, str):
            not_compared.append(f"predictions of the stored model: {stored}")
        largest = _largest(recorded.scores, known)
        if same and len({fingerprint for fingerprint in fingerprints.values() if fingerprint}) == 1:
            result = Result.IDENTICAL
        elif largest is not None and largest <= TOLERANCE:
            result = Result.EQUIVALENT
        else:
            result = Result.DIFFERENT
    unknown = [name for name in found.environment if name not in recorded.environment]
    not_compared += [f"environment: {name} was not recorded" for name in unknown]
    before, now = (_describe(fit, without=unknown) for fit in (recorded, found))
    differences = [
        {"pointer": at, "recorded": one, "found": other} for at, one, other in find_differences(before, now)
    ]
    return FitComparison(result, fingerprints, largest, differences, not_compared)


def largest_difference(recorded: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    """The largest |found - recorded| / max(1, |recorded|) of two arrays.

    That is the absolute difference of probabilities and small numbers, and the relative one of great
    numbers. None where the shapes differ, or a number is not finite.
    """
    if recorded.shape != found.shape:
        return None
    apart = np.abs(found - recorded) / np.maximum(1.0, np.abs(recorded))
    largest = float(apart.max(initial=0.0))
    return largest if np.isfinite(largest) else None


def _largest(recorded: NDArray[np.float64], others: list[NDArray[np.float64]]) -> float | None:
    largest = 0.0
    for scores in others:
        apart = largest_difference(recorded, scores)
        if apart is None:
            return None
        largest = max(largest, apart)
    return largest


def digest_json(value: Any) -> str:
    """``sha256:…`` of a value's JSON with sorted keys and no spaces, in UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def without_search(spec: TrainingSpec, configuration: Mapping[str, Any]) -> TrainingSpec:
    """The spec of the same fit with the outcome of the search in its place."""
    stated = spec.model_dump(mode="json", exclude_unset=True)
    return TrainingSpec.model_validate(stated | {"search": None} | dict(configuration))


def _fingerprint(scores: NDArray[np.float64] | str | None) -> str | None:
    """A digest of the numbers' bits, in rows, least significant byte first, and of their shape."""
    if not isinstance(scores, np.ndarray):
        return None
    digest = hashlib.sha256(f"{scores.shape}\n".encode())
    digest.update(np.ascontiguousarray(scores, "<f8").tobytes())
    return f"sha256:{digest.hexdigest()}"


def _describe(fit: Fit, *, without: list[str]) -> dict[str, Any]:
    return {
        "artifact_digest": fit.artifact_digest,
        "configuration": fit.configuration,
        # Of a wide table it is long, and a receipt is to be short.
        "signature": digest_json(fit.signature.model_dump(mode="json")),
        "runtime": fit.runtime,
        "environment": {name: value for name, value in fit.environment.items() if name not in without},
    }
