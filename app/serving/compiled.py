"""Compiled pipelines: their plain stored form, arrays and JSON, and the scorer over it.

Nothing here imports scikit-learn or unpickles.
"""

import io
import json
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from app.serving.kernels import TIME, Scorer

FORMAT = 2

TIME_PARTS = (
    "year",
    "quarter",
    "month",
    "week",
    "day",
    "day_of_year",
    "weekday",
    "hour",
    "minute",
    "elapsed",
)
"""What the kernel's TIME can make of a time, in the order of its numbers for them."""

NODE = np.dtype([("threshold", "<f8"), ("feature", "<u4"), ("left", "<u4")])

_ARRAYS: dict[str, np.dtype[Any]] = {
    "steps": np.dtype("<i4"),
    "numbers": np.dtype("<f8"),
    "places": np.dtype("<i4"),
    "weights": np.dtype("<f8"),
    "initial": np.dtype("<f8"),
    "nodes": NODE,
    "roots": np.dtype("<u4"),
    "leaves": np.dtype("<f8"),
    "sigmoids": np.dtype("<f8"),
    "classes": np.dtype("<i4"),
}


class UnreadableScorer(ValueError):
    """The bytes are not a compiled pipeline that this release reads."""


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPipeline:
    """A fitted pipeline as steps and arrays; constants and node bits are those of ``kernels``.

    ``columns`` cells of a row become the features ``names``, held within ±``bound``, by way of ``steps``:
    rows of (kind, column, first feature, where its numbers or places begin, how many). VALUE takes three
    ``numbers``, what stands for null, mean and scale; MISSING mean and scale. CURVE takes eight: what stands
    for null, the least and the greatest value, the lambda of Yeo and Johnson's power or NaN, and what is
    then subtracted, divided by, multiplied by and added; TIME six for each part: its number in
    ``TIME_PARTS``, what stands for null, and the same four. LOOKUP takes a number, and ONE_HOT one
    of ``places``, the offset from the first feature or -1 for none, for null, for any other category, and
    for the categories 0, 1, …. PRODUCT takes two features that stand before it in place of the last two.

    Scores, one for each of ``initial``: a linear model sums feature times ``weights`` (features, scores),
    then adds ``initial``. Trees (``weights`` is None) begin with ``initial``, add a leaf of each and divide
    by ``divisor``: tree t adds its leaf's value to score t modulo scores, or, with ``leaves`` (n, scores),
    the row that its leaf numbers. ``roots`` are the trees' first nodes; ``single`` rounds features to
    float32.

    ``link`` makes outputs of scores, with SIGMOIDS by the logistic function of slope and intercept in
    ``sigmoids`` (scores, 2). Output i stands at ``classes[i]`` of the ``width`` numbers of an answer; the
    others are 0.
    """

    columns: int
    width: int
    names: tuple[str, ...]
    steps: NDArray[np.int32]
    numbers: NDArray[np.float64]
    places: NDArray[np.int32]
    bound: float
    initial: NDArray[np.float64]
    link: int
    classes: NDArray[np.int32]
    weights: NDArray[np.float64] | None = None
    nodes: NDArray[np.void] | None = None
    roots: NDArray[np.uint32] | None = None
    leaves: NDArray[np.float64] | None = None
    divisor: float = 1.0
    single: bool = False
    sigmoids: NDArray[np.float64] | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that there are, each of its type and row after row."""
        return {
            name: np.ascontiguousarray(array, dtype)
            for name, dtype in _ARRAYS.items()
            if (array := getattr(self, name)) is not None
        }

    def to_bytes(self) -> bytes:
        """An ``.npz`` file: the arrays, and the rest as JSON. Equal pipelines give equal bytes."""
        structure = {"format": FORMAT} | {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in _ARRAYS
        }
        written = np.frombuffer(json.dumps(structure, sort_keys=True).encode(), np.uint8)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, structure=written, **self.arrays())
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What ``to_bytes`` wrote. Raises UnreadableScorer for damaged bytes and for another format's."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                structure = json.loads(file["structure"].tobytes())
                arrays = {name: file[name] for name in _ARRAYS if name in file}
            written = structure.pop("format")
            if written == 1:
                arrays |= _from_format_1(arrays["steps"], arrays["numbers"])
            pipeline = cls(**structure, **arrays) if written in (1, FORMAT) else None
        except Exception as error:  # whatever the readers of ZIP, arrays and JSON make of foreign bytes
            raise UnreadableScorer(f"not a compiled pipeline: {type(error).__name__}: {error}") from error
        if pipeline is None:
            raise UnreadableScorer(
                f"a compiled pipeline of format {written}; this release reads format {FORMAT}: train again"
            )
        for name, array in arrays.items():
            if array.dtype != _ARRAYS[name]:
                raise UnreadableScorer(f"not a compiled pipeline: {name} holds {array.dtype}")
        return pipeline


def _from_format_1(steps: NDArray[np.int32], numbers: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Its TIME made the same five parts of each time, with what stands for null, mean and scale for each."""
    parts = [float(TIME_PARTS.index(part)) for part in ("year", "month", "day", "weekday", "hour")]
    steps = steps.copy()
    for row in np.flatnonzero(steps[:, 0] == TIME).tolist():
        at = steps[row, 3]
        each = numbers[at : at + 15].reshape(5, 3)
        steps[row, 3:] = len(numbers), len(parts)
        scaled = np.column_stack((parts, each, np.ones(5), np.zeros(5)))
        numbers = np.concatenate((numbers, scaled.ravel()))
    return {"steps": steps, "numbers": numbers}


class Steps(NamedTuple):
    """What one row becomes on its way to the answer: prepared features by name, and the raw scores."""

    features: dict[str, float]
    raw: list[float]


class CompiledScorer:
    """Answers for rows: probabilities of each class of the signature, or the one value of a regression.

    ``row`` takes the float64 cells of one row as bytes and returns a tuple of floats. A row's answer is
    the same bits alone and in every batch.
    """

    def __init__(self, pipeline: CompiledPipeline) -> None:
        """Raises UnreadableScorer where the pipeline's parts do not fit together."""
        parts = {field.name: getattr(pipeline, field.name) for field in fields(pipeline)}
        self._names = parts.pop("names")
        try:
            self._kernel = Scorer(**parts | pipeline.arrays(), features=len(self._names))
        except (TypeError, ValueError, OverflowError) as error:
            raise UnreadableScorer(str(error)) from error
        self.is_quick = self._kernel.adds_steps
        """Whether a row takes a tenth of a microsecond, not some."""
        self._width = pipeline.width
        self._scores = len(pipeline.initial)
        self.row = self._kernel.row

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The scorer of a stored pipeline. Raises UnreadableScorer."""
        return cls(CompiledPipeline.from_bytes(data))

    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The answers for a matrix of shape (n, columns), of shape (n, classes) or (n, 1)."""
        out = np.empty((len(matrix), self._width))
        self._kernel.matrix(np.ascontiguousarray(matrix), out)
        return out

    def steps(self, matrix: NDArray[np.float64]) -> Steps:
        """What one row, of shape (1, columns), becomes on its way to the answer."""
        row = np.ascontiguousarray(matrix)
        features, raw = np.empty((1, len(self._names))), np.empty((1, self._scores))
        self._kernel.prepare(row, features)
        self._kernel.raw(row, raw)
        return Steps(dict(zip(self._names, features[0].tolist(), strict=True)), raw[0].tolist())
