"""How far a column's distribution is from that of a reference version, counted in the same cells."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, sqrt

import numpy as np
import scipy  # loads its parts when they are first used
from pydantic import BaseModel

from app.datasets.contracts.rules import DriftMeasure
from app.divergence import divergence_of, sampling_unit

CHANCE = 0.001
"""A distance is farther than a bound only if sampling alone shows as much less often than this."""
NULL_CELL = -1


class ReferenceCells(BaseModel):
    """A reference column's counts by cell: numbers by ascending ``edges``, others by frequent ``values``.

    Cell 0 is of numbers up to the first edge and of other values; null has the cell -1.
    """

    edges: list[int | float] | None = None
    values: list[bool | str] | None = None
    counts: dict[int, int] = {}


def measure_distance(
    measure: DriftMeasure, reference: Mapping[int, int], counts: Mapping[int, int]
) -> tuple[float, float]:
    """The distance of two samples' counts by cell, and the p-value of that there is none.

    The Jensen-Shannon distance (``app.divergence``) or the population stability index, of which half a row is
    added to each cell: it diverges at an empty one. Without drift, the index is 1/n + 1/m times a chi-squared
    variable of one degree of freedom less than there are cells (Yurdakul, Statistical Properties of
    Population Stability Index, 2018). Its mean, or that of the distance's square, is subtracted from what is
    returned.
    """
    cells = sorted(reference.keys() | counts.keys())
    n, m = sum(reference.values()), sum(counts.values())
    freedom = len(cells) - 1
    if not freedom or not n or not m:
        return 0.0, 1.0
    if measure is DriftMeasure.PSI:
        noise = 1 / n + 1 / m
        added = 0.5 * len(cells)
        shares = [
            ((reference.get(c, 0) + 0.5) / (n + added), (counts.get(c, 0) + 0.5) / (m + added)) for c in cells
        ]
        index = sum((p - q) * log(p / q) for p, q in shares)
        return max(0.0, index - freedom * noise), float(scipy.special.chdtrc(freedom, index / noise))
    held = np.array([[sample.get(c, 0) for c in cells] for sample in (reference, counts)], dtype=np.float64)
    divergence, unit = divergence_of(held / held.sum(axis=1, keepdims=True)), sampling_unit(n, m)
    return sqrt(max(0.0, divergence - freedom * unit)), float(
        scipy.special.chdtrc(freedom, divergence / unit)
    )
