"""Feedback, drift and performance over HTTP."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from app.access.policy import Permission
from app.access.route import CallerDep, GuardedRoute
from app.columns import Value
from app.datasets.contracts.check import Unchecked
from app.datasets.contracts.rules import Severity
from app.http.fields import Moment, Number
from app.http.paging import Page
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, ScratchDep, SessionDep
from app.monitoring import feedback, service
from app.monitoring.drift import DriftReport
from app.monitoring.inputs import check_predictions
from app.registry.models import ModelVersion
from app.serving.predict_router import PREDICTION_ID_EXAMPLE, PredictingDep
from app.serving.predicting import prediction_not_found
from app.serving.prediction_ids import is_prediction_id
from app.serving.records import PredictionRecord

feedback_router = APIRouter(prefix="/v1/feedback", tags=["feedback"], route_class=GuardedRoute)
history_router = APIRouter(prefix="/v1/predictions", tags=["feedback"], route_class=GuardedRoute)
router = APIRouter(prefix="/v1/models/{model}", tags=["monitoring"], route_class=GuardedRoute)

MAX_ITEMS = 10_000
CLIENT_IDS_LAST = timedelta(days=30)
"""How long feedback may name a request by the client's own id: each such name is looked for in the log."""

# ── Feedback ─────────────────────────────────────────────────────────────────────────────────────


class FeedbackItem(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prediction_id: str = Field(examples=[PREDICTION_ID_EXAMPLE])
    actual: Value = Field(description="What came true, in the JSON type of the target.", examples=[True])
    observed_at: Moment | None = Field(None, description="When it was known. Default: now.")
    source: str | None = Field(None, max_length=200, description="Where the outcome was seen.")


class FeedbackBatch(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "prediction_id": PREDICTION_ID_EXAMPLE,
                            "actual": True,
                            "observed_at": "2026-11-23T12:00:00Z",
                            "source": "airport log",
                        }
                    ]
                }
            ]
        },
    )

    items: list[FeedbackItem] = Field(min_length=1, max_length=MAX_ITEMS)


class RejectedItem(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    index: int
    code: str
    detail: str


class FeedbackReceipt(BaseModel):
    """First outcomes, repeated ones, changed ones, and those that could not be recorded."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "accepted": 1,
                    "duplicates": 0,
                    "corrected": 0,
                    "rejected": [
                        {"index": 1, "code": "unknown_prediction", "detail": "the string 'x' is not an id …"}
                    ],
                }
            ]
        },
    )

    accepted: int
    duplicates: int = Field(description="Said before: nothing is recorded.")
    corrected: int = Field(description="Said otherwise before: recorded as a new revision.")
    rejected: list[RejectedItem]


class FeedbackRevision(BaseModel):
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "revision": 1,
                    "actual": True,
                    "observed_at": "2026-11-23T12:00:00Z",
                    "source": "airport log",
                    "received_by": "checkout-service",
                    "received_at": "2026-11-23T12:00:05Z",
                }
            ]
        },
    )

    revision: int
    actual: Value
    observed_at: datetime
    source: str | None
    received_by: str
    received_at: datetime


def find_named_requests(
    body: FeedbackBatch, caller: CallerDep, predicting: PredictingDep
) -> dict[str, list[str]]:
    """Prediction ids by the clients' own ids of requests, where items name such; before any transaction."""
    named = {item.prediction_id for item in body.items if not is_prediction_id(item.prediction_id)}
    if not named:
        return {}

    def may_see(record: PredictionRecord) -> bool:
        return caller.may_touch(record.model) and (
            caller.has(Permission.READ) or record.caller == caller.name
        )

    since = caller.now - CLIENT_IDS_LAST
    found = predicting.journal.find_by_client_id(frozenset(named), since, may_see)
    return {client_id: [record.prediction_id for record in records] for client_id, records in found.items()}


@feedback_router.post("", responses=problem_responses(409))
def send_feedback(
    body: FeedbackBatch,
    caller: CallerDep,
    named: Annotated[dict[str, list[str]], Depends(find_named_requests)],
    session: SessionDep,
    predicting: PredictingDep,
) -> FeedbackReceipt:
    """Tell what came true. Each item is accepted, recognised as a repetition, or rejected by itself.

    A request of one row that carried an `id` of its own (Open Inference Protocol) may be named by that for
    30 days.
    """
    outcomes = []
    for item in body.items:
        meant = named.get(item.prediction_id, [])
        # The id of a request of several rows names none of them: it is refused like any unknown one.
        prediction_id = meant[0] if len(meant) == 1 else item.prediction_id
        outcomes.append(feedback.Outcome(prediction_id, item.actual, item.observed_at, item.source))
    receipt = feedback.record_feedback(session, caller, predicting.ids, outcomes)
    return FeedbackReceipt.model_validate(receipt)


@history_router.get("/{prediction}/feedback", responses=problem_responses(404))
def list_feedback(
    prediction: str, caller: CallerDep, session: SessionDep, predicting: PredictingDep
) -> Page[FeedbackRevision]:
    """All that was said of one prediction's outcome: the first item holds, the others are its history."""
    parsed = predicting.ids.parse(prediction)
    version = session.get(ModelVersion, parsed.version_id) if parsed else None
    if version is None or not caller.may_touch(version.model):
        raise prediction_not_found(prediction)
    rows = feedback.list_feedback(session, prediction)
    return Page(items=[FeedbackRevision.model_validate(row) for row in rows], next=None)


# ── Drift and performance ────────────────────────────────────────────────────────────────────────

METRICS_EXAMPLE: dict[str, Any] = {"roc_auc": 0.71, "accuracy": 0.78, "log_loss": 0.47}
COLUMN_EXAMPLE: dict[str, Any] = {
    "name": "temp",
    "role": "numeric",
    "status": "drift",
    "n": 3000,
    "n_reference": 7200,
    "null_share": 0.0,
    "null_share_reference": 0.001,
    "unknown_share": 0.0,
    "test": "values_chi_squared",
    "statistic": 5120.4,
    "p_value": 0.0,
    "p_adjusted": 0.0,
    "effect": 0.71,
    "effect_interval": [0.69, 0.73],
    "detectable_effect": 0.05,
}


class DriftInfo(BaseModel):
    """Recent inputs and answers against what the version was trained on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "flight-delays",
                    "version": 1,
                    "first_at": "2026-11-23T08:00:00Z",
                    "last_at": "2026-11-23T09:00:00Z",
                    "status": "drift",
                    "alpha": 0.01,
                    "effect_measure": "jensen_shannon_distance",
                    "minimum_effect": 0.05,
                    "columns": [COLUMN_EXAMPLE],
                    "prediction": COLUMN_EXAMPLE | {"name": "prediction", "status": "ok", "effect": 0.03},
                }
            ]
        }
    )

    model: str
    version: int
    first_at: datetime | None = Field(description="Time of the oldest prediction compared.")
    last_at: datetime | None


class DriftAnswer(DriftInfo, DriftReport):
    pass


class WindowInfo(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    start: datetime
    end: datetime
    version: int
    rows: int = Field(description="Predictions whose outcome is known.")
    metrics: dict[str, float | None]


class PerformanceInfo(BaseModel):
    """What the predictions turned out to be worth, beside what the holdout promised."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "flight-delays",
                    "by": "predicted_at",
                    "windows": [
                        {
                            "start": "2026-11-23T00:00:00Z",
                            "end": "2026-11-24T00:00:00Z",
                            "version": 1,
                            "rows": 2950,
                            "metrics": METRICS_EXAMPLE,
                        }
                    ],
                    "holdout": {"1": METRICS_EXAMPLE},
                }
            ]
        }
    )

    model: str
    by: str
    windows: list[WindowInfo]
    holdout: dict[int, dict[str, float | None]] = Field(description="Each version's metrics at training.")


SinceQuery = Annotated[Moment | None, Query(description="Not before this time.")]
UntilQuery = Annotated[Moment | None, Query(description="Before this time.")]


@router.get("/drift", responses=problem_responses(404, 409))
def get_drift(
    model: str,
    database: DatabaseDep,
    predicting: PredictingDep,
    version: Number | None = None,
    since: SinceQuery = None,
    until: UntilQuery = None,
    limit: Annotated[int, Query(ge=1, le=100_000, description="At most so many, the newest.")] = 10_000,
    alpha: Annotated[
        float, Query(gt=0, lt=1, description="Chance of a false alarm, all columns together.")
    ] = 0.01,
    minimum_effect: Annotated[float, Query(ge=0, le=1, description="A smaller effect is no drift.")] = 0.05,
) -> DriftAnswer:
    """Compare recent predictions with the version's reference profile, column by column."""
    drift = service.measure_drift(
        database,
        predicting.journal,
        model,
        version=version,
        since=since,
        until=until,
        limit=limit,
        alpha=alpha,
        minimum_effect=minimum_effect,
    )
    return DriftAnswer(
        model=model,
        version=drift.version,
        first_at=drift.first_at,
        last_at=drift.last_at,
        **dict(drift.report),
    )


class InputSample(BaseModel):
    prediction_id: str
    values: dict[str, Any]


class InputViolation(BaseModel):
    """A rule of the contract that inputs break."""

    rule: str
    severity: Severity
    pointer: str = Field(description="To the rule in the contract.")
    columns: list[str]
    detail: str
    count: int | None = Field(description="How many predictions break it; null: it cannot be kept at all.")
    share: float | None = Field(description="Of the predictions that were checked.")
    samples: list[InputSample]


class InputReportInfo(BaseModel):
    """What a version is asked, against the contract of the dataset that it was trained on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "flight-delays",
                    "version": 1,
                    "dataset": "flights",
                    "contract": 2,
                    "first_at": "2026-11-23T08:00:00Z",
                    "last_at": "2026-11-23T09:00:00Z",
                    "predictions": 3000,
                    "checked": 12,
                    "violations": [
                        {
                            "rule": "allowed",
                            "severity": "error",
                            "pointer": "/rules/3",
                            "columns": ["carrier"],
                            "detail": "12 values of column 'carrier' are none of the 3 that are allowed.",
                            "count": 12,
                            "share": 0.004,
                            "samples": [
                                {"prediction_id": PREDICTION_ID_EXAMPLE, "values": {"carrier": "ZZ"}}
                            ],
                        }
                    ],
                    "unchecked": [
                        {"rule": "nulls", "pointer": "/rules/9", "reason": "There is no column 'late'."}
                    ],
                }
            ]
        }
    )

    model: str
    version: int
    dataset: str
    contract: int
    first_at: datetime | None = Field(description="Time of the oldest prediction checked.")
    last_at: datetime | None
    predictions: int
    checked: int = Field(description="How many rules were applied.")
    violations: list[InputViolation]
    unchecked: list[Unchecked] = Field(description="Rules about columns that the model does not take.")


@router.get("/input-report", responses=problem_responses(404, 409))
def get_input_report(
    model: str,
    caller: CallerDep,
    database: DatabaseDep,
    predicting: PredictingDep,
    scratch: ScratchDep,
    version: Annotated[Number | None, Query(description="Default: the champion.")] = None,
    since: SinceQuery = None,
    until: UntilQuery = None,
    limit: Annotated[int, Query(ge=1, le=100_000, description="At most so many, the newest.")] = 10_000,
) -> InputReportInfo:
    """Check recent predictions' inputs by the contract in force of the data that trained the version.

    Of its rules those that a row keeps or breaks by itself apply: nulls, ranges, allowed values, patterns,
    comparisons.
    """
    report = check_predictions(
        database,
        predicting.journal,
        scratch,
        model,
        version=version,
        since=since,
        until=until,
        limit=limit,
        now=caller.now,
    )
    found, times = report.found, [record.at for record in report.records]
    return InputReportInfo(
        model=model,
        version=report.version,
        dataset=report.dataset,
        contract=report.contract,
        first_at=min(times, default=None),
        last_at=max(times, default=None),
        predictions=found.rows,
        checked=found.checked,
        violations=[
            InputViolation(
                **violation.model_dump(exclude={"samples"}),
                share=None if violation.count is None else violation.count / found.rows,
                samples=[
                    InputSample(
                        prediction_id=report.records[sample.row - 1].prediction_id, values=sample.values
                    )
                    for sample in violation.samples
                ],
            )
            for violation in found.violations
        ],
        unchecked=found.unchecked,
    )


WINDOW_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@router.get("/performance", responses=problem_responses(404))
def get_performance(
    model: str,
    database: DatabaseDep,
    predicting: PredictingDep,
    version: Number | None = None,
    since: SinceQuery = None,
    until: UntilQuery = None,
    window: Annotated[
        str, Query(pattern=r"^[1-9][0-9]{0,3}[mhd]$", description="Length in minutes, hours or days.")
    ] = "1d",
    by: Annotated[
        Literal["predicted_at", "observed_at"], Query(description="The time that makes the windows.")
    ] = "predicted_at",
) -> PerformanceInfo:
    """The realised metrics over time, from the predictions whose outcome feedback has told."""
    length = timedelta(**{WINDOW_UNITS[window[-1]]: int(window[:-1])})
    windows, holdout = service.measure_performance(
        database,
        predicting.journal,
        model,
        version=version,
        since=since,
        until=until,
        by_observed=by == "observed_at",
        window=length,
    )
    return PerformanceInfo(
        model=model, by=by, windows=[WindowInfo.model_validate(one) for one in windows], holdout=holdout
    )
