"""New versions: a table and where it comes from become a version of a dataset, or nothing does."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.datasets.canonical import Table
from app.datasets.contracts.service import Report, check_arrival, find_contract
from app.datasets.engine import Parquet
from app.datasets.identity import content_digest
from app.datasets.models import Dataset, DatasetVersion, DataStatus
from app.datasets.profiles.profiler import build_profile
from app.datasets.profiles.stored import store_profile
from app.datasets.reading.decode import Limits, decode, explain
from app.datasets.reading.ingest import MediaType, ingest
from app.datasets.reading.recipe import Recipe
from app.datasets.service import get_dataset, lock_dataset
from app.db import Database
from app.errors import Conflict, InvalidInput
from app.events.service import record_event
from app.store import Store

MEDIA_TYPE_OF_SUFFIX = {
    ".csv": MediaType.CSV,
    ".tsv": MediaType.CSV,
    ".parquet": MediaType.PARQUET,
    ".ndjson": MediaType.NDJSON,
    ".jsonl": MediaType.NDJSON,
    ".arrows": MediaType.ARROW_STREAM,
}
COMPRESSED_SUFFIXES = (".gz", ".zst")
UNTOLD = ("", "application/octet-stream", "application/gzip", "application/x-gzip", "application/zstd")
"""Types that say nothing of what is in a file; curl says the second of any file in a form."""


class Upload(NamedTuple):
    """A received file that nothing refers to yet, and how it is to be read."""

    path: Path
    media_type: MediaType
    digest: str
    limits: Limits
    recipe: Recipe = Recipe()
    origin: dict[str, Any] = {"kind": "upload"}


class Arrival(NamedTuple):
    """A table that is stored and is to be a version: the facts of ``DatasetVersion``."""

    origin: dict[str, Any]
    media_type: MediaType
    digest: str
    size: int
    recipe: dict[str, Any]
    content_digest: str
    parts: list[str]
    table: Table
    profile: str | None = None
    """The digest of the object that holds its profile; without one, that is made when it is asked for."""
    unique: Collection[str] = ()
    """Columns that are known to repeat no value."""


def add_upload(
    database: Database, store: Store, caller: Caller, name: str, upload: Upload
) -> tuple[DatasetVersion, bool]:
    """The version that holds the uploaded table, and whether it is new.

    The file is read and stored before the one short transaction that makes it a version, so a failure
    anywhere leaves no version behind. Raises NotFound, and InvalidInput for a file that is malformed.
    """
    with database.session_scope(write=False) as session:
        if (found := find_upload(session, name, upload)) is not None:
            return found, False
    parquet, table = read_upload(upload)
    with ThreadPoolExecutor(1) as beside:  # digest and store leave a core to the profile, or all
        profiled = beside.submit(build_profile, parquet, table.columns, table.rows, upload.path.parent)
        content = content_digest(parquet, table.columns)
        with database.session_scope(write=False) as session:
            if (found := _find_content(session, get_dataset(session, name), content)) is not None:
                return found, False
        original = store.take_file(upload.path, upload.digest)
        canonical = store.take_file(parquet)
        profile = profiled.result()
    arrival = Arrival(
        origin=upload.origin,
        media_type=upload.media_type,
        digest=original.digest,
        size=original.size,
        recipe=recipe_record(upload, table),
        content_digest=content,
        parts=[canonical.digest],
        table=table,
        profile=store_profile(store, profile),
        unique={column.name for column in profile.columns if column.is_unique},
    )
    return add_version(database, caller, name, arrival, parquet, upload.path.parent)


def find_upload(session: Session, name: str, upload: Upload) -> DatasetVersion | None:
    """The version that the same bytes became, read in the same way and put to the same rows, if any."""
    asked = _record(upload.recipe)
    same_bytes = select(DatasetVersion).filter_by(
        dataset_id=get_dataset(session, name).id, digest=upload.digest, media_type=upload.media_type
    )
    for found in session.scalars(same_bytes):  # of the first release they have no recipe: none was asked for
        if (found.recipe.get("asked", {}), found.origin.get("base")) == (asked, upload.origin.get("base")):
            return found
    return None


def read_upload(upload: Upload) -> tuple[Path, Table]:
    """The canonical file of an upload, beside it, and what is in that. Raises InvalidInput."""
    parquet, text = upload.path.with_name("canonical.parquet"), upload.path.with_name("decoded")
    decoded = decode(upload.path, upload.media_type, upload.recipe, text, upload.limits)
    try:
        table = ingest(decoded.path, upload.media_type, parquet, upload.recipe)
    except InvalidInput as refused:
        raise explain(refused, decoded) from refused
    text.unlink(missing_ok=True)
    told = {"encoding": decoded.encoding, "compression": decoded.compression}
    return parquet, table._replace(recipe=table.recipe.model_copy(update=told))


def recipe_record(upload: Upload, table: Table) -> dict[str, Any]:
    """How an upload was read, as it is recorded with the version."""
    return {"asked": _record(upload.recipe), "found": _record(table.recipe)}


def _record(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude_defaults=True)


def add_version(
    database: Database, caller: Caller, name: str, arrival: Arrival, files: Parquet, spill: Path
) -> tuple[DatasetVersion, bool]:
    """The version that holds the table, and whether it is new: the same content is the same version.

    The table, in ``files``, is checked against the dataset's contract first, and again where another has
    come in force meanwhile; ``spill`` is a folder for what the check does not hold in memory.
    """
    while True:
        report = check_arrival(
            database,
            name,
            files,
            arrival.table.columns,
            caller.now,
            spill,
            kind=arrival.origin["kind"],
            unique=arrival.unique,
        )
        with database.session_scope() as session:
            dataset = lock_dataset(session, name)
            in_force = find_contract(session, dataset)
            if (in_force and in_force.number) == (report and report.contract):
                return _insert_version(session, caller, dataset, arrival, report)


def _insert_version(
    session: Session, caller: Caller, dataset: Dataset, arrival: Arrival, report: Report | None
) -> tuple[DatasetVersion, bool]:
    _require_base(session, dataset, arrival.origin)
    if (found := _find_content(session, dataset, arrival.content_digest)) is not None:
        return found, False
    dataset.last_version += 1
    version = DatasetVersion(
        dataset_id=dataset.id,
        dataset=dataset.name,
        number=dataset.last_version,
        origin=arrival.origin,
        media_type=arrival.media_type,
        digest=arrival.digest,
        size=arrival.size,
        recipe=arrival.recipe,
        content_digest=arrival.content_digest,
        parts=arrival.parts,
        rows=arrival.table.rows,
        columns=[column.model_dump(mode="json") for column in arrival.table.columns],
        profile_digest=arrival.profile,
        contract=report and report.contract,
        status=report.status if report else DataStatus.ACCEPTED,
        report=report and report.model_dump(mode="json"),
        release=None,
        description="",
        tags={},
        created_by=caller.name,
        created_at=caller.now,
    )
    session.add(version)
    session.flush()
    subject = f"datasets/{dataset.name}/versions/{version.number}"
    record_event(
        session,
        caller,
        "dataset_version.created",
        subject,
        digest=version.digest,
        rows=version.rows,
        status=version.status,
    )
    return version, True


def _find_content(session: Session, dataset: Dataset, digest: str) -> DatasetVersion | None:
    return session.scalar(select(DatasetVersion).filter_by(dataset_id=dataset.id, content_digest=digest))


def _require_base(session: Session, dataset: Dataset, origin: dict[str, Any]) -> None:
    """A version stands as long as what was derived from it: it may share its parts."""
    base = origin.get("base")
    versions = select(DatasetVersion.id).filter_by(dataset_id=dataset.id, number=base)
    if base is not None and session.scalar(versions) is None:
        raise Conflict("base_deleted", f"Version {base} of dataset {dataset.name!r} was deleted meanwhile.")


def media_type_of(content_type: str | None, filename: str | None = None) -> MediaType:
    """The type of a data file; of a form's file without a type of its own, by the ending of its name.

    Raises InvalidInput (415) for a type that is not read here.
    """
    name = (content_type or "").partition(";")[0].strip().lower()
    if name in UNTOLD and filename:
        path = PurePath(filename.lower())
        suffix = (path.with_suffix("") if path.suffix in COMPRESSED_SUFFIXES else path).suffix
        name = MEDIA_TYPE_OF_SUFFIX.get(suffix, name)
    try:
        return MediaType(name)
    except ValueError:
        raise InvalidInput(
            "unsupported_media_type",
            f"Data files of type {name or '(none)'!r} are not read here. Send Content-Type "
            f"{', '.join(MediaType)}, or multipart/form-data with the file, of such a type, in 'file'.",
            status=415,
        ) from None
