"""Which rules of a contract a table is known to keep, by its files' statistics, before any row is read."""

# ruff: noqa: S608 - every name and text in SQL is quoted by literal()

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from app.columns import TIMES, ColumnType
from app.datasets.contracts.conditions import moment_of
from app.datasets.contracts.rules import Nulls, Range, Rule, Unique
from app.datasets.engine import Parquet, one_file, parts_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Statistics(NamedTuple):
    """What a table's files say of a column; ``None`` where one of them says nothing."""

    nulls: int | None
    ends: tuple[float, float] | None
    """Of numbers and times, the smallest and the greatest; a time as its microseconds since 1970."""


def read_statistics(
    connection: DuckDBPyConnection, parquet: Parquet, types: Mapping[str, ColumnType]
) -> dict[str, Statistics]:
    """Statistics of all columns.

    This server has written the files itself, and no number in them is NaN, which statistics leave out.
    """
    files = ", ".join(map(one_file, parts_of(parquet)))
    time = "epoch_us(TRY_CAST({} AS TIMESTAMPTZ))"
    kinds = {
        ColumnType.INTEGER: "TRY_CAST({} AS BIGINT)",
        ColumnType.NUMBER: "TRY_CAST({} AS DOUBLE)",
        **dict.fromkeys(TIMES, time),
    }
    values = list(dict.fromkeys(kinds.values()))
    ends = [(value.format("stats_min_value"), value.format("stats_max_value")) for value in values]
    of_all = ", ".join(
        f"CASE WHEN bool_and({low} IS NOT NULL AND {high} IS NOT NULL) THEN (min({low}), max({high})) END"
        for low, high in ends
    )
    read = connection.execute(
        "SELECT path_in_schema, bool_and(stats_null_count IS NOT NULL), sum(stats_null_count)::BIGINT,"
        f" {of_all} FROM parquet_metadata([{files}]) GROUP BY path_in_schema"
    ).fetchall()
    return {
        name: Statistics(
            nulls if counts_nulls else None,
            found[values.index(kinds[types[name]])] if types[name] in kinds else None,
        )
        for name, counts_nulls, nulls, *found in read
    }


def is_kept(
    rule: Rule,
    types: Mapping[str, ColumnType],
    statistics: Mapping[str, Statistics],
    rows: int,
    unique: Collection[str],
) -> bool:
    """Whether the files' statistics, and which columns are known to be unique, show that the rule is kept."""
    match rule:
        case Unique():
            return any(name in unique for name in rule.columns)
        case Nulls():
            nulls = statistics[rule.column].nulls
            return nulls is not None and nulls <= rule.max_share * rows
        case Range():
            if (ends := statistics[rule.column].ends) is None:
                return False
            type_, (low, high) = types[rule.column], ends
            return (rule.min is None or _place(rule.min, type_) <= low) and (
                rule.max is None or _place(rule.max, type_) >= high
            )
    return False


def _place(bound: float | str, type_: ColumnType) -> float:
    """A bound among the ends of a column's statistics."""
    if isinstance(bound, str):
        return (moment_of(bound, type_) - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    return bound
