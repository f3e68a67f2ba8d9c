"""What the data of two model versions have in common, as far as it is known how it came to be."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import Dataset, DatasetVersion


def data_of(version: DatasetVersion) -> dict[str, Any]:
    """A data version as ``ModelVersion.data`` names it."""
    return {
        "dataset": version.dataset,
        "version": version.number,
        "digest": version.digest,
        "rows": version.rows,
    }


def find_data(session: Session, data: Mapping[str, Any]) -> DatasetVersion | None:
    """The data version that a model version's ``data`` names, where it still is."""
    found: DatasetVersion | None = session.scalar(
        select(DatasetVersion)
        .join(Dataset, Dataset.id == DatasetVersion.dataset_id)
        .where(
            Dataset.name == data["dataset"],
            DatasetVersion.number == data["version"],
            DatasetVersion.digest == data["digest"],  # else another of that name came in its place
        )
    )
    return found


def shared_rows(session: Session, first: Mapping[str, Any], second: Mapping[str, Any]) -> int:
    """How many rows two data versions begin with in common, as far as it is known how they came to be.

    Each is given as the ``data`` of a model version. A version that was appended to keeps its rows' places.
    """
    if all(first[name] == second[name] for name in ("dataset", "version", "digest")):
        return int(first["rows"])
    mine, theirs = _beginnings(session, first), _beginnings(session, second)
    return max((rows for content, rows in mine.items() if content in theirs), default=0)


def _beginnings(session: Session, data: Mapping[str, Any]) -> dict[str, int]:
    """The content digests and rows of a data version and of all that it was appended to."""
    newest = find_data(session, data)
    if newest is None:
        return {}
    columns = (
        DatasetVersion.number, DatasetVersion.origin, DatasetVersion.content_digest, DatasetVersion.rows
    )  # fmt: skip
    versions = {
        row.number: row for row in session.execute(select(*columns).filter_by(dataset_id=newest.dataset_id))
    }
    found = {}
    at = versions.get(newest.number)
    while at is not None:
        found[at.content_digest] = at.rows
        at = versions.get(at.origin["base"]) if at.origin["kind"] == "append" else None
    return found
