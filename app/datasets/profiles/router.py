"""Profiles of data versions over HTTP: JSON for programs, a page for people."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.access.route import CallerDep, GuardedRoute
from app.datasets.profiles.page import PAGE_HEADERS, render_page
from app.datasets.profiles.profile import DataProfile
from app.datasets.profiles.stored import add_target, read_profile
from app.datasets.service import get_rows_of
from app.http.accept import PageFormat, page_format
from app.http.fields import Number
from app.http.problems import problem_responses
from app.http.query import KNOWN_PARAMETERS
from app.http.session import DatabaseDep, ScratchDep, StoreDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=GuardedRoute)


@router.get(
    "/{dataset}/versions/{version}/profile",
    dependencies=[KNOWN_PARAMETERS],
    response_model=DataProfile,
    responses={
        200: {
            "description": "The profile.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
        **problem_responses(403, 404, 406),
    },
)
def get_profile(
    dataset: str,
    version: Number,
    request: Request,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    target: Annotated[
        str | None, Query(description="A column: what the others tell of it, and which give it away.")
    ] = None,
    wanted: Annotated[
        PageFormat | None, Query(alias="format", description="By default what `Accept` names first.")
    ] = None,
) -> Response:
    """What is in every column of a version, and what to know before training on it.

    Counts, extremes, mean, deviation, histograms and top values are of all rows; quantiles and correlations
    of all up to 100,000, and of an even sample of about so many beyond. With `target` (a column's name), the
    columns' associations with it too, by the measure that fits each one's type. As `text/html` the same is a
    page of its own, which can be saved and needs nothing from anywhere.
    """
    format_ = wanted or page_format(request.headers.get("accept", "*/*"), "profile")
    with database.session_scope(write=False) as session:
        found = get_rows_of(session, caller, dataset, version)
    content = read_profile(database, store, scratch, found)
    if format_ is PageFormat.JSON and target is None:
        return Response(content, media_type="application/json", headers={"vary": "accept"})
    profile = DataProfile.model_validate_json(content)
    if target is not None:
        profile = add_target(store, found, profile, target)
    if format_ is PageFormat.JSON:
        return Response(profile.model_dump_json(), media_type="application/json", headers={"vary": "accept"})
    page = render_page(profile, f"{found.dataset}, version {found.number}", found.digest, found.created_at)
    return Response(page, media_type="text/html", headers={"vary": "accept", **PAGE_HEADERS})
