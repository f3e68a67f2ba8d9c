"""Watching a model: drift of what it is asked, and performance by what came true."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import Database
from app.errors import Conflict
from app.monitoring.drift import DriftReport, compare
from app.monitoring.feedback import latest_feedback
from app.monitoring.models import Feedback
from app.monitoring.performance import JudgedPrediction, Window, evaluate_windows
from app.registry.models import ModelVersion
from app.registry.reference import ReferenceProfile
from app.registry.service import get_model, get_version
from app.registry.signature import Signature, Task
from app.serving.journal import Journal
from app.serving.prediction_ids import TICK
from app.serving.records import PredictionRecord
from app.serving.service import find_champion


class MeasuredDrift(NamedTuple):
    version: int
    first_at: datetime | None
    last_at: datetime | None
    report: DriftReport


def measure_drift(
    database: Database,
    journal: Journal,
    model: str,
    *,
    version: int | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    alpha: float,
    minimum_effect: float,
) -> MeasuredDrift:
    """Compare a version's newest predictions, at most ``limit``, with its reference profile.

    Without ``version`` it is the champion's. Raises Conflict where there is none.
    """
    with database.session_scope(write=False) as session:
        found = get_watched(session, model, version)
    records = journal.read(model, version=found.number, since=since, until=until, limit=limit)
    signature = Signature.model_validate(found.signature)
    report = compare(
        ReferenceProfile.model_validate(found.reference),
        signature,
        signature.encode([record.inputs for record in records]),
        _scores(signature, records),
        alpha=alpha,
        minimum_effect=minimum_effect,
    )
    times = [record.at for record in records]
    return MeasuredDrift(found.number, min(times, default=None), max(times, default=None), report)


def measure_performance(
    database: Database,
    journal: Journal,
    model: str,
    *,
    version: int | None,
    since: datetime | None,
    until: datetime | None,
    by_observed: bool,
    window: timedelta,
) -> tuple[list[Window], dict[int, dict[str, Any]]]:
    """Realised metrics in windows, and each version's holdout metrics to hold them against."""
    with database.session_scope(write=False) as session:
        found = get_model(session, model)
        shared = [Feedback.model_id == found.id]
        if version is not None:
            shared.append(Feedback.version_id == get_version(session, model, version).id)
        clock = Feedback.observed_at if by_observed else Feedback.predicted_at
        period = []
        if since is not None:
            period.append(clock >= since)
        if until is not None:
            period.append(clock < until)
        # A correction may move observed_at into the period or out of it, and never predicted_at.
        query = latest_feedback(*shared, *(() if by_observed else period)).where(*period)
        feedback = {row.prediction_id: row for row in session.scalars(query)}
        used = {row.version_id for row in feedback.values()}
        versions = session.scalars(select(ModelVersion).where(ModelVersion.id.in_(used))).all()
    if not feedback:
        return [], {}
    predicted = [row.predicted_at for row in feedback.values()]
    records = journal.read(
        model,
        version=version,
        since=min(predicted),
        until=max(predicted) + TICK,
        with_inputs=False,
    )
    judged = [
        JudgedPrediction(
            row.observed_at if by_observed else record.at,
            record.version,
            record.prediction,
            record.probabilities,
            row.actual,
        )
        for record in records
        if (row := feedback.get(record.prediction_id)) is not None
    ]
    signatures = {row.number: Signature.model_validate(row.signature) for row in versions}
    return evaluate_windows(judged, signatures, window), {row.number: row.metrics for row in versions}


def get_watched(session: Session, model: str, version: int | None) -> ModelVersion:
    """The version of this number, or the champion. Raises NotFound, and Conflict where there is none."""
    if version is not None:
        return get_version(session, model, version)
    champion = find_champion(session, get_model(session, model))
    if champion is None:
        raise Conflict(
            "model_not_deployed",
            f"Model {model!r} has no version in service. Promote one, or name a version with ?version=.",
        )
    return champion


def _scores(signature: Signature, records: list[PredictionRecord]) -> NDArray[np.float64]:
    """What the reference profile calls scores: see ``build_reference``."""
    if signature.task is Task.BINARY:
        return np.array([record.probabilities[1] for record in records if record.probabilities], float)
    if signature.classes is not None:
        index = {label: number for number, label in enumerate(signature.classes)}
        return np.array([index[record.prediction] for record in records], float)
    return np.array([record.prediction for record in records], float)
