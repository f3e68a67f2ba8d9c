"""Rows grouped by what a column holds: by category, or between quantiles, in the column's own terms."""

# ruff: noqa: S608 - every name in SQL is quoted by identifier()

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.columns import ColumnType
from app.datasets.engine import identifier
from app.registry.matrix import Column, open_table, present, read_columns, table_types
from app.registry.signature import Feature, Role, format_time
from app.training.report.intervals import Numbers
from app.training.report.numbers import rounded
from app.training.report.subject import Judged, Subject

MAX_CATEGORIES = 20
QUANTILE_GROUPS = 5
FEW_VALUES = 8
"""A number with at most so many different values is grouped by value."""

Label = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Groups:
    """The group of each row, ``codes`` of shape (n,), and what each group is.

    A label is ``{"value": v}``, ``{"from": a, "to": b}`` (``b`` itself is in the last range only),
    ``{"null": true}``, ``{"unknown": true}`` (categories that the training data did not show) or
    ``{"others": number of values}``.
    """

    column: str
    codes: NDArray[np.intp]
    labels: tuple[Label, ...]

    @property
    def sizes(self) -> NDArray[np.intp]:
        return np.bincount(self.codes, minlength=len(self.labels))


def feature_columns(judged: Judged) -> list[tuple[Feature, int]]:
    """The features that can be explained one by one, with their places in the matrix."""
    return [
        (feature, place)
        for feature, place in zip(judged.signature.features, judged.signature.places, strict=True)
        if isinstance(place, int)
    ]


def cell_value(feature: Feature, cell: float) -> Any:
    """What a cell of the matrix says, as the column would hold it; numbers in six digits."""
    if np.isnan(cell):
        return None
    if feature.role is Role.CATEGORICAL and feature.categories:
        return feature.categories[int(cell)] if cell >= 0 else None
    return typed_value(feature.type, cell)


def typed_value(type_: ColumnType, number: float) -> Any:
    match type_:
        case ColumnType.BOOLEAN:
            return bool(number)
        case ColumnType.INTEGER if float(number).is_integer():
            return int(number)
        case ColumnType.DATE | ColumnType.DATETIME:
            return format_time(number, type_)
        case _:
            return rounded(number)


def group_feature(feature: Feature, cells: Numbers) -> Groups:
    """Groups of a feature's cells of the matrix, shape (n,)."""
    if feature.role is Role.CATEGORICAL:
        return _by_value(feature.name, cells, feature.categories or (), {"unknown": True})
    return _by_number(feature.name, feature.type, cells)


def read_groups(subject: Subject, names: Sequence[str]) -> list[Groups]:
    """Groups of the held-out rows by columns of the table; names that it does not have are left out."""
    groups: list[Groups] = []
    if not names:
        return groups
    with open_table(subject.parquet) as connection:
        types = table_types(connection)
        for name in (name for name in dict.fromkeys(names) if name in types):
            values: list[str] | None = None
            beyond = 0
            if types[name] is ColumnType.STRING:
                value = present(name, types[name])
                ((distinct,),) = connection.execute(f"SELECT count(DISTINCT {value}) FROM data").fetchall()
                rows = connection.execute(
                    f"SELECT {value} AS value FROM data WHERE {identifier(name)} IS NOT NULL "
                    f"GROUP BY value ORDER BY count(*) DESC, value LIMIT {MAX_CATEGORIES}"
                ).fetchall()
                values = [value for (value,) in rows]
                beyond = distinct - len(values)
            ((_, cells),) = read_columns(connection, [Column(name, types[name], values)])
            held_out = cells[subject.holdout_rows]
            if values is None:
                groups.append(_by_number(name, types[name], held_out))
            else:
                groups.append(_by_value(name, held_out, values, {"others": beyond}))
    return groups


def _by_value(name: str, cells: Numbers, values: Sequence[Any], beyond: Label) -> Groups:
    """The most frequent values, the others together, those ``beyond`` ``values``, and null."""
    unknown, null = len(values), len(values) + 1
    codes = np.where(np.isnan(cells), null, np.where(cells < 0, unknown, cells)).astype(np.intp)
    counts = np.bincount(codes, minlength=null + 1)
    ranked = [int(code) for code in np.argsort(-counts[:unknown], kind="stable") if counts[code]]
    kept, rest = ranked[:MAX_CATEGORIES], ranked[MAX_CATEGORIES:]
    if len(rest) == 1:
        kept, rest = ranked, []
    labels: list[Label] = [{"value": values[code]} for code in kept]
    places = np.empty(null + 1, dtype=np.intp)
    places[kept] = np.arange(len(kept))
    for members, label in (
        (rest, {"others": len(rest)}),
        ([unknown], beyond),
        ([null], {"null": True}),
    ):
        if counts[members].sum():
            places[members] = len(labels)
            labels.append(label)
    return Groups(name, places[codes], tuple(labels))


def _by_number(name: str, type_: ColumnType, cells: Numbers) -> Groups:
    """Each of few values, or fifths of the rows between quantiles; and null."""
    missing = np.isnan(cells)
    held = cells[~missing]
    distinct = np.unique(held[: 50 * FEW_VALUES])
    if len(distinct) <= FEW_VALUES:
        distinct = np.unique(held)
    labels: list[Label]
    if len(distinct) <= FEW_VALUES:
        codes = np.searchsorted(distinct, cells)
        labels = [{"value": typed_value(type_, value)} for value in distinct]
    else:
        shares = np.linspace(0, 1, QUANTILE_GROUPS + 1)
        edges = np.unique(np.quantile(held, shares, method="inverted_cdf"))
        codes = np.searchsorted(edges[1:-1], cells, side="right")
        shown = [typed_value(type_, edge) for edge in edges]
        labels = [{"from": low, "to": high} for low, high in pairwise(shown)]
    codes = np.where(missing, len(labels), codes)
    if missing.any():
        labels.append({"null": True})
    return _without_empty(Groups(name, codes.astype(np.intp), tuple(labels)))


def _without_empty(groups: Groups) -> Groups:
    filled = groups.sizes > 0
    if filled.all():
        return groups
    labels = tuple(label for label, kept in zip(groups.labels, filled, strict=True) if kept)
    return Groups(groups.column, (np.cumsum(filled) - 1)[groups.codes], labels)
