"""Datasets: creating them, and finding them and their versions."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.access.caller import Caller, Forbidden
from app.datasets.models import Dataset, DatasetVersion
from app.errors import Conflict, NotFound, quoted
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
        raise NotFound(
            "dataset_not_found", f"There is no dataset {quoted(name)}. POST /v1/datasets creates one."
        )
    return dataset


def list_datasets(
    session: Session, paging: Paging, *which: ColumnElement[bool]
) -> tuple[Sequence[Dataset], str | None]:
    return paginate(session, select(Dataset).where(*which), Dataset.id, paging)


def find_newest(session: Session, dataset: Dataset) -> DatasetVersion | None:
    """The newest version that is not a part or a sample of another."""
    versions = select(DatasetVersion).filter_by(dataset_id=dataset.id).where(WHOLE)
    return session.scalar(versions.order_by(DatasetVersion.number.desc()).limit(1))


def get_version(session: Session, name: str, number: int | None = None) -> DatasetVersion:
    """Version ``number`` of the dataset, or the newest that is not a part or a sample of another."""
    dataset = get_dataset(session, name)
    if number is None:
        version = find_newest(session, dataset)
    else:
        version = session.scalar(select(DatasetVersion).filter_by(dataset_id=dataset.id, number=number))
    if version is None:
        path = f"/v1/datasets/{name}/versions"
        raise NotFound(
            "dataset_version_not_found",
            f"Dataset {name!r} has no version yet. POST {path} uploads one."
            if number is None
            else f"Dataset {name!r} has no version {number}. GET {path} lists its versions.",
        )
    return version


def get_rows_of(session: Session, caller: Caller, name: str, number: int | None = None) -> DatasetVersion:
    """``get_version`` for a caller who is to see its rows.

    Raises Forbidden too, where they, or those of a version that it was made of, are predictions of a model
    that the key may not touch.
    """
    version = get_version(session, name, number)
    if caller.models is None:
        return version
    numbers = [version.number, *list_bases(session, version)]
    model = DatasetVersion.origin["model"].as_string()
    query = select(model).filter_by(dataset_id=version.dataset_id)
    made_of = session.scalars(query.where(DatasetVersion.number.in_(numbers), model.is_not(None)))
    if not all(caller.may_touch(model) for model in made_of):
        raise Forbidden(
            "model_not_allowed",
            f"Version {version.number} of dataset {name!r} holds predictions of a model, and the key "
            f"{caller.name!r} is limited to models named {caller.models!r}, of which that is none. Use "
            "another key, or ask an admin for one.",
        )
    return version


def list_bases(session: Session, version: DatasetVersion) -> list[int]:
    """The number of the version that it was derived from, of the one that that was made of, and so on."""
    base = DatasetVersion.origin["base"].as_integer()
    query = select(DatasetVersion.number, base).where(
        DatasetVersion.dataset_id == version.dataset_id, base.is_not(None)
    )
    base_of: dict[int, int] = dict(session.execute(query).all()) if "base" in version.origin else {}
    bases, number = [], version.number
    while number in base_of:
        number = base_of[number]
        bases.append(number)
    return bases


def list_versions(
    session: Session, name: str, paging: Paging, *which: ColumnElement[bool]
) -> tuple[Sequence[DatasetVersion], str | None]:
    dataset = get_dataset(session, name)
    query = select(DatasetVersion).filter_by(dataset_id=dataset.id).where(*which)
    return paginate(session, query, DatasetVersion.number, paging)
