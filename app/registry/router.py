"""Model versions and aliases over HTTP."""

import json
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.access.route import CallerDep, GuardedRoute
from app.http.fields import Name, Number, StrictNumber
from app.http.paging import Page, PagingDep
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, SessionDep, StoreDep
from app.registry import service
from app.registry.models import Alias, ModelVersion
from app.registry.runtime import Runtime
from app.registry.signature import Signature

router = APIRouter(prefix="/v1/models/{model}", tags=["models"], route_class=GuardedRoute)


SIGNATURE_EXAMPLE: dict[str, Any] = {
    "features": [
        {
            "name": "distance",
            "type": "integer",
            "role": "numeric",
            "nullable": False,
            "categories": None,
            "minimum": 80,
            "maximum": 4983,
        },
        {
            "name": "carrier",
            "type": "string",
            "role": "categorical",
            "nullable": False,
            "categories": ["AA", "B6", "UA"],
            "minimum": None,
            "maximum": None,
        },
    ],
    "ignored": ["flight_id"],
    "target": "late",
    "target_type": "boolean",
    "task": "binary",
    "classes": [False, True],
    "costs": None,
}
SUMMARY_EXAMPLE: dict[str, Any] = {
    "model": "flight-delays",
    "version": 1,
    "algorithm": "hist_gradient_boosting",
    "task": "binary",
    "metrics": {"roc_auc": 0.74, "accuracy": 0.79, "log_loss": 0.45},
    "data": {"dataset": "flights", "version": 1, "digest": "sha256:2c26b46b68ff…"},
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:00Z",
}
EVALUATION_EXAMPLE: dict[str, Any] = {
    "metrics": {"roc_auc": 0.74, "accuracy": 0.79, "log_loss": 0.45},
    "baseline_metrics": {"roc_auc": 0.5, "accuracy": 0.76, "log_loss": 0.55},
    "confusion_matrix": [[1300, 90], [280, 150]],
    "choice": None,
    "search": None,
    "reproducible": True,
    "dropped": {"flight_id": "identifier: every value is different"},
    "notes": [],
    "rows": {"training": 7200, "holdout": 1800, "without_target": 0},
}


class VersionSummary(BaseModel):
    model_config = ConfigDict(
        from_attributes=True,
        validate_by_name=True,
        json_schema_extra={"examples": [SUMMARY_EXAMPLE]},
    )

    model: str
    version: int = Field(validation_alias="number")
    algorithm: str
    task: str
    metrics: dict[str, float | None] = Field(description="On the holdout.")
    data: dict[str, Any] = Field(description="The dataset version it was trained on.")
    created_by: str
    created_at: datetime


class VersionInfo(VersionSummary):
    """An immutable model version with all that is known of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                SUMMARY_EXAMPLE
                | {
                    "signature": SIGNATURE_EXAMPLE,
                    "example": {"distance": 1400, "carrier": "UA"},
                    "params": {"max_iter": 100, "learning_rate": 0.1},
                    "spec": {"target": "late", "algorithm": "auto", "seed": 0},
                    "evaluation": EVALUATION_EXAMPLE,
                    "reference": {"columns": []},
                    "environment": {"python": "3.11.7", "scikit-learn": "1.9.1"},
                    "artifact_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015"
                    "a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "artifact_size": 184320,
                    "runtime": "compiled",
                    "runtime_reason": None,
                }
            ]
        }
    )

    signature: Signature
    example: dict[str, Any] = Field(description="A row of the training data, as `instances` take it.")
    params: dict[str, Any]
    spec: dict[str, Any]
    evaluation: dict[str, Any]
    reference: dict[str, Any] = Field(description="The reference profile that drift is measured against.")
    environment: dict[str, Any]
    artifact_digest: str
    artifact_size: int
    runtime: Runtime = Field(
        description="How it is served: `compiled`, in microseconds, or `native`, by scikit-learn itself."
    )
    runtime_reason: str | None = Field(description="Why it is served natively.")


class Evaluation(BaseModel):
    """How good the version is on rows that it was not fitted on, beside the baseline that only counts."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVALUATION_EXAMPLE]})

    metrics: dict[str, float | None]
    baseline_metrics: dict[str, float | None]
    confusion_matrix: list[list[int]] | None = Field(description="Rows are the true classes.")
    choice: dict[str, Any] | None = Field(description="What `auto` compared, and why it chose.")
    dropped: dict[str, str] = Field(description="Columns that the model does not use, and why.")
    notes: list[str]
    rows: dict[str, int]
    as_served: dict[str, float] | None = Field(
        None,
        description="What it costs to serve: `row_microseconds`, the median time of a single row on the "
        "worker that trained it, and `bytes`.",
    )
    search: dict[str, Any] | None = Field(None, description="What a search tried, and what it chose.")
    reproducible: bool | None = Field(
        None, description="Whether the same request makes the same model: a search by time does not."
    )
    report: dict[str, Any] | None = Field(
        None,
        description="The evaluation report: intervals, differences to other models, curves, importance, "
        "slices, fairness, stability. Null for versions of older releases.",
    )


class AliasTarget(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 1}]})

    version: StrictNumber


class AliasInfo(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "alias": "stable",
                    "model": "flight-delays",
                    "version": 2,
                    "updated_by": "eva",
                    "updated_at": "2026-11-23T08:00:00Z",
                }
            ]
        }
    )

    alias: str
    model: str
    version: int
    updated_by: str
    updated_at: datetime


@router.get("/versions", responses=problem_responses(404))
def list_versions(model: str, session: SessionDep, paging: PagingDep) -> Page[VersionSummary]:
    """The versions of a model, newest first."""
    rows, cursor = service.list_versions(session, model, paging)
    return Page(items=[VersionSummary.model_validate(row) for row in rows], next=cursor)


@router.get("/versions/{version:segment}", responses=problem_responses(404))
def get_version(model: str, version: Number, session: SessionDep) -> VersionInfo:
    """One version: signature, metrics, spec, data, environment, artifact."""
    return VersionInfo.model_validate(service.get_version(session, model, version))


@router.get("/versions/{version}/evaluation", responses=problem_responses(404))
def get_evaluation(model: str, version: Number, database: DatabaseDep, store: StoreDep) -> Evaluation:
    """How a version did on its holdout. `…/card` shows the same as a page."""
    with database.session_scope(write=False) as session:
        found = service.get_version(session, model, version)
    report = None if found.report_digest is None else json.loads(store.read(found.report_digest))
    return Evaluation(metrics=found.metrics, **found.evaluation, report=report)


@router.get("/aliases", responses=problem_responses(404))
def list_aliases(model: str, session: SessionDep) -> Page[AliasInfo]:
    """The aliases of a model."""
    return Page(items=[_alias_info(*row) for row in service.list_aliases(session, model)], next=None)


@router.put(
    "/aliases/{alias:segment}",
    responses={201: {"description": "The alias is new.", "model": AliasInfo}, **problem_responses(404)},
)
def set_alias(
    model: str, alias: Name, body: AliasTarget, caller: CallerDep, session: SessionDep, response: Response
) -> AliasInfo:
    """Point an alias at a version. `…/aliases/{alias}:predict` follows it within a second."""
    found, version, created = service.set_alias(session, caller, model, alias, body.version)
    if created:
        response.status_code = 201
        response.headers["location"] = f"/v1/models/{model}/aliases/{alias}"
    return _alias_info(found, version)


@router.delete("/aliases/{alias:segment}", status_code=204, responses=problem_responses(404))
def delete_alias(model: str, alias: str, caller: CallerDep, session: SessionDep) -> None:
    """Remove an alias."""
    service.delete_alias(session, caller, model, alias)


def _alias_info(alias: Alias, version: ModelVersion) -> AliasInfo:
    return AliasInfo(
        alias=alias.name,
        model=version.model,
        version=version.number,
        updated_by=alias.updated_by,
        updated_at=alias.updated_at,
    )
