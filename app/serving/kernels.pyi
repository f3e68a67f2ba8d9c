"""The inner loops of serving, in C: cells from values, scores from cells."""

from collections.abc import Callable
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

VALUE: Final[int]
MISSING: Final[int]
TIME: Final[int]
ONE_HOT: Final[int]
CURVE: Final[int]
LOOKUP: Final[int]
PRODUCT: Final[int]

IDENTITY: Final[int]
LOGISTIC: Final[int]
SOFTMAX: Final[int]
SIGMOIDS: Final[int]

SPLIT: Final[int]
MISSING_LEFT: Final[int]
FEATURE_SHIFT: Final[int]

_Coder = Literal["integer"] | dict[Any, float] | Callable[[Any], float] | None
"""How a value becomes a cell: as the number (or boolean) that it is, as a whole number, by a look-up that
gives -1 for what it does not hold, or by a call. The reader of the values has settled their JSON types: a
look-up takes 1 for true."""

@final
class Scorer:
    """A flattened pipeline; see ``CompiledPipeline`` for what its arrays hold.

    Raises ValueError for arrays that do not fit together.
    """

    @property
    def adds_steps(self) -> bool:
        """Whether a row takes as long as its cells, however many features they make: one linear score."""

    def __new__(
        cls,
        *,
        columns: int,
        features: int,
        width: int,
        steps: NDArray[np.int32],
        numbers: NDArray[np.float64],
        places: NDArray[np.int32],
        bound: float,
        weights: NDArray[np.float64] | None,
        initial: NDArray[np.float64],
        nodes: NDArray[np.void] | None,
        roots: NDArray[np.uint32] | None,
        leaves: NDArray[np.float64] | None,
        divisor: float,
        single: bool,
        link: int,
        sigmoids: NDArray[np.float64] | None,
        classes: NDArray[np.int32],
    ) -> Scorer: ...
    def row(self, cells: bytes, /) -> tuple[float, ...]:
        """The answer for one row of float64 cells: ``width`` numbers."""

    def matrix(self, matrix: NDArray[np.float64], out: NDArray[np.float64], /) -> None:
        """Write the answers for a float64 matrix (n, columns) to ``out`` (n, width)."""

    def raw(self, matrix: NDArray[np.float64], out: NDArray[np.float64], /) -> None:
        """Write the scores before the link to ``out`` (n, scores)."""

    def prepare(self, matrix: NDArray[np.float64], out: NDArray[np.float64], /) -> None:
        """Write the prepared features to ``out`` (n, features)."""

def yeo_johnson(matrix: NDArray[np.float64], lambdas: NDArray[np.float64], /) -> None:
    """Transform each column of ``matrix`` (n, columns) in place by the power of its lambda (columns,).

    The results are held within ±1e100; NaN stays. Raises ValueError for other shapes.
    """

def encode_row(values: tuple[Any, ...], coders: tuple[_Coder, ...], /) -> bytes:
    """The float64 cells of one row; None becomes NaN, values beyond the coders are ignored.

    Raises ValueError for a value that its coder does not take, such as a number that is not finite.
    """

def encode_rows(rows: list[tuple[Any, ...]], coders: tuple[_Coder, ...], /) -> bytes:
    """The cells of each row as of ``encode_row``, one row after the other."""

@final
class TextCodes:
    """The codes of texts: their places in a tuple of UTF-8 texts, in which None is no text."""

    def __new__(cls, texts: tuple[bytes | None, ...], /) -> TextCodes: ...
    def find(self, text: bytes, bounds: NDArray[np.int64], out: NDArray[np.float64], /) -> None:
        """Write to ``out`` (n,) the code of each text, or -1 for one that is not known.

        ``bounds`` (n, 2) says where in ``text`` each begins and ends; one that lies outside is not known.
        """

def encode_batch(
    body: memoryview,
    nodes: NDArray[np.void],
    buffers: NDArray[np.void],
    rows: int,
    coders: tuple[tuple[str, int, Literal["integer"] | TextCodes | None, bool], ...],
    width: int,
    /,
) -> bytes | None:
    """The float64 cells of a record batch of Arrow, shape (rows, width), row by row; null becomes NaN.

    ``nodes`` and ``buffers`` are the pairs of int64 in its metadata. Each column has a coder: the format
    string of its type in Arrow's C data interface, one of cCsSiIlLgbuU, ``tdD`` and ``tsu:``; the place of
    its cells in a row, or -1 where it is only checked; how its values become cells, as for ``encode_row``;
    whether it may hold nulls. A place that no column has is null.

    None for a batch that is damaged, that holds a value which JSON could not say, or whose cells take more
    than arithmetic. Raises ValueError for coders that do not fit.
    """

def base32(raw: bytes, /) -> str:
    """RFC 4648 base32 in lower case of bytes whose length is a multiple of 5; other lengths: ValueError."""
