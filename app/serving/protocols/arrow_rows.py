"""Record batches of Arrow that are plain, encoded at once.

As with rows of JSON, the quick reader takes a part of what ``encode_columns`` takes and reads it alike;
whatever it does not take is for that to read or to refuse.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from app.registry.signature import Signature
from app.serving.protocols.arrow_ipc import Batch, Field
from app.serving.protocols.columns import Coder, coder_of


class BatchEncoder:
    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._width = signature.width
        self._coders = lru_cache(maxsize=16)(self._find_coders)

    def encode_plain(self, batch: Batch) -> NDArray[np.float64] | None:
        """The matrix of a batch, as of ``encode_columns``; None for what needs a closer look."""
        coders = self._coders(batch.fields)
        cells = None if coders is None else batch.encode(coders, self._width)
        return None if cells is None else np.frombuffer(cells).reshape(batch.rows, self._width)

    def _find_coders(self, fields: tuple[Field, ...]) -> tuple[Coder, ...] | None:
        """The coders of a batch's columns; None where one takes a closer look, or is missing."""
        signature = self._signature
        features = {feature.name: feature for feature in signature.features}
        places = dict(zip(features, signature.places, strict=True))
        coders: list[Coder] = []
        for field in fields:
            coder, format_ = None, field.format
            feature, place = features.pop(field.name, None), places.get(field.name)
            if format_ and feature is None and field.name in signature.ignored:
                coder = Coder(format_, -1, None, nullable=True)
            elif format_ and feature is not None and isinstance(place, int):
                coder = coder_of(feature, place, field.type.kind, format_)
            if coder is None:
                return None
            coders.append(coder)
        return tuple(coders) if all(feature.nullable for feature in features.values()) else None
