"""The difference of two data versions over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.access.route import CallerDep, GuardedRoute
from app.datasets.comparison.diff import (
    RowChanges,
    SchemaChanges,
    ShiftReport,
    compare_schemas,
    compare_tables,
    no_changes,
)
from app.datasets.comparison.numbered_rows import TableFiles
from app.datasets.models import DatasetVersion
from app.datasets.service import get_rows_of
from app.http.fields import Name, Number
from app.http.problems import problem_responses
from app.http.query import KNOWN_PARAMETERS
from app.http.session import DatabaseDep, ScratchDep, StoreDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=GuardedRoute)

MAX_SAMPLES = 1000
DIFF_EXAMPLE: dict[str, Any] = {
    "old": {"dataset": "flights", "version": 1, "rows": 9000},
    "new": {"dataset": "flights", "version": 2, "rows": 9120},
    "columns": {
        "added": [{"name": "visibility", "type": "number", "nullable": True}],
        "removed": [],
        "changed": [
            {
                "old": {"name": "distance", "type": "integer", "nullable": False},
                "new": {"name": "distance", "type": "integer", "nullable": True},
            }
        ],
        "reordered": [],
    },
    "rows": {
        "key": ["flight_id"],
        "compared": ["flight_id", "carrier", "distance"],
        "added": 121,
        "removed": 1,
        "changed": 3,
        "unchanged": 8996,
        "changed_by_column": {"carrier": 1, "distance": 2},
        "samples": {
            "added": [{"flight_id": 9001, "carrier": "UA", "distance": 1400, "visibility": 10.0}],
            "removed": [{"flight_id": 17, "carrier": "AA", "distance": 733}],
            "changed": [{"key": {"flight_id": 5}, "changes": {"distance": {"old": 1400, "new": None}}}],
        },
    },
    "shifts": {
        "alpha": 0.01,
        "minimum_effect": 0.1,
        "columns": [
            {
                "name": "carrier",
                "status": "ok",
                "n_old": 9000,
                "n_new": 9120,
                "effect": 0.004,
                "test": "chi_squared",
                "statistic": 4.1,
                "p_value": 0.25,
                "p_adjusted": 0.5,
            },
            {
                "name": "distance",
                "status": "ok",
                "n_old": 9000,
                "n_new": 9120,
                "effect": 0.006,
                "test": "kolmogorov_smirnov",
                "statistic": 0.006,
                "p_value": 0.99,
                "p_adjusted": 0.99,
            },
        ],
    },
}


class ComparedVersion(BaseModel):
    dataset: str
    version: int
    rows: int


class VersionDiff(BaseModel):
    """What changed from an older version to a newer one, or to a version of another dataset."""

    model_config = ConfigDict(json_schema_extra={"examples": [DIFF_EXAMPLE]})

    old: ComparedVersion
    new: ComparedVersion
    columns: SchemaChanges
    rows: RowChanges | None = Field(
        description="Null where the versions have no column in common that can be compared."
    )
    shifts: ShiftReport


@router.get(
    "/{dataset}/versions/{version}/diff/{other}",
    dependencies=[KNOWN_PARAMETERS],
    responses=problem_responses(403, 404, 422),
)
def diff_versions(
    dataset: str,
    version: Number,
    other: Number,
    caller: CallerDep,
    database: DatabaseDep,
    store: StoreDep,
    scratch: ScratchDep,
    key: Annotated[
        list[str],
        Query(description="A column that identifies a row, alone or with others; repeat it for each."),
    ] = [],  # noqa: B006 - FastAPI copies it
    samples: Annotated[int, Query(ge=0, le=MAX_SAMPLES, description="Rows of each kind to show.")] = 10,
    of: Annotated[Name | None, Query(description="The dataset of the second version, if another.")] = None,
) -> VersionDiff:
    """What changed from a version to another one: columns, rows, and distributions.

    With key columns, rows are added, removed or changed; without, whole rows are counted.
    """
    with database.session_scope(write=False) as session:
        old = get_rows_of(session, caller, dataset, version)
        new = get_rows_of(session, caller, of or dataset, other)
    digests = list(dict.fromkeys([*old.parts, *new.parts]))
    with scratch.folder() as folder, store.open_files(digests) as opened:
        paths = dict(zip(digests, opened, strict=True))
        before, after = (
            TableFiles(
                f"version {found.number} of {found.dataset!r}",
                found.typed_columns,
                found.parts,
                [paths[digest] for digest in found.parts],
            )
            for found in (old, new)
        )
        rows, shifts = (
            no_changes(before, old.rows, key)
            if old.content_digest == new.content_digest
            else compare_tables(before, after, key=key, samples=samples, spill=folder)
        )
    return VersionDiff(
        old=_told(old),
        new=_told(new),
        columns=compare_schemas(before.columns, after.columns),
        rows=rows,
        shifts=shifts,
    )


def _told(version: DatasetVersion) -> ComparedVersion:
    return ComparedVersion(dataset=version.dataset, version=version.number, rows=version.rows)
