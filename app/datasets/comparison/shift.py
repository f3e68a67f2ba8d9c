"""Has a column's distribution shifted between two samples, by how much, and could that be chance?

In millions of rows any trifle is significant, and in a hundred a large effect may be noise. So a shift is
called where the effect is above a floor, and the p-value, corrected for the number of columns by Benjamini
and Hochberg (J. R. Stat. Soc. B 57, 1995), below alpha.

Numbers and times: the Kolmogorov-Smirnov test of two samples. The effect is its statistic, the largest gap
between the two distribution functions, from 0 to 1; a mean shift of a quarter of a standard deviation is
0.1. Null counts as the smallest value, so that a change of the share of nulls is a gap, too. Ties, of nulls
or of others, only make the test more careful (Noether, Ann. Math. Statist. 34, 1963).

Texts and booleans: Pearson's chi-squared test of homogeneity over the values, null being one of them. Values
that the smaller sample is expected to hold fewer than ``SPARSE`` times are one value, "rare". The effect is
the Jensen-Shannon distance to base 2 (``app.divergence``), 0 to 1; the mean of its square without a shift is
subtracted.

Two versions of a dataset share most of their rows, so they differ by less than two independent samples
would: p-values are too large then, never too small.
"""

from __future__ import annotations

from enum import StrEnum
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy  # loads its parts when they are first used
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from app.divergence import divergence_of, sampling_unit

if TYPE_CHECKING:
    from collections.abc import Mapping

ALPHA = 0.01
MINIMUM_EFFECT = 0.1
MINIMUM_ROWS = 50
SPARSE = 5.0


class ShiftStatus(StrEnum):
    OK = "ok"
    SHIFTED = "shifted"
    INSUFFICIENT_DATA = "insufficient_data"


class ShiftTest(StrEnum):
    KOLMOGOROV_SMIRNOV = "kolmogorov_smirnov"
    CHI_SQUARED = "chi_squared"


class Samples(NamedTuple):
    """A column's samples of the older and the newer version.

    Of numbers: the values, shapes (n,) and (m,), minus infinity where there is none. Of categories: how often
    each value occurs in either, shape (k,) both.
    """

    numeric: bool
    old: NDArray[np.float64]
    new: NDArray[np.float64]

    @property
    def sizes(self) -> tuple[int, int]:
        if self.numeric:
            return len(self.old), len(self.new)
        return int(self.old.sum()), int(self.new.sum())


class ColumnShift(BaseModel):
    """The verdict on one column, and what it rests on; null where there was nothing to test."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: ShiftStatus = Field(
        description="`shifted` where effect >= minimum_effect and p_adjusted <= alpha; `insufficient_data` "
        "where a sample is too small to say, or has too few values that repeat; else `ok`."
    )
    n_old: int = Field(description="Rows of the older version that were tested.")
    n_new: int = Field(description="Rows of the newer version that were tested.")
    effect: float | None = Field(
        None,
        description="Kolmogorov-Smirnov: the largest gap between the distribution functions. Chi-squared: "
        "the Jensen-Shannon distance, less its bias of small samples. Either is 0 (same) to 1 (disjoint).",
    )
    test: ShiftTest | None = None
    statistic: float | None = Field(None, description="The Kolmogorov-Smirnov distance, or chi-squared.")
    p_value: float | None = Field(None, description="Of such a difference between samples of one source.")
    p_adjusted: float | None = Field(None, description="After Benjamini-Hochberg over all columns tested.")


class _Evidence(NamedTuple):
    effect: float
    test: ShiftTest
    statistic: float
    p_value: float


def judge_shifts(columns: Mapping[str, Samples]) -> list[ColumnShift]:
    """The verdicts on columns, in their order.

    With fewer than ``MINIMUM_ROWS`` rows in either sample a column is `insufficient_data`, never `ok`.
    """
    found = {
        name: evidence
        for name, samples in columns.items()
        if min(samples.sizes) >= MINIMUM_ROWS and (evidence := _weigh(samples)) is not None
    }
    p_values = [evidence.p_value for evidence in found.values()]
    adjusted = scipy.stats.false_discovery_control(p_values).tolist() if p_values else []
    p_adjusted = dict(zip(found, adjusted, strict=True))
    return [
        _verdict(name, samples.sizes, found.get(name), p_adjusted.get(name))
        for name, samples in columns.items()
    ]


def _verdict(
    name: str, sizes: tuple[int, int], evidence: _Evidence | None, p_adjusted: float | None
) -> ColumnShift:
    n_old, n_new = sizes
    if evidence is None or p_adjusted is None:
        return ColumnShift(name=name, status=ShiftStatus.INSUFFICIENT_DATA, n_old=n_old, n_new=n_new)
    shifted = evidence.effect >= MINIMUM_EFFECT and p_adjusted <= ALPHA
    return ColumnShift(
        name=name,
        status=ShiftStatus.SHIFTED if shifted else ShiftStatus.OK,
        n_old=n_old,
        n_new=n_new,
        p_adjusted=p_adjusted,
        **evidence._asdict(),
    )


def _weigh(samples: Samples) -> _Evidence | None:
    if not samples.numeric:
        return _weigh_categories(np.array([samples.old, samples.new]))
    statistic, p_value = scipy.stats.ks_2samp(samples.old, samples.new, method="asymp")
    return _Evidence(float(statistic), ShiftTest.KOLMOGOROV_SMIRNOV, float(statistic), float(p_value))


def _weigh_categories(counts: NDArray[np.float64]) -> _Evidence | None:
    """The evidence in a table of counts, shape (2, k); None where no value but "rare" is left."""
    n, m = counts.sum(axis=1)
    table = _pool_rare(counts)
    freedom = table.shape[1] - 1
    if not freedom:
        constant = np.count_nonzero(counts.any(axis=0)) == 1
        return _Evidence(0.0, ShiftTest.CHI_SQUARED, 0.0, 1.0) if constant else None
    statistic, p_value, _, _ = scipy.stats.chi2_contingency(table, correction=False)
    shares = table / table.sum(axis=1, keepdims=True)
    effect = sqrt(min(1.0, max(0.0, divergence_of(shares) - freedom * sampling_unit(n, m))))
    return _Evidence(effect, ShiftTest.CHI_SQUARED, float(statistic), float(p_value))


def _pool_rare(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns of a (2, k) table by falling frequency, the sparse ones summed into one, which is not."""
    sizes = counts.sum(axis=1)
    counts = counts[:, np.argsort(-counts.sum(axis=0), kind="stable")]
    expected = counts.sum(axis=0) * (sizes.min() / sizes.sum())
    kept = int(np.count_nonzero(expected >= SPARSE))
    if kept and 0 < expected[kept:].sum() < SPARSE:
        kept -= 1
    rare = counts[:, kept:].sum(axis=1, keepdims=True)
    return np.hstack([counts[:, :kept], rare]) if rare.any() else counts[:, :kept]
