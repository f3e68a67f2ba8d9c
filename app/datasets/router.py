"""Datasets and their versions over HTTP."""

import re
from contextlib import ExitStack
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from app.access.caller import Caller
from app.access.route import CallerDep, GuardedRoute
from app.columns import Column
from app.datasets import service
from app.datasets.content import FILE_SUFFIX, accepted, send_table
from app.datasets.models import Dataset, DatasetVersion, DataStatus
from app.datasets.reading.ingest import MediaType
from app.datasets.selection import select
from app.datasets.table import preview
from app.datasets.tags import MAX_TAGS, Changes, describe_dataset, describe_version, tagged
from app.http.fields import Name, Number
from app.http.paging import Page, PagingDep
from app.http.problems import problem_responses
from app.http.query import KNOWN_PARAMETERS
from app.http.session import DatabaseDep, ScratchDep, SessionDep, StoreDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=GuardedRoute)

TAG_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"

VERSION_EXAMPLE: dict[str, Any] = {
    "dataset": "flights",
    "version": 1,
    "digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "media_type": "text/csv",
    "size": 1048576,
    "content_digest": "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
    "origin": {"kind": "upload"},
    "recipe": {"asked": {}, "found": {"encoding": "utf-8", "compression": "none", "delimiter": ","}},
    "rows": 9000,
    "columns": [
        {"name": "scheduled", "type": "datetime", "nullable": False},
        {"name": "carrier", "type": "string", "nullable": False},
        {"name": "wind_gust", "type": "number", "nullable": True},
        {"name": "late", "type": "boolean", "nullable": False},
    ],
    "status": "accepted",
    "contract": None,
    "release": None,
    "description": "",
    "tags": {},
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:00Z",
}


class NewDataset(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "flights", "description": "Flights from New York"}]},
    )

    name: Name
    description: str = Field("", max_length=2000)


class DatasetInfo(BaseModel):
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "flights",
                    "description": "Flights from New York",
                    "tags": {"source": "airport"},
                    "created_by": "ana",
                    "created_at": "2026-11-23T08:00:00Z",
                }
            ]
        },
    )

    name: str
    description: str
    tags: dict[str, str]
    created_by: str
    created_at: datetime


class ReleaseInfo(BaseModel):
    """That somebody accepted a quarantined version, and why."""

    model_config = ConfigDict(from_attributes=True)

    reason: str
    created_by: str
    created_at: datetime


class DatasetVersionInfo(BaseModel):
    """A version: an immutable table, with a description and tags that may change."""

    model_config = ConfigDict(
        from_attributes=True,
        validate_by_name=True,
        json_schema_extra={"examples": [VERSION_EXAMPLE]},
    )

    dataset: str
    version: int = Field(validation_alias="number")
    digest: str = Field(description="Of the uploaded bytes; without an upload, of the content.")
    media_type: MediaType
    size: int = Field(description="Of the uploaded file, or of the stored one, in bytes.")
    content_digest: str = Field(description="Of the table, whatever file it came in.")
    origin: dict[str, Any] = Field(
        description="Where it comes from: its `kind`, and what belongs to that; a model that the key may not "
        "see is null."
    )
    recipe: dict[str, Any] = Field(description="How the file was read: what was `asked`, and `found` out.")
    rows: int
    columns: list[Column]
    status: DataStatus = Field(description="What the contract found when it came: see `…/report`.")
    contract: int | None = Field(description="The contract that it was checked against when it came.")
    release: ReleaseInfo | None = Field(description="Who accepted it although it is quarantined, and why.")
    description: str
    tags: dict[str, str]
    created_by: str
    created_at: datetime


def origin_for(version: DatasetVersion, caller: Caller) -> dict[str, Any]:
    """The recorded origin, without the name of a model that the caller may not see."""
    model = version.origin.get("model")
    return version.origin if model is None or caller.may_touch(model) else version.origin | {"model": None}


def version_info(version: DatasetVersion, caller: Caller) -> DatasetVersionInfo:
    """The version as the caller may see it."""
    return DatasetVersionInfo.model_validate(version).model_copy(
        update={"origin": origin_for(version, caller)}
    )


def made_info(
    version: DatasetVersion, caller: Caller, response: Response, *, created: bool
) -> DatasetVersionInfo:
    """What answers whoever made a version: 200 where it was there already, and its location."""
    if not created:
        response.status_code = 200
    response.headers["location"] = f"/v1/datasets/{version.dataset}/versions/{version.number}"
    return version_info(version, caller)


class Description(BaseModel):
    """Changes to what is written on an object: what is left out stays, and a tag of null goes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"description": "Without test flights", "tags": {"source": "airport", "draft": None}}
            ]
        },
    )

    description: str | None = Field(None, max_length=2000)
    tags: dict[
        Annotated[str, Field(pattern=f"^{TAG_NAME}$")], Annotated[str, Field(max_length=256)] | None
    ] = Field({}, max_length=MAX_TAGS)

    def changes(self) -> Changes:
        return Changes(self.description, self.tags)


def _name_and_value(tag: str) -> str:
    if not re.fullmatch(rf"{TAG_NAME}:[\s\S]{{0,256}}", tag):
        raise ValueError("is not a tag's name, a colon and its value, as source:airport")
    return tag


TagsQuery = Annotated[
    list[Annotated[str, AfterValidator(_name_and_value)]],
    Query(description="`name:value` of a tag that it has; to be repeated."),
]


class Preview(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "columns": VERSION_EXAMPLE["columns"],
                    "rows": [
                        {
                            "scheduled": "2013-01-01T10:15:00Z",
                            "carrier": "UA",
                            "wind_gust": None,
                            "late": False,
                        }
                    ],
                    "offset": 0,
                    "total": 9000,
                }
            ]
        }
    )

    columns: list[Column]
    rows: list[dict[str, Any]]
    offset: int
    total: int


@router.post("", status_code=201, responses=problem_responses(409))
def create_dataset(
    body: NewDataset, caller: CallerDep, session: SessionDep, response: Response
) -> DatasetInfo:
    """Create an empty dataset; its data arrives as versions."""
    dataset = service.create_dataset(session, caller, name=body.name, description=body.description)
    response.headers["location"] = f"/v1/datasets/{dataset.name}"
    return DatasetInfo.model_validate(dataset)


@router.get("")
def list_datasets(session: SessionDep, paging: PagingDep, tag: TagsQuery = []) -> Page[DatasetInfo]:  # noqa: B006 - FastAPI copies it
    """All datasets, newest first."""
    rows, cursor = service.list_datasets(session, paging, *tagged(Dataset.tags, tag))
    return Page(items=[DatasetInfo.model_validate(row) for row in rows], next=cursor)


@router.get("/{dataset}", responses=problem_responses(404))
def get_dataset(dataset: str, session: SessionDep) -> DatasetInfo:
    """One dataset."""
    return DatasetInfo.model_validate(service.get_dataset(session, dataset))


@router.patch("/{dataset}", responses=problem_responses(404))
def change_dataset(dataset: str, body: Description, caller: CallerDep, session: SessionDep) -> DatasetInfo:
    """Change a dataset's description or tags."""
    return DatasetInfo.model_validate(describe_dataset(session, caller, dataset, body.changes()))


BINARY = {"schema": {"type": "string", "format": "binary"}}
# Enough rows to train on, so that the examples of /docs can be tried one after the other.
CSV_EXAMPLE = "carrier,distance,late\n" + "".join(
    f"{carrier},{distance},{str(carrier == 'B6' or distance > 2000).lower()}\n"
    for distance in range(200, 2600, 300)
    for carrier in ("AA", "B6", "UA")
)
TABLES: dict[str, dict[str, Any]] = {
    MediaType.CSV: {"schema": {"type": "string"}, "example": CSV_EXAMPLE},
    MediaType.NDJSON: {
        "schema": {"type": "string"},
        "example": '{"carrier": "UA", "distance": 1400, "late": false}\n',
    },
    MediaType.PARQUET: BINARY,
    MediaType.ARROW_STREAM: BINARY,
}
"""The bodies that hold a table, for the documentation."""


@router.get("/{dataset}/versions", responses=problem_responses(404))
def list_versions(
    dataset: str,
    caller: CallerDep,
    session: SessionDep,
    paging: PagingDep,
    tag: TagsQuery = [],  # noqa: B006 - FastAPI copies it
) -> Page[DatasetVersionInfo]:
    """The versions of a dataset, newest first."""
    rows, cursor = service.list_versions(session, dataset, paging, *tagged(DatasetVersion.tags, tag))
    return Page(items=[version_info(row, caller) for row in rows], next=cursor)


@router.get("/{dataset}/versions/{version:segment}", responses=problem_responses(404))
def get_version(dataset: str, version: Number, caller: CallerDep, session: SessionDep) -> DatasetVersionInfo:
    """One version: its digest and schema."""
    return version_info(service.get_version(session, dataset, version), caller)


@router.patch("/{dataset}/versions/{version:segment}", responses=problem_responses(404))
def change_version(
    dataset: str, version: Number, body: Description, caller: CallerDep, session: SessionDep
) -> DatasetVersionInfo:
    """Change a version's description or tags; its data never change."""
    return version_info(describe_version(session, caller, dataset, version, body.changes()), caller)


@router.get(
    "/{dataset}/versions/{version}/preview",
    dependencies=[KNOWN_PARAMETERS],
    responses=problem_responses(403, 404),
)
def preview_version(
    dataset: str,
    version: Number,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many rows.")] = 20,
    offset: Annotated[int, Query(ge=0, le=2**62, description="How many rows come before them.")] = 0,
) -> Preview:
    """Some rows of a version, as JSON."""
    with database.session_scope(write=False) as session:
        found = service.get_rows_of(session, caller, dataset, version)
    with store.open_files(found.parts) as parts:
        rows = preview(parts, limit, offset)
    return Preview(columns=found.columns, rows=rows, offset=offset, total=found.rows)


@router.get(
    "/{dataset}/versions/{version}/content",
    dependencies=[KNOWN_PARAMETERS],
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The table as a file.",
            "content": {media_type: TABLES[media_type] for media_type in FILE_SUFFIX},
        },
        **problem_responses(403, 404, 406),
    },
)
def get_content(
    dataset: str,
    version: Number,
    request: Request,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    columns: Annotated[
        list[str], Query(description="A column, to be repeated in the order that is wanted; by default all.")
    ] = [],  # noqa: B006 - FastAPI copies it
    where: Annotated[
        list[str],
        Query(
            max_length=100,
            description="A condition of rows, to be repeated; all of them hold. A column's name, then `=`, "
            "`!=`, `<`, `<=`, `>` or `>=` and a value of the column's type, or `:null` or `:present`. "
            "A null passes no comparison.",
            examples=[["distance>=100", "carrier!=UA", "wind_gust:present"]],
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
    limit: Annotated[int | None, Query(ge=1, le=2**62, description="At most so many rows.")] = None,
) -> StreamingResponse:
    """The table in the format that `Accept` names first, whole or in part; Parquet unless it names another.

    The rows keep their order. Times are compared in UTC, and strings by their characters' code points. A
    text in a CSV that a spreadsheet would take for a formula is left as it is: open foreign data with care.
    """
    media_type = accepted(request.headers.get("accept", "*/*"))
    with database.session_scope(write=False) as session:
        found = service.get_rows_of(session, caller, dataset, version)
    selection = None
    if columns or where or limit:
        selection = select(found.typed_columns, columns, where, limit)
    with ExitStack() as stack:
        parts = stack.enter_context(store.open_files(found.parts))
        return send_table(parts, media_type, f"{dataset}-{version}", scratch, stack, selection)
