"""A dataset's contracts: proposing and changing them, checking versions, and accepting what breaks them."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.columns import TIMES, Column
from app.datasets.contracts.check import Findings, check_table, find_bad_patterns, find_misfits
from app.datasets.contracts.distance import ReferenceCells
from app.datasets.contracts.infer import count_reference, infer_contract
from app.datasets.contracts.rules import Contract, Drift
from app.datasets.engine import Parquet
from app.datasets.models import Dataset, DatasetContract, DatasetVersion, DataStatus, QuarantineRelease
from app.datasets.service import (
    PARTIAL,
    WHOLE,
    find_newest,
    get_dataset,
    get_rows_of,
    get_version,
    lock_dataset,
)
from app.db import Database
from app.errors import Conflict, InputError, InvalidInput, NotFound, pointer
from app.events.service import record_event
from app.http.paging import Paging, paginate
from app.owned import Scratch
from app.store import Store

References = TypeAdapter(dict[int, ReferenceCells])

REPORT_EXAMPLE: dict[str, Any] = {
    "contract": 2,
    "status": "quarantined",
    "checked_at": "2026-11-23T08:00:00Z",
    "rows": 9000,
    "checked": 31,
    "violations": [
        {
            "rule": "range",
            "severity": "error",
            "pointer": "/rules/4",
            "columns": ["distance"],
            "detail": "2 values of column 'distance' lie outside of 1 to 10000.",
            "count": 2,
            "samples": [
                {"row": 17, "values": {"distance": -1}},
                {"row": 4711, "values": {"distance": 99999}},
            ],
        }
    ],
    "unchecked": [],
}


class Report(Findings):
    """How a version holds to a contract; one broken rule of severity `error` quarantines it."""

    model_config = ConfigDict(json_schema_extra={"examples": [REPORT_EXAMPLE]})

    contract: int = Field(description="The number of the contract.")
    status: DataStatus
    checked_at: datetime


# ── Contracts ────────────────────────────────────────────────────────────────────────────────────


def propose_contract(
    database: Database, store: Store, scratch: Scratch, caller: Caller, name: str, number: int | None
) -> tuple[int, Contract]:
    """The version that was read, by default the newest, and a contract for versions like it."""
    with database.session_scope(write=False) as session:
        version = get_rows_of(session, caller, name, number)
    with store.open_files(version.parts) as parts, scratch.folder() as spill:
        return version.number, infer_contract(parts, version.typed_columns, spill)


def put_contract(
    database: Database, store: Store, scratch: Scratch, caller: Caller, name: str, contract: Contract
) -> DatasetContract:
    """Make this the dataset's contract, under the next number unless it is that already.

    The reference versions of drift rules are counted now and kept with the contract. Raises NotFound, and
    InvalidInput for a regular expression or a reference that is none, and for a rule that does not suit the
    types of the newest version's columns.
    """
    with database.session_scope(write=False) as session:
        newest = find_newest(session, get_dataset(session, name))
    if wrong := find_bad_patterns(contract):
        raise _wrong_rules("invalid_pattern", wrong, "pattern")
    if newest and (wrong := find_misfits(contract, newest.column_types)):
        raise _wrong_rules("unsuitable_rule", wrong)
    references = _count_references(database, store, scratch, name, contract)
    kept = {
        "contract": contract.model_dump(mode="json", exclude_defaults=True),
        "references": References.dump_python(references, mode="json", exclude_defaults=True),
    }
    with database.session_scope() as session:
        dataset = lock_dataset(session, name)  # so the numbers are dense
        current = find_contract(session, dataset)
        if current is not None and contract_of(current).model_dump_json() == contract.model_dump_json():
            return current
        row = DatasetContract(
            dataset_id=dataset.id,
            number=current.number + 1 if current else 1,
            rules=kept,
            created_by=caller.name,
            created_at=caller.now,
        )
        session.add(row)
        session.flush()
        subject = f"datasets/{name}/contract"
        record_event(session, caller, "dataset_contract.changed", subject, number=row.number)
        return row


def _count_references(
    database: Database, store: Store, scratch: Scratch, name: str, contract: Contract
) -> dict[int, ReferenceCells]:
    by_version: dict[int, dict[int, Drift]] = defaultdict(dict)
    for place, rule in enumerate(contract.rules):
        if isinstance(rule, Drift):
            by_version[rule.reference][place] = rule
    counted: dict[int, ReferenceCells] = {}
    for number, rules in by_version.items():
        try:
            with database.session_scope(write=False) as session:
                version = get_version(session, name, number)
        except NotFound as absent:
            raise _wrong_rules(
                "reference_not_found", dict.fromkeys(rules, absent.detail), "reference"
            ) from None
        columns = version.typed_columns
        countable = {column.name for column in columns if column.type not in TIMES}
        if wrong := {
            place: f"version {number} has no column {rule.column!r} of numbers, strings or booleans"
            for place, rule in rules.items()
            if rule.column not in countable
        }:
            raise _wrong_rules("reference_not_comparable", wrong, "column")
        with store.open_files(version.parts) as parts, scratch.folder() as spill:
            counted |= count_reference(parts, columns, rules, spill)
    return counted


def _wrong_rules(code: str, wrong: Mapping[int, str], *field: str) -> InvalidInput:
    errors = [InputError(pointer("rules", place, *field), what) for place, what in wrong.items()]
    return InvalidInput(
        code, f"The contract is wrong: {errors[0].pointer}: {errors[0].detail}.", errors=errors
    )


def find_contract(session: Session, dataset: Dataset, number: int | None = None) -> DatasetContract | None:
    """Contract ``number`` of the dataset, or the one in force."""
    query = select(DatasetContract).filter_by(dataset_id=dataset.id)
    if number is not None:
        query = query.filter_by(number=number)
    return session.scalar(query.order_by(DatasetContract.number.desc()).limit(1))


def get_contract(session: Session, name: str, number: int | None = None) -> DatasetContract:
    """Contract ``number`` of the dataset, or the one in force. Raises NotFound."""
    contract = find_contract(session, get_dataset(session, name), number)
    if contract is None:
        which = "contract" if number is None else f"contract {number}"
        raise NotFound(
            "contract_not_found",
            f"Dataset {name!r} has no {which}. POST /v1/datasets/{name}/contract:infer proposes one, "
            f"PUT /v1/datasets/{name}/contract puts it in force.",
        )
    return contract


def list_contracts(
    session: Session, name: str, paging: Paging
) -> tuple[Sequence[DatasetContract], str | None]:
    query = select(DatasetContract).filter_by(dataset_id=get_dataset(session, name).id)
    return paginate(session, query, DatasetContract.number, paging)


def contract_of(row: DatasetContract) -> Contract:
    return Contract.model_validate(row.rules["contract"])


# ── Checks ───────────────────────────────────────────────────────────────────────────────────────


def check_arrival(
    database: Database,
    name: str,
    files: Parquet,
    columns: Sequence[Column],
    now: datetime,
    spill: Path,
    kind: str = "upload",
    unique: Collection[str] = (),
) -> Report | None:
    """How a table that is to be a version holds to the dataset's contract, if it has one.

    ``kind`` is that of the version's origin; ``unique`` columns are known to repeat no value.
    """
    with database.session_scope(write=False) as session:
        contract = find_contract(session, get_dataset(session, name))
    return None if contract is None else _check(contract, files, columns, now, spill, kind, unique)


def check_version(
    database: Database, store: Store, scratch: Scratch, caller: Caller, name: str, number: int
) -> Report:
    """How a version holds to the contract in force, as if it came now. Raises NotFound."""
    with database.session_scope(write=False) as session:
        version = get_rows_of(session, caller, name, number)
        contract = get_contract(session, name)
    with scratch.folder() as spill, store.open_files(version.parts) as files:
        kind = version.origin["kind"]
        return _check(contract, files, version.typed_columns, caller.now, spill, kind)


def _check(
    row: DatasetContract,
    files: Parquet,
    columns: Sequence[Column],
    now: datetime,
    spill: Path,
    kind: str,
    unique: Collection[str] = (),
) -> Report:
    partial = kind in PARTIAL
    references = References.validate_python(row.rules["references"])
    contract = contract_of(row)
    found = check_table(
        files, columns, contract, references, now=now, spill=spill, partial=partial, unique=unique
    )
    status = DataStatus.QUARANTINED if found.breaks_contract else DataStatus.ACCEPTED
    return Report(contract=row.number, status=status, checked_at=now, **dict(found))


# ── Quarantine ───────────────────────────────────────────────────────────────────────────────────


def get_report(session: Session, caller: Caller, name: str, number: int) -> Report:
    """What the check found when the version came. Raises NotFound where there was no contract then."""
    version = get_rows_of(session, caller, name, number)
    if version.report is None:
        raise NotFound(
            "report_not_found",
            f"Version {number} of dataset {name!r} came when there was no contract, and was not checked. "
            f"POST /v1/datasets/{name}/versions/{number}:check checks it against the one in force.",
        )
    return Report.model_validate(version.report)


def accept_version(session: Session, caller: Caller, name: str, number: int, reason: str) -> DatasetVersion:
    """Let a quarantined version be used all the same; who did so before stays the one who did.

    Raises NotFound, and Conflict for a version that is not quarantined.
    """
    lock_dataset(session, name)  # nobody else accepts it or deletes it
    version = get_version(session, name, number)
    if version.status != DataStatus.QUARANTINED:
        raise Conflict(
            "not_quarantined", f"Version {number} of dataset {name!r} is not quarantined: it can be used."
        )
    if version.release is None:
        version.release = QuarantineRelease(
            version_id=version.id, reason=reason, created_by=caller.name, created_at=caller.now
        )
        session.flush()
        subject = f"datasets/{name}/versions/{number}"
        record_event(session, caller, "dataset_version.accepted", subject, reason=reason)
    return version


def get_newest_accepted(session: Session, name: str) -> DatasetVersion:
    """The newest version that the contract or somebody accepted; if there is none, the newest."""
    accepted = or_(DatasetVersion.status == DataStatus.ACCEPTED, DatasetVersion.release.has())
    query = select(DatasetVersion).filter_by(dataset_id=get_dataset(session, name).id).where(accepted, WHOLE)
    newest = session.scalar(query.order_by(DatasetVersion.number.desc()).limit(1))
    return newest or get_version(session, name)


def require_accepted(version: DatasetVersion) -> None:
    """Raises Conflict for a quarantined version that nobody accepted."""
    if version.status == DataStatus.QUARANTINED and version.release is None:
        path = f"/v1/datasets/{version.dataset}/versions/{version.number}"
        raise Conflict(
            "data_quarantined",
            f"Version {version.number} of dataset {version.dataset!r} is quarantined: it breaks contract "
            f"{version.contract}, as GET {path}/report tells. Name another version, upload better data, or "
            f"let an engineer accept it with POST {path}:accept.",
        )
