"""What the texts of an NDJSON file become: dates and times, where every value of a column is one."""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING

from app.datasets.engine import identifier
from app.datasets.reading.infer import SQL_TYPES, Cells, Kind, agreed_type, naive_time, portions, time_kinds
from app.datasets.reading.mixed import SHOWN_CHARACTERS, Misfit, find_majority, mixed_column
from app.datasets.reading.scanner import SHOWN_MISFITS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def infer_times(connection: DuckDBPyConnection, names: Sequence[str]) -> list[Cells]:
    """Cells of the string columns of ``source``: dates or times where every value is one.

    Raises InvalidInput for a column of which nearly all values are (see ``find_majority``).
    """
    cells = []
    for some in portions(names):
        counted = ", ".join(f"histogram({_kinds(name)})" for name in some)
        found = connection.execute(f"SELECT {counted} FROM source").fetchone() or ()
        for name, of_column in zip(some, found, strict=True):
            counts = {Kind(kind): count for kind, count in (of_column or {}).items()}
            if majority := find_majority(counts, reduce(or_, counts, Kind(0))):
                raise mixed_column(name, majority, counts, _first_misfits(connection, name, majority), [])
            kinds = reduce(and_, counts) if counts else Kind(0)
            type_ = agreed_type(kinds)
            naive = naive_time(identifier(name)) if kinds & Kind.NAIVE_TIME else None
            cells.append(Cells(name, type_, f"CAST({identifier(name)} AS {SQL_TYPES[type_]})", naive=naive))
    return cells


def _kinds(name: str) -> str:
    return f"CASE WHEN {identifier(name)} IS NULL THEN NULL {time_kinds(identifier(name))} END"


def _first_misfits(connection: DuckDBPyConnection, name: str, majority: Kind) -> list[Misfit]:
    numbered = f"SELECT row_number() OVER () AS number, {identifier(name)} AS text, {_kinds(name)} AS kind"
    found = connection.execute(
        f"SELECT number, left(text, {SHOWN_CHARACTERS}) FROM ({numbered} FROM source)"
        f" WHERE kind & {majority:d} = 0 ORDER BY number LIMIT {SHOWN_MISFITS}"
    )
    return [Misfit(row, text) for row, text in found.fetchall()]
