"""Data versions made of predictions and what came true of them, over HTTP."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.access.route import CallerDep, GuardedRoute
from app.datasets.router import VERSION_EXAMPLE, DatasetVersionInfo, made_info
from app.http.fields import Moment, StrictNumber
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, ScratchDep, StoreDep
from app.monitoring.labelled import Wanted, add_labelled
from app.serving.predict_router import PredictingDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=GuardedRoute)

ANSWER_EXAMPLE: dict[str, Any] = {
    "version": VERSION_EXAMPLE
    | {"version": 2, "origin": {"kind": "feedback", "model": "flight-delays"}, "rows": 2950},
    "predictions": 3000,
    "labelled": 2950,
    "unfit": 0,
}


class LabelledPredictions(BaseModel):
    """Which predictions, by their model and time."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "flight-delays",
                    "since": "2026-11-01T00:00:00Z",
                    "until": "2026-12-01T00:00:00Z",
                }
            ]
        },
    )

    model: str
    version: StrictNumber | None = Field(None, description="The model's version; by default all of them.")
    since: Moment | None = Field(None, description="Not made before this time.")
    until: Moment | None = Field(None, description="Made before this time.")
    column: str | None = Field(
        None, min_length=1, max_length=256, description="The name for the outcome. Default: the target's."
    )


class LabelledVersionInfo(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [ANSWER_EXAMPLE]})

    version: DatasetVersionInfo
    predictions: int = Field(description="Made in this time.")
    labelled: int = Field(description="Those whose outcome is known: the rows of the version.")
    unfit: int = Field(description="Those whose outcome is known and whose values no table can hold.")


@router.post(
    "/{dataset:segment}/versions:from-feedback",
    status_code=201,
    responses={
        200: {"description": "The version that holds this table already.", "model": LabelledVersionInfo},
        **problem_responses(403, 404, 409),
    },
)
def add_version_from_feedback(
    dataset: str,
    body: LabelledPredictions,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    predicting: PredictingDep,
    response: Response,
) -> LabelledVersionInfo:
    """A new version of what a model was asked and what came true: its inputs, and the outcome as target.

    The rows are in the order of the predictions. Where an outcome was corrected, the last one counts.
    """
    caller.require_model(body.model)
    with scratch.folder() as folder:
        wanted = Wanted(body.model, body.version, body.since, body.until, body.column)
        made = add_labelled(database, predicting.journal, store, caller, dataset, wanted, folder)
    return LabelledVersionInfo(
        version=made_info(made.version, caller, response, created=made.created),
        predictions=made.predictions,
        labelled=made.labelled,
        unfit=made.unfit,
    )
