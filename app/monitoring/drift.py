"""Drift of live rows against a model version's reference profile, column by column.

Drift is raised where a difference is significant *and* its effect is above a floor: significance alone
fires on trifles in a million rows, an effect alone on the noise of a hundred. The tests and the effect, the
Jensen-Shannon distance, are those of ``app.monitoring.evidence``; Benjamini-Hochberg over the columns and
the prediction (J. R. Stat. Soc. B 57, 1995) holds the chance of any false alarm below alpha.
"""

from dataclasses import asdict
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import scipy  # loads its parts when they are first used
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from app.monitoring.evidence import CONFIDENCE, POWER, DriftTest, Evidence, weigh
from app.registry.reference import MAX_CELLS, ColumnProfile, ReferenceProfile
from app.registry.signature import Role, Signature

MINIMUM_ROWS = 50


class DriftStatus(StrEnum):
    OK = "ok"
    DRIFT = "drift"
    INSUFFICIENT_DATA = "insufficient_data"


class ColumnDrift(BaseModel):
    """The verdict on one column, and all it rests on; null where there were too few rows to test."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="The feature's name, or `prediction`.")
    role: Role = Field(description="How the column enters the model.")
    status: DriftStatus = Field(
        description="`drift` where p_adjusted <= alpha and effect >= minimum_effect; `insufficient_data` "
        "where a sample is too small to say; else `ok`."
    )
    reason: str | None = Field(
        default=None, description="Why the data is insufficient, or what the verdict leaves out."
    )
    n: int = Field(description="Live rows.")
    n_reference: int = Field(description="Reference rows.")
    null_share: float | None = Field(description="Share of live rows without a value.")
    null_share_reference: float | None = Field(description="Share of reference rows without a value.")
    unknown_share: float | None = Field(
        description="Share of live rows with a category unknown to the model."
    )
    test: DriftTest | None = Field(
        default=None,
        description="The test with the smallest p-value: of the distribution of values, of more new values "
        "than expected (unknown category, beyond the reference's range, first nulls), or of the null rate.",
    )
    statistic: float | None = Field(
        default=None, description="Chi-squared or, of new values, the number of rows that hold one."
    )
    p_value: float | None = Field(
        default=None,
        description="Probability of such a difference without drift, corrected for the three tests.",
    )
    p_adjusted: float | None = Field(
        default=None, description="p_value after Benjamini-Hochberg over all columns and the prediction."
    )
    effect: float | None = Field(
        default=None,
        description="Jensen-Shannon distance, 0 (same) to 1 (disjoint), less its bias of small samples.",
    )
    effect_interval: tuple[float, float] | None = Field(
        default=None, description=f"Approximate {CONFIDENCE:.0%} interval of the effect."
    )
    detectable_effect: float | None = Field(
        default=None,
        description=f"The smallest effect that these sample sizes show with {POWER:.0%} probability when "
        "this column alone drifts: an `ok` says nothing about a smaller one.",
    )


class DriftReport(BaseModel):
    """Live rows compared with the reference profile of the version that answered them."""

    model_config = ConfigDict(frozen=True)

    status: DriftStatus = Field(
        description="`drift` if any column or the prediction drifted; `insufficient_data` if none did and "
        "one could not be tested; else `ok`."
    )
    alpha: float = Field(description="Bound on the chance of any false alarm when nothing drifts.")
    effect_measure: Literal["jensen_shannon_distance"] = Field(
        default="jensen_shannon_distance", description="The measure of every effect in the report (base 2)."
    )
    minimum_effect: float = Field(description="The smallest effect that raises drift.")
    columns: tuple[ColumnDrift, ...] = Field(description="One verdict a feature, in the signature's order.")
    prediction: ColumnDrift = Field(description="The verdict on the model's own answers.")


def compare(
    reference: ReferenceProfile,
    signature: Signature,
    matrix: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    alpha: float = 0.01,
    minimum_effect: float = 0.05,
) -> DriftReport:
    """Compare live rows, ``matrix`` of shape (n, width) and ``scores`` (n,), with the reference.

    Rows are encoded and scores defined as for ``build_reference``. With fewer than ``MINIMUM_ROWS`` rows
    on either side a column is `insufficient_data`, never `ok`.

    Raises ValueError where reference, signature and matrix have not the same columns.
    """
    if [profile.name for profile in reference.columns] != [feature.name for feature in signature.features]:
        raise ValueError("the reference profile is of another signature")
    profiles = (*reference.columns, reference.prediction)
    measured = (*signature.summarized(matrix), scores)
    live = [profile.count(values) for profile, values in zip(profiles, measured, strict=True)]
    testable = [
        index
        for index, (profile, cells) in enumerate(zip(profiles, live, strict=True))
        if min(profile.rows, cells.sum()) >= MINIMUM_ROWS
    ]
    evidence = {
        index: weigh(
            live[index],
            profiles[index].cells,
            singletons=profiles[index].singletons,
            level=alpha / len(testable),
        )
        for index in testable
    }
    p_values = [found.p_value for found in evidence.values()]
    adjusted = scipy.stats.false_discovery_control(p_values).tolist() if p_values else []
    p_adjusted = dict(zip(testable, adjusted, strict=True))
    *columns, prediction = (
        _verdict(profile, cells, evidence.get(index), p_adjusted.get(index), alpha, minimum_effect)
        for index, (profile, cells) in enumerate(zip(profiles, live, strict=True))
    )
    statuses = {column.status for column in (*columns, prediction)}
    worst_first = (DriftStatus.DRIFT, DriftStatus.INSUFFICIENT_DATA, DriftStatus.OK)
    return DriftReport(
        status=next(status for status in worst_first if status in statuses),
        alpha=alpha,
        minimum_effect=minimum_effect,
        columns=tuple(columns),
        prediction=prediction,
    )


def _verdict(
    profile: ColumnProfile,
    live: NDArray[np.int64],
    evidence: Evidence | None,
    p_adjusted: float | None,
    alpha: float,
    minimum_effect: float,
) -> ColumnDrift:
    n = int(live.sum())
    reason: str | None = None
    found: dict[str, Any] = {}
    if evidence is None or p_adjusted is None:
        status = DriftStatus.INSUFFICIENT_DATA
        reason = (
            f"{MINIMUM_ROWS} rows are needed on either side: {n} are live, {profile.rows} in the reference."
        )
    else:
        drifted = p_adjusted <= alpha and evidence.effect >= minimum_effect
        status = DriftStatus.DRIFT if drifted else DriftStatus.OK
        found = asdict(evidence) | {"p_adjusted": p_adjusted}
        if (profile.categories or 0) > MAX_CELLS:
            reason = f"With over {MAX_CELLS} categories, only new ones and the null rate were compared."
    return ColumnDrift(
        name=profile.name,
        role=profile.role,
        status=status,
        reason=reason,
        n=n,
        n_reference=profile.rows,
        null_share=live[-1] / n if n else None,
        null_share_reference=profile.nulls / profile.rows if profile.rows else None,
        unknown_share=live[-2] / n if n else None,
        **found,
    )
