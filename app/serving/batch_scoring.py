"""Scoring a data version part by part, each into a Parquet file. Knows no database and no web.

A part's file has a row for each row of the data, in its order: ``row`` (from 0), ``prediction``, for
classifiers ``probability_<class>`` for each class, and ``model_version``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet
from numpy.typing import NDArray

from app.columns import ColumnType
from app.datasets.engine import Parquet
from app.registry.matrix import read_matrix
from app.registry.signature import Signature
from app.serving.labels import probability_columns

PART_ROWS = 50_000
PART_CELLS = 10_000_000
"""At most so many cells of the matrix, and so many scores, of 8 bytes each, are held at once."""
BLOCK_ROWS = 5_000
"""Rows between two reports, and the most that a pipeline makes copies of at once."""

ARROW_TYPES = {
    ColumnType.BOOLEAN: DataType.bool(),
    ColumnType.INTEGER: DataType.int64(),
    ColumnType.NUMBER: DataType.float64(),
    ColumnType.STRING: DataType.string(),
}


Matrix = NDArray[np.float64]


def plan_parts(signature: Signature, rows: int, start: int) -> Iterator[range]:
    """The rows of each part, from row ``start`` on."""
    width = max(1, signature.width, len(signature.classes or ()))
    size = max(1, min(PART_ROWS, PART_CELLS // width))
    for first in range(start, rows, size):
        yield range(first, min(first + size, rows))


def part_name(rows: range) -> str:
    """A name that sorts in the order of the rows and tells them: see ``part_rows``."""
    return f"{rows.start:012}-{rows.stop:012}.parquet"


def part_rows(path: Path) -> range:
    start, _, stop = path.stem.partition("-")
    return range(int(start), int(stop))


def score_part(
    parquet: Parquet,
    signature: Signature,
    score: Callable[[Matrix], Matrix],
    rows: range,
    told: Callable[[int], None],
) -> Matrix:
    """The scores of some rows of a data version, of shape (len(rows), classes or 1).

    ``score`` is a scorer's. Calls ``told`` with the number of the row before which all are scored, from
    time to time.
    """
    matrix = read_matrix(parquet, signature, rows)
    scores = np.empty((len(rows), len(signature.classes or (None,))))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        scores[block] = score(matrix[block])
        told(rows.start + min(block.stop, len(rows)))
    return scores


def write_part(path: Path, signature: Signature, version: int, rows: range, scores: Matrix) -> None:
    """Write the predictions for ``rows`` to the Parquet file ``path``, which appears whole."""
    columns: dict[str, Any] = {"row": Array.from_numpy(np.arange(rows.start, rows.stop, dtype=np.int64))}
    if signature.classes is None:
        columns["prediction"] = Array.from_numpy(np.ascontiguousarray(scores[:, 0]))
    else:
        labels = [signature.classes[index] for index in signature.decide(scores)]
        columns["prediction"] = Array(labels, type=ARROW_TYPES[signature.target_type])
        for name, shares in zip(probability_columns(signature.classes), scores.T, strict=True):
            columns[name] = Array.from_numpy(np.ascontiguousarray(shares))
    columns["model_version"] = Array.from_numpy(np.full(len(rows), version, dtype=np.int32))
    unfinished = path.with_suffix(".unfinished")
    write_parquet(Table.from_pydict(columns), str(unfinished), compression="zstd(3)")
    unfinished.rename(path)
