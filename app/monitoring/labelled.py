"""Data versions made of predictions and what came true of them."""

import base64
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.columns import ColumnType
from app.datasets.growth_service import add_derived
from app.datasets.models import DatasetVersion
from app.datasets.reading.ingest import MediaType, ingest
from app.datasets.reading.recipe import Recipe
from app.datasets.service import get_dataset
from app.db import Database
from app.errors import Conflict, InputError, InvalidInput
from app.monitoring.feedback import latest_feedback
from app.monitoring.models import Feedback
from app.registry.models import ModelVersion
from app.registry.service import get_model, get_version
from app.registry.signature import Signature
from app.serving.journal import Journal
from app.serving.prediction_ids import TICK
from app.serving.records import PredictionRecord
from app.store import Store

PAGE_ROWS = 50_000
MICROSECOND = timedelta(microseconds=1)


class Wanted(NamedTuple):
    """Which predictions: those of a model, or of one of its versions, made in [since, until).

    ``column`` is the name for the outcome, by default the target's own.
    """

    model: str
    version: int | None
    since: datetime | None
    until: datetime | None
    column: str | None

    def origin(self) -> dict[str, Any]:
        told = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in self._asdict().items()
            if value is not None
        }
        return {"kind": "feedback"} | told


class LabelledVersion(NamedTuple):
    version: DatasetVersion
    created: bool
    predictions: int
    labelled: int
    unfit: int


class _Layout(NamedTuple):
    """The table's columns and their types, the outcome's last."""

    features: dict[str, ColumnType]
    target: str
    target_type: ColumnType

    def row(self, inputs: dict[str, Any], actual: Any) -> dict[str, Any]:
        """Raises ValueError for values that no table holds."""
        cells = {name: cell(inputs.get(name), type_) for name, type_ in self.features.items()}
        return cells | {self.target: cell(actual, self.target_type)}


def add_labelled(
    database: Database,
    journal: Journal,
    store: Store,
    caller: Caller,
    dataset: str,
    wanted: Wanted,
    folder: Path,
) -> LabelledVersion:
    """A version of the predictions whose outcome is known: their inputs and, as last column, the outcome.

    The columns are the features of the model versions' signature, in its order; rows are in the order of
    the predictions; of corrected outcomes the last counts. Predictions without an outcome are left out, and
    so are those whose values no table holds (``unfit``: an integer beyond 64 bits, a null character, a time
    in a column of dates). Raises Conflict where no row is left, or where the versions' signatures differ.
    """
    with database.session_scope(write=False) as session:
        get_dataset(session, dataset)
        model = get_model(session, wanted.model, caller)
        about = [Feedback.model_id == model.id]
        if wanted.version is not None:
            about.append(Feedback.version_id == get_version(session, wanted.model, wanted.version).id)
        layout = _layout(session, about, wanted)
    predictions = labelled = unfit = 0
    pages: list[Path] = []
    for page in _pages(journal, wanted):
        predictions += len(page)
        with database.session_scope(write=False) as session:
            outcomes = _outcomes(session, about, page)
        pages.append(folder / f"page-{len(pages)}.ndjson")
        with pages[-1].open("wb") as file:
            for record in page:
                if record.prediction_id in outcomes:
                    try:
                        row = layout.row(record.inputs, outcomes[record.prediction_id])
                    except (ValueError, OverflowError):
                        unfit += 1
                    else:
                        file.write(msgspec.json.encode(row) + b"\n")
                        labelled += 1
    if not labelled:
        raise _nothing_found(wanted)
    rows, parquet = folder / "rows.ndjson", folder / "labelled.parquet"
    with rows.open("wb") as together:
        for path in reversed(pages):
            with path.open("rb") as file:
                shutil.copyfileobj(file, together)
            path.unlink()
    types = layout.features | {layout.target: layout.target_type}
    table = ingest(rows, MediaType.NDJSON, parquet, Recipe.fixing(types))
    version, created = add_derived(
        database, store, caller, dataset, parquet, table.columns, wanted.origin(), folder
    )
    return LabelledVersion(version, created, predictions, labelled, unfit)


def _layout(session: Session, about: Sequence[ColumnElement[bool]], wanted: Wanted) -> _Layout:
    period = []
    if wanted.since is not None:
        period.append(Feedback.predicted_at > wanted.since - TICK)
    if wanted.until is not None:
        period.append(Feedback.predicted_at < wanted.until)
    used = select(Feedback.version_id).where(*about, *period)
    versions = session.scalars(
        select(ModelVersion).where(ModelVersion.id.in_(used)).order_by(ModelVersion.number.desc())
    ).all()
    if not versions:
        raise _nothing_found(wanted)
    newest, *others = [_layout_of(Signature.model_validate(version.signature)) for version in versions]
    for version, other in zip(versions[1:], others, strict=True):
        if other != newest:
            raise Conflict(
                "signatures_differ",
                f"Versions {versions[0].number} and {version.number} of model {wanted.model!r} do not take "
                'the same columns, or answer with another target. Name one of them as "version", or choose '
                "a shorter time.",
            )
    layout = newest._replace(target=wanted.column or newest.target)
    if layout.target in layout.features:
        detail = f"{layout.target!r} is the name of an input of the model. Choose another for the outcome."
        raise InvalidInput("duplicate_column", detail, errors=[InputError("/column", detail)])
    return layout


def _layout_of(signature: Signature) -> _Layout:
    features = {feature.name: feature.type for feature in signature.features}
    return _Layout(features, signature.target, signature.target_type)


def _pages(journal: Journal, wanted: Wanted) -> Iterator[list[PredictionRecord]]:
    """The records that are wanted: pages from the newest back, and in each the oldest first."""
    until, limit = wanted.until, PAGE_ROWS
    while True:
        page = journal.read(
            wanted.model, since=wanted.since, until=until, version=wanted.version, limit=limit
        )
        is_last = len(page) < limit
        if not is_last:
            # Rows of one request share their time, and no two pages share a request.
            oldest = page[-1].at
            page = [record for record in page if record.at > oldest]
            until = oldest + MICROSECOND
            limit = PAGE_ROWS if page else 2 * limit
        # An id begins with the time and ends with the row within its request.
        yield sorted(page, key=lambda one: (one.at, base64.b32decode(one.prediction_id.upper())))
        if is_last:
            return


def _outcomes(
    session: Session, about: Sequence[ColumnElement[bool]], page: list[PredictionRecord]
) -> dict[str, Any]:
    """The last outcome told of each prediction, by its id."""
    if not page:
        return {}
    period = Feedback.predicted_at > page[0].at - TICK, Feedback.predicted_at <= page[-1].at
    return {row.prediction_id: row.actual for row in session.scalars(latest_feedback(*about, *period))}


def cell(value: Any, type_: ColumnType) -> Any:
    """The JSON of an input as it stands in a column of a table. Raises ValueError where none holds it."""
    if value is None or value != value:  # a NaN means null
        return None
    match type_:
        case ColumnType.INTEGER:
            if not -(2**63) <= value < 2**63:
                raise ValueError("an integer beyond 64 bits")
            return int(value)
        case ColumnType.NUMBER:
            return float(value)
        case ColumnType.STRING if "\0" in value:
            raise ValueError("a null character")
        case ColumnType.DATE | ColumnType.DATETIME:
            return _time(value, type_)
    return value


def _time(text: str, type_: ColumnType) -> str:
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    day, _, time = moment.isoformat().partition("T")
    if type_ is ColumnType.DATETIME:
        return moment.isoformat()
    if time != "00:00:00+00:00":
        raise ValueError("a time of day in a column of dates")
    return day


def _nothing_found(wanted: Wanted) -> Conflict:
    which = f"model {wanted.model!r}" + (f", version {wanted.version}," if wanted.version else "")
    return Conflict(
        "no_labelled_predictions",
        f"No prediction of {which} in this time has a known outcome. POST /v1/feedback tells of outcomes; "
        "or choose another time.",
    )
