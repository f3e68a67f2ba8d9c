"""Deleting data versions that nothing uses. Their objects are left to ``roundhouse gc``."""

from collections.abc import Iterator, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.datasets.contracts.rules import Drift
from app.datasets.contracts.service import contract_of, find_contract
from app.datasets.models import Dataset, DatasetContract, DatasetVersion, QuarantineRelease
from app.datasets.service import get_version, lock_dataset
from app.errors import Conflict
from app.events.service import record_event
from app.lineage.service import derived_from, trained_on
from app.registry.models import ModelVersion
from app.serving.batch_models import BatchPrediction
from app.training.models import TrainingRun

NAMED_USERS = 5


def delete_version(session: Session, caller: Caller, name: str, number: int) -> None:
    """Delete a version that nothing uses; its number is not given again.

    Raises NotFound, and Conflict that names what uses it.
    """
    dataset = lock_dataset(session, name)  # so that no version comes to be derived from what goes
    version = get_version(session, name, number)
    users = [
        *_users(session, dataset, number),
        *_derived(session, version),
        *_contract(session, dataset, number),
    ]
    _refuse_used(f"Version {number} of dataset {name!r}", "dataset_version_used", users)
    _delete_versions(session, caller, [version])


def delete_dataset(session: Session, caller: Caller, name: str) -> None:
    """Delete a dataset with its versions and contracts, where nothing outside it uses one of them.

    Raises NotFound, and Conflict that names what uses it.
    """
    dataset = lock_dataset(session, name)
    _refuse_used(f"Dataset {name!r}", "dataset_used", list(_users(session, dataset)))
    versions = session.scalars(select(DatasetVersion).filter_by(dataset_id=dataset.id)).all()
    _delete_versions(session, caller, versions)
    session.execute(delete(DatasetContract).filter_by(dataset_id=dataset.id))
    session.execute(delete(Dataset).filter_by(id=dataset.id))
    record_event(
        session, caller, "dataset.deleted", f"datasets/{name}",
        versions=len(versions), last_version=dataset.last_version,
    )  # fmt: skip


def _users(session: Session, dataset: Dataset, number: int | None = None) -> Iterator[str]:
    """The paths of models, runs and batch predictions that use the dataset, or this version; some of each."""
    models = select(ModelVersion.model, ModelVersion.number).where(trained_on(dataset.name, number))
    for model, version in session.execute(models.limit(NAMED_USERS)):
        yield f"models/{model}/versions/{version}"
    versions = select(DatasetVersion.id).filter_by(dataset_id=dataset.id)
    if number is not None:
        versions = versions.filter_by(number=number)
    runs = select(TrainingRun.id).where(TrainingRun.dataset_version_id.in_(versions))
    for run in session.scalars(runs.limit(NAMED_USERS)):
        yield f"training-runs/{run}"
    batches = select(BatchPrediction.id).where(BatchPrediction.dataset_version_id.in_(versions))
    for batch in session.scalars(batches.limit(NAMED_USERS)):
        yield f"batch-predictions/{batch}"


def _derived(session: Session, version: DatasetVersion) -> Iterator[str]:
    for number in session.scalars(derived_from(version, DatasetVersion.number).limit(NAMED_USERS)):
        yield f"datasets/{version.dataset}/versions/{number}"


def _contract(session: Session, dataset: Dataset, number: int) -> Iterator[str]:
    """The contract in force, if one of its rules compares new data with the version."""
    row = find_contract(session, dataset)
    rules = contract_of(row).rules if row else []
    if any(isinstance(rule, Drift) and rule.reference == number for rule in rules):
        yield f"datasets/{dataset.name}/contract"


def _refuse_used(what: str, code: str, users: Sequence[str]) -> None:
    if users:
        named = ", ".join(users[:NAMED_USERS]) + (" and others" if len(users) > NAMED_USERS else "")
        raise Conflict(code, f"{what} is used by {named}. What is used cannot be deleted.")


def _delete_versions(session: Session, caller: Caller, versions: Sequence[DatasetVersion]) -> None:
    for version in versions:
        session.execute(delete(QuarantineRelease).filter_by(version_id=version.id))
        session.execute(delete(DatasetVersion).filter_by(id=version.id))
        subject = f"datasets/{version.dataset}/versions/{version.number}"
        record_event(
            session, caller, "dataset_version.deleted", subject,
            digest=version.digest, content_digest=version.content_digest, rows=version.rows,
        )  # fmt: skip
