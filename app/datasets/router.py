"""Datasets over HTTP. Uploads have a router of their own, because their size limit is another."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import StreamingResponse

from app.access.route import CallerDep, GuardedRoute, UploadRoute
from app.columns import Column
from app.datasets import service
from app.datasets.content import FILE_SUFFIX, accepted, send_table
from app.datasets.ingest import MediaType
from app.datasets.table import preview
from app.db import Database
from app.errors import InputError, InvalidInput
from app.http.fields import Name, Number
from app.http.paging import Page, PagingDep
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, ScratchDep, SessionDep, StoreDep
from app.store import CHUNK_BYTES

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=GuardedRoute)
upload_router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=UploadRoute)


VERSION_EXAMPLE: dict[str, Any] = {
    "dataset": "flights",
    "version": 1,
    "digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "media_type": "text/csv",
    "size": 1048576,
    "rows": 9000,
    "columns": [
        {"name": "scheduled", "type": "datetime", "nullable": False},
        {"name": "carrier", "type": "string", "nullable": False},
        {"name": "wind_gust", "type": "number", "nullable": True},
        {"name": "late", "type": "boolean", "nullable": False},
    ],
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
                    "created_by": "ana",
                    "created_at": "2026-11-23T08:00:00Z",
                }
            ]
        },
    )

    name: str
    description: str
    created_by: str
    created_at: datetime


class DatasetVersionInfo(BaseModel):
    """An immutable version: the digest is of the uploaded bytes."""

    model_config = ConfigDict(
        from_attributes=True,
        validate_by_name=True,
        json_schema_extra={"examples": [VERSION_EXAMPLE]},
    )

    dataset: str
    version: int = Field(validation_alias="number")
    digest: str
    media_type: MediaType
    size: int = Field(description="Of the uploaded file, in bytes.")
    rows: int
    columns: list[Column]
    created_by: str
    created_at: datetime


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
def list_datasets(session: SessionDep, paging: PagingDep) -> Page[DatasetInfo]:
    """All datasets, newest first."""
    rows, cursor = service.list_datasets(session, paging)
    return Page(items=[DatasetInfo.model_validate(row) for row in rows], next=cursor)


@router.get("/{dataset}", responses=problem_responses(404))
def get_dataset(dataset: str, session: SessionDep) -> DatasetInfo:
    """One dataset."""
    return DatasetInfo.model_validate(service.get_dataset(session, dataset))


BINARY = {"schema": {"type": "string", "format": "binary"}}
# Enough rows to train on, so that the examples of /docs can be tried one after the other.
CSV_EXAMPLE = "carrier,distance,late\n" + "".join(
    f"{carrier},{distance},{str(carrier == 'B6' or distance > 2000).lower()}\n"
    for distance in range(200, 2600, 300)
    for carrier in ("AA", "B6", "UA")
)
UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "text/csv": {
            "schema": {"type": "string"},
            "example": CSV_EXAMPLE,
        },
        "application/x-ndjson": {
            "schema": {"type": "string"},
            "example": '{"carrier": "UA", "distance": 1400, "late": false}\n',
        },
        MediaType.PARQUET: BINARY,
        MediaType.ARROW_STREAM: BINARY,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
    },
}


@upload_router.post(
    "/{dataset}/versions",
    status_code=201,
    response_model=DatasetVersionInfo,
    responses={
        200: {"description": "The version that holds these bytes already.", "model": DatasetVersionInfo},
        **problem_responses(404, 415),
    },
    openapi_extra={"requestBody": UPLOAD_BODY},
)
async def upload_version(
    dataset: str,
    request: Request,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    response: Response,
) -> DatasetVersionInfo:
    """Upload a file as the next version: as the raw body, or as `file` of a form.

    The file is streamed, read whole once, and refused whole where a row is malformed. The same bytes
    again answer 200 with the version that holds them, so repeating an upload is safe.
    """
    await run_in_threadpool(_check_dataset, database, dataset)
    with scratch.folder() as folder:
        upload = await _receive(request, folder / "upload")
        version, created = await run_in_threadpool(
            service.add_version, database, store, caller, dataset, upload
        )
    if not created:
        response.status_code = 200
    response.headers["location"] = f"/v1/datasets/{dataset}/versions/{version.number}"
    return DatasetVersionInfo.model_validate(version)


def _check_dataset(database: Database, name: str) -> None:
    with database.session_scope(write=False) as session:
        service.get_dataset(session, name)


async def _receive(request: Request, path: Path) -> service.Upload:
    """Write the uploaded file to ``path`` as it arrives."""
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/form-data"):
        async with request.form(max_files=1) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise InvalidInput(
                    "file_missing",
                    "The form has no file in its field 'file'.",
                    errors=[InputError("/file", "the file is missing")],
                )
            media_type = service.media_type_of(file.content_type, file.filename)
            await _write(path, _read_form_file(file))
    else:
        media_type = service.media_type_of(content_type)
        await _write(path, request.stream())
    return service.Upload(path, media_type, await run_in_threadpool(service.digest_of, path))


async def _read_form_file(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> None:
    with path.open("wb") as file:
        async for chunk in chunks:
            await run_in_threadpool(file.write, chunk)


@router.get("/{dataset}/versions", responses=problem_responses(404))
def list_versions(dataset: str, session: SessionDep, paging: PagingDep) -> Page[DatasetVersionInfo]:
    """The versions of a dataset, newest first."""
    rows, cursor = service.list_versions(session, dataset, paging)
    return Page(items=[DatasetVersionInfo.model_validate(row) for row in rows], next=cursor)


@router.get("/{dataset}/versions/{version}", responses=problem_responses(404))
def get_version(dataset: str, version: Number, session: SessionDep) -> DatasetVersionInfo:
    """One version: its digest and schema."""
    return DatasetVersionInfo.model_validate(service.get_version(session, dataset, version))


@router.get("/{dataset}/versions/{version}/preview", responses=problem_responses(404))
def preview_version(
    dataset: str,
    version: Number,
    database: DatabaseDep,
    store: StoreDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> Preview:
    """Some rows of a version, as JSON."""
    with database.session_scope(write=False) as session:
        found = service.get_version(session, dataset, version)
    with store.open_file(found.parquet_digest) as path:
        rows = preview(path, limit, offset)
    return Preview(columns=found.columns, rows=rows, offset=offset, total=found.rows)


@router.get(
    "/{dataset}/versions/{version}/content",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The table as a file.",
            "content": {media_type: UPLOAD_BODY["content"][media_type] for media_type in FILE_SUFFIX},
        },
        **problem_responses(404, 406),
    },
)
def get_content(
    dataset: str,
    version: Number,
    request: Request,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
) -> StreamingResponse:
    """The whole table in the format that `Accept` names first; Parquet unless it names another."""
    media_type = accepted(request.headers.get("accept", "*/*"))
    with database.session_scope(write=False) as session:
        found = service.get_version(session, dataset, version)
    with ExitStack() as stack:
        path = stack.enter_context(store.open_file(found.parquet_digest))
        return send_table(path, media_type, f"{dataset}-{version}", scratch, stack)
