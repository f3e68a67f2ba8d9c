"""Which rows go where when a table is split or sampled, and which files an appended table is made of.

Chance is MD5 of the seed and of what is drawn: the same on every machine and with every release. A row is
drawn by ``MD5("seed:row number")``, rows counted from 0, a group by ``MD5("seed:=value")`` (null:
``MD5("seed:")``); the least comes first.
"""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier()

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app.columns import Column, ColumnType
from app.datasets.canonical import write_rows
from app.datasets.engine import Parquet, connect, identifier, row_bytes_of, rows_of
from app.datasets.faults import fault

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_PARTS = 16
"""Files that a version's table may consist of before some are made one."""
MAX_STRATA = 10_000
MEMORY_LIMIT = "400MB"  # what is drawn of many rows spills as fast


def tail_to_merge(sizes: Sequence[int]) -> int:
    """How many of the last files, of these sizes, are to become one: 0 where there are few enough.

    Of more than ``MAX_PARTS`` it is the shortest tail of two or more that the file before it is twice as
    large as. So files at least halve in size from one to the next once they have been merged, and
    a row that many small appends followed is copied as often as the logarithm of their number.
    """
    if len(sizes) <= MAX_PARTS:
        return 0
    for tail in range(2, len(sizes)):
        if sizes[-tail - 1] >= 2 * sum(sizes[-tail:]):
            return tail
    return len(sizes)


def divide(rows: Sequence[int], shares: Sequence[Fraction]) -> list[list[int]]:
    """How many rows of each stratum each part gets: of shape (len(rows), len(shares)).

    ``shares`` are of a whole. In each stratum a part gets its share of the rows, rounded down or up; of the
    rows left over it gets one where it is furthest behind its share of all strata so far.
    """
    behind = [Fraction(0)] * len(shares)
    divided = []
    for count in rows:
        exact = [share * count for share in shares]
        given = [int(part) for part in exact]
        behind = [debt + part - got for debt, part, got in zip(behind, exact, given, strict=True)]
        # A part without a remainder in this stratum is not rounded up.
        open_ = [part for part in range(len(shares)) if exact[part] > given[part]]
        for part in sorted(open_, key=lambda part: (-behind[part], part))[: count - sum(given)]:
            given[part] += 1
            behind[part] -= 1
        divided.append(given)
    return divided


def allot(rows: Sequence[int], total: int) -> list[int]:
    """How many of ``total`` rows each stratum of so many ``rows`` gives: its share, rounded down or up.

    The largest remainders are rounded up (Hare and Niemeyer's method), so that the sum is exact.
    """
    exact = [Fraction(count * total, sum(rows)) for count in rows]
    given = [int(share) for share in exact]
    by_remainder = sorted(range(len(rows)), key=lambda index: (given[index] - exact[index], index))
    for index in by_remainder[: total - sum(given)]:
        given[index] += 1
    return given


def write_split(
    parquet: Parquet,
    targets: Mapping[str, Path],
    shares: Sequence[Fraction],
    seed: int,
    *,
    by: Column | None = None,
    stratify: Column | None = None,
) -> None:
    """Divide the rows of a table among the files of the parts named, in the shares given, which sum to 1.

    Every row is in one of them, and their order is kept. Each part has its share of all rows, or with
    ``stratify`` of the rows of each of that column's values, rounded down or up. With ``by`` the rows of one
    of that column's values stay together: groups are laid one behind the other in the order of their draw,
    and each belongs to the part in whose share its middle lies. Raises InvalidInput where a part would hold
    no rows.
    """
    with _drawing(next(iter(targets.values())).parent) as connection:
        if by is not None:
            _assign_groups(connection, parquet, shares, seed, by)
        else:
            strata = _draw_rows(connection, parquet, seed, stratify)
            _assign_rows(connection, divide(strata, shares))
        held = connection.execute("SELECT part, count(*) FROM assigned GROUP BY part").fetchall()
        rows = dict(held)
        for part, name in enumerate(targets):
            if part not in rows:
                detail = f"The part {name!r} would hold no rows. Ask for a larger share, or for fewer parts."
                raise fault("empty_part", detail, "parts", name)
        for part, target in enumerate(targets.values()):
            _write_part(connection, parquet, part, target)


def write_sample(
    parquet: Parquet, target: Path, rows: int, seed: int, *, stratify: Column | None = None
) -> None:
    """Write ``rows`` rows of a table, which holds at least so many, to ``target`` in their order.

    With ``stratify`` each of that column's values keeps its share of the rows, rounded down or up.
    """
    with _drawing(target.parent) as connection:
        strata = _draw_rows(connection, parquet, seed, stratify)
        _assign_rows(connection, [[given] for given in allot(strata, rows)])
        _write_part(connection, parquet, 0, target)


@contextmanager
def _drawing(folder: Path) -> Iterator[DuckDBPyConnection]:
    with TemporaryDirectory(prefix=".drawing-", dir=folder) as spill, connect(Path(spill)) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        yield connection


def _draw(text: str) -> str:
    """The SQL of what chance gives to a text: the first 64 bits of its MD5."""
    return f"CAST('0x' || md5({text})[1:16] AS UBIGINT)"


def _draw_rows(
    connection: DuckDBPyConnection, parquet: Parquet, seed: int, stratify: Column | None
) -> list[int]:
    """Make the table ``ranked`` of each row's place in the draw of its stratum; the rows of each stratum."""
    value = "0" if stratify is None else f"source.{identifier(stratify.name)}"
    draw = _draw(f"'{seed}:' || number")
    connection.execute(
        f"CREATE TEMP TABLE drawn AS SELECT number, value, {draw} AS draw FROM"
        f" (SELECT row_number() OVER () - 1 AS number, {value} AS value FROM {rows_of(parquet)} AS source)"
    )
    connection.execute(
        "CREATE TEMP TABLE strata AS SELECT value, count(*) AS size,"
        " row_number() OVER (ORDER BY value NULLS LAST) - 1 AS stratum FROM drawn GROUP BY value"
    )
    sizes = [
        int(size) for (size,) in connection.execute("SELECT size FROM strata ORDER BY stratum").fetchall()
    ]
    if stratify is not None and len(sizes) > MAX_STRATA:
        raise fault(
            "too_many_strata",
            f"Column {stratify.name!r} has {len(sizes):,} values, and a table can be divided by at most "
            f"{MAX_STRATA:,}. Stratify by a column of few values.",
            "stratify",
        )
    connection.execute(
        "CREATE TEMP TABLE ranked AS SELECT number, stratum,"
        " row_number() OVER (PARTITION BY stratum ORDER BY draw, number) - 1 AS rank"
        " FROM drawn JOIN strata ON drawn.value IS NOT DISTINCT FROM strata.value"
    )
    connection.execute("DROP TABLE drawn")
    return sizes


def _assign_rows(connection: DuckDBPyConnection, divided: Sequence[Sequence[int]]) -> None:
    """Make the table ``assigned`` of each row's part, in order: in each stratum so many rows a part.

    Rows beyond those that are given away have a part of their own, the last.
    """
    ends = [list(accumulate(given)) for given in divided]
    connection.execute(
        "CREATE TEMP TABLE cuts AS SELECT unnest(range(?)) AS stratum, unnest(?::BIGINT[][]) AS ends",
        [len(ends), ends],
    )
    connection.execute(
        f"CREATE TEMP TABLE assigned AS SELECT {_part_at('rank')} AS part"
        " FROM ranked JOIN cuts USING (stratum) ORDER BY number"
    )


def _assign_groups(
    connection: DuckDBPyConnection, parquet: Parquet, shares: Sequence[Fraction], seed: int, by: Column
) -> None:
    """Make the table ``assigned`` of each row's part, in order, with groups kept whole."""
    value = f"source.{identifier(by.name)}"
    connection.execute(
        f"CREATE TEMP TABLE drawn AS SELECT row_number() OVER () - 1 AS number, {value} AS value"
        f" FROM {rows_of(parquet)} AS source"
    )
    (total,) = connection.execute("SELECT count(*) FROM drawn").fetchone() or (0,)
    # In half rows, so that the middle of a group is a whole number.
    ends = [ceil(2 * total * end) for end in accumulate(shares)]
    draw = _draw(f"'{seed}:' || coalesce('=' || {_group_text(by.type)}, '')")
    connection.execute(
        "CREATE TEMP TABLE groups AS SELECT value, 2 * sum(size) OVER (ORDER BY draw, value) - size AS middle"
        f" FROM (SELECT value, count(*) AS size, {draw} AS draw FROM drawn GROUP BY value)"
    )
    connection.execute(
        f"CREATE TEMP TABLE assigned AS SELECT {_part_at('middle')} AS part FROM drawn"
        " JOIN groups ON drawn.value IS NOT DISTINCT FROM groups.value, (SELECT ?::BIGINT[] AS ends)"
        " ORDER BY number",
        [ends],
    )


def _part_at(place: str) -> str:
    return f"len(list_filter(ends, lambda stop: stop <= {place}))"


def _group_text(type_: ColumnType) -> str:
    match type_:
        case ColumnType.DATE:
            return "strftime(value, '%Y-%m-%d')"
        case ColumnType.DATETIME:
            return "CAST(epoch_us(value) AS VARCHAR)"
    return "CAST(value AS VARCHAR)"


def _write_part(connection: DuckDBPyConnection, parquet: Parquet, part: int, target: Path) -> None:
    write_rows(
        connection,
        f"SELECT source.* FROM {rows_of(parquet)} AS source POSITIONAL JOIN assigned"
        f" WHERE assigned.part = {part}",
        target,
        row_bytes_of(connection, parquet),
    )
