"""Comparing versions over HTTP: JSON for programs, a page for people."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.access.route import CallerDep, GuardedRoute
from app.errors import InputError, InvalidInput, pointer
from app.http.accept import PageFormat, page_format
from app.http.fields import Name, Number
from app.http.problems import problem_responses
from app.http.query import KNOWN_PARAMETERS
from app.http.session import DatabaseDep, StoreDep
from app.training.card.card import CARD_HEADERS
from app.training.comparison.answers import VersionComparison
from app.training.comparison.page import render_comparison
from app.training.comparison.service import Asked, compare_versions

router = APIRouter(prefix="/v1/models/{model}", tags=["models"], route_class=GuardedRoute)

MAX_VERSIONS = 10


@router.get(
    "/compare",
    dependencies=[KNOWN_PARAMETERS],
    response_model=VersionComparison,
    responses={
        200: {"description": "The comparison.", "content": {"text/html": {"schema": {"type": "string"}}}},
        **problem_responses(404, 406, 409, 422),
    },
)
def compare(
    model: str,
    versions: Annotated[
        str,
        Query(
            description="Two numbers or more, at most 10; the first version is compared with each other one.",
            examples=["2,5"],
        ),
    ],
    request: Request,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    dataset: Annotated[
        Name | None,
        Query(description="Compare on this dataset's rows that no version is known to have learnt from."),
    ] = None,
    dataset_version: Annotated[Number | None, Query(description="Default: the dataset's newest.")] = None,
    wanted: Annotated[
        PageFormat | None, Query(alias="format", description="By default what `Accept` names first.")
    ] = None,
) -> Response:
    """How much better one version is than another, on the same rows, and what else sets them apart.

    The rows are those that the newest version held out and no other has learnt from. As `text/html` the same
    is a page.
    """
    format_ = wanted or page_format(request.headers.get("accept", "*/*"), "comparison")
    if dataset is None and dataset_version is not None:
        raise _refused("dataset", "goes with dataset_version: name the dataset as well")
    asked = None if dataset is None else Asked(dataset, dataset_version)
    found = compare_versions(database, store, caller, model, _numbers(versions), asked)
    headers = {"vary": "accept"}
    if format_ is PageFormat.JSON:
        return Response(found.model_dump_json(), media_type="application/json", headers=headers)
    return Response(render_comparison(found), media_type="text/html", headers={**headers, **CARD_HEADERS})


def _numbers(text: str) -> list[int]:
    given = text.split(",")
    if not all(one.isascii() and one.isdigit() and 0 < int(one[:11]) < 2**31 for one in given):
        raise _refused("versions", "must be numbers of versions with commas between them, such as 2,5")
    numbers = [int(one) for one in given]
    if not 2 <= len(set(numbers)) == len(numbers) <= MAX_VERSIONS:
        raise _refused("versions", f"must name between 2 and {MAX_VERSIONS} versions, each once")
    return numbers


def _refused(parameter: str, detail: str) -> InvalidInput:
    fault = InputError(pointer("query", parameter), detail)
    return InvalidInput("invalid_input", f"The request is wrong: {fault.pointer}: {detail}", errors=[fault])
