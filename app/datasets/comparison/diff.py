"""What changed from one data version to another: the schema, the rows, the distributions.

Rows are compared over the columns that both versions have, by name, wherever they stand. Integers and
numbers compare by value; a column whose type changed in another way is told, and left out. Null equals null.

With key columns, a row is added, removed or changed; without, a table is the multiset of its rows. Either way
the rows that differ are found from hashes (``row_sketch``); parts that both versions share, as an append
leaves them, are not read for that. Only rows that differ, and a sample for the statistics, are read again.
"""

# ruff: noqa: S608 - the SQL holds names of this module's own only

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from app.columns import NUMBERS, TIMES, Column, ColumnType
from app.datasets.comparison.numbered_rows import NumberedRows, TableFiles
from app.datasets.comparison.row_sketch import RowSketch
from app.datasets.comparison.shift import ALPHA, MINIMUM_EFFECT, ColumnShift, Samples, judge_shifts
from app.datasets.engine import ROW_GROUP_BYTES, connect, fit_to_width
from app.datasets.table import json_ready
from app.errors import InputError, InvalidInput, pointer, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_LIMIT = "300MB"  # less than DuckDB has elsewhere: rows that differ spill as fast
SMALL_ROW_GROUP = 1.5 * ROW_GROUP_BYTES
TESTED_ROWS = 100_000
TESTED_CELLS = 10_000_000
REPEATED_KEYS = 3
COLUMNS_AT_ONCE = 100

T = TypeVar("T")


class ColumnChange(BaseModel):
    """A column that both versions have, before and after."""

    model_config = ConfigDict(frozen=True)

    old: Column
    new: Column


class SchemaChanges(BaseModel):
    model_config = ConfigDict(frozen=True)

    added: list[Column]
    removed: list[Column]
    changed: list[ColumnChange] = Field(description="Columns of another type or nullability.")
    reordered: list[str] = Field(
        description="The columns that both versions have in their new order, if it is another one."
    )


class CellChange(BaseModel):
    model_config = ConfigDict(frozen=True)

    old: Any
    new: Any


class ChangedRow(BaseModel):
    model_config = ConfigDict(frozen=True)

    key: dict[str, Any]
    changes: dict[str, CellChange] = Field(description="The columns that differ.")


class RowSamples(BaseModel):
    """The first rows of each kind in the order of the newer version, removed ones in that of the older."""

    model_config = ConfigDict(frozen=True)

    added: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    changed: list[ChangedRow]


class RowChanges(BaseModel):
    """Exact counts. Without a key, a row is added as often as the newer version holds it more often."""

    model_config = ConfigDict(frozen=True)

    key: list[str] = Field(description="The columns that identify a row; empty: the whole row does.")
    compared: list[str] = Field(description="The columns by which rows were compared.")
    added: int = Field(description="Rows only in the newer version.")
    removed: int = Field(description="Rows only in the older version.")
    changed: int | None = Field(description="Rows of the same key and other values; null without a key.")
    unchanged: int = Field(description="Rows in both.")
    changed_by_column: dict[str, int] = Field(description="In how many of the changed rows each one differs.")
    samples: RowSamples


class ShiftReport(BaseModel):
    """Distributions compared; a long version by a sample of its rows, spread evenly and always the same."""

    model_config = ConfigDict(frozen=True)

    alpha: float = Field(ALPHA, description="The largest p_adjusted of a shift.")
    minimum_effect: float = Field(MINIMUM_EFFECT, description="The smallest effect of a shift.")
    columns: list[ColumnShift] = Field(
        description="One verdict a compared column that is not in the key; none for versions of one content."
    )


class _Pair(NamedTuple):
    """A column that both versions have, and where it stands in either."""

    name: str
    old_index: int
    old_type: ColumnType
    new_index: int
    new_type: ColumnType

    @property
    def is_number(self) -> bool:
        return self.old_type in NUMBERS and self.new_type in NUMBERS

    @property
    def is_comparable(self) -> bool:
        return self.old_type is self.new_type or self.is_number

    @property
    def is_text(self) -> bool:
        """Whether ``old`` and ``new`` are texts."""
        return self.old_type is ColumnType.STRING or self.old_type is not self.new_type

    def old(self, table: str = "") -> str:
        """The SQL of the older version's values as they compare to the newer one's."""
        return _comparable(f"{table}c{self.old_index}", self.old_type, self.new_type)

    def new(self, table: str = "") -> str:
        return _comparable(f"{table}c{self.new_index}", self.new_type, self.old_type)


def compare_schemas(old: Sequence[Column], new: Sequence[Column]) -> SchemaChanges:
    before, after = {column.name: column for column in old}, {column.name: column for column in new}
    common = [name for name in after if name in before]
    return SchemaChanges(
        added=[column for column in new if column.name not in before],
        removed=[column for column in old if column.name not in after],
        changed=[
            ColumnChange(old=before[name], new=after[name]) for name in common if before[name] != after[name]
        ],
        reordered=common if common != [name for name in before if name in after] else [],
    )


def compare_tables(
    old: TableFiles, new: TableFiles, *, key: Sequence[str], samples: int, spill: Path
) -> tuple[RowChanges | None, ShiftReport]:
    """The rows that differ, with at most ``samples`` of each kind, and the columns' distributions.

    There are no rows to tell of where no column can be compared. ``spill`` is a folder for what memory does
    not hold. Of versions longer than ``TESTED_ROWS`` a sample of that many rows is tested for shifts, of
    wide ones fewer: ``TESTED_CELLS``. Raises InvalidInput for a key that is not one of both versions.
    """
    pairs = _pairs(old, new, key)
    if not pairs:
        return None, ShiftReport(columns=[])
    keys = [pair for pair in pairs if pair.name in key]
    others = [pair for pair in pairs if pair.name not in key]
    with TemporaryDirectory(prefix="diff-", dir=spill) as folder, connect(Path(folder)) as connection:
        before, after = NumberedRows(connection, old), NumberedRows(connection, new)
        if max(before.row_group_bytes, after.row_group_bytes) <= SMALL_ROW_GROUP:
            connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        fit_to_width(connection, max(len(old.columns), len(new.columns)))
        if keys:
            _check_unique(before, [(pair.name, f"c{pair.old_index}", pair.old_type) for pair in keys])
            _check_unique(after, [(pair.name, f"c{pair.new_index}", pair.new_type) for pair in keys])
        shared: Counter[str] = Counter()
        if _types(old) == _types(new):
            shared = Counter(old.digests) & Counter(new.digests)
        texts = [pair for pair in pairs if pair.is_text]
        values = [pair for pair in pairs if not pair.is_text]
        sketch = RowSketch(Path(folder) / "buckets")
        sketch.add(
            "old",
            before.hashes([pair.old() for pair in values], [pair.old() for pair in texts], shared),
        )
        sketch.subtract(
            "new",
            after.hashes([pair.new() for pair in values], [pair.new() for pair in texts], shared),
        )
        tested = min(TESTED_ROWS, TESTED_CELLS // len(pairs))
        before.pick("old", sketch, tested)
        after.pick("new", sketch, tested)
        shifts = ShiftReport(columns=judge_shifts(dict(_samples(connection, others))))
        if keys:
            return _changes_by_key(connection, old, new, keys, others, before.count, samples), shifts
        return _changes_by_content(connection, old, new, pairs, before.count, samples), shifts


def no_changes(table: TableFiles, rows: int, key: Sequence[str]) -> tuple[RowChanges, ShiftReport]:
    """What ``compare_tables`` tells of a table of so many rows and itself, without reading it.

    Nothing is tested, neither for shifts nor whether the key is one. Raises InvalidInput for a key column
    that is not there.
    """
    names = [pair.name for pair in _pairs(table, table, key)]
    return RowChanges(
        key=[name for name in names if name in key],
        compared=names,
        added=0,
        removed=0,
        changed=0 if key else None,
        unchanged=rows,
        changed_by_column={name: 0 for name in names if name not in key} if key else {},
        samples=RowSamples(added=[], removed=[], changed=[]),
    ), ShiftReport(columns=[])


def _pairs(old: TableFiles, new: TableFiles, key: Sequence[str]) -> list[_Pair]:
    """The columns that can be compared, in the old order."""
    places = {column.name: index for index, column in enumerate(new.columns)}
    common = [
        _Pair(column.name, index, column.type, places[column.name], new.columns[places[column.name]].type)
        for index, column in enumerate(old.columns)
        if column.name in places
    ]
    pairs = [pair for pair in common if pair.is_comparable]
    known = {pair.name for pair in pairs}
    errors = [
        InputError(
            pointer("query", "key", index),
            f"{quoted(name)} is named twice"
            if name in key[:index]
            else f"{quoted(name)} is no column of both versions, of one type",
        )
        for index, name in enumerate(key)
        if name not in known or name in key[:index]
    ]
    if errors:
        raise InvalidInput(
            "invalid_key",
            f"Rows cannot be told apart by this key: {errors[0].detail}. GET each version for its columns.",
            errors=errors,
        )
    return pairs


def _comparable(column: str, type_: ColumnType, other: ColumnType) -> str:
    """The SQL of values as those of a column of the ``other`` type compare to them."""
    if type_ is other:
        return column
    if type_ is ColumnType.INTEGER:
        return f"CAST({column} AS VARCHAR)"
    # As exact texts: a float that is whole is written as an integer is, any other with a point or exponent.
    return (
        f"CASE WHEN abs({column}) < 1e19 AND {column} = trunc({column})"
        f" THEN CAST(CAST({column} AS HUGEINT) AS VARCHAR) ELSE CAST({column} AS VARCHAR) END"
    )


def _types(table: TableFiles) -> list[tuple[str, ColumnType]]:
    return [(column.name, column.type) for column in table.columns]


def _check_unique(rows: NumberedRows, key: Sequence[tuple[str, str, ColumnType]]) -> None:
    """Raises InvalidInput with examples if two rows have one key; ``key`` is of names, columns and types."""
    names, columns, types = zip(*key, strict=True)
    if types == (ColumnType.INTEGER,) and rows.is_increasing(columns[0]):
        return  # as most tables with a number for each row are, at a fraction of the time
    if rows.count_distinct(columns) == rows.count:
        return
    examples = [
        f"{', '.join(f'{name} = {_quoted(value)}' for name, value in zip(names, values, strict=True))}"
        f" ({found:,} rows)"
        for *values, found in rows.most_repeated(columns, REPEATED_KEYS)
    ]
    detail = (
        f"{' and '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} no key of {rows.name}: "
        f"several rows have {'; '.join(examples)}. Name more columns, or none to compare by whole rows."
    )
    raise InvalidInput("key_not_unique", detail, errors=[InputError(pointer("query", "key"), detail)])


def _quoted(text: str | None) -> str:
    return "null" if text is None else repr(text[:100])


def _samples(connection: DuckDBPyConnection, pairs: Sequence[_Pair]) -> Iterator[tuple[str, Samples]]:
    for some in _batches(pairs):
        for table, indices in (
            ("old", [pair.old_index for pair in some]),
            ("new", [pair.new_index for pair in some]),
        ):
            columns = ", ".join(f"c{index}" for index in indices)
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {table}_tested AS SELECT {columns} FROM {table} WHERE tested"
            )
        for pair in some:
            yield pair.name, _sample(connection, pair)


def _sample(connection: DuckDBPyConnection, pair: _Pair) -> Samples:
    if pair.is_number or pair.old_type in TIMES:
        return Samples(
            numeric=True,
            old=_numbers(connection, "old_tested", f"c{pair.old_index}", pair.old_type),
            new=_numbers(connection, "new_tested", f"c{pair.new_index}", pair.new_type),
        )
    counts = connection.execute(
        "SELECT (count(*) FILTER (NOT newer))::DOUBLE AS old, (count(*) FILTER (newer))::DOUBLE AS new FROM ("
        f"SELECT c{pair.old_index} AS value, false AS newer FROM old_tested UNION ALL"
        f" SELECT c{pair.new_index}, true FROM new_tested) GROUP BY value ORDER BY ALL"
    ).fetchnumpy()
    return Samples(numeric=False, old=counts["old"], new=counts["new"])


def _numbers(connection: DuckDBPyConnection, table: str, column: str, type_: ColumnType) -> Any:
    number = f"epoch_us({column})" if type_ in TIMES else column
    found = connection.execute(f"SELECT coalesce({number}::DOUBLE, '-infinity') AS value FROM {table}")
    return np.asarray(found.fetchnumpy()["value"])


def _changes_by_key(
    connection: DuckDBPyConnection,
    old: TableFiles,
    new: TableFiles,
    keys: Sequence[_Pair],
    others: Sequence[_Pair],
    old_count: int,
    samples: int,
) -> RowChanges:
    before, after = (
        _suspects("old", [pair.old_index for pair in keys]),
        _suspects("new", [pair.new_index for pair in keys]),
    )
    same_key = " AND ".join(f"{pair.old('old.')} IS NOT DISTINCT FROM {pair.new('new.')}" for pair in keys)
    added = f"{after} ANTI JOIN {before} ON {same_key}"
    removed = f"{before} ANTI JOIN {after} ON {same_key}"
    connection.execute("CREATE TEMP TABLE changed (old_position BIGINT, new_position BIGINT)")
    changed_by_column: dict[str, int] = {}
    for some in _batches(others):
        matched = (
            f"{_suspects('old', [pair.old_index for pair in (*keys, *some)])} JOIN"
            f" {_suspects('new', [pair.new_index for pair in (*keys, *some)])} ON {same_key}"
        )
        differ = [_differs(pair) for pair in some]
        counts = ", ".join(f"count(*) FILTER ({test})" for test in differ)
        (found,) = connection.execute(f"SELECT {counts} FROM {matched}").fetchall()
        changed_by_column |= {pair.name: count for pair, count in zip(some, found, strict=True)}
        connection.execute(
            f"INSERT INTO changed SELECT old.position, new.position FROM {matched}"
            f" ANTI JOIN changed ON new.position = new_position WHERE {' OR '.join(differ)}"
        )
    ((added_count, removed_count, changed_count),) = connection.execute(
        f"SELECT (SELECT count(*) FROM {added}), (SELECT count(*) FROM {removed}),"
        " (SELECT count(*) FROM changed)"
    ).fetchall()
    return RowChanges(
        key=[pair.name for pair in keys],
        compared=[pair.name for pair in (*keys, *others)],
        added=added_count,
        removed=removed_count,
        changed=changed_count,
        unchanged=old_count - removed_count - changed_count,
        changed_by_column=changed_by_column,
        samples=RowSamples(
            added=_rows(connection, new, "new", added, samples),
            removed=_rows(connection, old, "old", removed, samples),
            changed=_changed_rows(connection, keys, others, samples),
        ),
    )


def _suspects(table: str, columns: Sequence[int]) -> str:
    # The columns by name: where a query says all, DuckDB plans for them all, and holds them.
    names = "".join(f", c{column}" for column in columns)
    return f"(SELECT position{names} FROM {table} WHERE suspect) AS {table}"


def _differs(pair: _Pair) -> str:
    return f"{pair.old('old.')} IS DISTINCT FROM {pair.new('new.')}"


def _changed_rows(
    connection: DuckDBPyConnection, keys: Sequence[_Pair], others: Sequence[_Pair], limit: int
) -> list[ChangedRow]:
    in_order = (
        f"FROM (FROM changed ORDER BY new_position LIMIT {limit})"
        " JOIN old ON old.position = old_position JOIN new ON new.position = new_position"
        " ORDER BY new_position"
    )
    key_cells = ", ".join(f"old.c{pair.old_index} AS v{index}" for index, pair in enumerate(keys))
    rows = [
        ChangedRow(key={pair.name: cell for pair, cell in zip(keys, cells, strict=True)}, changes={})
        for cells in _json_cells(connection, f"SELECT {key_cells} {in_order}")
    ]
    for some in _batches(others):
        cells = ", ".join(
            f"{_differs(pair)} AS d{index},"
            f" old.c{pair.old_index} AS o{index}, new.c{pair.new_index} AS n{index}"
            for index, pair in enumerate(some)
        )
        for row, found in zip(rows, _json_cells(connection, f"SELECT {cells} {in_order}"), strict=True):
            for pair, differs, before, after in zip(some, found[::3], found[1::3], found[2::3], strict=True):
                if differs:
                    row.changes[pair.name] = CellChange(old=before, new=after)
    return rows


def _changes_by_content(
    connection: DuckDBPyConnection,
    old: TableFiles,
    new: TableFiles,
    pairs: Sequence[_Pair],
    old_count: int,
    samples: int,
) -> RowChanges:
    olds, news, names = (
        [f"{pair.old()} AS v{index}" for index, pair in enumerate(pairs)],
        [f"{pair.new()} AS v{index}" for index, pair in enumerate(pairs)],
        [f"v{index}" for index in range(len(pairs))],
    )
    # ``more`` is how many more of a row the older version holds.
    connection.execute(
        "CREATE TEMP TABLE excess AS SELECT sum(one)::BIGINT AS more, min(old_position) AS old_position,"
        " min(new_position) AS new_position FROM ("
        f"SELECT {', '.join(olds)}, 1 AS one, position AS old_position, NULL AS new_position"
        " FROM old WHERE suspect UNION ALL"
        f" SELECT {', '.join(news)}, -1, NULL, position FROM new WHERE suspect)"
        f" GROUP BY {', '.join(names)} HAVING more <> 0"
    )
    ((removed, added),) = connection.execute(
        "SELECT coalesce(sum(greatest(more, 0)), 0)::BIGINT, coalesce(sum(greatest(-more, 0)), 0)::BIGINT"
        " FROM excess"
    ).fetchall()
    return RowChanges(
        key=[],
        compared=[pair.name for pair in pairs],
        added=added,
        removed=removed,
        changed=None,
        unchanged=old_count - removed,
        changed_by_column={},
        samples=RowSamples(
            added=_rows(
                connection,
                new,
                "new",
                "new SEMI JOIN (SELECT new_position FROM excess WHERE more < 0) ON position = new_position",
                samples,
            ),
            removed=_rows(
                connection,
                old,
                "old",
                "old SEMI JOIN (SELECT old_position FROM excess WHERE more > 0) ON position = old_position",
                samples,
            ),
            changed=[],
        ),
    )


def _rows(
    connection: DuckDBPyConnection, version: TableFiles, table: str, source: str, limit: int
) -> list[dict[str, Any]]:
    """The first of the rows of ``table`` that are in ``source``, by the names of their columns."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE first AS SELECT {table}.position FROM {source}"
        f" ORDER BY {table}.position LIMIT {limit}"
    )
    ((found,),) = connection.execute("SELECT count(*) FROM first").fetchall()
    rows: list[dict[str, Any]] = [{} for _ in range(found)]
    for some in _batches(list(enumerate(version.columns))):
        columns = ", ".join(f"c{index}" for index, _ in some)
        query = f"SELECT {columns} FROM {table} SEMI JOIN first USING (position) ORDER BY position"
        for row, cells in zip(rows, _json_cells(connection, query), strict=True):
            row.update({column.name: cell for (_, column), cell in zip(some, cells, strict=True)})
    return rows


def _json_cells(connection: DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE cells AS {query}")
    described = connection.execute("DESCRIBE cells").fetchall()
    values = [json_ready(name, sql_type) for name, sql_type, *_ in described]
    return connection.execute(f"SELECT {', '.join(values)} FROM cells").fetchall()


def _batches(columns: Sequence[T]) -> Iterator[Sequence[T]]:
    """The same, few enough at a time that DuckDB's vectors of them all stay small."""
    for begin in range(0, len(columns), COLUMNS_AT_ONCE):
        yield columns[begin : begin + COLUMNS_AT_ONCE]
