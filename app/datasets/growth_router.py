"""Versions made of versions, over HTTP."""

from fractions import Fraction
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool

from app.access.route import CallerDep, GuardedRoute, UploadRoute
from app.datasets import growth_service
from app.datasets.growth_service import Draw
from app.datasets.router import VERSION_EXAMPLE, DatasetVersionInfo, made_info, version_info
from app.datasets.upload_router import UPLOAD_BODY, RecipeQuery, check_dataset, receive
from app.http.fields import Name, Number
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, ScratchDep, StoreDep

append_router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=UploadRoute)
router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=GuardedRoute)

SEED = Field(0, ge=0, lt=2**63, strict=True, description="Another seed draws other rows.")
Share = Annotated[float, Field(gt=0, le=1, strict=True, allow_inf_nan=False)]
EXISTING: dict[int | str, Any] = {
    200: {"description": "The version that holds this table already.", "model": DatasetVersionInfo}
}


class NewSplit(BaseModel):
    """Parts by name, and their shares of the rows, which sum to 1."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"parts": {"train": 0.8, "test": 0.2}, "seed": 7, "stratify": "late"}]
        },
    )

    parts: dict[Name, Share] = Field(min_length=1, max_length=100)
    seed: int = SEED
    by: str | None = Field(None, description="A column; the rows of each of its values stay together.")
    stratify: str | None = Field(
        None, description="A column; each part has its share of the rows of each of its values."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(sum(self.parts.values()) - 1) > 1e-9:
            raise ValueError(f"the shares of the parts must sum to 1, not to {sum(self.parts.values()):g}")
        if self.by is not None and self.stratify is not None:
            raise ValueError("by and stratify cannot be kept to at once; name one of them")
        return self

    def shares(self) -> dict[str, Fraction]:
        """The shares, of exactly 1 together."""
        told = {part: Fraction(str(share)) for part, share in self.parts.items()}
        return {part: share / sum(told.values()) for part, share in told.items()}


class NewSample(BaseModel):
    """A number of rows, or a share of them."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"fraction": 0.1, "seed": 7, "stratify": "late"}]}
    )

    rows: int | None = Field(None, ge=1, strict=True)
    fraction: Share | None = None
    seed: int = SEED
    stratify: str | None = Field(
        None, description="A column; each of its values keeps its share of the rows."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.rows is None) == (self.fraction is None):
            raise ValueError("name either rows or fraction")
        return self

    def size(self) -> int | Fraction:
        return self.rows if self.rows is not None else Fraction(str(self.fraction))


class SplitInfo(BaseModel):
    """A version for each part."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "parts": {
                        "train": VERSION_EXAMPLE | {"version": 2, "rows": 7200},
                        "test": VERSION_EXAMPLE | {"version": 3, "rows": 1800},
                    }
                }
            ]
        }
    )

    parts: dict[str, DatasetVersionInfo]


@append_router.post(
    "/{dataset}/versions/{version:segment}:append",
    status_code=201,
    responses={**EXISTING, **problem_responses(404, 409, 415)},
    openapi_extra={"requestBody": UPLOAD_BODY},
)
async def append_rows(
    dataset: str,
    version: Number,
    asked: Annotated[RecipeQuery, Query()],
    request: Request,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    response: Response,
) -> DatasetVersionInfo:
    """A new version: the rows of this one and then those of the file, which is sent as an upload is.

    The file has the version's columns, in any order, and is read with their types. A column that holds
    nulls may be left out. What the two versions share is stored once.
    """
    await run_in_threadpool(check_dataset, database, dataset)
    with scratch.folder() as folder:
        upload = await receive(request, asked.as_recipe(), folder / "upload")
        made, created = await run_in_threadpool(
            growth_service.append_rows, database, store, caller, dataset, version, upload
        )
    return made_info(made, caller, response, created=created)


@router.post(
    "/{dataset}/versions/{version:segment}:split",
    status_code=201,
    responses={
        200: {"description": "The versions that hold these parts already.", "model": SplitInfo},
        **problem_responses(404),
    },
)
def split_version(
    dataset: str,
    version: Number,
    body: NewSplit,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    response: Response,
) -> SplitInfo:
    """A new version for each part. Every row is in one of them, in order; the same seed gives the same parts.

    Each part has its share of the rows, rounded down or up; with `stratify`, of the rows of each value.
    With `by` whole groups are dealt out, and a part may be off its share by half of its largest ones.
    """
    with scratch.folder() as folder:
        made = growth_service.split_version(
            database,
            store,
            caller,
            dataset,
            version,
            body.shares(),
            Draw(body.seed, body.by, body.stratify),
            folder,
        )
    if not any(created for _, created in made.values()):
        response.status_code = 200
    response.headers["location"] = f"/v1/datasets/{dataset}/versions"
    return SplitInfo(parts={part: version_info(version, caller) for part, (version, _) in made.items()})


@router.post(
    "/{dataset}/versions/{version:segment}:sample",
    status_code=201,
    responses={**EXISTING, **problem_responses(404)},
)
def sample_version(
    dataset: str,
    version: Number,
    body: NewSample,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    response: Response,
) -> DatasetVersionInfo:
    """A new version of some of the rows, in order. The same seed gives the same rows, anywhere.

    With `stratify` each value keeps its share of them, rounded down or up.
    """
    with scratch.folder() as folder:
        made, created = growth_service.sample_version(
            database,
            store,
            caller,
            dataset,
            version,
            body.size(),
            Draw(body.seed, stratify=body.stratify),
            folder,
        )
    return made_info(made, caller, response, created=created)
