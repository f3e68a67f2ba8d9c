"""How far a column's distribution is from that of a reference version, counted in the same cells."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, sqrt

from pydantic import BaseModel

from app.datasets.contract import DriftMeasure

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

    The Jensen-Shannon distance to base 2 (Lin, IEEE Trans. Inf. Theory 37, 1991) or the population stability
    index, of which half a row is added to each cell: it diverges at an empty one. Without drift, both the
    index and 8 ln 2 times the square of the distance are 1/n + 1/m times a chi-squared variable of one
    degree of freedom less than there are cells (Taylor's expansion; for the index: Yurdakul, Statistical
    Properties of Population Stability Index, 2018). Its mean is subtracted from what is returned.
    """
    from scipy.special import chdtrc  # a process that checks no drift does without its memory

    cells = sorted(reference.keys() | counts.keys())
    n, m = sum(reference.values()), sum(counts.values())
    freedom = len(cells) - 1
    if not freedom or not n or not m:
        return 0.0, 1.0
    noise = 1 / n + 1 / m
    if measure is DriftMeasure.PSI:
        added = 0.5 * len(cells)
        shares = [
            ((reference.get(c, 0) + 0.5) / (n + added), (counts.get(c, 0) + 0.5) / (m + added)) for c in cells
        ]
        index = sum((p - q) * log(p / q) for p, q in shares)
        return max(0.0, index - freedom * noise), float(chdtrc(freedom, index / noise))
    noise /= 8 * log(2)
    shares = [(reference.get(c, 0) / n, counts.get(c, 0) / m) for c in cells]
    divergence = sum(x * log(2 * x / (p + q), 2) / 2 for p, q in shares for x in (p, q) if x)
    excess = divergence - freedom * noise
    return sqrt(max(0.0, excess)), float(chdtrc(freedom, max(0.0, divergence) / noise))
