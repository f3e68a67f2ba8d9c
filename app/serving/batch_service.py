"""Batch predictions: creating, finding and cancelling them, and the keeping of their parts."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import leases
from app.access.caller import Caller
from app.columns import Column, ColumnType
from app.datasets.models import DatasetVersion
from app.errors import Conflict, InputError, InvalidInput, NotFound, pointer
from app.http.paging import Paging, paginate
from app.leases import Status
from app.registry.models import ModelVersion
from app.registry.service import get_model, get_version
from app.registry.signature import MAX_INPUT_ERRORS, Feature, Signature, type_names
from app.serving.batch_models import BatchPart, BatchPrediction
from app.serving.service import current_deployment
from app.store import StoredObject

TAKEN: Mapping[ColumnType, frozenset[ColumnType]] = {
    ColumnType.INTEGER: frozenset({ColumnType.INTEGER}),
    ColumnType.NUMBER: frozenset({ColumnType.NUMBER, ColumnType.INTEGER}),
    ColumnType.BOOLEAN: frozenset({ColumnType.BOOLEAN}),
    ColumnType.STRING: frozenset({ColumnType.STRING}),
    ColumnType.DATE: frozenset({ColumnType.DATE, ColumnType.DATETIME}),
    ColumnType.DATETIME: frozenset({ColumnType.DATE, ColumnType.DATETIME}),
}
"""The types of data columns that a feature of each type takes: those whose JSON values it takes."""


def create_batch(
    session: Session, caller: Caller, *, model: str, version: int | None, data: DatasetVersion
) -> BatchPrediction:
    """Queue the scoring of ``data`` by a version, without a number by the model's champion.

    Raises NotFound for an unknown model or version, Conflict where the model has no champion, and
    InvalidInput where the columns of the data do not fit the version's signature.
    """
    chosen = get_version(session, model, version or _champion(session, caller, model), caller)
    columns = data.typed_columns
    check_columns(Signature.model_validate(chosen.signature), columns, data)
    batch = BatchPrediction(
        model_id=chosen.model_id,
        model=chosen.model,
        version_id=chosen.id,
        version=chosen.number,
        dataset_version_id=data.id,
        dataset=data.dataset,
        dataset_version=data.number,
        rows=data.rows,
        rows_scored=0,
    )
    leases.enqueue(
        session, caller, batch, version=chosen.number, dataset=data.dataset, dataset_version=data.number
    )
    return batch


def _champion(session: Session, caller: Caller, model: str) -> int:
    deployment = current_deployment(session, get_model(session, model, caller))
    if deployment is None:
        raise Conflict(
            "model_not_deployed",
            f"Model {model!r} has no version in service. Name the `version` that shall score the data, or "
            f"promote one with POST /v1/models/{model}:promote.",
        )
    return deployment.slots[0].version


def check_columns(signature: Signature, columns: Sequence[Column], data: DatasetVersion) -> None:
    """Raises InvalidInput that names every column (the first 20) of the data that the model cannot take."""
    given = {column.name: column for column in columns}
    faults = ((feature.name, _fault(feature, given.get(feature.name))) for feature in signature.features)
    errors = [
        InputError(pointer("dataset"), f"column {name!r}: {fault}")
        for name, fault in faults
        if fault is not None
    ]
    if errors:
        raise InvalidInput(
            "data_does_not_fit",
            f"Version {data.number} of dataset {data.dataset!r} does not fit the model's signature: "
            f"{errors[0].detail}. Upload a version that does.",
            errors=errors[:MAX_INPUT_ERRORS],
        )


def _fault(feature: Feature, column: Column | None) -> str | None:
    if column is None:
        return "the data version has no such column"
    if column.type not in TAKEN[feature.type]:
        return f"the model takes {type_names[feature.type]} there, and the column's type is {column.type}"
    if column.nullable and not feature.nullable:
        return "it holds nulls, and the model was trained on data without a null there"
    return None


def get_batch(session: Session, caller: Caller, batch_id: int, *, lock: bool = False) -> BatchPrediction:
    """The batch prediction, if asked for locked until the transaction ends.

    Raises NotFound, and Forbidden where it is of a model that the caller may not touch.
    """
    batch = session.get(BatchPrediction, batch_id, with_for_update=lock or None, populate_existing=lock)
    if batch is None:
        raise NotFound(
            "batch_prediction_not_found",
            f"There is no batch prediction {batch_id}. GET /v1/batch-predictions lists them.",
        )
    caller.require_model(batch.model)
    return batch


def list_batches(
    session: Session,
    caller: Caller,
    paging: Paging,
    *,
    model: str | None = None,
    status: Status | None = None,
) -> tuple[Sequence[BatchPrediction], str | None]:
    """Batch predictions of the caller's models, newest first."""
    query = select(BatchPrediction).where(caller.sees(BatchPrediction.model))
    if model is not None:
        query = query.filter_by(model=model)
    if status is not None:
        query = query.filter_by(status=status)
    return paginate(session, query, BatchPrediction.id, paging)


def cancel_batch(session: Session, caller: Caller, batch_id: int) -> BatchPrediction:
    """Cancel a batch prediction: at once while it waits; its worker ends it within 2 seconds while it runs.

    Raises Conflict for one that has ended.
    """
    batch = get_batch(session, caller, batch_id, lock=True)
    leases.cancel(session, caller, batch)
    return batch


def add_part(
    session: Session, worker: Caller, batch: BatchPrediction, rows: range, stored: StoredObject
) -> None:
    """Keep the predictions for the next ``rows``: whoever takes the batch over goes on behind them.

    Raises LeaseLost.
    """
    held = leases.lock_held(session, worker, batch)
    session.add(BatchPart(batch_id=held.id, first_row=rows.start, rows=len(rows), digest=stored.digest))
    held.rows_scored = rows.stop
    held.attempts = 1  # what is counted is attempts without a step forward
    session.flush()


def succeed_batch(session: Session, worker: Caller, batch: BatchPrediction) -> None:
    """End the batch prediction, all of whose parts are kept. Raises LeaseLost."""
    held = leases.lock_held(session, worker, batch)
    leases.succeed(session, worker, held, rows=held.rows)


def list_parts(session: Session, batch: BatchPrediction) -> Sequence[BatchPart]:
    """The parts of one that has succeeded, in the order of the rows. Raises Conflict for another."""
    if batch.status != Status.SUCCEEDED:
        raise Conflict(
            "batch_prediction_not_succeeded",
            f"Batch prediction {batch.id} is {batch.status}; it has content once it has succeeded.",
        )
    return session.scalars(select(BatchPart).filter_by(batch_id=batch.id).order_by(BatchPart.first_row)).all()


def get_scored(session: Session, batch: BatchPrediction) -> tuple[ModelVersion, DatasetVersion]:
    """The model version that scores and the data version that is scored."""
    return (
        session.get_one(ModelVersion, batch.version_id),
        session.get_one(DatasetVersion, batch.dataset_version_id),
    )
