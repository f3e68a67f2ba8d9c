"""A model version in memory: what it takes, and the scorer that answers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.errors import AppError
from app.registry.models import ModelVersion
from app.registry.signature import Signature
from app.serving.batching import Batches
from app.serving.compiled import CompiledScorer
from app.serving.protocols.arrow_rows import BatchEncoder
from app.serving.rows import RowReader
from app.serving.scorers import Scorer, open_scorer
from app.store import Store, StoreFault


class VersionNotServable(AppError):
    """The version's artifact cannot be read (503)."""

    status = 503


@dataclass(frozen=True)
class LoadedVersion:
    id: int
    model: str
    number: int
    signature: Signature
    scorer: Scorer

    @cached_property
    def compiled(self) -> CompiledScorer | None:
        """The scorer where it takes microseconds a row and needs no thread."""
        return self.scorer if isinstance(self.scorer, CompiledScorer) else None

    @cached_property
    def reader(self) -> RowReader:
        return RowReader(self.signature)

    @cached_property
    def batch_encoder(self) -> BatchEncoder:
        return BatchEncoder(self.signature)

    @cached_property
    def batches(self) -> Batches:
        return Batches(self.scorer.score)

    @cached_property
    def label_texts(self) -> list[bytes]:
        """The classes as JSON, in the order of the probabilities; empty for a regression."""
        return [msgspec.json.encode(label) for label in self.signature.classes or ()]

    def labels(self, scores: NDArray[np.float64]) -> list[Any]:
        """Each row's prediction: the value, or the class that the signature's costs choose."""
        answers: list[Any] = self.signature.decide(scores).tolist()
        classes = self.signature.classes
        return answers if classes is None else [classes[index] for index in answers]


def load_version(row: ModelVersion, store: Store) -> LoadedVersion:
    """The version, loaded and warm. Raises VersionNotServable."""
    try:
        signature = Signature.model_validate(row.signature)
        # The store checks the digest against the registry's: these are bytes that a worker wrote.
        artifact = store.read(row.scorer_digest or row.artifact_digest)
        scorer = open_scorer(artifact, signature, compiled=row.scorer_digest is not None)
        version = LoadedVersion(row.id, row.model, row.number, signature, scorer)
        scorer.score(version.reader.encode([row.example]).matrix)  # warm before anybody waits for it
    except Exception as error:  # whatever another release's artifact raises, the other models go on
        reason = error.detail if isinstance(error, StoreFault) else f"{type(error).__name__}: {error}."
        raise VersionNotServable(
            "version_not_loadable",
            f"Version {row.number} of model {row.model!r} cannot be loaded. {reason}",
        ) from error
    return version
