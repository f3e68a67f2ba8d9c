"""What is read off a version for a contract: a proposal of rules, and the references of drift rules."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.columns import NUMBERS, TIMES, Column, ColumnType
from app.datasets.contracts.check import KEYS_AT_ONCE, aggregate, view_table
from app.datasets.contracts.conditions import Cell, cell_of
from app.datasets.contracts.distance import ReferenceCells
from app.datasets.contracts.rules import (
    Allowed,
    Contract,
    Drift,
    HasType,
    Nulls,
    Range,
    Required,
    RowCount,
    Rule,
    Severity,
    Unique,
)
from app.datasets.engine import Parquet, connect

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROWS_TO_JUDGE = 100
"""With fewer rows, that values are few or all different says little."""
MAX_KEYS = 20  # where more columns are all different, they are hardly identifiers
FEW_VALUES = 20
REPETITIONS = 10  # of each of few values, on the average
DENSE = 10  # integers from so many times the rows are different by design: by chance in 1 case of 148 or less
SLACK = 0.5  # of the width of a range, at each end
NULL_SLACK = 0.05  # of all values, above one and a half times the share of nulls
ROWS_LESS, ROWS_MORE = 2, 10
HUGE = 1e300
MAX_VALUE_LENGTH = 200
TENTHS = [tenth / 10 for tenth in range(1, 10)]
SAMPLED_ROWS = 100_000
FREQUENT_VALUES = 20


class _Facts(NamedTuple):
    """Of a column: ``distinct`` is about so many."""

    nulls: int
    distinct: int
    low: Any
    """The least number, or the day of the first time."""
    high: Any


def infer_contract(parquet: Parquet, columns: Sequence[Column], spill: Path) -> Contract:
    """A contract that the table keeps, and that a table like it would keep.

    Every column is required and has its type. A column without nulls stays so, and the share of nulls of
    another is bounded. Numbers lie in the range seen, widened by half of its width at both ends. As a
    warning, no number is negative where none was, and no date or time lies before the first day seen.
    Strings of few values have no others. Strings and dense integers that are all different stay so.
    """
    with connect(spill) as connection:
        cells, rows = view_table(connection, parquet, {column.name: column.type for column in columns})
        facts = _read_facts(connection, cells)
        different = _find_different(connection, cells, facts, rows)
        values = _find_few_values(connection, cells, facts, rows)
    rules: list[Rule] = [
        RowCount(rule="row_count", min=max(1, rows // ROWS_LESS), max=rows * ROWS_MORE),
    ]
    for name, cell in cells.items():
        rules += [
            Required(rule="required", column=name),
            HasType(rule="column_type", column=name, type=cell.type),
        ]
        nulls = facts[name].nulls
        if (share := math.ceil(100 * (1.5 * nulls / rows + NULL_SLACK)) / 100 if nulls else 0.0) < 1:
            rules.append(Nulls(rule="nulls", column=name, max_share=share))
        if name in different:
            rules.append(Unique(rule="unique", columns=[name]))
        elif name in values:
            rules.append(Allowed(rule="allowed", column=name, values=list(values[name])))
        elif cell.type in NUMBERS and facts[name].low != facts[name].high:
            low, high = _widened(cell.type, facts[name].low, facts[name].high)
            if (low, high) != (None, None):
                rules.append(Range(rule="range", column=name, min=low, max=high))
            if facts[name].low >= 0 and (low is None or low < 0):
                rules.append(Range(rule="range", column=name, min=0, severity=Severity.WARN))
        elif cell.type in TIMES and facts[name].low is not None:
            rules.append(Range(rule="range", column=name, min=facts[name].low, severity=Severity.WARN))
    return Contract(rules=rules)


def _widened(type_: ColumnType, low: Any, high: Any) -> tuple[int | float | None, int | float | None]:
    """The range with its slack; an end far beyond what numbers are used for is none."""
    if type_ is ColumnType.INTEGER:
        slack = math.ceil((high - low) * SLACK)
        ends = [low - slack, high + slack]
        bounds = [end if -(2**63) <= end < 2**63 else None for end in ends]
    else:
        slack = high * SLACK - low * SLACK
        # A bound is there to be read: to two digits more than the slack has, which still leaves most of that.
        digits = 2 - math.floor(math.log10(slack)) if slack else None
        ends = [low - slack, high + slack]
        bounds = [None if abs(end) > HUGE else end if digits is None else round(end, digits) for end in ends]
    return bounds[0], bounds[1]


def _read_facts(connection: DuckDBPyConnection, cells: Mapping[str, Cell]) -> dict[str, _Facts]:
    measures = []
    for cell in cells.values():
        measures += [f"count(*) - count({cell.sql})", "0", "NULL", "NULL"]
        if cell.type in (ColumnType.STRING, ColumnType.INTEGER):
            measures[-3] = f"approx_count_distinct({cell.sql})"
        if cell.type in NUMBERS:
            measures[-2:] = [f"min({cell.sql})", f"max({cell.sql})"]
        if cell.type in TIMES:  # the day on which the first is
            measures[-2] = f"strftime(min({cell.sql}), '%Y-%m-%d')"
    values = iter(aggregate(connection, measures))
    return {name: _Facts(*(next(values) for _ in _Facts._fields)) for name in cells}


def _find_different(
    connection: DuckDBPyConnection, cells: Mapping[str, Cell], facts: Mapping[str, _Facts], rows: int
) -> set[str]:
    """The columns whose values are all different, and not by chance."""
    likely = [
        name
        for name, cell in cells.items()
        if rows >= ROWS_TO_JUDGE
        and facts[name].nulls == 0
        and facts[name].distinct > rows / 2  # which is an estimate
        and (cell.type is ColumnType.STRING or facts[name].high - facts[name].low < DENSE * rows)
    ]
    likely = likely[:MAX_KEYS]
    distinct = [f"count(DISTINCT {cells[name].sql})" for name in likely]
    counts = aggregate(connection, distinct, KEYS_AT_ONCE)
    return {name for name, count in zip(likely, counts, strict=True) if count == rows}


def _find_few_values(
    connection: DuckDBPyConnection, cells: Mapping[str, Cell], facts: Mapping[str, _Facts], rows: int
) -> dict[str, list[str]]:
    """The values of the columns of strings that have few, and each often."""
    likely = [
        name
        for name, cell in cells.items()
        if cell.type is ColumnType.STRING and rows >= ROWS_TO_JUDGE and facts[name].distinct <= 2 * FEW_VALUES
    ]
    columns = [cells[name].sql for name in likely]
    cut = MAX_VALUE_LENGTH + 1
    lists = aggregate(
        connection,
        [f"map_keys(histogram(left({column}, {cut})))" for column in columns],
    )
    return {
        name: sorted(values)
        for name, values in zip(likely, lists, strict=True)
        if values
        and len(values) <= min(FEW_VALUES, (rows - facts[name].nulls) / REPETITIONS)
        and all(len(value) <= MAX_VALUE_LENGTH for value in values)
    }


# ── References ───────────────────────────────────────────────────────────────────────────────────


def count_reference(
    parquet: Parquet, columns: Sequence[Column], rules: Mapping[int, Drift], spill: Path
) -> dict[int, ReferenceCells]:
    """The cells that the drift rules of this reference version count in, by the rules' places.

    Raises KeyError for a rule about a column that the version has not, or has as dates or times.
    """
    types = {column.name: column.type for column in columns if column.type not in TIMES}
    with connect(spill) as connection:
        asked = {rule.column: types[rule.column] for rule in rules.values()}
        cells, rows = view_table(connection, parquet, asked)
        bounds = {
            name: _find_edges(connection, cell.sql, rows)
            if cell.type in NUMBERS
            else _find_frequent(connection, cell.sql)
            for name, cell in cells.items()
        }
        counts = aggregate(
            connection, [f"histogram({cell_of(cell, bounds[name])})" for name, cell in cells.items()]
        )
    counted = {
        name: bounds[name].model_copy(update={"counts": found})
        for name, found in zip(cells, counts, strict=True)
    }
    return {place: counted[rule.column] for place, rule in rules.items()}


def _find_edges(connection: DuckDBPyConnection, column: str, rows: int) -> ReferenceCells:
    """The tenths of the values: of every so many rows, which is the same each time."""
    step = -(-rows // SAMPLED_ROWS)
    query = f"SELECT quantile_disc({column}, {TENTHS}) FROM data WHERE at_row % {step} = 0"
    ((edges,),) = connection.execute(query).fetchall()
    return ReferenceCells(edges=sorted(set(edges or ())))


def _find_frequent(connection: DuckDBPyConnection, column: str) -> ReferenceCells:
    query = (
        f"SELECT {column} FROM data WHERE {column} IS NOT NULL GROUP BY 1"
        f" ORDER BY count(*) DESC, 1 LIMIT {FREQUENT_VALUES}"
    )
    return ReferenceCells(values=[value for (value,) in connection.execute(query).fetchall()])
