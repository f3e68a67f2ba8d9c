"""Contracts over HTTP: proposing, changing and reading them, and what they found."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.access.route import CallerDep, GuardedRoute
from app.datasets.contracts import service as contract_service
from app.datasets.contracts.rules import CONTRACT_EXAMPLE, Contract
from app.datasets.contracts.service import Report
from app.datasets.models import DatasetContract
from app.datasets.router import DatasetVersionInfo, version_info
from app.http.fields import Number, StrictNumber
from app.http.paging import Page, PagingDep
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, ScratchDep, SessionDep, StoreDep

router = APIRouter(prefix="/v1/datasets/{dataset}", tags=["datasets"], route_class=GuardedRoute)

REVISION_EXAMPLE: dict[str, Any] = {
    "dataset": "flights",
    "number": 2,
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:00Z",
}


class InferRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 1}, {}]})

    version: StrictNumber | None = Field(None, description="Default: the newest.")


class ProposedContract(Contract):
    """What a version holds to, and versions like it would: edit `rules`, and `PUT` them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 1, **CONTRACT_EXAMPLE}]})

    version: int = Field(description="The version that it was read off.")


class ContractRevision(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [REVISION_EXAMPLE]})

    dataset: str
    number: int
    created_by: str
    created_at: datetime


class ContractInfo(ContractRevision, Contract):
    """A contract; the one with the highest number is in force."""

    model_config = ConfigDict(json_schema_extra={"examples": [REVISION_EXAMPLE | CONTRACT_EXAMPLE]})


class Acceptance(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"reason": "The airline did fly 12,000 miles that day: I asked."}]},
    )

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


@router.post("/contract:infer", response_model_exclude_none=True, responses=problem_responses(403, 404))
def infer_contract(
    dataset: str,
    body: InferRequest,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
) -> ProposedContract:
    """Propose a contract that a version keeps. Nothing is changed.

    It has the columns with their types, nulls and ranges with some slack, the values of strings that have
    few, what is unique, and a number of rows. Whatever else the data promises, only a person knows.
    """
    number, contract = contract_service.propose_contract(
        database, store, scratch, caller, dataset, body.version
    )
    return ProposedContract(version=number, rules=contract.rules)


@router.put("/contract", response_model_exclude_none=True, responses=problem_responses(404))
def put_contract(
    dataset: str,
    body: Contract,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
) -> ContractInfo:
    """Put a contract in force, under the next number; the one in force again keeps its number.

    New versions are checked against it. Those that are there already stay what they are.
    """
    return _info(dataset, contract_service.put_contract(database, store, scratch, caller, dataset, body))


@router.get("/contract", response_model_exclude_none=True, responses=problem_responses(404))
def get_contract(
    dataset: str,
    session: SessionDep,
    number: Annotated[Number | None, Query(description="Default: the one in force.")] = None,
) -> ContractInfo:
    """The contract in force, or an earlier one."""
    return _info(dataset, contract_service.get_contract(session, dataset, number))


@router.get("/contracts", responses=problem_responses(404))
def list_contracts(dataset: str, session: SessionDep, paging: PagingDep) -> Page[ContractRevision]:
    """All contracts that the dataset has had, the one in force first."""
    rows, cursor = contract_service.list_contracts(session, dataset, paging)
    items = [
        ContractRevision(
            dataset=dataset, number=row.number, created_by=row.created_by, created_at=row.created_at
        )
        for row in rows
    ]
    return Page(items=items, next=cursor)


@router.get("/versions/{version}/report", responses=problem_responses(403, 404))
def get_report(dataset: str, version: Number, caller: CallerDep, session: SessionDep) -> Report:
    """What the contract found when the version came: each broken rule with its count and first rows."""
    return contract_service.get_report(session, caller, dataset, version)


@router.post("/versions/{version:segment}:check", responses=problem_responses(403, 404))
def check_version(
    dataset: str,
    version: Number,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
) -> Report:
    """Check a version against the contract in force, as if it came now. Nothing is changed."""
    return contract_service.check_version(database, store, scratch, caller, dataset, version)


@router.post("/versions/{version:segment}:accept", responses=problem_responses(404, 409))
def accept_version(
    dataset: str, version: Number, body: Acceptance, caller: CallerDep, session: SessionDep
) -> DatasetVersionInfo:
    """Accept a quarantined version with a reason, so that models may be trained on it.

    Its status and report stay what they are. Accepted again, it answers with the first acceptance.
    """
    return version_info(
        contract_service.accept_version(session, caller, dataset, version, body.reason), caller
    )


def _info(dataset: str, row: DatasetContract) -> ContractInfo:
    return ContractInfo(
        dataset=dataset,
        number=row.number,
        rules=contract_service.contract_of(row).rules,
        created_by=row.created_by,
        created_at=row.created_at,
    )
