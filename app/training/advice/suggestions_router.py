"""What to do next with a model version, over HTTP."""

import json
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.access.route import GuardedRoute
from app.http.fields import Number
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, StoreDep
from app.registry.models import ModelVersion
from app.registry.service import get_version
from app.registry.signature import Task
from app.training.advice.suggestions import VersionFacts, gain_on_baseline, suggest
from app.training.report.numbers import rounded
from app.training.spec import TrainingSpec

router = APIRouter(prefix="/v1/models/{model}", tags=["models"], route_class=GuardedRoute)

EXAMPLE: dict[str, Any] = {
    "items": [
        {
            "kind": "simplify",
            "title": "The logistic regression does as well",
            "evidence": {
                "metric": "roc_auc",
                "difference": 0.003,
                "interval": [-0.002, 0.008],
                "gain_on_baseline": 0.21,
            },
            "strength": 15.6,
            "expected": "At most 0.008 of roc_auc less, for a model whose weights can be read.",
            "spec": {
                "model": "flight-delays",
                "dataset": "flights",
                "dataset_version": 1,
                "target": "late",
                "algorithm": "logistic_regression",
            },
            "action": None,
        }
    ],
    "notes": [],
}


class SuggestionInfo(BaseModel):
    kind: str = Field(
        description="`leak`, `more_data_of_slice`, `calibrate`, `simplify`, `set_costs`, `search_longer`, "
        "`drop_columns`, `class_weight`, `time_validation` or `unstable`."
    )
    title: str
    evidence: dict[str, Any] = Field(description="The numbers of the evaluation report that speak for it.")
    strength: float = Field(
        description="How many standard errors the evidence lies beyond where it would say nothing; of a "
        "search, the share of what the model has gained on the baseline."
    )
    expected: str
    spec: dict[str, Any] | None = Field(
        description="A body for `POST /v1/training-runs`; null where no training can do it."
    )
    action: str | None = Field(description="What to do where `spec` is null.")


class Suggestions(BaseModel):
    """What to do next, the best founded first. Empty where the evidence says nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    items: list[SuggestionInfo]
    notes: list[str] = Field(description="Why there is nothing to suggest.")


@router.get("/versions/{version}/suggestions", responses=problem_responses(404))
def get_suggestions(model: str, version: Number, database: DatabaseDep, store: StoreDep) -> Suggestions:
    """What to do next with a version, from its evaluation report, each with its evidence and a spec to post.

    Nothing is suggested of a model that is not clearly better than the baseline without columns.
    """
    with database.session_scope(write=False) as session:
        found = get_version(session, model, version)
    if found.report_digest is None:
        note = "The version has no evaluation report: it was trained before there were any. Train it again."
        return Suggestions(items=[], notes=[note])
    report = json.loads(store.read(found.report_digest))
    facts = _facts(found)
    items = [
        SuggestionInfo(
            kind=one.kind,
            title=one.title,
            evidence=_in_six_digits(one.evidence),
            strength=round(one.strength, 2),
            expected=one.expected,
            spec=one.spec,
            action=one.action,
        )
        for one in suggest(facts, report)
    ]
    notes = []
    if gain_on_baseline(facts, report) is None:
        notes.append(
            "On the held-out rows the version is not clearly better than the baseline without columns: "
            "nothing else in the report means much. Look for columns that tell more, or for more rows."
        )
    return Suggestions(items=items, notes=notes)


def _facts(version: ModelVersion) -> VersionFacts:
    return VersionFacts(
        model=version.model,
        dataset=version.data["dataset"],
        dataset_version=version.data["version"],
        task=Task(version.task),
        algorithm=version.algorithm,
        spec=TrainingSpec.model_validate(version.spec),
        signature=version.signature,
        evaluation=version.evaluation,
    )


def _in_six_digits(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_six_digits(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_in_six_digits(one) for one in value]
    return rounded(value) if isinstance(value, float) else value
