"""Profiles a table in bounded memory, with a few scans of its columns.

Counts, nulls, extremes, mean, standard deviation, lengths, histograms and the counts of top values are of
all rows. Quantiles, correlations and the candidates for top values are of all rows up to ``SAMPLE_ROWS``,
and beyond that of an even sample of about so many. With n sampled rows the rank of a quantile is off by more
than sqrt(ln(2 / 0.001) / 2n), 0.6 % at 100,000, with a probability of at most 0.001 (Massart, Ann. Probab.
18, 1990).
"""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.columns import NUMBERS, ORDERED, Column, ColumnType, Value
from app.datasets.engine import Parquet, connect, fit_to_width, identifier, numbered_rows_of, rows_of
from app.datasets.profiles.association import Variable, associate, correlate
from app.datasets.profiles.findings import find_in_table, find_of_target
from app.datasets.profiles.profile import (
    Association,
    ColumnSummary,
    Correlations,
    DataProfile,
    Duplicates,
    Histogram,
    Lengths,
    Quantile,
    TargetKind,
    TargetProfile,
    ValueCount,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SAMPLE_ROWS = 100_000
BLOCK_CELLS = 4_000_000
BLOCK_COLUMNS = 200
COUNTED_KEYS = 32
"""Histograms in one query. Each may have MAX_COUNTED texts."""
HASHED_ROWS = 20_000_000
"""Rows up to which all are compared, by their hashes."""
SORTED_ROWS = 8_000_000
"""Values that are sorted at once: 8 bytes for each."""
BINS = 32
TOP = 10
MAX_COUNTED = 1_000
"""Different values up to which each is counted."""
MAX_TEXT = 200
MAX_CORRELATED = 100
MAX_INTEGER_CLASSES = 20
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MIN_SAMPLED = 10
"""Sampled rows that a candidate for a top value is in; of rarer ones, chance tells which comes first."""
LARGE = 1e140
"""The sum of the squares of larger numbers may be infinite."""

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class _Table:
    """A table under work."""

    connection: DuckDBPyConnection
    rows_sql: str
    sample_sql: str
    """The rows of the sample, which is even whatever the order of rows."""
    rows: int

    def query(self, values: Sequence[str]) -> DuckDBPyConnection:
        return self.connection.execute(f"SELECT {', '.join(values)} FROM {self.rows_sql}")

    def query_sample(self, values: Sequence[str]) -> DuckDBPyConnection:
        return self.connection.execute(f"SELECT {', '.join(values)} FROM {self.sample_sql}")


@dataclass
class _Facts:
    """What is known so far of one column. Values are ordinals: see ``_ordinal``."""

    column: Column
    count: int = 0
    approximate_distinct: int = 0
    minimum: Any = None
    maximum: Any = None
    mean: float | None = None
    std: float | None = None
    lengths: Lengths | None = None
    few: bool = False
    """Whether, by the sample, its values can be counted each, and tell all the rest."""
    quantiles: list[Any] = field(default_factory=list)
    distinct: int | None = None
    """Exact, once it is."""
    candidates: list[Any] = field(default_factory=list)
    """The most frequent values of the sample; of strings, their hashes."""
    unlike: bool = False
    """Whether no two sampled values are alike."""
    starts: list[Any] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    top: list[tuple[Any, int]] = field(default_factory=list)

    @property
    def ordered(self) -> bool:
        return self.column.type in ORDERED and self.count > 0

    @property
    def may_identify(self) -> bool:
        return self.unlike and self.column.type in (ColumnType.INTEGER, ColumnType.STRING)

    @property
    def median(self) -> Any:
        """Of the sample; None if that has no value."""
        return self.quantiles[QUANTILES.index(0.5)] if self.quantiles else None

    @property
    def is_large(self) -> bool:
        number = self.column.type is ColumnType.NUMBER and self.count > 0
        return number and max(-self.minimum, self.maximum) >= LARGE

    @property
    def to_count(self) -> bool:
        """Whether each of its values is to be counted."""
        if self.distinct is not None or self.unlike:
            return False
        return self.few or self.approximate_distinct <= MAX_COUNTED


def build_profile(parquet: Parquet, columns: Sequence[Column], rows: int, spill: Path) -> DataProfile:
    """Profile the canonical table of these columns and so many rows; ``spill`` takes what memory does not."""
    with connect(spill) as connection:
        table = _open(connection, parquet, rows)
        facts: list[_Facts] = []
        variables: dict[str, Variable] = {}
        qualified, sampled_rows = 0, 0
        for block in _blocks(columns, rows):
            found = [_Facts(column) for column in block]
            facts += found
            for fact, cells in zip(found, _sample(table, block), strict=True):
                sampled_rows = len(cells.values)
                _take_sample(fact, cells, rows)
                variable = _variable(fact.column.type, cells)
                if variable and variable.varies and not (fact.unlike and variable.numbers is None):
                    qualified += 1
                    if len(variables) < MAX_CORRELATED:
                        variables[fact.column.name] = variable
            _aggregate(table, found)
            _count_values(table, found)
        _count_unlike(table, facts)
        summaries = [_summary(fact, rows) for fact in facts]
        duplicates = _count_duplicates(table, summaries)
    correlations = Correlations(
        columns=list(variables),
        left_out=qualified - len(variables),
        values=correlate(list(variables.values())),
    )
    return DataProfile(
        rows=rows,
        sampled_rows=sampled_rows,
        columns=summaries,
        duplicates=duplicates,
        correlations=correlations,
        findings=find_in_table(rows, summaries, duplicates, correlations),
    )


def build_target_profile(
    parquet: Parquet, columns: Sequence[Column], profile: DataProfile, target: str
) -> TargetProfile:
    """What each other column tells of ``target``, in the sample of the profile. Raises KeyError."""
    summary = {column.name: column for column in profile.columns}[target]
    few = summary.type is ColumnType.INTEGER and summary.distinct <= MAX_INTEGER_CLASSES
    classes = few or summary.type in (ColumnType.BOOLEAN, ColumnType.STRING)
    found = []
    with connect(spill=None) as connection:
        table = _open(connection, parquet, profile.rows)
        own = next(column for column in columns if column.name == target)
        cells = _sample(table, [own])[0]
        if classes:
            wanted = Variable.of_categories(cells.values, cells.nulls, ordered=summary.distinct == 2)
        else:
            wanted = Variable.of_numbers(cells.values, cells.nulls)
        for block in _blocks([column for column in columns if column.name != target], profile.rows):
            for column, others in zip(block, _sample(table, block), strict=True):
                found.append(_association(column, others, wanted))
    found.sort(key=lambda one: -max(one.strength or 0, abs(one.value or 0)))
    kind = TargetKind.CLASSES if classes else TargetKind.NUMBER
    return TargetProfile(
        column=target,
        kind=kind,
        associations=found,
        findings=find_of_target(profile, summary, kind, found),
    )


def _open(connection: DuckDBPyConnection, parquet: Parquet, rows: int) -> _Table:
    connection.execute("SET parquet_metadata_cache = true")  # every query of a wide table would parse it anew
    rows_sql = sample_sql = rows_of(parquet)
    if rows > SAMPLE_ROWS:
        numbered, position = numbered_rows_of(connection, parquet)
        sample_sql = f"{numbered} WHERE hash({position}) < {2**64 * SAMPLE_ROWS // rows}::UBIGINT"
    return _Table(connection, rows_sql, sample_sql, rows)


def _blocks(columns: Sequence[Column], rows: int) -> Iterator[Sequence[Column]]:
    size = max(1, min(BLOCK_COLUMNS, BLOCK_CELLS // max(1, min(rows, SAMPLE_ROWS))))
    for start in range(0, len(columns), size):
        yield columns[start : start + size]


def _ordinal(column: Column) -> str:
    """The column as what has an order and fits into numpy: int64, float64 or boolean; a string's hash."""
    name = identifier(column.name)
    match column.type:
        case ColumnType.DATE:
            return f"({name} - DATE '1970-01-01')"
        case ColumnType.DATETIME:
            return f"epoch_us({name})"
        case ColumnType.STRING:
            return f"hash({name})"
    return name


def _value(type_: ColumnType, ordinal: Any) -> Value:
    """An ordinal as JSON value."""
    match type_:
        case ColumnType.DATE:
            return (EPOCH + timedelta(days=ordinal)).isoformat()
        case ColumnType.DATETIME:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ordinal)
            return moment.isoformat().replace("+00:00", "Z")
        case ColumnType.STRING if len(ordinal) > MAX_TEXT:
            return f"{ordinal[:MAX_TEXT]}…"
    value: Value = ordinal
    return value


# ── Aggregates over all rows ─────────────────────────────────────────────────────────────────────


def _aggregate(table: _Table, facts: Sequence[_Facts]) -> None:
    """Of columns of few values, the lengths alone."""
    values = []
    for fact in facts:
        column = fact.column
        name, ordinal = identifier(column.name), _ordinal(column)
        # Of a table that is sampled whole, the distinct values are counted there; of identifiers, later.
        counted = table.rows <= SAMPLE_ROWS or (fact.may_identify and table.rows <= HASHED_ROWS)
        counts = [f"count({name})", "0" if counted else f"approx_count_distinct({name})"]
        ends = [f"{end}({ordinal})" if column.type in ORDERED else "NULL" for end in ("min", "max")]
        moments = ["NULL", "NULL"]
        if column.type in NUMBERS:
            from_median = f"({name} - {_double(float(fact.median or 0))})"
            moments = [f"avg({name})", f"sum({from_median} * {from_median})"]
        values += ["0", "0", *["NULL"] * 4] if fact.few else [*counts, *ends, *moments]
        text = column.type is ColumnType.STRING
        values += [f"{of}(length({name}))" if text else "NULL" for of in ("min", "max", "avg")]
    (row,) = table.query([*values, "count(*)"]).fetchall()  # which makes constants alone one row
    for start, fact in zip(range(0, len(values), 9), facts, strict=True):
        fact.count, fact.approximate_distinct, fact.minimum, fact.maximum = row[start : start + 4]
        mean, squares, shortest, longest, length = row[start + 4 : start + 9]
        if shortest is not None:
            fact.lengths = Lengths(minimum=shortest, maximum=longest, mean=length)
        if mean is None:
            continue
        if fact.is_large or fact.median is None:
            fact.mean, fact.std = _moments(table, fact)
            continue
        fact.mean = mean
        if fact.count > 1:
            # As near to the mean as the median is, the squares lose no digits (Chan et al., 1983).
            off = (mean - float(fact.median)) ** 2 * fact.count
            fact.std = math.sqrt(max(0.0, squares - off) / (fact.count - 1))


def _moments(table: _Table, fact: _Facts) -> tuple[float | None, float | None]:
    """Mean and standard deviation of a column that is large, or has no median to start from."""
    scale = 2.0**-600 if fact.is_large else 1.0
    scaled = f"{identifier(fact.column.name)} * {_double(scale)}"
    (row,) = table.query([f"avg({scaled})", f"stddev_samp({scaled})"]).fetchall()
    mean, std = (None if value is None else value / scale for value in row)
    return mean, std if std is not None and math.isfinite(std) else None


# ── The sample ───────────────────────────────────────────────────────────────────────────────────


class _Cells(NamedTuple):
    """A column's sampled ordinals, shape (n,), and which of them are null."""

    values: NDArray[Any]
    nulls: NDArray[np.bool_]


def _sample(table: _Table, columns: Sequence[Column]) -> list[_Cells]:
    values = [f"{_ordinal(column)} AS c{number}" for number, column in enumerate(columns)]
    nulls = [f"{identifier(column.name)} IS NULL AS n{number}" for number, column in enumerate(columns)]
    arrays = table.query_sample([*values, *nulls]).fetchnumpy()
    return [
        _Cells(np.ma.getdata(arrays[f"c{number}"]), np.ma.getdata(arrays[f"n{number}"]))
        for number in range(len(columns))
    ]


def _take_sample(fact: _Facts, cells: _Cells, rows: int) -> None:
    """Quantiles and candidates for top values; all but the texts of strings where all rows are sampled."""
    whole = rows <= SAMPLE_ROWS
    present = np.sort(cells.values[~cells.nulls])
    runs = np.flatnonzero(np.append(True, present[1:] != present[:-1]))[: len(present)]
    repeats = np.diff(runs, append=len(present))
    fact.unlike = len(runs) == len(present) > TOP
    if fact.column.type in ORDERED and len(present):
        ranks = [max(0, math.ceil(share * len(present)) - 1) for share in QUANTILES]
        fact.quantiles = present[ranks].tolist()
    frequent = np.argsort(-repeats, kind="stable")[:TOP]
    if not whole:
        frequent = frequent[repeats[frequent] >= MIN_SAMPLED]
        # Each value seen once stands for as many as there are rows to a sampled one.
        unseen = (
            int(np.count_nonzero(repeats == 1)) * (rows / len(cells.values) - 1) if len(cells.values) else 0
        )
        fact.few = 0 < len(runs) + unseen <= MAX_COUNTED and not fact.unlike
    elif fact.unlike:
        frequent = frequent[:0]
    fact.candidates = present[runs[frequent]].tolist()
    if whole:
        fact.distinct = len(runs)
        if fact.column.type is not ColumnType.STRING:
            fact.top = list(zip(fact.candidates, repeats[frequent].tolist(), strict=True))
            fact.candidates = []
        if fact.column.type in ORDERED and len(present):
            fact.minimum, fact.maximum = present[[0, -1]].tolist()
            fact.starts, _ = _bins(fact)
            fact.counts = _fill_bins(fact.starts, present)


def _fill_bins(
    starts: Sequence[int | float], ordered: NDArray[Any], weights: NDArray[np.int64] | None = None
) -> list[int]:
    """Count ``ordered`` values, shape (n,), each ``weights`` times, into bins that begin at ``starts``."""
    counted = np.append(0, np.cumsum(np.ones_like(ordered, dtype=np.int64) if weights is None else weights))
    borders = np.searchsorted(ordered, np.array(starts[1:], dtype=ordered.dtype))
    counts: list[int] = np.diff(counted[borders], prepend=0, append=counted[-1]).tolist()
    return counts


def _variable(type_: ColumnType, cells: _Cells) -> Variable | None:
    if type_ in ORDERED:
        return Variable.of_numbers(cells.values, cells.nulls)
    return Variable.of_categories(cells.values, cells.nulls, ordered=type_ is ColumnType.BOOLEAN)


def _association(column: Column, cells: _Cells, target: Variable | None) -> Association:
    variable = _variable(column.type, cells)
    measure = value = strength = nulls = None
    if target is not None:
        missing = Variable(None, cells.nulls.astype(np.int64), 2)
        nulls = associate(missing, target)[1]
        if variable is not None:
            measure, value = associate(variable, target)
            strength = associate(variable.as_bins(), target)[1]
    return Association(
        column=column.name,
        measure=measure,
        value=_rounded(value),
        strength=_rounded(strength),
        nulls=_rounded(nulls),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


# ── Histograms and top values, over all rows ─────────────────────────────────────────────────────


def _count_values(table: _Table, facts: Sequence[_Facts]) -> None:
    """Group by every column's bins and values, in one scan."""
    keys: list[tuple[_Facts, str, bool]] = []
    for fact in facts:
        if fact.to_count or fact.candidates:
            keys.append((fact, _value_key(fact), False))
        if fact.ordered and not (fact.to_count or fact.starts):
            fact.starts, key = _bins(fact)
            keys.append((fact, key, True))
    for start in range(0, len(keys), COUNTED_KEYS):
        part = keys[start : start + COUNTED_KEYS]
        (counted,) = table.query([f"histogram({key})" for _, key, _ in part]).fetchall()
        for (fact, _, binned), counts in zip(part, counted, strict=True):
            if binned:
                fact.counts = [0] * len(fact.starts)
                for number, count in counts.items():  # rounding may lead out of the first bin and the last
                    fact.counts[min(max(number, 0), len(fact.starts) - 1)] += count
            else:
                fact.top = list((counts or {}).items())
    for fact in facts:
        fact.top.sort(key=lambda one: one[0])
        if fact.to_count:
            fact.distinct = len(fact.top)
            if fact.few:
                _sum_up(table, fact)
            if fact.ordered:
                fact.starts, _ = _bins(fact)
                values, weights = (np.array(one) for one in zip(*fact.top, strict=True))
                fact.counts = _fill_bins(fact.starts, values, weights)
        fact.top = sorted(fact.top, key=lambda one: -one[1])[:TOP]


def _sum_up(table: _Table, fact: _Facts) -> None:
    """Count, extremes, mean and standard deviation, of the values and their counts in ``fact.top``."""
    fact.count = sum(count for _, count in fact.top)
    if fact.column.type in ORDERED:
        fact.minimum, fact.maximum = fact.top[0][0], fact.top[-1][0]
    if fact.is_large:
        fact.mean, fact.std = _moments(table, fact)
    elif fact.column.type in NUMBERS:
        fact.mean = mean = math.fsum(value * count for value, count in fact.top) / fact.count
        squares = math.fsum((value - mean) ** 2 * count for value, count in fact.top)
        fact.std = math.sqrt(squares / (fact.count - 1))


def _value_key(fact: _Facts) -> str:
    name, ordinal = identifier(fact.column.name), _ordinal(fact.column)
    key = ordinal
    if fact.column.type is ColumnType.STRING:
        longest = fact.lengths.maximum if fact.lengths else 0
        if longest > MAX_TEXT:  # a longer text is told from others by its hash, which is cut off when shown
            told_apart = f"left({name}, {MAX_TEXT}) || hash({name})"
            key = f"CASE WHEN length({name}) > {MAX_TEXT} THEN {told_apart} ELSE {name} END"
        else:
            key = name
    if fact.to_count:
        return key
    kind = {ColumnType.STRING: "UBIGINT", ColumnType.NUMBER: "DOUBLE"}.get(fact.column.type, "BIGINT")
    wanted = ", ".join(f"'{value!r}'::{kind}" for value in fact.candidates)
    return f"CASE WHEN {ordinal} IN ({wanted}) THEN {key} END"


def _bins(fact: _Facts) -> tuple[list[Any], str]:
    """The starts of bins of equal width over the column's range, and the SQL of a value's bin."""
    low, high, ordinal = fact.minimum, fact.maximum, _ordinal(fact.column)
    if fact.column.type is not ColumnType.NUMBER:
        width = -(-(high - low + 1) // BINS)
        starts = list(range(low, high + 1, width))
        if high - low >= 2**63:
            ordinal = f"{ordinal}::HUGEINT"
        return starts, f"CAST(({ordinal} - ({low})) // {width} AS INTEGER)"
    width = high / BINS - low / BINS  # not (high - low) / BINS, which may be infinite
    starts = [low * (1 - number / BINS) + high * (number / BINS) for number in range(BINS)]
    if not all(first < second for first, second in pairwise(starts)):
        return [low], f"CASE WHEN {ordinal} IS NOT NULL THEN 0 END"
    position = f"({ordinal} / {BINS} - {_double(low / BINS)}) / {_double(width / BINS)}"
    return starts, f"CAST(floor({position}) AS INTEGER)"


def _double(number: float) -> str:
    return f"'{number!r}'::DOUBLE"  # without the quotes DuckDB would read a decimal, and round it


# ── Hashes ───────────────────────────────────────────────────────────────────────────────────────


def _count_unlike(table: _Table, facts: Sequence[_Facts]) -> None:
    """Count distinct values exactly where there may be as many as rows, in what may be an identifier."""
    if table.rows > HASHED_ROWS:
        return
    for fact in facts:
        if fact.distinct is None and fact.may_identify:
            present = f"{identifier(fact.column.name)} IS NOT NULL"
            _, fact.distinct = _count_different(table, _ordinal(fact.column), present)


def _count_different(table: _Table, value: str, condition: str) -> tuple[int, int]:
    """The rows that meet a condition, and the different values in them; equal ones are of the same part."""
    parts = -(-table.rows // SORTED_ROWS)
    rows = different = 0
    for part in range(parts):
        of_part = f" AND hash({value}) % {parts} = {part}" if parts > 1 else ""
        found = _fetch(table, f"SELECT {value} FROM {table.rows_sql} WHERE {condition}{of_part}")
        if not np.all(found[1:] >= found[:-1]):
            found.sort()
        rows += len(found)
        different += int(np.count_nonzero(found[1:] != found[:-1])) + min(1, len(found))
    return rows, different


def _fetch(table: _Table, query: str) -> NDArray[Any]:
    """A column of at most the table's rows, without a whole result of DuckDB's beside it."""
    from arro3.core import RecordBatchReader  # see identity.content_digest

    found: NDArray[Any] = np.empty(0, np.int64)
    rows = 0
    for batch in RecordBatchReader.from_stream(table.connection.sql(query)):
        values = batch.column(0).to_numpy()
        if not rows:
            found = np.empty(table.rows, values.dtype)
        found[rows : rows + len(values)] = values
        rows += len(values)
    return found[:rows]


def _count_duplicates(table: _Table, columns: Sequence[ColumnSummary]) -> Duplicates:
    """Rows less different hashes of rows; all copies of a row have one hash, so any part of them will do."""
    if any(column.distinct_exact and column.distinct == table.rows for column in columns):
        return Duplicates(rows=0, exact=True)
    parts = max(1, -(-table.rows // HASHED_ROWS))
    fit_to_width(table.connection, len(columns))  # until here no query read all of them
    names = ", ".join(identifier(column.name) for column in columns)
    row_hash = f"hash({names})"
    seen, different = _count_different(table, row_hash, f"{row_hash} % {parts} = 0" if parts > 1 else "true")
    return Duplicates(rows=round((seen - different) / seen * table.rows) if seen else 0, exact=parts == 1)


# ── The answer ───────────────────────────────────────────────────────────────────────────────────


def _summary(fact: _Facts, rows: int) -> ColumnSummary:
    type_ = fact.column.type

    def shown(ordinal: Any) -> Value:
        return _value(type_, ordinal)

    return ColumnSummary(
        name=fact.column.name,
        type=type_,
        count=fact.count,
        nulls=rows - fact.count,
        distinct=min(fact.approximate_distinct, fact.count) if fact.distinct is None else fact.distinct,
        distinct_exact=fact.distinct is not None,
        minimum=shown(fact.minimum) if fact.ordered else None,
        maximum=shown(fact.maximum) if fact.ordered else None,
        mean=fact.mean,
        std=fact.std,
        quantiles=[
            Quantile(share=share, value=shown(value))
            for share, value in zip(QUANTILES, fact.quantiles, strict=False)
        ],
        histogram=Histogram(starts=[shown(start) for start in fact.starts], counts=fact.counts)
        if fact.ordered
        else None,
        top=[ValueCount(value=shown(value), count=count) for value, count in fact.top],
        lengths=fact.lengths,
    )
