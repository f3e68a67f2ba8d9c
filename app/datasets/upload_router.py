"""Uploads and imports: a router of its own, because their size limit is another."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from app.access.route import CallerDep, UploadRoute
from app.columns import ColumnType
from app.datasets import arrivals, imports
from app.datasets.faults import fault
from app.datasets.reading.decode import TEXT, UTF_8, Limits, text_encoding
from app.datasets.reading.ingest import MediaType
from app.datasets.reading.recipe import Recipe
from app.datasets.router import TABLES, DatasetVersionInfo, made_info
from app.datasets.service import get_dataset
from app.db import Database
from app.errors import InputError, InvalidInput, quoted
from app.http.bodies import limit_body, read_body, read_json
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, ScratchDep, StoreDep
from app.settings import Settings
from app.store import CHUNK_BYTES, digest_of

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=UploadRoute)

WRITE_BYTES = 256 * 1024
CONTENT_CODINGS = {"": None, "identity": None, "gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
COLUMN_TYPE = f"^(?s:.+):({'|'.join(ColumnType)})$"
RECIPE_EXAMPLE: dict[str, Any] = {
    "encoding": "windows-1252",
    "delimiter": ";",
    "nulls": ["", "-"],
    "types": {"zip": "string"},
}
IMPORT_EXAMPLE: dict[str, Any] = {
    "url": "s3://exports/2026/flights.csv.gz",
    "recipe": {"delimiter": ";", "types": {"zip": "string"}},
}


def _known_encoding(name: str) -> str:
    text_encoding(name)
    return name


def _of_different_columns(types: list[str]) -> list[str]:
    if len({text.rpartition(":")[0] for text in types}) < len(types):
        raise ValueError("name a column once only")
    return types


class RecipeQuery(BaseModel):
    """A ``Recipe`` as the parameters of a URL."""

    model_config = ConfigDict(extra="forbid")

    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = Field(
        None,
        description="The encoding of the text, where it is not UTF-8 and has no byte order mark.",
        examples=["windows-1252"],
    )
    compression: str | None = Field(
        None,
        pattern="^(none|gzip|zstd)$",
        description="How the file is compressed. By default `Content-Encoding` and the first bytes tell.",
        examples=["gzip"],
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="What separates the fields of a CSV.", examples=[";"]
    )
    quote: str | None = Field(
        None,
        max_length=1,
        description="What encloses the fields of a CSV; empty where nothing does.",
        examples=["'"],
    )
    header: bool | None = Field(
        None, description="Whether the first line of a CSV names the columns.", examples=[False]
    )
    nulls: list[str] | None = Field(
        None,
        description="A text that means null, in every column; to be repeated. Those named replace the usual.",
        examples=[["", "-"]],
    )
    types: Annotated[
        list[Annotated[str, Field(pattern=COLUMN_TYPE)]], AfterValidator(_of_different_columns)
    ] = Field(
        [],
        description="`column:type`, where the type found is wrong; to be repeated. The types are "
        f"{', '.join(f'`{type_}`' for type_ in ColumnType)}.",
        examples=[["zip:string", "late:boolean"]],
    )
    timezone: str | None = Field(
        None,
        description="The time zone of times that are written without one; by default UTC.",
        examples=["Europe/Paris"],
    )

    def as_recipe(self) -> Recipe:
        """Raises RequestValidationError."""
        types = dict(text.rsplit(":", 1) for text in self.types)
        asked = self.model_dump(exclude={"types"}, exclude_unset=True) | {"types": types}
        try:
            return Recipe.model_validate(asked)
        except ValidationError as error:
            _refuse(error, "query")


class Import(BaseModel):
    """A data file at a URL."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [IMPORT_EXAMPLE]})

    url: str = Field(
        max_length=2000,
        description="`s3://`, `gs://`, `az://`, `https://` or `file:///`, below one of the folders that "
        "`ROUNDHOUSE_IMPORT_PREFIXES` names.",
    )
    media_type: MediaType | None = Field(None, description="By default what the ending of the name says.")
    recipe: Recipe = Recipe()


UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": TABLES
    | {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "recipe": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "description": "A Recipe as JSON, in place of parameters of the URL.",
                        "examples": [json.dumps(RECIPE_EXAMPLE)],
                    },
                },
            }
        },
        "application/json": {"schema": {"$ref": "#/components/schemas/Import"}},
    },
}


@router.post(
    "/{dataset}/versions",
    status_code=201,
    response_model=DatasetVersionInfo,
    responses={
        200: {"description": "The version that holds this table already.", "model": DatasetVersionInfo},
        **problem_responses(404, 415),
    },
    openapi_extra={"requestBody": UPLOAD_BODY},
)
async def upload_version(
    dataset: str,
    asked: Annotated[RecipeQuery, Query()],
    request: Request,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    response: Response,
) -> DatasetVersionInfo:
    """Upload a file as the next version: as the raw body, or as `file` of a form; or, by JSON, import one.

    The file is streamed, read whole once, and refused whole where a row is malformed. It may be compressed
    with gzip or zstd. The parameters settle what the file leaves open, and are recorded with what was found
    out. The same bytes or the same table again answer 200 with the version that holds them, so repeating
    an upload is safe.
    """
    await run_in_threadpool(check_dataset, database, dataset)
    with scratch.folder() as folder:
        upload = await receive(request, asked.as_recipe(), folder / "upload")
        version, created = await run_in_threadpool(
            arrivals.add_upload, database, store, caller, dataset, upload
        )
    return made_info(version, caller, response, created=created)


def check_dataset(database: Database, name: str) -> None:
    with database.session_scope(write=False) as session:
        get_dataset(session, name)


async def receive(request: Request, recipe: Recipe, path: Path) -> arrivals.Upload:
    """Write the file that is uploaded, or is to be imported, to ``path`` as it arrives."""
    settings: Settings = request.app.state.settings
    limits = Limits(settings.max_upload_bytes, settings.max_decompression_ratio)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await _import(request, recipe, path, limits)
    if kind == "multipart/form-data":
        return await _receive_form(request, recipe, path, limits)
    content_type = request.headers.get("content-type")
    media_type = arrivals.media_type_of(content_type)
    recipe = _told_by_headers(request, recipe, media_type)
    return arrivals.Upload(path, media_type, await _write(path, request.stream()), limits, recipe)


async def _receive_form(request: Request, recipe: Recipe, path: Path, limits: Limits) -> arrivals.Upload:
    if _coding(request) is not None:
        raise InvalidInput(
            "unsupported_encoding",
            "A form is not read with a Content-Encoding. Compress the file in it instead.",
            status=415,
        )
    async with request.form(max_files=1) as form:
        file, text = form.get("file"), form.get("recipe")
        if not isinstance(file, UploadFile):
            raise InvalidInput(
                "file_missing",
                "The form has no file in its field 'file'.",
                errors=[InputError("/file", "the file is missing")],
            )
        if text is not None:
            recipe = _only(recipe, _read_recipe(text if isinstance(text, str) else await text.read()))
        media_type = arrivals.media_type_of(file.content_type, file.filename)
        return arrivals.Upload(path, media_type, await _write(path, _read_file(file)), limits, recipe)


async def _import(request: Request, recipe: Recipe, path: Path, limits: Limits) -> arrivals.Upload:
    settings: Settings = request.app.state.settings
    request = limit_body(request, settings.max_request_bytes, "ROUNDHOUSE_MAX_REQUEST_BYTES")
    asked = read_body(Import, await request.body())
    recipe = _only(recipe, asked.recipe)
    place = imports.check_allowed(asked.url, settings.import_prefixes)
    media_type = asked.media_type or _type_by_name(place.steps[-1])
    await run_in_threadpool(imports.fetch, asked.url, settings.import_prefixes, path, limits.size)
    digest = await run_in_threadpool(digest_of, path)
    origin = {"kind": "import", "url": imports.origin_of(asked.url)}
    return arrivals.Upload(path, media_type, digest, limits, recipe, origin)


def _type_by_name(name: str) -> MediaType:
    try:
        return arrivals.media_type_of(None, name)
    except InvalidInput as refused:
        detail = (
            f"The ending of {quoted(name)} does not say what kind of file it is. Name its `media_type`: "
            f"{', '.join(MediaType)}."
        )
        errors = [InputError("/media_type", detail)]
        raise InvalidInput(refused.code, detail, errors=errors, status=refused.status) from None


def _told_by_headers(request: Request, recipe: Recipe, media_type: MediaType) -> Recipe:
    """The recipe, with the compression and the encoding that the headers name."""
    told: dict[str, str] = {}
    if (coding := _coding(request)) is not None:
        if recipe.compression not in (None, coding):
            detail = f"The Content-Encoding is {coding} and the recipe says {recipe.compression}. Send one."
            raise fault("invalid_recipe", detail, "query", "compression")
        told["compression"] = coding
    charset = re.search(r'charset\s*=\s*"?([^";\s]+)', request.headers.get("content-type", ""), re.IGNORECASE)
    if charset and recipe.encoding is None and media_type in TEXT:
        try:
            encoding = text_encoding(charset[1])
        except ValueError as error:
            raise fault("invalid_recipe", f"The charset of the Content-Type: {error}.") from None
        if encoding != UTF_8:
            told["encoding"] = charset[1]
    return recipe.model_copy(update=told)


def _coding(request: Request) -> str | None:
    """The compression that the request's Content-Encoding names."""
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in CONTENT_CODINGS:
        raise InvalidInput(
            "unsupported_encoding",
            f"Data files of Content-Encoding {coding!r} are not read here. Send gzip, zstd or none.",
            status=415,
        )
    return CONTENT_CODINGS[coding]


def _only(in_query: Recipe, in_body: Recipe) -> Recipe:
    if in_query != Recipe() and in_body != Recipe():
        detail = "There is a recipe in the parameters of the URL and one in the body. Send one of them."
        raise fault("invalid_recipe", detail, "recipe")
    return in_body if in_query == Recipe() else in_query


def _read_recipe(text: str | bytes) -> Recipe:
    content: Any = None
    try:
        content = read_json(text.encode() if isinstance(text, str) else text)
        return Recipe.model_validate(content)
    except json.JSONDecodeError as error:
        raise fault("invalid_recipe", f"The recipe is not JSON: {error}.", "recipe") from None
    except ValidationError as error:
        _refuse(error, "body", "recipe", body={"recipe": content})


def _refuse(error: ValidationError, *at: str, body: Any = None) -> NoReturn:
    faults = error.errors(include_url=False)
    raise RequestValidationError(
        [found | {"loc": (*at, *found["loc"])} for found in faults], body=body
    ) from None


async def _read_file(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> str:
    """Write the file; its digest."""
    digest = hashlib.sha256()
    received: list[bytes] = []
    size = 0

    def flush() -> None:
        for chunk in received:
            file.write(chunk)
            digest.update(chunk)
        received.clear()

    with path.open("wb") as file:
        async for chunk in chunks:
            received.append(chunk)
            size += len(chunk)
            if size >= WRITE_BYTES:
                await run_in_threadpool(flush)
                size = 0
        await run_in_threadpool(flush)
    return f"sha256:{digest.hexdigest()}"
