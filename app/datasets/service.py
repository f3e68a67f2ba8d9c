"""Datasets: creating them, adding versions, finding both."""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.datasets.ingest import MediaType, Table, ingest
from app.datasets.models import Dataset, DatasetVersion
from app.db import Database
from app.errors import Conflict, InvalidInput, NotFound
from app.events.service import record_event
from app.http.paging import Paging, paginate
from app.store import Store, StoredObject


def create_dataset(session: Session, caller: Caller, *, name: str, description: str) -> Dataset:
    if session.scalar(select(Dataset.id).filter_by(name=name)) is not None:
        raise Conflict(
            "dataset_exists",
            f"There is a dataset {name!r} already. Upload to it at /v1/datasets/{name}/versions, "
            "or choose another name.",
        )
    dataset = Dataset(name=name, description=description, created_by=caller.name, created_at=caller.now)
    session.add(dataset)
    session.flush()
    record_event(session, caller, "dataset.created", f"datasets/{name}")
    return dataset


def get_dataset(session: Session, name: str) -> Dataset:
    dataset = session.scalar(select(Dataset).filter_by(name=name))
    if dataset is None:
        raise NotFound("dataset_not_found", f"There is no dataset {name!r}. POST /v1/datasets creates one.")
    return dataset


def list_datasets(session: Session, paging: Paging) -> tuple[Sequence[Dataset], str | None]:
    return paginate(session, select(Dataset), Dataset.id, paging)


def get_version(session: Session, name: str, number: int | None = None) -> DatasetVersion:
    """Version ``number`` of the dataset, or its newest."""
    dataset = get_dataset(session, name)
    versions = select(DatasetVersion).filter_by(dataset_id=dataset.id)
    if number is not None:
        versions = versions.filter_by(number=number)
    version = session.scalar(versions.order_by(DatasetVersion.number.desc()).limit(1))
    if version is None:
        which = "version yet" if number is None else f"version {number}"
        raise NotFound(
            "dataset_version_not_found",
            f"Dataset {name!r} has no {which}. GET /v1/datasets/{name}/versions lists what it has.",
        )
    return version


def list_versions(session: Session, name: str, paging: Paging) -> tuple[Sequence[DatasetVersion], str | None]:
    dataset = get_dataset(session, name)
    query = select(DatasetVersion).filter_by(dataset_id=dataset.id)
    return paginate(session, query, DatasetVersion.number, paging)


MEDIA_TYPE_OF_SUFFIX = {
    ".csv": MediaType.CSV,
    ".parquet": MediaType.PARQUET,
    ".ndjson": MediaType.NDJSON,
    ".jsonl": MediaType.NDJSON,
    ".arrows": MediaType.ARROW_STREAM,
}


class Upload(NamedTuple):
    """A received file that nothing refers to yet."""

    path: Path
    media_type: MediaType
    digest: str


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def add_version(
    database: Database, store: Store, caller: Caller, name: str, upload: Upload
) -> tuple[DatasetVersion, bool]:
    """The version that holds the uploaded bytes, and whether it is new.

    The file is read and stored before the one short transaction that makes it a version, so a failure
    anywhere leaves no version behind. Raises NotFound, and InvalidInput for a file that is malformed.
    """
    with database.session_scope(write=False) as session:
        found = _find_by_digest(session, get_dataset(session, name), upload.digest)
    if found is not None:
        return found, False
    parquet = upload.path.with_name("canonical.parquet")
    table = ingest(upload.path, upload.media_type, parquet)
    original = store.write_file(upload.path)
    canonical = store.write_file(parquet)
    with database.session_scope() as session:
        return _insert_version(session, caller, name, upload.media_type, table, original, canonical)


def _insert_version(
    session: Session,
    caller: Caller,
    name: str,
    media_type: MediaType,
    table: Table,
    original: StoredObject,
    canonical: StoredObject,
) -> tuple[DatasetVersion, bool]:
    # The dataset's row lock makes version numbers dense.
    dataset = session.scalars(select(Dataset).filter_by(name=name).with_for_update()).one()
    if (found := _find_by_digest(session, dataset, original.digest)) is not None:
        return found, False
    newest = session.scalar(select(func.max(DatasetVersion.number)).filter_by(dataset_id=dataset.id))
    version = DatasetVersion(
        dataset_id=dataset.id,
        dataset=dataset.name,
        number=(newest or 0) + 1,
        media_type=media_type,
        digest=original.digest,
        size=original.size,
        parquet_digest=canonical.digest,
        rows=table.rows,
        columns=[column.model_dump(mode="json") for column in table.columns],
        created_by=caller.name,
        created_at=caller.now,
    )
    session.add(version)
    session.flush()
    subject = f"datasets/{dataset.name}/versions/{version.number}"
    record_event(
        session, caller, "dataset_version.created", subject, digest=version.digest, rows=version.rows
    )
    return version, True


def _find_by_digest(session: Session, dataset: Dataset, digest: str) -> DatasetVersion | None:
    return session.scalar(select(DatasetVersion).filter_by(dataset_id=dataset.id, digest=digest))


def media_type_of(content_type: str | None, filename: str | None = None) -> MediaType:
    """The type of a data file; of a form's file without a type of its own, by the ending of its name.

    Raises InvalidInput (415) for a type that is not read here.
    """
    name = (content_type or "").partition(";")[0].strip().lower()
    if name in ("", "application/octet-stream") and filename:  # what curl says of any file in a form
        name = MEDIA_TYPE_OF_SUFFIX.get(PurePath(filename).suffix.lower(), name)
    try:
        return MediaType(name)
    except ValueError:
        raise InvalidInput(
            "unsupported_media_type",
            f"Data files of type {name or '(none)'!r} are not read here. Send Content-Type "
            f"{', '.join(MediaType)}, or multipart/form-data with the file, of such a type, in 'file'.",
            status=415,
        ) from None
