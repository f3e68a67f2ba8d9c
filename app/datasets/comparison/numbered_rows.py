"""A table whose rows are known by their position: read in batches, hashed, and picked out again."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.columns import Column
from app.datasets.comparison.row_sketch import BUCKETS, Batch, Positions, RowSketch
from app.datasets.engine import ROW_GROUP_ROWS, identifier, one_file

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_ROWS = 8 * ROW_GROUP_ROWS  # whole row groups: two batches that share one would both read it
READERS = 2
SALT = 0x9E3779B97F4A7C15
"""Any number: it makes the second hash of a row another function of its columns' hashes."""
SEED = 0


class TableFiles(NamedTuple):
    """A version's table: its columns and its Parquet files, one behind the other, with their digests."""

    name: str
    """As an error names it."""
    columns: Sequence[Column]
    digests: Sequence[str]
    parts: Sequence[Path]


class NumberedRows:
    """The rows of a table for SQL: ``position``, from 0 over all parts, and the columns as c0, c1, ….

    ``count`` is their number, ``row_group_bytes`` the size of the largest row group, uncompressed.
    """

    def __init__(self, connection: DuckDBPyConnection, table: TableFiles) -> None:
        self._connection = connection
        self.name = table.name
        self.count = 0
        self.row_group_bytes = 0
        self._parts: list[_Part] = []
        columns = [f"{identifier(column.name)} AS c{index}" for index, column in enumerate(table.columns)]
        # The reader numbers its rows in a column of this name, unless the file has one.
        taken = any(column.name.casefold() == "file_row_number" for column in table.columns)
        number = "row_number() OVER () - 1" if taken else "file_row_number"
        for digest, part in zip(table.digests, table.parts, strict=True):
            metadata = f"SELECT num_rows FROM parquet_file_metadata({one_file(part)})"
            ((rows,),) = connection.execute(metadata).fetchall()
            largest = f"SELECT max(row_group_bytes) FROM parquet_metadata({one_file(part)})"
            ((group_bytes,),) = connection.execute(largest).fetchall()
            self.row_group_bytes = max(self.row_group_bytes, group_bytes or 0)
            source = (
                f"(SELECT {number} AS number, {', '.join(columns)}"
                f" FROM read_parquet({one_file(part)}, hive_partitioning = false))"
            )
            self._parts.append(_Part(digest, source, self.count, rows))
            self.count += rows

    def hashes(self, numbers: Sequence[str], texts: Sequence[str], shared: Counter[str]) -> Iterator[Batch]:
        """Each row's bucket and hash over the values of these SQL expressions, without the ``shared`` parts.

        DuckDB's hash of a row combines those of its columns. Those of all types but text are one to one,
        so the second hash mixes them in another way; texts are hashed anew, with a letter before them.
        """
        first = ", ".join([*numbers, *texts])
        second = ", ".join(
            [f"xor(hash({value}), {SALT}::UBIGINT)" for value in numbers]
            + [f"hash('x' || {value})" for value in texts]
        )
        query = f"SELECT (hash({first}) & {BUCKETS - 1})::BIGINT AS bucket, hash({second}) AS hash"
        remaining, parts = shared.copy(), []
        for part in self._parts:
            if remaining[part.digest] > 0:
                remaining[part.digest] -= 1
            else:
                parts.append(part)
        for position, columns in self._read(query, parts):
            yield Batch(position, columns["bucket"], columns["hash"])

    def is_increasing(self, column: str) -> bool:
        """Whether each value of a column of integers is greater than the one before."""
        last = None
        query = f"SELECT {column} AS value"
        for values in (columns["value"] for _, columns in self._read(query, self._parts)):
            if np.ma.is_masked(values) or (values[1:] <= values[:-1]).any():
                return False
            if last is not None and values[0] <= last:
                return False
            last = values[-1]
        return True

    def count_distinct(self, columns: Sequence[str]) -> int:
        """The number of different rows of these columns, where null is a value like others."""
        values = f"SELECT DISTINCT {', '.join(columns)} FROM ({self._all})"
        ((found,),) = self._connection.execute(f"SELECT count(*) FROM ({values})").fetchall()
        return int(found)

    def most_repeated(self, columns: Sequence[str], limit: int) -> list[tuple[Any, ...]]:
        """The rows of these columns, as text, that occur most often, and how often."""
        names = ", ".join(columns)
        texts = ", ".join(f"{column}::VARCHAR" for column in columns)
        return self._connection.execute(
            f"SELECT {texts}, found FROM (SELECT {names}, count(*) AS found FROM ({self._all})"
            f" GROUP BY {names} HAVING found > 1 ORDER BY found DESC, {names} LIMIT {limit})"
        ).fetchall()

    def pick(self, table: str, sketch: RowSketch, tested: int) -> None:
        """Make a temporary table of the rows that ``sketch`` suspects and of at most ``tested`` others.

        The former are ``suspect``; the latter are spread evenly over all rows, and ``tested``.
        """
        sample = _spread(self.count, tested)
        made = False
        for part in self._parts:
            for begin, end in part.batches():
                suspect = sketch.suspects(table, begin, end)
                in_sample = np.zeros(end - begin, dtype=np.bool_)
                in_sample[sample[slice(*np.searchsorted(sample, (begin, end)))] - begin] = True
                picked = np.flatnonzero(suspect | in_sample)
                marks = {
                    "position": picked + begin,
                    "number": picked + (begin - part.first),
                    "suspect": suspect[picked],
                    "tested": in_sample[picked],
                }
                self._connection.register("picked", marks)
                rows = f"SELECT * EXCLUDE (number) FROM picked JOIN {part.source(begin, end)} USING (number)"
                self._connection.execute(
                    f"INSERT INTO {table} {rows}" if made else f"CREATE TEMP TABLE {table} AS {rows}"
                )
                made = True

    @property
    def _all(self) -> str:
        return " UNION ALL ".join(f"FROM {part.rows}" for part in self._parts)

    def _read(self, query: str, parts: Iterable[_Part]) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """``query`` over the rows of parts, in order: each batch's first position, and its columns.

        While the caller works on one batch, the next ones are read.
        """

        def read(source: str) -> dict[str, NDArray[Any]]:
            with self._connection.cursor() as cursor:
                return cursor.execute(f"{query} FROM {source}").fetchnumpy()

        waiting: deque[tuple[int, Future[dict[str, NDArray[Any]]]]] = deque()
        with ThreadPoolExecutor(READERS) as readers:
            for part in parts:
                for begin, end in part.batches():
                    waiting.append((begin, readers.submit(read, part.source(begin, end))))
                    if len(waiting) > READERS:
                        position, following = waiting.popleft()
                        yield position, following.result()
            for position, following in waiting:
                yield position, following.result()


class _Part(NamedTuple):
    """The rows of one file: ``rows`` is their SQL, numbered from 0; ``first`` the position of the first."""

    digest: str
    rows: str
    first: int
    row_count: int

    def batches(self) -> Iterator[tuple[int, int]]:
        end = self.first + self.row_count
        for begin in range(self.first, end, BATCH_ROWS):
            yield begin, min(begin + BATCH_ROWS, end)

    def source(self, begin: int, end: int) -> str:
        # By the bare number, DuckDB finds the row groups.
        first, last = begin - self.first, end - self.first - 1
        return f"(FROM {self.rows} WHERE number BETWEEN {first} AND {last})"


def _spread(count: int, wanted: int) -> Positions:
    """One random position of each of ``wanted`` stretches of equal length, or all there are."""
    if count <= wanted:
        return np.arange(count)
    within = np.random.default_rng(SEED).random(wanted)
    return np.floor((np.arange(wanted) + within) * (count / wanted)).astype(np.int64)
