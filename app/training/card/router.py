"""Model cards over HTTP: JSON for programs, a page for people."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.route import GuardedRoute
from app.http.accept import PageFormat, page_format
from app.http.fields import Number
from app.http.problems import problem_responses
from app.http.query import KNOWN_PARAMETERS
from app.http.session import DatabaseDep, StoreDep
from app.registry.models import ModelVersion
from app.registry.service import get_version
from app.training.card.card import CARD_HEADERS, MAX_TRIALS, ModelCard, TrialFacts, render_card
from app.training.models import TrainingRun, Trial

router = APIRouter(prefix="/v1/models/{model}", tags=["models"], route_class=GuardedRoute)


@router.get(
    "/versions/{version}/card",
    dependencies=[KNOWN_PARAMETERS],
    response_model=ModelCard,
    responses={
        200: {"description": "The card.", "content": {"text/html": {"schema": {"type": "string"}}}},
        **problem_responses(404, 406),
    },
)
def get_card(
    model: str,
    version: Number,
    request: Request,
    database: DatabaseDep,
    store: StoreDep,
    wanted: Annotated[
        PageFormat | None, Query(alias="format", description="By default what `Accept` names first.")
    ] = None,
    download: Annotated[bool, Query(description="Answer as a file to be saved.")] = False,  # noqa: FBT002 - a query's default
) -> Response:
    """All that is to be known of a version: what it is for, how good, how it errs, how to make it again.

    As `text/html` the same is a page with plots, which can be saved, mailed and printed, runs no script and
    needs nothing from anywhere. Versions of older releases have no evaluation report: the rest is there.
    """
    format_ = wanted or page_format(request.headers.get("accept", "*/*"), "card")
    with database.session_scope(write=False) as session:
        found = get_version(session, model, version)
        facts = _facts(session, found)
    report = None if found.report_digest is None else json.loads(store.read(found.report_digest))
    card = ModelCard(**facts, report=report)
    headers = {"vary": "accept"}
    if download:
        headers["content-disposition"] = f'attachment; filename="{model}-v{version}-card.{format_}"'
    if format_ is PageFormat.JSON:
        return Response(card.model_dump_json(), media_type="application/json", headers=headers)
    return Response(render_card(card), media_type="text/html", headers={**headers, **CARD_HEADERS})


def _facts(session: Session, version: ModelVersion) -> dict[str, Any]:
    """What the database knows of a version: all of its card but the report."""
    run = session.scalar(select(TrainingRun).filter_by(model_version_id=version.id))
    trials = (
        session.scalars(select(Trial).filter_by(run_id=run.id).order_by(Trial.number).limit(MAX_TRIALS)).all()
        if run
        else []
    )
    same = (
        "model", "algorithm", "task", "created_by", "created_at", "data", "spec", "params", "metrics",
        "evaluation", "environment", "artifact_digest", "artifact_size", "runtime", "runtime_reason",
    )  # fmt: skip
    return {
        **{name: getattr(version, name) for name in same},
        "version": version.number,
        "target": version.signature["target"],
        "features": version.signature["features"],
        "tags": run.tags if run else {},
        "training_run": run.id if run else None,
        "trials": [TrialFacts.model_validate(trial, from_attributes=True) for trial in trials],
    }
