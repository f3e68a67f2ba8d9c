"""Searching for runs and versions over HTTP."""

from typing import Any

from fastapi import APIRouter
from pydantic import ConfigDict

from app.access.route import CallerDep, GuardedRoute
from app.http.paging import Page
from app.http.session import SessionDep
from app.registry.router import VersionSummary
from app.training.finding.finding import find_runs, find_versions
from app.training.finding.query import Query
from app.training.router import RunInfo, run_infos

router = APIRouter(prefix="/v1", tags=["training"], route_class=GuardedRoute)

QUERY_EXAMPLE: dict[str, Any] = {
    "where": {
        "and": [
            {"field": "metrics.roc_auc", "op": ">", "value": 0.7},
            {
                "or": [
                    {"field": "algorithm", "op": "in", "value": ["random_forest", "extra_trees"]},
                    {"field": "params.max_depth", "op": "<=", "value": 6},
                ]
            },
            {"not": {"field": "tags.team", "op": "=", "value": "trial"}},
        ]
    },
    "sort": {"field": "metrics.roc_auc", "order": "desc"},
    "limit": 20,
}


class Search(Query):
    model_config = ConfigDict(json_schema_extra={"examples": [QUERY_EXAMPLE]})


@router.post("/training-runs:search")
def search_runs(body: Search, caller: CallerDep, session: SessionDep) -> Page[RunInfo]:
    """Find training runs by metric, parameter, tag, status, date and more, joined with and, or and not."""
    runs, cursor = find_runs(session, caller, body)
    return Page(items=run_infos(session, runs), next=cursor)


@router.post("/model-versions:search")
def search_versions(body: Search, caller: CallerDep, session: SessionDep) -> Page[VersionSummary]:
    """Find model versions, of every model that the key may see, by what is known of their runs."""
    versions, cursor = find_versions(session, caller, body)
    return Page(items=[VersionSummary.model_validate(version) for version in versions], next=cursor)
