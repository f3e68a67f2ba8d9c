"""What is answered: the scores of a request's rows, and their forms."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.background import BackgroundTask

from app.columns import ColumnType, Value
from app.serving.labels import probability_columns
from app.serving.live import Target
from app.serving.prediction_ids import ID_LENGTH, split_ids
from app.serving.protocols.arrow_ipc import (
    END_OF_STREAM,
    Written,
    arrow_type,
    write_batch,
    write_column,
    write_start,
)
from app.serving.protocols.columns import Column, Kind, Values


class Answer:
    """Scores of a request's rows, recorded under ``ids``, one behind the other.

    ``scores``: probabilities of shape (n, classes), or values of shape (n, 1).
    """

    def __init__(self, target: Target, scores: NDArray[np.float64], ids: str) -> None:
        self.target = target
        self.scores = scores
        self.ids = ids
        self.background: BackgroundTask | None = None
        """What is left to do once the answer is sent."""

    @property
    def size(self) -> int:
        return len(self.scores)

    @cached_property
    def prediction_ids(self) -> list[str]:
        return split_ids(self.ids)

    @cached_property
    def predictions(self) -> list[Any]:
        return self.target.version.labels(self.scores)

    @property
    def probabilities(self) -> list[list[float]] | None:
        return None if self.target.version.signature.classes is None else self.scores.tolist()

    @cached_property
    def body(self) -> bytes:
        """The JSON of ``/v1/models/{model}:predict``."""
        if self.target.version.signature.classes is None:
            return answer_body(self.target, msgspec.json.encode(self.predictions), None, self.ids)
        version = self.target.version
        chosen = version.signature.decide(self.scores).tolist()
        labels = b",".join([version.label_texts[index] for index in chosen])
        shares = msgspec.json.encode(self.probabilities)
        return answer_body(self.target, b"[%b]" % labels, shares, self.ids)

    @cached_property
    def stream(self) -> bytes:
        """The answer as an Arrow stream of one batch."""
        return b"".join((self.schema, self.batch, END_OF_STREAM))

    @property
    def schema(self) -> bytes:
        """The begin of that stream; its metadata says whose answer it is."""
        target = self.target
        if not target.schema:
            target.schema = _write_schema(target)
        return target.schema

    @property
    def batch(self) -> bytes:
        """The columns of an answer in Arrow: ``prediction``, ``probability_<class>``, ``prediction_id``."""
        signature = self.target.version.signature
        columns = [Written(0, (b"", scores.tobytes())) for scores in self.scores.T]
        if signature.classes is not None:
            labels = _labels(signature.classes, signature.target_type)
            columns.insert(0, write_column(Column(labels, signature.decide(self.scores)).plain()))
        bounds = np.arange(0, len(self.ids) + 1, ID_LENGTH)
        columns.append(Written(0, (b"", bounds.tobytes(), self.ids.encode())))
        return write_batch(self.size, columns)


def _write_schema(target: Target) -> bytes:
    version = target.version
    classes, type_ = version.signature.classes, version.signature.target_type
    types = {"prediction": "float64" if classes is None else arrow_type(_labels(classes, type_))}
    types |= dict.fromkeys(probability_columns(classes or ()), "float64")
    types["prediction_id"] = "large_utf8"
    variant = str(target.variant or "")
    return write_start(types, {"model": version.model, "version": str(version.number), "variant": variant})


def answer_body(target: Target, predictions: bytes, probabilities: bytes | None, ids: str) -> bytes:
    """The JSON of an answer, of the JSON of its parts."""
    shares = b""
    if probabilities is not None:
        shares = b',"probabilities":%b,"classes":%b' % (probabilities, target.classes_text)
    return b'{"predictions":%b%b,"prediction_ids":["%b"],%b' % (
        predictions,
        shares,
        '","'.join(split_ids(ids)).encode(),
        target.name_text,
    )


LABEL_TYPES: dict[ColumnType, tuple[Kind, Any]] = {
    ColumnType.BOOLEAN: (Kind.BOOLEAN, np.bool_),
    ColumnType.INTEGER: (Kind.INTEGER, np.int64),
    ColumnType.NUMBER: (Kind.FLOAT, np.float64),
}


def _labels(classes: Sequence[Value], type_: ColumnType) -> Values:
    if type_ not in LABEL_TYPES:
        return _texts([str(label) for label in classes])
    kind, dtype = LABEL_TYPES[type_]
    return Values(kind, np.ones(len(classes), np.bool_), np.array(classes, dtype))


def _texts(texts: Sequence[str]) -> Values:
    together = "".join(texts)
    encoded = texts if together.isascii() else [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in encoded])
    bounds = np.stack((np.append(0, ends[:-1]), ends), axis=1)
    return Values(Kind.TEXT, np.ones(len(texts), np.bool_), bounds, together.encode())
