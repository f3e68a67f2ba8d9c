"""Whether a table holds to a contract: one pass over it, and a second one for samples of what does not.

A row breaks a rule where its SQL condition is true. What is known already costs no pass, and what DuckDB
cannot hold in memory, it keeps in a folder.
"""

# ruff: noqa: S608 - every name and text in SQL is quoted by identifier() or literal()

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, Field

from app.columns import Column, ColumnType
from app.datasets.contracts.conditions import Cell, Misfit, breach_of, cell_of, key_of, time_of, value_of_text
from app.datasets.contracts.distance import CHANCE, ReferenceCells, measure_distance
from app.datasets.contracts.rules import (
    Allowed,
    Contract,
    Drift,
    ForbiddenColumns,
    Freshness,
    HasType,
    Matches,
    NoOtherColumns,
    Nulls,
    Range,
    Required,
    RowCount,
    RowRule,
    Rule,
    Severity,
    Unique,
    columns_of,
    is_named_like,
)
from app.datasets.contracts.statistics import is_kept, read_statistics
from app.datasets.engine import (
    Parquet,
    connect,
    fit_to_rows,
    fit_to_width,
    identifier,
    literal,
    numbered_rows_of,
    one_file,
    parts_of,
    row_bytes_of,
)
from app.datasets.reading.infer import COLUMNS_AT_ONCE
from app.datasets.table import json_ready

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_LIMIT = "400MB"  # less than DuckDB has elsewhere: what is looked up, it keeps in the folder as fast
KEYS_AT_ONCE = 4  # each DISTINCT has a hash table of its own, of 8 MB or more
RULES_AT_ONCE = 100  # planned three times as fast as COLUMNS_AT_ONCE, where a pass costs less than a plan
MANY_ROWS = 1_000_000
MAX_SAMPLES = 5
MAX_SAMPLED_RULES = 200
MAX_SAMPLE_TEXT = 200

TIME_TYPES = {ColumnType.DATE: "DATE", ColumnType.DATETIME: "TIMESTAMP WITH TIME ZONE"}


class Sample(BaseModel):
    row: int = Field(description="Rows count from 1.")
    values: dict[str, Any]


class Violation(BaseModel):
    """A rule that the data breaks."""

    rule: str
    severity: Severity
    pointer: str = Field(description="To the rule in the contract.")
    columns: list[str]
    detail: str
    count: int | None = Field(None, description="How many rows break it; null of a rule about the table.")
    samples: list[Sample] = Field([], description="The first rows that break it, of 200 rules at most.")


class Unchecked(BaseModel):
    """A rule that says nothing of this data."""

    rule: str
    pointer: str
    reason: str


class Findings(BaseModel):
    """What a check found; ``checked`` is the number of rules that were applied."""

    rows: int
    checked: int
    violations: list[Violation]
    unchecked: list[Unchecked]

    @property
    def breaks_contract(self) -> bool:
        return any(violation.severity is Severity.ERROR for violation in self.violations)


class _Probe(NamedTuple):
    """A rule that is measured by an aggregate over the rows; ``breaks`` is the condition of a RowRule."""

    place: int
    rule: Rule
    measure: str
    breaks: str | None = None
    reference: ReferenceCells | None = None


def check_table(
    parquet: Parquet,
    columns: Sequence[Column],
    contract: Contract,
    references: Mapping[int, ReferenceCells],
    *,
    now: datetime,
    spill: Path,
    partial: bool = False,
    unique: Collection[str] = (),
) -> Findings:
    """Check a table of these columns; ``references`` are those of the drift rules, by their places.

    A ``partial`` table holds some rows of another: how many and how old its rows are was chosen, and is not
    checked. ``unique`` columns are known to repeat no value.
    """
    types = {column.name: column.type for column in columns}
    named = {name for rule in contract.rules for name in columns_of(rule)}
    with connect(spill) as connection:
        cells, rows = view_table(connection, parquet, {n: t for n, t in types.items() if n in named})
        found = Findings(rows=rows, checked=0, violations=[], unchecked=[])
        probes: list[_Probe] = []
        known = {rule.column for rule in contract.rules if isinstance(rule, Required | HasType)}
        for place, rule in enumerate(contract.rules):
            if partial and isinstance(rule, RowCount | Freshness):
                reason = "The version holds only some rows of another, which this rule is not about."
                found.unchecked.append(Unchecked(rule=rule.rule, pointer=f"/rules/{place}", reason=reason))
            elif isinstance(rule, Required | HasType | NoOtherColumns | ForbiddenColumns | RowCount):
                if isinstance(rule, HasType) and rule.column not in types:
                    found.unchecked.append(_unchecked(place, rule, [rule.column]))
                    continue
                found.checked += 1
                if (fault := _fault_of_table(rule, types, known, rows)) is not None:
                    found.violations.append(_violation(place, rule, *fault))
            else:
                probes += _prepare(place, rule, cells, found, references.get(place))
        statistics = read_statistics(connection, parquet, types)
        probes = [probe for probe in probes if not is_kept(probe.rule, types, statistics, rows, unique)]
        _measure(connection, cells, probes, found, now)
    return found


def check_inputs(
    rows: Path, columns: Sequence[Column], contract: Contract, *, now: datetime, spill: Path
) -> Findings:
    """Check rows of prediction inputs, a JSON object on each line, by those rules that a row keeps or breaks.

    A value that is not of its column's type counts as null.
    """
    cells = {column.name: Cell(f"c{number}", column.type) for number, column in enumerate(columns)}
    texts = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in cells)
    values = ", ".join(f"{value_of_text(name, cell.type)} AS {cell.sql}" for name, cell in cells.items())
    with connect(spill) as connection:
        fit_to_width(connection, len(columns))
        connection.execute(
            f"CREATE TEMP VIEW data AS SELECT row_number() OVER () AS at_row, {values} FROM read_json("
            f"{one_file(rows)}, columns = {{{texts}}}, format = 'newline_delimited', auto_detect = false)"
        )
        (count,) = connection.execute("SELECT count(*) FROM data").fetchall()[0]
        found = Findings(rows=count, checked=0, violations=[], unchecked=[])
        probes = [
            probe
            for place, rule in enumerate(contract.rules)
            if isinstance(rule, RowRule)
            for probe in _prepare(place, rule, cells, found, None)
        ]
        _measure(connection, cells, probes, found, now)
    return found


def find_misfits(contract: Contract, types: Mapping[str, ColumnType]) -> dict[int, str]:
    """Why rules cannot be kept by columns of these types, by the places of the rules.

    A rule about other columns is none of them; and a column has the type that the contract asks of it.
    """
    asked = {rule.column: rule.type for rule in contract.rules if isinstance(rule, HasType)}
    cells = {name: Cell("c", asked.get(name, type_)) for name, type_ in types.items()}
    found = {}
    for place, rule in enumerate(contract.rules):
        if isinstance(rule, RowRule | Freshness) and all(name in cells for name in columns_of(rule)):
            try:
                time_of(cells[rule.column]) if isinstance(rule, Freshness) else breach_of(rule, cells)
            except Misfit as misfit:
                found[place] = str(misfit)
    return found


def find_bad_patterns(contract: Contract) -> dict[int, str]:
    """What is wrong with the regular expressions of a contract, by the places of their rules."""
    import duckdb  # see engine.connect

    wrong = {}
    with connect(spill=None) as connection:
        for place, rule in enumerate(contract.rules):
            if isinstance(rule, Matches):
                try:
                    connection.execute("SELECT regexp_full_match('', ?)", [rule.pattern]).fetchall()
                except duckdb.Error as error:
                    wrong[place] = str(error).splitlines()[0].partition(": ")[2]
    return wrong


def view_table(
    connection: DuckDBPyConnection, parquet: Parquet, types: Mapping[str, ColumnType]
) -> tuple[dict[str, Cell], int]:
    """Make the view ``data`` of columns of a table and of ``at_row``, from 1 on; and count its rows."""
    cells = {name: Cell(f"c{number}", type_) for number, (name, type_) in enumerate(types.items())}
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    fit_to_rows(connection, row_bytes_of(connection, parquet))
    numbered, position = numbered_rows_of(connection, parquet)
    fit_to_width(connection, len(connection.execute(f"DESCRIBE FROM {numbered}").fetchall()))
    columns = [f"{identifier(name)} AS {cell.sql}" for name, cell in cells.items()]
    columns.append(f"{position} + 1 AS at_row")
    connection.execute(f"CREATE TEMP VIEW data AS SELECT {', '.join(columns)} FROM {numbered}")
    files = ", ".join(map(one_file, parts_of(parquet)))
    sizes = connection.execute(f"SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata([{files}])")
    ((rows,),) = sizes.fetchall()
    return cells, rows


# ── Rules about the table ────────────────────────────────────────────────────────────────────────


def _fault_of_table(
    rule: Required | HasType | NoOtherColumns | ForbiddenColumns | RowCount,
    types: Mapping[str, ColumnType],
    known: set[str],
    rows: int,
) -> tuple[list[str], str] | None:
    """The columns at fault, and what is wrong."""
    match rule:
        case Required():
            if rule.column not in types:
                return [rule.column], f"There is no column {rule.column!r}."
        case HasType():
            found = types[rule.column]
            if found is not rule.type and (rule.type, found) != (ColumnType.NUMBER, ColumnType.INTEGER):
                return [rule.column], f"Column {rule.column!r} is of type {found}, not {rule.type}."
        case NoOtherColumns():
            if other := [name for name in types if name not in known]:
                return other, f"The contract does not name {_some(other)}."
        case ForbiddenColumns():
            if bad := [name for name in types if any(is_named_like(name, glob) for glob in rule.names)]:
                return bad, f"The contract forbids {_some(bad)}."
        case RowCount():
            has = f"The table has {rows} row{'' if rows == 1 else 's'}"
            if rows < rule.min:
                return [], f"{has}; it must have at least {rule.min}."
            if rule.max is not None and rows > rule.max:
                return [], f"{has}; it must have at most {rule.max}."
    return None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:MAX_SAMPLES]))
    more = f" and {len(names) - MAX_SAMPLES} more" if len(names) > MAX_SAMPLES else ""
    return f"column{'s' if len(names) > 1 else ''} {shown}{more}"


def _violation(
    place: int,
    rule: Rule,
    columns: list[str],
    detail: str,
    count: int | None = None,
    samples: Sequence[Sample] = (),
) -> Violation:
    return Violation(
        rule=rule.rule,
        severity=rule.severity,
        pointer=f"/rules/{place}",
        columns=columns,
        detail=detail,
        count=count,
        samples=list(samples),
    )


def _unchecked(place: int, rule: Rule, absent: Sequence[str]) -> Unchecked:
    return Unchecked(rule=rule.rule, pointer=f"/rules/{place}", reason=f"There is no {_some(absent)}.")


# ── Rules about the rows ─────────────────────────────────────────────────────────────────────────


def _prepare(
    place: int,
    rule: RowRule | Unique | Freshness | Drift,
    cells: Mapping[str, Cell],
    found: Findings,
    reference: ReferenceCells | None,
) -> Iterator[_Probe]:
    """The rule's probe, unless its columns are absent or their types do not suit: that goes to ``found``."""
    names = columns_of(rule)
    if absent := [name for name in names if name not in cells]:
        found.unchecked.append(_unchecked(place, rule, absent))
        return
    found.checked += 1
    try:
        match rule:
            case Unique():
                key = key_of([cells[name] for name in names])
                yield _Probe(place, rule, f"count({key}) - count(DISTINCT {key})")
            case Freshness():
                yield _Probe(place, rule, f"epoch_us(max({time_of(cells[rule.column])}))")
            case Drift():
                if reference is None:
                    raise RuntimeError(f"the reference of rule {place} is not kept with the contract")
                cell = cell_of(cells[rule.column], reference)
                yield _Probe(place, rule, f"histogram({cell})", reference=reference)
            case _:
                breaks = breach_of(rule, cells)
                yield _Probe(place, rule, f"count(*) FILTER (WHERE {breaks})", breaks)
    except Misfit as misfit:
        found.violations.append(_violation(place, rule, names, f"The rule cannot be kept: {misfit}."))


# ── Measuring ────────────────────────────────────────────────────────────────────────────────────


def _measure(
    connection: DuckDBPyConnection,
    cells: Mapping[str, Cell],
    probes: Sequence[_Probe],
    found: Findings,
    now: datetime,
) -> None:
    """Add the violations that the probes show to ``found``."""
    keys = [probe for probe in probes if isinstance(probe.rule, Unique)]
    others = [probe for probe in probes if not isinstance(probe.rule, Unique)]
    values = aggregate(connection, [probe.measure for probe in keys], KEYS_AT_ONCE)
    at_once = RULES_AT_ONCE if found.rows < MANY_ROWS else COLUMNS_AT_ONCE
    values += aggregate(connection, [probe.measure for probe in others], at_once)
    broken = []
    for probe, value in zip(keys + others, values, strict=True):
        if (fault := _fault(probe, value, found.rows, now)) is not None:
            broken.append((probe, *fault))
    sampled = [probe for probe, _, count in broken if count is not None][:MAX_SAMPLED_RULES]
    samples = _find_samples(connection, cells, sampled)
    for probe, detail, count in broken:
        found.violations.append(
            _violation(
                probe.place, probe.rule, columns_of(probe.rule), detail, count, samples.get(probe.place, ())
            )
        )
    found.violations.sort(key=lambda violation: int(violation.pointer.rpartition("/")[2]))


def aggregate(
    connection: DuckDBPyConnection, expressions: Sequence[str], at_once: int = COLUMNS_AT_ONCE
) -> list[Any]:
    """The values of aggregates over the rows of ``data``, so many in a pass."""
    values: list[Any] = []
    for start in range(0, len(expressions), at_once):
        asked = ", ".join(expressions[start : start + at_once])
        values += connection.execute(f"SELECT {asked} FROM data").fetchall()[0]
    return values


def _fault(probe: _Probe, value: Any, rows: int, now: datetime) -> tuple[str, int | None] | None:
    """What the measured value says against the rule: a sentence, and the number of rows that break it."""
    s, verb, be, do = ("", "s", "is", "does") if value == 1 else ("s", "", "are", "do")
    match rule := probe.rule:
        case Freshness():
            newest = None if value is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=value)
            if newest is not None and now - newest <= rule.age():
                return None
            what = "holds no time" if newest is None else f"has {newest.isoformat()} for its newest time"
            return f"Column {rule.column!r} {what}; it must be no older than {rule.max_age}.", None
        case Drift():
            counted = probe.reference.counts if probe.reference else {}
            distance, p_value = measure_distance(rule.measure, counted, value or {})
            if distance <= rule.max or p_value >= CHANCE:
                return None
            of = f"version {rule.reference} by {distance:.3g} ({rule.measure})"
            return f"Column {rule.column!r} has drifted from {of}; it may by {rule.max:.3g}.", None
        case Nulls():
            if value <= rule.max_share * rows:
                return None
            share = f"at most {rule.max_share:.6g} of them" if rule.max_share else "none"
            return f"{value} of {rows} values of column {rule.column!r} are null; {share} may be.", value
        case Unique():
            names = " and ".join(map(repr, rule.columns))
            what = f"row{s} repeat{verb} what another holds in {names}"
        case Range():
            bounds = f"{'…' if rule.min is None else rule.min} to {'…' if rule.max is None else rule.max}"
            what = f"value{s} of column {rule.column!r} lie{verb} outside of {bounds}"
        case Allowed():
            what = f"value{s} of column {rule.column!r} {be} none of the {len(rule.values)} that are allowed"
        case Matches():
            what = f"value{s} of column {rule.column!r} {do} not match {rule.pattern!r}"
        case _:
            what = f"row{s} break{verb} the condition"
    return (f"{value} {what}.", value) if value else None


def _find_samples(
    connection: DuckDBPyConnection, cells: Mapping[str, Cell], probes: Sequence[_Probe]
) -> dict[int, list[Sample]]:
    """The first rows that break each rule, by the rules' places."""
    broken = [probe for probe in probes if probe.breaks is not None]
    found = {
        probe.place: [_sample(probe.rule, sample.values()) for sample in samples]
        for probe, samples in zip(
            broken, aggregate(connection, [_first_rows(probe, cells) for probe in broken]), strict=True
        )
    }
    for probe in probes:
        if isinstance(probe.rule, Unique):
            found[probe.place] = _find_repeated(connection, cells, probe.rule)
    return found


def _first_rows(probe: _Probe, cells: Mapping[str, Cell]) -> str:
    shown = [f"v{number} := {_shown(cells[name])}" for number, name in enumerate(columns_of(probe.rule))]
    sample = f"struct_pack(at_row := at_row, {', '.join(shown)})"
    return f"arg_min({sample}, at_row, {MAX_SAMPLES}) FILTER (WHERE {probe.breaks})"


def _find_repeated(connection: DuckDBPyConnection, cells: Mapping[str, Cell], rule: Unique) -> list[Sample]:
    columns = [cells[name] for name in columns_of(rule)]
    key = key_of(columns)
    shown = ", ".join(_shown(cell) for cell in columns)
    rows = connection.execute(
        f"WITH repeated AS (SELECT {key} AS key, min(at_row) AS first FROM data GROUP BY key"
        f" HAVING key IS NOT NULL AND count(*) > 1 ORDER BY first LIMIT {MAX_SAMPLES})"
        f" SELECT at_row, {shown} FROM data, repeated WHERE {key} = key AND at_row > first"
        f" ORDER BY at_row LIMIT {MAX_SAMPLES}"
    )
    return [_sample(rule, row) for row in rows.fetchall()]


def _sample(rule: Rule, row: Any) -> Sample:
    number, *values = row
    return Sample(row=number, values=dict(zip(columns_of(rule), values, strict=True)))


def _shown(cell: Cell) -> str:
    """SQL of a value as a sample shows it: dates and times as ISO 8601 texts, long texts cut."""
    if cell.type is ColumnType.STRING:
        cut = f"left({cell.sql}, {MAX_SAMPLE_TEXT}) || '…'"
        return f"CASE WHEN length({cell.sql}) > {MAX_SAMPLE_TEXT} THEN {cut} ELSE {cell.sql} END"
    return json_ready(cell.sql, TIME_TYPES.get(cell.type, ""))
