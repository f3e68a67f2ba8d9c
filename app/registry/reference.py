"""What a model version saw: the distribution of every input column and of its own answers, as counts.

Live rows are later counted into the same cells, so that two short vectors are compared, never two data
sets. A column's cells are, in this order, its own ones and then two more: unknown category, and null.

- Numeric and datetime: about ten bins of equal counts. A value that many rows share (the zeros of a
  zero-inflated column) has a bin to itself. All beyond the range seen falls into two outer bins, empty in
  the reference: such values are the drift and must not hide in the tails.
- Text: as a number, that of the words in it which the model knows.
- Boolean and categorical: one cell a code; a single one where there are more than ``MAX_CELLS`` codes.
"""

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from app.registry.signature import Role, Signature, Task

BINS = 10
MAX_CELLS = 500
PREDICTION = "prediction"

Count = Annotated[int, Field(ge=0)]


class ColumnProfile(BaseModel):
    """One column's distribution, as counts in fixed cells, with the moments of a number or a time."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="The feature's name, or `prediction` for the model's own answer.")
    role: Role = Field(description="How the column enters the model; its cells are of that kind.")
    rows: Count = Field(description="Rows counted, with and without a value.")
    nulls: Count = Field(description="Rows without a value.")
    unknown: Count = Field(description="Rows whose category is not one of the signature's.")
    counts: tuple[Count, ...] = Field(
        description="Rows in each bin (numeric, datetime), of false and of true (boolean), of each category "
        f"in code order (categorical), or of all of them where there are more than {MAX_CELLS}."
    )
    singletons: Count = Field(
        description="Rows alone in their category, or alone at the minimum or maximum: each would have been "
        "new to the column, had it been left out. As many are new in fresh rows without any drift."
    )
    edges: tuple[float, ...] | None = Field(
        default=None,
        description="Bin i holds edges[i-1] <= value < edges[i]; the first and last bin are open. Numeric "
        "and datetime (seconds since 1970) columns only.",
    )
    categories: Count | None = Field(default=None, description="Known codes: 2 for a boolean column.")
    minimum: float | None = Field(default=None, description="Smallest value (numeric, datetime).")
    maximum: float | None = Field(default=None, description="Largest value.")
    mean: float | None = Field(default=None, description="Arithmetic mean.")
    std: float | None = Field(default=None, description="Population standard deviation.")

    @property
    def cells(self) -> NDArray[np.int64]:
        """The reference rows in the column's cells, shape (len(counts) + 2,)."""
        return np.array([*self.counts, self.unknown, self.nulls], dtype=np.int64)

    def count(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Count other rows of the column, shape (n,), into its cells, shape (len(counts) + 2,)."""
        if self.edges is not None:
            return _count_bins(values, np.array(self.edges))
        return _count_codes(values, self.categories or 0)


class ReferenceProfile(BaseModel):
    """The reference that a model version's live rows are compared with."""

    model_config = ConfigDict(frozen=True)

    columns: tuple[ColumnProfile, ...] = Field(description="One for each feature, in signature order.")
    prediction: ColumnProfile = Field(
        description="The model's answers: the positive class's probability (binary), the index of the "
        "predicted class (multiclass) or the predicted value (regression)."
    )


def build_reference(
    signature: Signature, matrix: NDArray[np.float64], scores: NDArray[np.float64]
) -> ReferenceProfile:
    """Profile the ``matrix``, shape (n, width), and the model's ``scores``, shape (m,).

    ``scores`` are the positive class's probability (binary), the index of the predicted class
    (multiclass) or the predicted value (regression). Take them from rows that the model was not fitted
    on (so m may differ from n): a forest is surer of its own training rows than of any others, and that
    would look like drift. A value that is not finite counts as null.

    Raises ValueError where the matrix has not the signature's number of columns.
    """
    columns = tuple(
        _profile(feature.name, feature.role, values, len(feature.categories or ()))
        for feature, values in zip(signature.features, signature.summarized(matrix), strict=True)
    )
    multiclass = signature.task is Task.MULTICLASS
    role = Role.CATEGORICAL if multiclass else Role.NUMERIC
    prediction = _profile(PREDICTION, role, scores, len(signature.classes or ()))
    return ReferenceProfile(columns=columns, prediction=prediction)


def _profile(name: str, role: Role, values: NDArray[np.float64], categories: int) -> ColumnProfile:
    if role in (Role.NUMERIC, Role.DATETIME, Role.TEXT):
        return _profile_numbers(name, role, values)
    if role is Role.BOOLEAN:
        categories = 2
    *counts, unknown, nulls = _count_codes(values, categories).tolist()
    _, repeats = np.unique(values[(values >= 0) & (values < categories)], return_counts=True)
    return ColumnProfile(
        name=name,
        role=role,
        rows=len(values),
        nulls=nulls,
        unknown=unknown,
        counts=counts,
        singletons=int(np.count_nonzero(repeats == 1)),
        categories=categories,
    )


def _profile_numbers(name: str, role: Role, values: NDArray[np.float64]) -> ColumnProfile:
    present = np.sort(values[np.isfinite(values)])
    edges = _bin_edges(present)
    *counts, unknown, _ = _count_bins(present, edges).tolist()  # of sorted values at a third of the cost
    extremes = present[[0, -1]].tolist() if len(present) else [None, None]
    # Scaled, so that the sums of a column of the largest floats stay finite.
    scale = float(np.max(np.abs(present), initial=0.0)) or 1.0
    return ColumnProfile(
        name=name,
        role=role,
        rows=len(values),
        nulls=len(values) - len(present),
        unknown=unknown,
        counts=counts,
        singletons=sum(np.count_nonzero(present == extreme) == 1 for extreme in {*extremes} - {None}),
        edges=edges.tolist(),
        minimum=extremes[0],
        maximum=extremes[1],
        mean=scale * float(np.mean(present / scale)) if len(present) else None,
        std=scale * float(np.std(present / scale)) if len(present) else None,
    )


def _bin_edges(present: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of sorted values: deciles, both sides of one that fills half a bin, both ends of the range."""
    if not len(present):
        return present
    bins = min(BINS, max(1, len(present) // 5))
    firsts = np.flatnonzero(np.append(True, present[1:] != present[:-1]))
    distinct, repeats = present[firsts], np.diff(firsts, append=len(present))
    deciles = np.unique(present[np.arange(1, bins) * len(present) // bins])
    starts = distinct if len(distinct) <= bins else deciles
    frequent = starts[repeats[np.searchsorted(distinct, starts)] >= len(present) / (2 * bins)]
    ends = [math.nextafter(value, math.inf) for value in (*frequent.tolist(), float(present[-1]))]
    edges: NDArray[np.float64] = np.unique(np.concatenate([present[:1], starts, ends]))
    return edges[: np.count_nonzero(np.isfinite(edges))]


def _count_bins(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    present = values[np.isfinite(values)]
    bins = np.searchsorted(edges, present, side="right")
    counts = np.bincount(bins, minlength=len(edges) + 1).tolist()
    return np.array([*counts, 0, len(values) - len(present)], dtype=np.int64)


def _count_codes(values: NDArray[np.float64], categories: int) -> NDArray[np.int64]:
    codes = values[(values >= 0) & (values < categories)].astype(np.int64)
    nulls = len(values) - int(np.count_nonzero(np.isfinite(values)))
    cells = np.zeros_like(codes) if categories > MAX_CELLS else codes
    counts = np.bincount(cells, minlength=1 if categories > MAX_CELLS else categories).tolist()
    return np.array([*counts, len(values) - len(codes) - nulls, nulls], dtype=np.int64)
