"""What a model is asked, held against the contract of the data that it learned from."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from app.columns import Column, ColumnType
from app.datasets.contracts.check import Findings, check_inputs
from app.datasets.contracts.service import contract_of, get_contract
from app.db import Database
from app.monitoring.service import get_watched
from app.owned import Scratch
from app.registry.signature import Signature, format_time, parse_time
from app.serving.journal import Journal
from app.serving.records import PredictionRecord


class InputReport(NamedTuple):
    """``records`` are the predictions whose inputs were checked: row 1 of a sample is the first of them."""

    version: int
    dataset: str
    contract: int
    records: list[PredictionRecord]
    found: Findings


def check_predictions(
    database: Database,
    journal: Journal,
    scratch: Scratch,
    model: str,
    *,
    version: int | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    now: datetime,
) -> InputReport:
    """Check the inputs of the newest predictions, at most ``limit``, of a version: by default the champion.

    The contract is the one in force of the dataset that the version was trained on. Raises Conflict for a
    model without a champion, and NotFound for a dataset without a contract.
    """
    with database.session_scope(write=False) as session:
        found = get_watched(session, model, version)
        row = get_contract(session, found.data["dataset"])
    records = journal.read(model, version=found.number, since=since, until=until, limit=limit)
    features = Signature.model_validate(found.signature).features
    columns = [Column(name=one.name, type=one.type, nullable=one.nullable) for one in features]
    with scratch.folder() as folder:
        path = folder / "inputs.ndjson"
        with path.open("wb") as file:
            for record in records:
                file.write(msgspec.json.encode(_plain(record.inputs, columns)) + b"\n")
        checked = check_inputs(path, columns, contract_of(row), now=now, spill=folder)
    return InputReport(found.number, found.data["dataset"], row.number, records, checked)


def _plain(inputs: dict[str, Any], columns: list[Column]) -> dict[str, Any]:
    """The columns' values with all times in one form: a signature takes every ISO 8601 form."""
    row = {column.name: inputs.get(column.name) for column in columns}
    for column in columns:
        text = row[column.name]
        if isinstance(text, str) and column.type in (ColumnType.DATE, ColumnType.DATETIME):
            row[column.name] = format_time(parse_time(text), column.type)
    return row
