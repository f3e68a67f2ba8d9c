"""Datasets: creating them, and finding them and their versions."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.datasets.models import Dataset, DatasetVersion
from app.errors import Conflict, NotFound
from app.events.service import record_event
from app.http.paging import Paging, paginate

PARTIAL = ("split", "sample")
"""The kinds of origin of a version that holds some rows of another."""

WHOLE = DatasetVersion.origin["kind"].as_string().not_in(PARTIAL)
"""The condition of a version that does not just hold some rows of another.

Whoever trains on the newest data does not mean the test set that was split off them.
"""


def create_dataset(session: Session, caller: Caller, *, name: str, description: str) -> Dataset:
    if session.scalar(select(Dataset.id).filter_by(name=name)) is not None:
        raise Conflict(
            "dataset_exists",
            f"There is a dataset {name!r} already. Upload to it at /v1/datasets/{name}/versions, "
            "or choose another name.",
        )
    dataset = Dataset(
        name=name, description=description, tags={}, created_by=caller.name, created_at=caller.now
    )
    session.add(dataset)
    session.flush()
    record_event(session, caller, "dataset.created", f"datasets/{name}")
    return dataset


def get_dataset(session: Session, name: str) -> Dataset:
    return _found(session.scalar(select(Dataset).filter_by(name=name)), name)


def lock_dataset(session: Session, name: str) -> Dataset:
    """The dataset as it is now, locked until the transaction ends; NotFound where it was deleted meanwhile.

    Versions and contracts of a dataset come, change and go one after the other: whoever writes has the lock.
    """
    locked = select(Dataset).filter_by(name=name).with_for_update().execution_options(populate_existing=True)
    return _found(session.scalar(locked), name)


def _found(dataset: Dataset | None, name: str) -> Dataset:
    if dataset is None:
        raise NotFound("dataset_not_found", f"There is no dataset {name!r}. POST /v1/datasets creates one.")
    return dataset


def list_datasets(
    session: Session, paging: Paging, *which: ColumnElement[bool]
) -> tuple[Sequence[Dataset], str | None]:
    return paginate(session, select(Dataset).where(*which), Dataset.id, paging)


def get_version(session: Session, name: str, number: int | None = None) -> DatasetVersion:
    """Version ``number`` of the dataset, or the newest that is not a part or a sample of another."""
    dataset = get_dataset(session, name)
    which_one = WHOLE if number is None else DatasetVersion.number == number
    versions = select(DatasetVersion).filter_by(dataset_id=dataset.id).where(which_one)
    version = session.scalar(versions.order_by(DatasetVersion.number.desc()).limit(1))
    if version is None:
        which = "version yet" if number is None else f"version {number}"
        raise NotFound(
            "dataset_version_not_found",
            f"Dataset {name!r} has no {which}. GET /v1/datasets/{name}/versions lists what it has.",
        )
    return version


def list_versions(
    session: Session, name: str, paging: Paging, *which: ColumnElement[bool]
) -> tuple[Sequence[DatasetVersion], str | None]:
    dataset = get_dataset(session, name)
    query = select(DatasetVersion).filter_by(dataset_id=dataset.id).where(*which)
    return paginate(session, query, DatasetVersion.number, paging)
