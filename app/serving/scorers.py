"""What answers for a model version: its compiled form, or else scikit-learn. Knows no database and no web."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.registry.signature import Signature
from app.serving.compiled import CompiledScorer, Steps


class Scorer(Protocol):
    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, features) → (n, classes) probabilities, or (n, 1) values of a regression.

        A row's scores are the same bits in every batch.
        """

    def steps(self, matrix: NDArray[np.float64]) -> Steps:
        """What one row, of shape (1, features), becomes on its way to the answer."""


def open_scorer(artifact: bytes, signature: Signature, *, compiled: bool) -> Scorer:
    """The scorer of a stored artifact, which is a compiled pipeline or a pickle of this installation.

    Raises UnreadableScorer for a compiled pipeline that is damaged, and whatever unpickling raises.
    """
    if compiled:
        return CompiledScorer.from_bytes(artifact)
    from app.serving.native import NativeScorer  # scikit-learn is for those that need it

    return NativeScorer(artifact, signature)
