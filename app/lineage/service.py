"""Where data versions, model versions and predictions come from, and what came of them.

Every answer takes a fixed number of queries. A caller that is limited to some models is told of no other.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.access.caller import Caller
from app.datasets.models import Dataset, DatasetVersion
from app.db import UtcDateTime
from app.registry.models import ModelVersion
from app.serving.batch_models import BatchPrediction
from app.serving.models import Deployment, DeploymentSlot, PredictionCount, Variant
from app.training.models import TrainingRun

T = TypeVar("T")


class Listing(NamedTuple):
    """The newest of some rows, and how many there are in all."""

    items: Sequence[Any]
    total: int


class Service(NamedTuple):
    """A version's part in a deployment: from its creation until that of the model's next one.

    ``champion`` is the champion of the deployment before, None where there was none.
    """

    version_id: int
    deployment: int
    variant: Variant
    weight: float
    since: datetime
    until: datetime | None
    champion_before: int | None


class Recorded(NamedTuple):
    """Sealed predictions: how many in all, and by deployment, where None is by name or alias."""

    total: int
    by_deployment: dict[int | None, int]


def trained_on(dataset: str, number: int | None = None) -> ColumnElement[bool]:
    """Of ``ModelVersion``: that it learned from the dataset, or from this version of it."""
    of_dataset = ModelVersion.data["dataset"].as_string() == dataset
    return (
        of_dataset
        if number is None
        else and_(of_dataset, ModelVersion.data["version"].as_integer() == number)
    )


def derived_from(version: DatasetVersion, column: InstrumentedAttribute[T] | type[T]) -> Select[T]:
    """A query for the versions of the same dataset that were made of this one, the newest first."""
    return (
        select(column)
        .where(DatasetVersion.dataset_id == version.dataset_id)
        .where(DatasetVersion.origin["base"].as_integer() == version.number)
        .order_by(DatasetVersion.number.desc())
    )


def list_derived(session: Session, version: DatasetVersion, limit: int) -> Listing:
    return _list(session, derived_from(version, DatasetVersion), limit)


def list_runs(session: Session, caller: Caller, version: DatasetVersion, limit: int) -> Listing:
    query = select(TrainingRun).where(
        TrainingRun.dataset_version_id == version.id, caller.sees(TrainingRun.model)
    )
    return _list(session, query.order_by(TrainingRun.id.desc()), limit)


def list_models(session: Session, caller: Caller, version: DatasetVersion, limit: int) -> Listing:
    query = select(ModelVersion).where(
        trained_on(version.dataset, version.number), caller.sees(ModelVersion.model)
    )
    return _list(session, query.order_by(ModelVersion.id.desc()), limit)


def list_batches(session: Session, caller: Caller, uses: ColumnElement[bool], limit: int) -> Listing:
    query = select(BatchPrediction).where(uses, caller.sees(BatchPrediction.model))
    return _list(session, query.order_by(BatchPrediction.id.desc()), limit)


def _list(session: Session, query: Select[T], limit: int) -> Listing:
    items = session.scalars(query.limit(limit)).all()
    if len(items) < limit:
        return Listing(items, len(items))
    counted = query.order_by(None).with_only_columns(func.count())
    return Listing(items, session.scalar(counted) or 0)


def find_data(session: Session, version: ModelVersion) -> DatasetVersion | None:
    """The data version that it learned from."""
    dataset = select(Dataset.id).filter_by(name=version.data["dataset"]).scalar_subquery()
    return session.scalar(
        select(DatasetVersion).filter_by(dataset_id=dataset, number=version.data["version"])
    )


def runs_of(session: Session, versions: Iterable[ModelVersion]) -> dict[int, TrainingRun]:
    """The runs that made the versions, by the versions' ids."""
    wanted = [version.id for version in versions]
    runs = session.scalars(select(TrainingRun).where(TrainingRun.model_version_id.in_(wanted)))
    return {run.model_version_id: run for run in runs if run.model_version_id is not None}


def find_services(session: Session, versions: Iterable[ModelVersion]) -> dict[int, list[Service]]:
    """The deployments that each version, by its id, was ever part of, the latest first."""
    wanted = list(versions)
    if not wanted:
        return {}
    models = {version.model_id for version in wanted}
    champion = and_(DeploymentSlot.deployment_id == Deployment.id, DeploymentSlot.variant == Variant.CHAMPION)
    # Each deployment of the models with its neighbours in time; then only those that the versions are in.
    order: dict[str, Any] = {"partition_by": Deployment.model_id, "order_by": Deployment.id}
    history = (
        select(
            Deployment.id,
            Deployment.created_at.label("since"),
            func.lead(Deployment.created_at, type_=UtcDateTime()).over(**order).label("until"),
            func.lag(DeploymentSlot.version).over(**order).label("champion_before"),
        )
        .join(DeploymentSlot, champion)
        .where(Deployment.model_id.in_(models))
        .subquery()
    )
    query = (
        select(
            DeploymentSlot.version_id,
            history.c.id,
            DeploymentSlot.variant,
            DeploymentSlot.weight,
            history.c.since,
            history.c.until,
            history.c.champion_before,
        )
        .join(history, history.c.id == DeploymentSlot.deployment_id)
        .where(DeploymentSlot.version_id.in_([version.id for version in wanted]))
        .order_by(history.c.id.desc())
    )
    found: dict[int, list[Service]] = {}
    for row in session.execute(query):
        service = Service(*row)
        found.setdefault(service.version_id, []).append(service._replace(variant=Variant(service.variant)))
    return found


def count_predictions(session: Session, versions: Iterable[ModelVersion]) -> dict[int, Recorded]:
    """How many recorded predictions of each version, by its id, are sealed."""
    ids = {(version.model, version.number): version.id for version in versions}
    if not ids:
        return {}
    count = PredictionCount
    query = (
        select(count.model, count.version, count.deployment, func.sum(count.rows))
        .where(tuple_(count.model, count.version).in_(ids))
        .group_by(count.model, count.version, count.deployment)
    )
    found: dict[int, dict[int | None, int]] = {version_id: {} for version_id in ids.values()}
    for model, number, deployment, rows in session.execute(query):
        found[ids[model, number]][deployment] = int(rows)
    return {version_id: Recorded(sum(parts.values()), parts) for version_id, parts in found.items()}
