"""What people write on datasets and versions: descriptions and tags, and finding things by their tags."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.access.caller import Caller
from app.datasets.models import Dataset, DatasetVersion
from app.datasets.service import get_version, lock_dataset
from app.errors import InputError, InvalidInput
from app.events.service import record_event

MAX_TAGS = 50


class Changes(NamedTuple):
    """What is to be written: a description of None leaves it as it is, and a tag of None goes."""

    description: str | None
    tags: dict[str, str | None]


def describe_dataset(session: Session, caller: Caller, name: str, changes: Changes) -> Dataset:
    """Raises NotFound, and InvalidInput for too many tags."""
    dataset = lock_dataset(session, name)  # two changes of tags at once are both kept
    _describe(session, caller, dataset, "dataset.described", f"datasets/{name}", changes)
    return dataset


def describe_version(
    session: Session, caller: Caller, name: str, number: int, changes: Changes
) -> DatasetVersion:
    """Raises NotFound, and InvalidInput for too many tags."""
    lock_dataset(session, name)
    version = get_version(session, name, number)
    subject = f"datasets/{name}/versions/{number}"
    _describe(session, caller, version, "dataset_version.described", subject, changes)
    return version


def tagged(tags: InstrumentedAttribute[dict[str, Any]], wanted: Sequence[str]) -> list[ColumnElement[bool]]:
    """The conditions of having each of the tags ``name:value``."""
    pairs = (text.split(":", 1) for text in wanted)
    return [tags[key].as_string() == value for key, value in pairs]


def _describe(
    session: Session,
    caller: Caller,
    described: Dataset | DatasetVersion,
    action: str,
    subject: str,
    changes: Changes,
) -> None:
    tags = {key: value for key, value in (described.tags | changes.tags).items() if value is not None}
    if len(tags) > MAX_TAGS:
        detail = (
            f"That would be {len(tags)} tags, and there can be at most {MAX_TAGS}. Remove some with null."
        )
        raise InvalidInput("too_many_tags", detail, errors=[InputError("/tags", detail)])
    description = described.description if changes.description is None else changes.description
    if (description, tags) == (described.description, described.tags):
        return
    described.description, described.tags = description, tags
    session.flush()
    record_event(session, caller, action, subject, description=changes.description, tags=changes.tags)
