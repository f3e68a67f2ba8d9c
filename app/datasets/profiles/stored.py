"""Profiles of data versions, kept as objects of the store."""

from sqlalchemy import update

from app.datasets.models import DatasetVersion
from app.datasets.profiles.profile import DataProfile
from app.datasets.profiles.profiler import build_profile, build_target_profile
from app.db import Database
from app.errors import InputError, InvalidInput, pointer, quoted
from app.owned import Scratch
from app.store import Store


def store_profile(store: Store, profile: DataProfile) -> str:
    """The digest of the object that holds the profile."""
    return store.write([profile.model_dump_json().encode()]).digest


def read_profile(database: Database, store: Store, scratch: Scratch, version: DatasetVersion) -> bytes:
    """The version's profile as JSON; the first time that it is asked for, it may have to be made."""
    if version.profile_digest is None:
        with store.open_files(version.parts) as parts, scratch.folder() as folder:
            profile = build_profile(parts, version.typed_columns, version.rows, folder)
            digest = store_profile(store, profile)
        with database.session_scope() as session:
            # Another request may have made it meanwhile; the table being the same, so is the profile.
            session.execute(update(DatasetVersion).filter_by(id=version.id).values(profile_digest=digest))
        return store.read(digest)
    return store.read(version.profile_digest)


def add_target(store: Store, version: DatasetVersion, profile: DataProfile, target: str) -> DataProfile:
    """The profile with what its other columns tell of the column ``target``. Raises InvalidInput."""
    columns = version.typed_columns
    if target not in {column.name for column in columns}:
        detail = f"Dataset {version.dataset!r}, version {version.number}, has no column {quoted(target)}."
        raise InvalidInput("unknown_column", detail, errors=[InputError(pointer("query", "target"), detail)])
    with store.open_files(version.parts) as parts:
        told = build_target_profile(parts, columns, profile, target)
    return profile.model_copy(update={"target": told})
