"""Versions made of versions: appended to, split, sampled."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from app.access.caller import Caller
from app.columns import Column, ColumnType
from app.datasets.arrivals import Arrival, Upload, add_version, find_upload, read_upload, recipe_record
from app.datasets.canonical import Table, describe, write_rows
from app.datasets.engine import connect, identifier, row_bytes_of, rows_of
from app.datasets.faults import fault
from app.datasets.growth import tail_to_merge, write_sample, write_split
from app.datasets.identity import content_digest
from app.datasets.models import DatasetVersion
from app.datasets.reading.infer import SQL_TYPES
from app.datasets.reading.ingest import MediaType
from app.datasets.service import get_version
from app.datasets.table import concatenate
from app.db import Database
from app.errors import InvalidInput, pointer, quoted
from app.store import Store


class Draw(NamedTuple):
    """How rows are chosen: by which seed, which column's groups stay whole, which one's shares are kept."""

    seed: int
    by: str | None = None
    stratify: str | None = None

    def record(self) -> dict[str, Any]:
        """What is recorded of it in a version's origin."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def append_rows(
    database: Database, store: Store, caller: Caller, name: str, number: int, upload: Upload
) -> tuple[DatasetVersion, bool]:
    """The version of the base's rows and then the upload's, and whether it is new.

    The upload has the base's columns, in any order, and is read with their types; a column that holds nulls
    already may be left out. The base's files are shared; beyond ``growth.MAX_PARTS`` of them the smallest at
    the end become one. Raises InvalidInput for rows that do not fit.
    """
    upload = upload._replace(origin=upload.origin | {"kind": "append", "base": number})
    with database.session_scope(write=False) as session:
        base = get_version(session, name, number)
        if (found := find_upload(session, name, upload)) is not None:
            return found, False
    columns = base.typed_columns
    received, added = _read_rows(upload, columns)
    added_file = _arrange(received, added, columns)
    with store.open_files(base.parts) as shared:
        files = [*shared, added_file]
        kept = len(files) - (tail_to_merge([file.stat().st_size for file in files]) or 1)
        if kept < len(shared):
            added_file = upload.path.with_name("merged.parquet")
            concatenate(files[kept:], added_file)
            files = [*shared[:kept], added_file]
        with connect(spill=None) as connection:
            table = describe(connection, files, columns)
        original = store.take_file(upload.path, upload.digest)
        arrival = Arrival(
            origin=upload.origin,
            media_type=upload.media_type,
            digest=original.digest,
            size=original.size,
            recipe=recipe_record(upload, added),
            content_digest=content_digest(files, columns),
            parts=[*base.parts[:kept], store.take_file(added_file).digest],
            table=table,
        )
        return add_version(database, caller, name, arrival, files, upload.path.parent)


def _read_rows(upload: Upload, columns: Sequence[Column]) -> tuple[Path, Table]:
    """The canonical file of an upload, read with the types of those ``columns`` that it has.

    Raises InvalidInput where it lacks one that holds no nulls.
    """
    types = {column.name: column.type for column in columns}
    for name, type_ in upload.recipe.types.items():
        if types.get(name, type_) is not type_:
            detail = f"The column {name!r} of the version is of type {types[name]}. Leave its type out."
            raise fault("invalid_recipe", detail, "recipe", "types", name)
    try:
        return read_upload(_typed(upload, types))
    except InvalidInput as refused:
        # Only who has read the file knows which columns it lacks; the refusal has a pointer for each.
        pointers = {error.pointer for error in refused.errors}
        missing = [column for column in columns if pointer("recipe", "types", column.name) in pointers]
        if refused.code != "invalid_recipe" or not missing:
            raise
        for column in missing:
            if not column.nullable:
                raise fault(
                    "missing_column",
                    f"The column {column.name!r} is missing, and no row of the version lacks a value of it. "
                    "Send it; its cells may be null.",
                    "columns",
                    column.name,
                ) from refused
            del types[column.name]
        if not types:
            raise fault(
                "missing_column", "The file has none of the version's columns.", "columns"
            ) from refused
    return read_upload(_typed(upload, types))


def _typed(upload: Upload, types: dict[str, ColumnType]) -> Upload:
    return upload._replace(recipe=upload.recipe.model_copy(update={"types": types}))


def _arrange(received: Path, table: Table, columns: Sequence[Column]) -> Path:
    """The file with exactly these columns, in their order; null in those that it lacks.

    Raises InvalidInput for a column that is not among them.
    """
    given = [column.name for column in table.columns]
    wanted = [column.name for column in columns]
    if given == wanted:
        return received
    for name in given:
        if name not in wanted:
            raise fault(
                "unknown_column", f"The version has no column {name!r}. Leave it out.", "columns", name
            )
    cells = ", ".join(
        identifier(column.name)
        if column.name in given
        else f"CAST(NULL AS {SQL_TYPES[column.type]}) AS {identifier(column.name)}"
        for column in columns
    )
    arranged = received.with_name("arranged.parquet")
    with connect(received.parent) as connection:
        rows = f"SELECT {cells} FROM {rows_of(received)}"
        write_rows(connection, rows, arranged, row_bytes_of(connection, received))
    return arranged


def split_version(
    database: Database,
    store: Store,
    caller: Caller,
    name: str,
    number: int,
    shares: dict[str, Fraction],
    draw: Draw,
    folder: Path,
) -> dict[str, tuple[DatasetVersion, bool]]:
    """A version for each named share of the rows, and whether it is new; ``folder`` is for working files.

    The shares sum to 1. The parts are added one by one: where that breaks off, the same split again adds
    the rest. Raises InvalidInput where two parts would hold the same table. See ``growth.write_split``.
    """
    base, columns = _base(database, name, number)
    by = _column(columns, draw.by, "by")
    if by is not None and by.type is ColumnType.NUMBER:
        raise fault(
            "unsuitable_column",
            f"The column {by.name!r} is of type number, which names no groups. Group by another column.",
            "by",
        )
    targets = {part: folder / f"part-{index}.parquet" for index, part in enumerate(shares)}
    with store.open_files(base.parts) as files:
        write_split(
            files,
            targets,
            list(shares.values()),
            draw.seed,
            by=by,
            stratify=_column(columns, draw.stratify, "stratify"),
        )
    arrivals: dict[str, Arrival] = {}
    parts_by_content: dict[str, str] = {}
    for part, share in shares.items():
        told = {"kind": "split", "base": number, "part": part, "share": float(share)}
        arrivals[part] = _derive(store, targets[part], columns, told | draw.record())
        twin = parts_by_content.setdefault(arrivals[part].content_digest, part)
        if twin != part:
            raise fault(
                "same_parts",
                f"The parts {twin!r} and {part!r} hold the same table, which can be but one version. Choose "
                "shares that differ, or another seed.",
                "parts",
                part,
            )
    return {
        part: add_version(database, caller, name, arrival, targets[part], folder)
        for part, arrival in arrivals.items()
    }


def sample_version(
    database: Database,
    store: Store,
    caller: Caller,
    name: str,
    number: int,
    size: int | Fraction,
    draw: Draw,
    folder: Path,
) -> tuple[DatasetVersion, bool]:
    """A version of so many of the rows, or of this share of them, and whether it is new.

    A share is rounded to the nearest number of rows, and to one at least. See ``growth.write_sample``.
    """
    base, columns = _base(database, name, number)
    rows = size if isinstance(size, int) else max(1, round(size * base.rows))
    if rows > base.rows:
        raise fault(
            "too_few_rows",
            f"The version has {base.rows} rows, and {rows} are asked for. Ask for fewer.",
            "rows",
        )
    target = folder / "sample.parquet"
    with store.open_files(base.parts) as files:
        write_sample(files, target, rows, draw.seed, stratify=_column(columns, draw.stratify, "stratify"))
    origin = {"kind": "sample", "base": number, "rows": rows, **draw.record()}
    return add_derived(database, store, caller, name, target, columns, origin, folder)


def _base(database: Database, name: str, number: int) -> tuple[DatasetVersion, list[Column]]:
    with database.session_scope(write=False) as session:
        base = get_version(session, name, number)
    return base, base.typed_columns


def _column(columns: Sequence[Column], name: str | None, field: str) -> Column | None:
    if name is None:
        return None
    for column in columns:
        if column.name == name:
            return column
    raise fault("unknown_column", f"The version has no column {quoted(name)}. Name one that it has.", field)


def add_derived(
    database: Database,
    store: Store,
    caller: Caller,
    name: str,
    parquet: Path,
    columns: Sequence[Column],
    origin: dict[str, Any],
    folder: Path,
) -> tuple[DatasetVersion, bool]:
    """A version of the canonical file that was derived from others, and whether it is new."""
    return add_version(database, caller, name, _derive(store, parquet, columns, origin), parquet, folder)


def _derive(store: Store, parquet: Path, columns: Sequence[Column], origin: dict[str, Any]) -> Arrival:
    with connect(spill=None) as connection:
        table = describe(connection, parquet, columns)
    digest = content_digest(parquet, table.columns)
    stored = store.take_file(parquet)
    return Arrival(
        origin=origin,
        media_type=MediaType.PARQUET,
        digest=digest,
        size=stored.size,
        recipe={},
        content_digest=digest,
        parts=[stored.digest],
        table=table,
    )
