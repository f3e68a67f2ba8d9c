"""Lineage over HTTP, both ways, and the deletion of what no lineage needs."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.route import CallerDep, GuardedRoute
from app.datasets.models import DatasetVersion
from app.datasets.router import origin_for
from app.datasets.service import get_version as get_data_version
from app.datasets.service import list_bases
from app.errors import NotFound
from app.http.fields import Number
from app.http.problems import problem_responses
from app.http.session import DatabaseDep, SessionDep
from app.leases import Status
from app.lineage import deletion, service
from app.registry.models import ModelVersion
from app.registry.service import get_version
from app.serving.batch_models import BatchPrediction
from app.serving.models import Variant
from app.serving.predict_router import PREDICTION_EXAMPLE, PredictingDep, PredictionInfo
from app.serving.predicting import prediction_not_found
from app.training.models import TrainingRun

data_router = APIRouter(prefix="/v1/datasets/{dataset}", tags=["datasets"], route_class=GuardedRoute)
model_router = APIRouter(prefix="/v1/models/{model}", tags=["models"], route_class=GuardedRoute)
prediction_router = APIRouter(prefix="/v1/predictions", tags=["predictions"], route_class=GuardedRoute)

T = TypeVar("T")

# ── Forms ────────────────────────────────────────────────────────────────────────────────────────

DIGEST = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
DATA_REFERENCE: dict[str, Any] = {
    "dataset": "flights",
    "version": 1,
    "href": "/v1/datasets/flights/versions/1",
}
DATA_EXAMPLE: dict[str, Any] = {
    "dataset": "flights",
    "version": 2,
    "href": "/v1/datasets/flights/versions/2",
    "content": "/v1/datasets/flights/versions/2/content",
    "digest": DIGEST,
    "content_digest": DIGEST,
    "rows": 9000,
    "bases": [DATA_REFERENCE],
}
RUN_EXAMPLE: dict[str, Any] = {
    "id": 7,
    "href": "/v1/training-runs/7",
    "status": "succeeded",
    "model": "flight-delays",
    "model_version": 2,
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:00Z",
    "finished_at": "2026-11-23T08:00:09Z",
}
DEPLOYMENT_EXAMPLE: dict[str, Any] = {
    "id": 3,
    "href": "/v1/models/flight-delays/deployments/3",
    "variant": "champion",
    "weight": 1.0,
    "since": "2026-11-23T08:10:00Z",
    "until": None,
    "predictions": 1200,
}
MODEL_REFERENCE: dict[str, Any] = {
    "model": "flight-delays",
    "version": 1,
    "href": "/v1/models/flight-delays/versions/1",
}
BATCH_EXAMPLE: dict[str, Any] = {
    "id": 4,
    "href": "/v1/batch-predictions/4",
    "status": "succeeded",
    "model": "flight-delays",
    "version": 2,
    "dataset": "flights",
    "dataset_version": 2,
    "rows": 9000,
}
MODEL_EXAMPLE: dict[str, Any] = {
    "model": "flight-delays",
    "version": 2,
    "href": "/v1/models/flight-delays/versions/2",
    "created_by": "ana",
    "created_at": "2026-11-23T08:00:09Z",
    "run": RUN_EXAMPLE,
    "algorithm": "hist_gradient_boosting",
    "params": {"max_iter": 100},
    "spec": {"target": "late", "algorithm": "auto", "seed": 7},
    "seed": 7,
    "data": DATA_EXAMPLE,
    "split": {
        "method": "stratified",
        "time_column": None,
        "holdout": 0.2,
        "rows": {"training": 7200, "holdout": 1800, "without_target": 0},
    },
    "environment": {"python": "3.11.7", "roundhouse": "0.1.0", "scikit-learn": "1.9.1", "source": DIGEST},
    "artifacts": [{"kind": "pipeline", "digest": DIGEST, "size": 184320}],
    "deployments": [DEPLOYMENT_EXAMPLE],
    "replaced": MODEL_REFERENCE,
    "predictions": 1200,
    "batch_predictions": {"items": [BATCH_EXAMPLE], "total": 1},
}


class Newest(BaseModel, Generic[T]):
    """The newest of a kind, and how many there are in all."""

    items: list[T]
    total: int


class DataReference(BaseModel):
    dataset: str
    version: int
    href: str


class DataFacts(DataReference):
    """A data version: exactly these rows."""

    content: str = Field(description="Where the table itself can be had.")
    digest: str = Field(description="Of the file that came.")
    content_digest: str = Field(description="Of the table, whatever file it came in.")
    rows: int
    bases: list[DataReference] = Field(
        description="The version that it was derived from, the one that that was derived from, and so on."
    )


class FeedbackSource(BaseModel):
    """The predictions, with their true outcomes, that a data version was made of."""

    model: str
    version: int | None = Field(description="Null where all versions' predictions were taken.")
    href: str
    since: datetime | None
    until: datetime | None


class RunReference(BaseModel):
    id: int
    href: str
    status: Status
    model: str
    model_version: int | None
    created_by: str
    created_at: datetime
    finished_at: datetime | None


class DeploymentReference(BaseModel):
    """A version's part in a deployment, from its creation until the model's next one."""

    id: int
    href: str
    variant: Variant
    weight: float = Field(description="Its share of the answers.")
    since: datetime
    until: datetime | None = Field(description="Null while it is in service.")
    predictions: int = Field(description="Of this version in this deployment; see `predictions` beside it.")


COUNTED = (
    "Recorded predictions, exactly, but for those of the last seconds, which are not sealed yet "
    "(ROUNDHOUSE_JOURNAL_SEAL_SECONDS). With those that were asked of the version by its number or an alias."
)


class ModelReference(BaseModel):
    model: str
    version: int
    href: str


class TrainedVersion(ModelReference):
    """A model version that learned from the data, and its life."""

    run: str | None = Field(description="The path of the run that made it.")
    deployments: list[DeploymentReference]
    predictions: int = Field(description=COUNTED)


class BatchReference(BaseModel):
    id: int
    href: str
    status: Status
    model: str
    version: int
    dataset: str
    dataset_version: int
    rows: int


class DataLineage(DataFacts):
    """Where a data version comes from, and what came of it, as far as the key may see."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                DATA_EXAMPLE
                | {
                    "created_by": "ana",
                    "created_at": "2026-11-23T07:00:00Z",
                    "origin": {"kind": "append", "base": 1},
                    "feedback": None,
                    "runs": {"items": [RUN_EXAMPLE], "total": 1},
                    "models": {
                        "items": [
                            {
                                "model": "flight-delays",
                                "version": 2,
                                "href": "/v1/models/flight-delays/versions/2",
                                "run": "/v1/training-runs/7",
                                "deployments": [DEPLOYMENT_EXAMPLE],
                                "predictions": 1200,
                            }
                        ],
                        "total": 1,
                    },
                    "batch_predictions": {"items": [BATCH_EXAMPLE], "total": 1},
                    "derived": {
                        "items": [
                            {"dataset": "flights", "version": 3, "href": "/v1/datasets/flights/versions/3"}
                        ],
                        "total": 1,
                    },
                }
            ]
        }
    )

    created_by: str
    created_at: datetime
    origin: dict[str, Any] = Field(
        description="How it came, as recorded; a model that the key may not see is null."
    )
    feedback: FeedbackSource | None = Field(description="Of a version that was made of feedback.")
    runs: Newest[RunReference]
    models: Newest[TrainedVersion]
    batch_predictions: Newest[BatchReference]
    derived: Newest[DataReference]


class Split(BaseModel):
    """What decides which of the rows the model was fitted on: with the seed and the data, exactly these."""

    method: str
    time_column: str | None
    holdout: float
    rows: dict[str, int] = Field(description="How many of them: training, holdout, without_target.")


class Artifact(BaseModel):
    kind: str = Field(description="`pipeline`: scikit-learn's, by joblib; `scorer`: its compiled form.")
    digest: str
    size: int = Field(description="In bytes.")


class ModelLineage(ModelReference):
    """What made a model version, and what it did."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL_EXAMPLE]})

    created_by: str
    created_at: datetime
    run: RunReference | None
    algorithm: str
    params: dict[str, Any]
    spec: dict[str, Any]
    seed: int
    data: DataFacts | None
    split: Split
    environment: dict[str, Any] = Field(
        description="Python, the libraries that the fit ran on, and `source`, a digest of Roundhouse itself."
    )
    artifacts: list[Artifact]
    deployments: list[DeploymentReference]
    replaced: ModelReference | None = Field(description="The champion before it first was one.")
    predictions: int = Field(description=COUNTED)
    batch_predictions: Newest[BatchReference]


class PredictionLineage(BaseModel):
    """From one prediction to the rows, spec and code that made its model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prediction_id": PREDICTION_EXAMPLE["prediction_id"],
                    "href": f"/v1/predictions/{PREDICTION_EXAMPLE['prediction_id']}",
                    "at": "2026-11-23T08:00:00Z",
                    "record": PREDICTION_EXAMPLE,
                    "deployment": DEPLOYMENT_EXAMPLE,
                    "model": MODEL_EXAMPLE,
                }
            ]
        }
    )

    prediction_id: str
    href: str
    at: datetime = Field(description="To 16 µs, as the id tells; the record has it exactly.")
    record: PredictionInfo | None = Field(
        description="Null where the prediction was not recorded (ROUNDHOUSE_JOURNAL_SHARES)."
    )
    deployment: DeploymentReference | None = Field(
        description="Null where a version or alias was asked for by name."
    )
    model: ModelLineage


# ── Routes ───────────────────────────────────────────────────────────────────────────────────────

Limit = Annotated[int, Query(ge=1, le=500, description="Most items of each kind: the newest.")]


@data_router.get("/versions/{version}/lineage", responses=problem_responses(404))
def get_data_lineage(
    dataset: str, version: Number, caller: CallerDep, session: SessionDep, limit: Limit = 100
) -> DataLineage:
    """Where a data version comes from, and the runs, model versions, deployments and data made of it."""
    found = get_data_version(session, dataset, version)
    runs = service.list_runs(session, caller, found, limit)
    models = service.list_models(session, caller, found, limit)
    makers = service.runs_of(session, models.items)
    services = service.find_services(session, models.items)
    counts = service.count_predictions(session, models.items)
    batches = service.list_batches(session, caller, BatchPrediction.dataset_version_id == found.id, limit)
    derived = service.list_derived(session, found, limit)
    origin = origin_for(found, caller)
    return DataLineage(
        **dict(_data_facts(session, found)),
        created_by=found.created_by,
        created_at=found.created_at,
        origin=origin,
        feedback=_feedback(origin),
        runs=Newest(items=[_run(run) for run in runs.items], total=runs.total),
        models=Newest(
            items=[
                TrainedVersion(
                    **dict(_model(made.model, made.number)),
                    run=f"/v1/{makers[made.id].path}" if made.id in makers else None,
                    deployments=_deployments(made, services.get(made.id, []), counts[made.id]),
                    predictions=counts[made.id].total,
                )
                for made in models.items
            ],
            total=models.total,
        ),
        batch_predictions=_batches(batches),
        derived=Newest(
            items=[_data(other.dataset, other.number) for other in derived.items], total=derived.total
        ),
    )


@model_router.get("/versions/{version}/lineage", responses=problem_responses(404))
def get_model_lineage(
    model: str, version: Number, caller: CallerDep, session: SessionDep, limit: Limit = 100
) -> ModelLineage:
    """The data, run, spec and code that made a model version, and where it served."""
    return _model_lineage(session, caller, get_version(session, model, version, caller), limit)


@prediction_router.get("/{prediction:segment}/lineage", responses=problem_responses(404, 503))
def get_prediction_lineage(
    prediction: str, caller: CallerDep, database: DatabaseDep, predicting: PredictingDep
) -> PredictionLineage:
    """From a prediction's id to its record, deployment, model version, run, data, spec and code."""
    parsed = predicting.ids.parse(prediction)
    with database.session_scope(write=False) as session:
        version = session.get(ModelVersion, parsed.version_id) if parsed else None
        if parsed is None or version is None or not caller.may_touch(version.model):
            raise prediction_not_found(prediction)
        lineage = _model_lineage(session, caller, version, limit=100)
    try:
        record = predicting.recall(caller, prediction, version.model, parsed.at)
    except NotFound:
        record = None
    return PredictionLineage(
        prediction_id=prediction,
        href=f"/v1/predictions/{prediction}",
        at=parsed.at,
        record=PredictionInfo.model_validate(record) if record else None,
        deployment=next((one for one in lineage.deployments if one.id == parsed.deployment_id), None),
        model=lineage,
    )


@data_router.delete("", status_code=204, responses=problem_responses(404, 409))
def delete_dataset(dataset: str, caller: CallerDep, session: SessionDep) -> None:
    """Delete a dataset with all its versions, where no model, run or batch prediction uses one."""
    deletion.delete_dataset(session, caller, dataset)


@data_router.delete("/versions/{version:segment}", status_code=204, responses=problem_responses(404, 409))
def delete_data_version(dataset: str, version: Number, caller: CallerDep, session: SessionDep) -> None:
    """Delete a version that no model, run, batch prediction, derived version or contract uses.

    Its number is not given again. `roundhouse gc` removes its files from the store.
    """
    deletion.delete_version(session, caller, dataset, version)


# ── From rows to forms ───────────────────────────────────────────────────────────────────────────


def _model_lineage(session: Session, caller: Caller, version: ModelVersion, limit: int) -> ModelLineage:
    run = service.runs_of(session, [version]).get(version.id)
    data = service.find_data(session, version)
    services = service.find_services(session, [version]).get(version.id, [])
    recorded = service.count_predictions(session, [version])[version.id]
    batches = service.list_batches(session, caller, BatchPrediction.version_id == version.id, limit)
    championships = [one for one in services if one.variant is Variant.CHAMPION]
    before = championships[-1].champion_before if championships else None
    validation = version.spec.get("validation", {})
    artifacts = [Artifact(kind="pipeline", digest=version.artifact_digest, size=version.artifact_size)]
    if version.scorer_digest is not None and version.scorer_size is not None:
        artifacts.append(Artifact(kind="scorer", digest=version.scorer_digest, size=version.scorer_size))
    return ModelLineage(
        **dict(_model(version.model, version.number)),
        created_by=version.created_by,
        created_at=version.created_at,
        run=_run(run) if run else None,
        algorithm=version.algorithm,
        params=version.params,
        spec=version.spec,
        seed=version.spec["seed"],
        data=_data_facts(session, data) if data else None,
        split=Split(**validation, rows=version.evaluation["rows"]),
        environment=version.environment,
        artifacts=artifacts,
        deployments=_deployments(version, services, recorded),
        replaced=_model(version.model, before) if before is not None else None,
        predictions=recorded.total,
        batch_predictions=_batches(batches),
    )


def _feedback(origin: dict[str, Any]) -> FeedbackSource | None:
    model, number = origin.get("model"), origin.get("version")
    if model is None:
        return None
    href = f"/v1/models/{model}" if number is None else _model(model, number).href
    return FeedbackSource(
        model=model, version=number, href=href, since=origin.get("since"), until=origin.get("until")
    )


def _data(dataset: str, version: int) -> DataReference:
    return DataReference(dataset=dataset, version=version, href=f"/v1/datasets/{dataset}/versions/{version}")


def _data_facts(session: Session, version: DatasetVersion) -> DataFacts:
    reference = _data(version.dataset, version.number)
    return DataFacts(
        **dict(reference),
        content=f"{reference.href}/content",
        digest=version.digest,
        content_digest=version.content_digest,
        rows=version.rows,
        bases=[_data(version.dataset, base) for base in list_bases(session, version)],
    )


def _model(model: str, version: int) -> ModelReference:
    return ModelReference(model=model, version=version, href=f"/v1/models/{model}/versions/{version}")


def _run(run: TrainingRun) -> RunReference:
    return RunReference(
        id=run.id,
        href=f"/v1/{run.path}",
        status=Status(run.status),
        model=run.model,
        model_version=run.model_version,
        created_by=run.created_by,
        created_at=run.created_at,
        finished_at=run.finished_at,
    )


def _deployments(
    version: ModelVersion, services: list[service.Service], recorded: service.Recorded
) -> list[DeploymentReference]:
    return [
        DeploymentReference(
            id=one.deployment,
            href=f"/v1/models/{version.model}/deployments/{one.deployment}",
            variant=one.variant,
            weight=one.weight,
            since=one.since,
            until=one.until,
            predictions=recorded.by_deployment.get(one.deployment, 0),
        )
        for one in services
    ]


def _batches(batches: service.Listing) -> Newest[BatchReference]:
    items = [
        BatchReference(
            id=batch.id,
            href=f"/v1/{batch.path}",
            status=Status(batch.status),
            model=batch.model,
            version=batch.version,
            dataset=batch.dataset,
            dataset_version=batch.dataset_version,
            rows=batch.rows,
        )
        for batch in batches.items
    ]
    return Newest(items=items, total=batches.total)
