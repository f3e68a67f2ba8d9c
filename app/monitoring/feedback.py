"""Recording the true outcomes of predictions. Nothing is overwritten: a correction is a new revision."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.columns import ColumnType, Value
from app.events.service import record_event
from app.monitoring.models import Feedback
from app.registry.models import ModelVersion
from app.registry.signature import Signature, Task, shown
from app.serving.prediction_ids import PredictionId, PredictionIds


class Outcome(NamedTuple):
    """What a caller says of one prediction; ``observed_at`` is when the outcome was known."""

    prediction_id: str
    actual: Value
    observed_at: datetime | None
    source: str | None


@dataclass(frozen=True, slots=True)
class Rejection:
    index: int
    code: str
    detail: str


class Receipt(NamedTuple):
    accepted: int
    duplicates: int
    corrected: int
    rejected: list[Rejection]


class _Refused(Exception):
    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail


def record_feedback(
    session: Session, caller: Caller, ids: PredictionIds, outcomes: Sequence[Outcome]
) -> Receipt:
    """Record each outcome that is new; tell apart first ones, repeated ones and corrections.

    An outcome that cannot be recorded is rejected alone, with its index and the reason.
    """
    parsed = [ids.parse(outcome.prediction_id) for outcome in outcomes]
    wanted = {found.version_id for found in parsed if found}
    versions = {
        version.id: version
        for version in session.scalars(select(ModelVersion).where(ModelVersion.id.in_(wanted)))
    }
    signatures = {version.id: Signature.model_validate(version.signature) for version in versions.values()}
    known = _latest(session, {outcome.prediction_id for outcome in outcomes})
    duplicates = corrected = 0
    rejected: list[Rejection] = []
    recorded: dict[str, int] = {}
    for index, (outcome, prediction) in enumerate(zip(outcomes, parsed, strict=True)):
        try:
            version = _version_of(caller, outcome.prediction_id, prediction, versions)
            actual = checked_actual(signatures[version.id], outcome.actual)
        except _Refused as refused:
            rejected.append(Rejection(index, refused.code, refused.detail))
            continue
        assert prediction is not None  # noqa: S101 - _version_of refuses the others
        before = known.get(outcome.prediction_id)
        if before is not None and says_the_same(signatures[version.id], before.actual, actual):
            duplicates += 1
            continue
        corrected += before is not None
        known[outcome.prediction_id] = Feedback(
            prediction_id=outcome.prediction_id,
            revision=before.revision + 1 if before else 1,
            model_id=version.model_id,
            version_id=version.id,
            predicted_at=prediction.at,
            actual=actual,
            observed_at=outcome.observed_at or caller.now,
            source=outcome.source,
            received_by=caller.name,
            received_at=caller.now,
        )
        session.add(known[outcome.prediction_id])
        recorded[version.model] = recorded.get(version.model, 0) + 1
    session.flush()
    for model, count in recorded.items():
        record_event(session, caller, "feedback.recorded", f"models/{model}", model=model, outcomes=count)
    return Receipt(sum(recorded.values()) - corrected, duplicates, corrected, rejected)


def list_feedback(session: Session, prediction_id: str) -> Sequence[Feedback]:
    """All that was ever said of a prediction's outcome, the latest first."""
    query = select(Feedback).filter_by(prediction_id=prediction_id)
    return session.scalars(query.order_by(Feedback.revision.desc())).all()


def latest_feedback(*shared: ColumnElement[bool]) -> Any:
    """A query for the last revision of each prediction's feedback.

    ``shared`` are conditions on what the revisions of a prediction have in common: the model, the version
    and the time of the prediction. Add conditions on what a correction may change to the query itself, so
    that they apply to the last revision only.
    """
    last = select(func.max(Feedback.id)).where(*shared).group_by(Feedback.prediction_id)
    return select(Feedback).where(Feedback.id.in_(last))


def checked_actual(signature: Signature, actual: Any) -> Any:
    """The outcome as a value of the target."""
    if signature.task is Task.REGRESSION or signature.classes is None:
        if type(actual) not in (int, float) or not fits(signature.target_type, actual):
            kind = "an integer" if signature.target_type is ColumnType.INTEGER else "a finite number"
            raise _Refused("invalid_actual", f"actual must be {kind}, not {shown(actual)}.")
        return int(actual) if signature.target_type is ColumnType.INTEGER else float(actual)
    for label in signature.classes:
        if type(label) is type(actual) and label == actual:
            return label
    labels = ", ".join(json.dumps(label, ensure_ascii=False) for label in signature.classes[:20])
    raise _Refused(
        "invalid_actual", f"actual must be one of the model's classes ({labels}), not {shown(actual)}."
    )


def says_the_same(signature: Signature, before: Any, actual: Any) -> bool:
    """Whether an outcome repeats a recorded one."""
    if signature.classes is None:
        # The databases may change a number's type: JSONB gives 1e+22 back as an integer, SQLite -0.0.
        return bool(type(actual)(before) == actual)
    return (type(before), before) == (type(actual), actual)


def fits(target_type: ColumnType, number: float) -> bool:
    try:
        number = float(number)
    except OverflowError:  # an integer of hundreds of digits
        return False
    return isfinite(number) and (target_type is not ColumnType.INTEGER or number.is_integer())


def _latest(session: Session, prediction_ids: set[str]) -> dict[str, Feedback]:
    rows = session.scalars(
        select(Feedback).where(Feedback.prediction_id.in_(prediction_ids)).order_by(Feedback.revision)
    )
    return {row.prediction_id: row for row in rows}


def _version_of(
    caller: Caller, prediction_id: str, prediction: PredictionId | None, versions: dict[int, ModelVersion]
) -> ModelVersion:
    version = versions.get(prediction.version_id) if prediction else None
    if version is None or not caller.may_touch(version.model):
        raise _Refused(
            "unknown_prediction",
            f"{prediction_id[:60]!r} is not an id that this server gave this key. Use an id from "
            "`prediction_ids`.",
        )
    return version
