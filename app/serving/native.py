"""Versions that are served by scikit-learn itself."""

import io

import joblib
import numpy as np
from numpy.typing import NDArray

from app.registry.predictor import predict
from app.registry.signature import Signature
from app.serving.compile import feature_names
from app.serving.compiled import Steps


class NativeScorer:
    """A fitted pipeline; ``artifact`` is a pickle that this installation wrote."""

    def __init__(self, artifact: bytes, signature: Signature) -> None:
        self._pipeline = joblib.load(io.BytesIO(artifact))
        self._signature = signature

    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of shape (n, classes), or values of shape (n, 1)."""
        values, probabilities = predict(self._pipeline, self._signature, matrix)
        return values[:, None] if probabilities is None else probabilities

    def steps(self, matrix: NDArray[np.float64]) -> Steps:
        """What scikit-learn's own steps make of one row; it tells no raw scores."""
        prepare = self._pipeline[:-1]
        names = feature_names(self._pipeline, self._signature)
        if "select" in self._pipeline.named_steps:
            names = [names[place] for place in prepare.named_steps["select"].get_support(indices=True)]
        return Steps(dict(zip(names, prepare.transform(matrix)[0].tolist(), strict=True)), [])
