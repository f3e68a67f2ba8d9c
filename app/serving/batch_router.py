"""Batch predictions over HTTP: a whole data version scored by a worker."""

from contextlib import ExitStack
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from app.access.route import CallerDep, GuardedRoute
from app.datasets.content import FILE_SUFFIX, accepted, send_table
from app.datasets.contracts.service import get_newest_accepted, require_accepted
from app.datasets.reading.ingest import MediaType
from app.datasets.service import get_rows_of
from app.datasets.table import concatenate
from app.http.fields import StrictNumber
from app.http.paging import Page, PagingDep
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, ScratchDep, SessionDep, StoreDep
from app.leases import Status
from app.serving import batch_service
from app.serving.batch_models import BatchPrediction

router = APIRouter(tags=["predictions"], route_class=GuardedRoute)

BatchId = Annotated[int, Path(ge=1, le=2**63 - 1)]

BATCH_EXAMPLE: dict[str, Any] = {
    "id": 1,
    "status": "running",
    "model": "flight-delays",
    "version": 1,
    "dataset": "flights",
    "dataset_version": 1,
    "progress": {"fraction": 0.4, "step": "80,000 of 200,000 rows scored"},
    "rows": 200_000,
    "rows_stored": 50_000,
    "error": None,
    "attempts": 1,
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:00Z",
    "started_at": "2026-11-23T08:00:01Z",
    "finished_at": None,
}


class NewBatchPrediction(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"dataset": "flights", "version": 1}]}
    )

    dataset: str
    dataset_version: StrictNumber | None = Field(None, description="Default: the newest that is accepted.")
    version: StrictNumber | None = Field(
        None, description="The model version that scores. Default: the champion in service now."
    )


class BatchProgress(BaseModel):
    fraction: float = Field(description="From 0 to 1.")
    step: str


class BatchError(BaseModel):
    code: str
    detail: str


class BatchPredictionInfo(BaseModel):
    """A batch prediction. It ends as succeeded (see its content), failed (see `error`) or cancelled."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH_EXAMPLE]})

    id: int
    status: Status
    model: str
    version: int
    dataset: str
    dataset_version: int
    progress: BatchProgress
    rows: int = Field(description="Of the data version.")
    rows_stored: int = Field(
        description="How many have their prediction stored, whatever becomes of the worker."
    )
    error: BatchError | None
    attempts: int = Field(description="Workers that have tried since the last part was stored.")
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def _batch_info(batch: BatchPrediction) -> BatchPredictionInfo:
    return BatchPredictionInfo(
        id=batch.id,
        status=Status(batch.status),
        model=batch.model,
        version=batch.version,
        dataset=batch.dataset,
        dataset_version=batch.dataset_version,
        progress=BatchProgress(fraction=batch.fraction, step=batch.step),
        rows=batch.rows,
        rows_stored=batch.rows_scored,
        error=BatchError.model_validate(batch.error) if batch.error else None,
        attempts=batch.attempts,
        created_by=batch.created_by,
        created_at=batch.created_at,
        started_at=batch.started_at,
        finished_at=batch.finished_at,
    )


@router.post("/v1/models/{model}/batch-predictions", status_code=202, responses=problem_responses(404, 409))
def create_batch_prediction(
    model: str, body: NewBatchPrediction, caller: CallerDep, session: SessionDep, response: Response
) -> BatchPredictionInfo:
    """Have a worker score every row of a data version. Follow it at its `Location`.

    The version is fixed here: a promotion meanwhile changes nothing. The data version must have every
    column of the model's signature, in a type that it takes and without nulls where it takes none; more
    columns do no harm. It must not be quarantined, unless an engineer accepted it. The answers are those of
    `:predict`, row by row; they are not in the prediction log.
    """
    number = body.dataset_version or get_newest_accepted(session, body.dataset).number
    data = get_rows_of(session, caller, body.dataset, number)
    require_accepted(data)
    batch = batch_service.create_batch(session, caller, model=model, version=body.version, data=data)
    response.headers["location"] = f"/v1/{batch.path}"
    return _batch_info(batch)


@router.get("/v1/batch-predictions")
def list_batch_predictions(
    session: SessionDep,
    caller: CallerDep,
    paging: PagingDep,
    model: str | None = None,
    status: Annotated[Status | None, Query()] = None,
) -> Page[BatchPredictionInfo]:
    """Batch predictions, newest first."""
    rows, cursor = batch_service.list_batches(session, caller, paging, model=model, status=status)
    return Page(items=[_batch_info(row) for row in rows], next=cursor)


@router.get("/v1/batch-predictions/{batch:segment}", responses=problem_responses(404))
def get_batch_prediction(batch: BatchId, caller: CallerDep, session: SessionDep) -> BatchPredictionInfo:
    """One batch prediction: its status and progress."""
    return _batch_info(batch_service.get_batch(session, caller, batch))


@router.post("/v1/batch-predictions/{batch}:cancel", status_code=202, responses=problem_responses(404, 409))
def cancel_batch_prediction(batch: BatchId, caller: CallerDep, session: SessionDep) -> BatchPredictionInfo:
    """Cancel a batch prediction. A waiting one is cancelled at once, a running one within two seconds."""
    return _batch_info(batch_service.cancel_batch(session, caller, batch))


BINARY = {"schema": {"type": "string", "format": "binary"}}
CONTENT: dict[str, Any] = {
    MediaType.PARQUET: BINARY,
    MediaType.CSV: {
        "schema": {"type": "string"},
        "example": "row,prediction,probability_false,probability_true,model_version\n0,false,0.83,0.17,1\n",
    },
    MediaType.NDJSON: {
        "schema": {"type": "string"},
        "example": '{"row": 0, "prediction": false, "probability_false": 0.83, "probability_true": 0.17, '
        '"model_version": 1}\n',
    },
    MediaType.ARROW_STREAM: BINARY,
}


@router.get(
    "/v1/batch-predictions/{batch}/content",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The predictions as a table.",
            "content": {media_type: CONTENT[media_type] for media_type in FILE_SUFFIX},
        },
        **problem_responses(404, 406, 409),
    },
)
def get_batch_content(
    batch: BatchId,
    request: Request,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
) -> StreamingResponse:
    """The predictions, a row for each row of the data version and in its order.

    Columns: `row` (from 0), `prediction`, for classifiers `probability_<class>` for each class (by its
    position, from 0, where classes differ in case only), and `model_version`. The format is the one that
    `Accept` names first; Parquet unless it names another.
    """
    media_type = accepted(request.headers.get("accept", "*/*"))
    with database.session_scope(write=False) as session:
        found = batch_service.get_batch(session, caller, batch)
        parts = batch_service.list_parts(session, found)
    with ExitStack() as stack:
        parquet = stack.enter_context(scratch.folder()) / "predictions.parquet"
        with ExitStack() as reading:
            concatenate([reading.enter_context(store.open_file(part.digest)) for part in parts], parquet)
        return send_table(parquet, media_type, f"{found.model}-predictions-{batch}", scratch, stack)
