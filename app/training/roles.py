"""What the columns of a table are to a model: the target with its task, the features with their roles.

Inference looks at aggregates over every row; the training spec has the last word. Each way in which a spec
and a table do not fit is refused here, for the request handler and the trainer alike.
"""

# ruff: noqa: S608 - every name in SQL is quoted by identifier()

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.columns import TIMES, ColumnType, Value
from app.datasets.engine import Parquet
from app.errors import InputError, InvalidInput, pointer
from app.registry.matrix import batches, cells, number, open_table, present, read_texts, table_types
from app.registry.signature import Feature, Role, Signature, Task, format_time
from app.training.algorithms.algorithm import CLASSIFICATION
from app.training.metrics import DEFAULT_METRIC
from app.training.preparation.steps import TextSteps, check_interactions, resolve_plan, resolve_steps
from app.training.spec import FeatureOverride, TrainingSpec, refusal
from app.training.spec_rules import (
    Columns,
    check_algorithm,
    check_class_options,
    check_evaluation,
    check_metrics,
    cost_matrix,
    group_column,
    in_json,
    near,
    time_column,
    times_of,
)
from app.training.vocabulary import frequent_tokens

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MIN_LABELLED_ROWS = 20
MAX_CLASSES = 1000
MAX_CATEGORIES = 1000

MIN_MEAN_WORDS = 3
"""A column of mostly different strings of so many words is a text."""

MAX_INTEGER_CLASSES = 20
MAX_INTEGER_CLASS_SHARE = 0.05

LARGEST_NUMBER = 1e150
"""The squares of greater numbers, or their sums, overflow a float64."""

EARLIEST_TIME = -62_135_596_800.0  # 0001-01-01T00:00:00Z
LATEST_TIME = 253_402_300_799.999999  # 9999-12-31T23:59:59.999999Z

# The first role of a type is the one that is inferred.
_ROLES: dict[ColumnType, tuple[Role, ...]] = {
    ColumnType.INTEGER: (Role.NUMERIC, Role.CATEGORICAL),
    ColumnType.NUMBER: (Role.NUMERIC,),
    ColumnType.BOOLEAN: (Role.BOOLEAN, Role.CATEGORICAL),
    ColumnType.STRING: (Role.CATEGORICAL, Role.TEXT),
    ColumnType.DATE: (Role.DATETIME,),
    ColumnType.DATETIME: (Role.DATETIME,),
}

_TASKS: dict[ColumnType, tuple[Task, ...]] = {
    ColumnType.INTEGER: tuple(Task),
    ColumnType.NUMBER: tuple(Task),
    ColumnType.BOOLEAN: (Task.BINARY,),
    ColumnType.STRING: CLASSIFICATION,
    ColumnType.DATE: (),
    ColumnType.DATETIME: (),
}

_IDENTIFIER_NAME = re.compile(r"(^|[_\s.-])[iI][dD]$|[a-z]I[dD]$")


@dataclass(frozen=True, slots=True)
class ResolvedSpec:
    """A training spec with every default and inference made explicit for one table.

    ``dropped`` gives, by column, the reason why it is not a
    feature. ``without_target`` counts rows. ``time_column`` orders the rows (validation by time only),
    ``group_column`` holds them together (grouped only). ``metric`` is the primary one, ``metrics`` are
    further ones beside the usual. ``notes`` are sentences for the caller.
    """

    signature: Signature
    dropped: dict[str, str]
    without_target: int
    time_column: str | None
    group_column: str | None
    metric: str
    metrics: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """Aggregates of a column over every row; the range is NaN for strings and where all is null.

    ``distinct`` may be 2 for more, where the values were not counted.
    """

    present: int
    nulls: int
    distinct: int
    minimum: float
    maximum: float


def check_spec(columns: Columns, spec: TrainingSpec) -> None:
    """Refuse, from names and types alone, a spec that no data in these columns could satisfy.

    Raises InvalidInput with JSON pointers into the spec.
    """
    _check_target(columns, spec)
    check_algorithm(spec, spec.task)
    check_metrics(spec, spec.task)
    _check_features(columns, spec)
    _check_preparation(columns, spec)
    check_class_options(spec, spec.task)
    check_evaluation(columns, spec)
    time_column(columns, spec)
    group_column(columns, spec)


def resolve_spec(parquet: Parquet, spec: TrainingSpec) -> ResolvedSpec:
    """Infer the task and every column's role from the table, under the spec.

    Raises InvalidInput with JSON pointers into the spec: all that ``check_spec`` refuses, and targets,
    features and orders that the data rules out.
    """
    with open_table(parquet) as connection:
        columns = table_types(connection)
        check_spec(columns, spec)
        facts = _facts(connection, columns, [spec.target], counted=True)[spec.target]
        task, classes = _target(connection, columns, spec, facts)
        check_algorithm(spec, task)
        check_metrics(spec, task)
        check_class_options(spec, task, classes)
        features, dropped = _features(connection, columns, spec)
        # For what it refuses: each candidate has a plan of its own.
        resolve_plan(features, spec.preparation, own_preparation(spec), spec.seed)
        ordered_by, grouped_by = time_column(columns, spec), group_column(columns, spec)
        if ordered_by is not None:
            _check_order(connection, columns, spec.target, ordered_by)
        if grouped_by is not None:
            _check_groups(connection, columns, spec.target, grouped_by)
    notes = []
    if facts.nulls:
        notes.append(f"Rows left out, as they have no value of {spec.target!r}: {facts.nulls:,}.")
    if task is Task.REGRESSION and spec.task is None and facts.distinct == 2:
        notes.append(
            f"The target {spec.target!r} has two values but is of type number, so that this is a "
            'regression; for two classes set "task" to "binary".'
        )
    if spec.validation.method == "stratified" and (times := times_of(columns, spec)):
        notes.append(
            f"The rows were split at random, though {', '.join(times)} could order them: if the model will "
            'answer for days after those it learned from, choose the validation method "time".'
        )
    return ResolvedSpec(
        signature=Signature(
            features=tuple(features),
            ignored=tuple(dropped),
            target=spec.target,
            target_type=columns[spec.target],
            task=task,
            classes=classes,
            costs=cost_matrix(spec, classes),
        ),
        dropped=dropped,
        without_target=facts.nulls,
        time_column=ordered_by,
        group_column=grouped_by,
        metric=(primary := spec.metric or DEFAULT_METRIC[task]),
        metrics=tuple(name for name in dict.fromkeys(spec.metrics) if name != primary),
        notes=tuple(notes),
    )


def _check_target(columns: Columns, spec: TrainingSpec) -> None:
    if spec.target not in columns:
        raise refusal(
            "unknown_target",
            ("target",),
            f"The data has no column {spec.target!r}{near(spec.target, columns)}",
        )
    type_ = columns[spec.target]
    fitting = _TASKS[type_]
    if not fitting:
        raise refusal(
            "unusable_target",
            ("target",),
            f"The target {spec.target!r} is a {type_}; it must be a boolean, string, integer or number.",
        )
    if spec.task is not None and spec.task not in fitting:
        raise refusal(
            "unfit_task",
            ("task",),
            f"The target {spec.target!r} is of type {type_}, which {spec.task} cannot learn; its tasks are: "
            f"{', '.join(fitting)}.",
        )


def _check_features(columns: Columns, spec: TrainingSpec) -> None:
    """Refuse an empty list, unknown or repeated names, the target as a feature, and roles no type allows."""
    if spec.features is None:
        return
    if spec.features == []:
        raise refusal(
            "no_features",
            ("features",),
            'The list of features is empty; name columns to learn from, or send no "features" to let every '
            "column be looked at.",
        )
    errors = []
    seen = set[str]()
    for position, name in enumerate(spec.features):
        at = pointer("features", position if isinstance(spec.features, list) else name)
        if name not in columns:
            errors.append(InputError(at, f"The data has no column {name!r}{near(name, columns)}"))
        elif name == spec.target:
            errors.append(InputError(at, f"{name!r} is the target; it cannot be a feature too."))
        elif name in seen:
            errors.append(InputError(at, f"{name!r} is named twice."))
        elif isinstance(spec.features, dict):
            role = spec.features[name].role
            possible = _ROLES[columns[name]]
            if isinstance(role, Role) and role not in possible:
                errors.append(
                    InputError(
                        pointer("features", name, "role"),
                        f"{name!r} is of type {columns[name]}, which cannot be {role}; its roles are: "
                        f"{', '.join(possible)}, drop.",
                    )
                )
        seen.add(name)
    if errors:
        raise InvalidInput("invalid_features", errors[0].detail, errors=errors)


def _check_preparation(columns: Columns, spec: TrainingSpec) -> None:
    """Refuse what a column of its role cannot be prepared by, and interactions of what is not numeric."""
    stated = spec.features if isinstance(spec.features, dict) else {}
    roles = {name: _ROLES[type_][0] for name, type_ in columns.items() if name != spec.target}
    for name, override in stated.items():
        if override.role == "drop":
            del roles[name]
            if override.prepare:
                raise refusal(
                    "invalid_preparation",
                    ("features", name, "prepare"),
                    f"{name!r} is dropped: leave its preparation out, or give it another role.",
                )
        else:
            roles[name] = override.role or roles[name]
            resolve_steps(name, roles[name], spec.preparation, override.prepare)
    numeric = [name for name, role in roles.items() if role is Role.NUMERIC]
    check_interactions(spec.preparation, numeric)


def own_preparation(spec: TrainingSpec) -> dict[str, dict[str, Any]]:
    """What the features say of their own preparation, by name."""
    if not isinstance(spec.features, dict):
        return {}
    return {name: override.prepare for name, override in spec.features.items()}


def _facts(
    connection: DuckDBPyConnection, columns: Columns, names: Collection[str], *, counted: bool = False
) -> dict[str, _Facts]:
    """The facts of the named columns; the different values of those that are not strings where ``counted``.

    To count them takes as long as to read the whole column five times.
    """
    facts = dict.fromkeys(names, _Facts(0, 0, 0, math.nan, math.nan))  # a table without rows has no groups
    for batch in batches(connection, {name: columns[name] for name in names}):
        type_ = columns[batch[0]]
        minimum, maximum = (
            "NULL" if type_ is ColumnType.STRING else number(end, type_) for end in ("minimum", "maximum")
        )
        distinct = "least(count(value), CASE WHEN min(value) < max(value) THEN 2 ELSE 1 END)"
        if counted or type_ is ColumnType.STRING:
            distinct = "count(DISTINCT value)"
        found = connection.execute(
            "SELECT position, present, nulls, distinct_values, "
            f"coalesce({minimum}, 'NaN'::DOUBLE), coalesce({maximum}, 'NaN'::DOUBLE) FROM ("
            "SELECT position, count(value) AS present, count(*) - count(value) AS nulls, "
            f"{distinct} AS distinct_values, min(value) AS minimum, max(value) AS maximum "
            f"FROM ({cells([present(name, type_) for name in batch])}) GROUP BY position)"
        ).fetchall()
        facts.update((batch[position], _Facts(*aggregates)) for position, *aggregates in found)
    return facts


def _target(
    connection: DuckDBPyConnection, columns: Columns, spec: TrainingSpec, facts: _Facts
) -> tuple[Task, tuple[Value, ...] | None]:
    """The task, and the classes in order; None for a regression."""
    name, type_ = spec.target, columns[spec.target]

    def unusable(detail: str) -> InvalidInput:
        return refusal("unusable_target", ("target",), f"The target {name!r} {detail}")

    if not facts.present and not facts.nulls:
        raise refusal("too_few_rows", ("target",), "The data has no rows; add some to the dataset.")
    if not facts.present:
        raise unusable("is null in every row; choose a column that holds the outcome.")
    if facts.distinct == 1:
        raise unusable("holds the same value in every row: there is nothing to learn.")
    if facts.present < MIN_LABELLED_ROWS:
        raise refusal(
            "too_few_rows",
            ("target",),
            f"Training takes at least {MIN_LABELLED_ROWS} rows with a value of {name!r}, and the data has "
            f"{facts.present}. Add rows to the dataset.",
        )
    task = spec.task or _inferred_task(type_, facts)
    if task is Task.REGRESSION:
        _check_range(name, type_, facts, ("target",), "choose another target, or mend the data.")
        return task, None
    if facts.distinct > MAX_CLASSES:
        raise unusable(f"has {facts.distinct} classes; at most {MAX_CLASSES} can be learnt.")
    if (task is Task.BINARY) != (facts.distinct == 2):
        fitting = Task.BINARY if facts.distinct == 2 else Task.MULTICLASS
        raise refusal(
            "unfit_task",
            ("task",),
            f"The target {name!r} has {facts.distinct} classes, which is {fitting}, not {task}.",
        )
    counts = _counts(connection, columns, [name])[name]
    lonely = [in_json(value) for value, count in counts if count == 1]
    if lonely:
        raise unusable(
            "has classes with a single row, which cannot be both learnt and tested: "
            f"{', '.join(lonely[:5])}{', …' if len(lonely) > 5 else ''}. Add rows of them, merge them with "
            "others or remove them."
        )
    return task, tuple(sorted(value for value, _ in counts))


def _inferred_task(type_: ColumnType, facts: _Facts) -> Task:
    two = facts.distinct == 2
    few = facts.distinct <= min(MAX_INTEGER_CLASSES, MAX_INTEGER_CLASS_SHARE * facts.present)
    if type_ is ColumnType.NUMBER or (type_ is ColumnType.INTEGER and not (two or few)):
        return Task.REGRESSION
    return Task.BINARY if two else Task.MULTICLASS


def _counts(
    connection: DuckDBPyConnection, columns: Columns, names: Collection[str]
) -> dict[str, list[tuple[Any, int]]]:
    """Each named column's at most MAX_CATEGORIES most frequent values with their counts, ties by value."""
    counts: dict[str, list[tuple[Any, int]]] = {name: [] for name in names}
    for batch in batches(connection, {name: columns[name] for name in names}):
        type_ = columns[batch[0]]
        values = [present(name, type_) for name in batch]
        if type_ is ColumnType.NUMBER:
            values = [f"({value} + 0)" for value in values]  # -0.0 and 0.0 are one value
        found = connection.execute(
            f"SELECT position, value, count(*) AS count FROM ({cells(values)}) WHERE value IS NOT NULL "
            "GROUP BY position, value QUALIFY row_number() OVER "
            f"(PARTITION BY position ORDER BY count DESC, value) <= {MAX_CATEGORIES} "
            "ORDER BY position, count DESC, value"
        ).fetchall()
        for position, value, count in found:
            counts[batch[position]].append((value, count))
    return counts


def _check_range(
    name: str, type_: ColumnType, facts: _Facts, at: tuple[str | int, ...], way_out: str
) -> None:
    if type_ in TIMES:
        lowest, highest, words = EARLIEST_TIME, LATEST_TIME, "times outside the years 1 to 9999"
    else:
        lowest, highest = -LARGEST_NUMBER, LARGEST_NUMBER
        words = f"numbers beyond ±{LARGEST_NUMBER:g} or infinite ones"
    if facts.minimum < lowest or facts.maximum > highest:
        raise refusal("out_of_range", at, f"The column {name!r} holds {words}: {way_out}")


def _features(
    connection: DuckDBPyConnection, columns: Columns, spec: TrainingSpec
) -> tuple[list[Feature], dict[str, str]]:
    """The features in the table's order, and the dropped columns with their reasons."""
    overrides = spec.features if isinstance(spec.features, dict) else {}
    asked = {name: overrides.get(name) or FeatureOverride() for name in columns if name != spec.target}
    listed = set(spec.features) if isinstance(spec.features, list) else None
    wanted = [name for name in asked if asked[name].role != "drop" and (listed is None or name in listed)]
    facts = _facts(connection, columns, wanted)
    doubtful = [name for name in wanted if _may_be_identifier(name, columns[name], facts[name])]
    facts |= _facts(connection, columns, doubtful, counted=True)
    roles: dict[str, Role] = {}
    dropped: dict[str, str] = {}
    for name, type_ in columns.items():
        if name == spec.target:
            continue
        role = asked[name].role
        if role is None and name in facts and _is_text(connection, name, type_, facts[name]):
            role = Role.TEXT
        if listed is not None and name not in listed:
            dropped[name] = "it is not among the features that the training spec lists"
        elif role == "drop":
            dropped[name] = "the training spec drops it"
        elif role is None and (reason := _drop_reason(name, type_, facts[name], listed=listed is not None)):
            dropped[name] = reason
        else:
            roles[name] = role or _ROLES[type_][0]
    categorical = [name for name, role in roles.items() if role is Role.CATEGORICAL]
    counts = _counts(connection, columns, categorical)
    features = []
    for name, role in roles.items():
        held: dict[str, Any] = {}
        if role is Role.CATEGORICAL:
            held = {"categories": tuple(sorted(value for value, _ in counts[name]))}
        elif role is Role.TEXT:
            held = _text_encoding(connection, name, spec)
        features.append(_feature(name, columns[name], role, asked[name].nullable, facts[name], held))
    if not features:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(dropped.items())[:10])
        raise refusal(
            "no_features",
            ("features",),
            f"No column is left to learn from ({reasons or 'the target is the only column'}). Name features "
            'with a role, such as {"column": {"role": "categorical"}}.',
        )
    return features, dropped


def _drop_reason(name: str, type_: ColumnType, facts: _Facts, *, listed: bool) -> str | None:
    """Why a column without a stated role is no feature; one that the spec lists may be an identifier."""
    if not facts.present:
        return "every value is null"
    if facts.distinct == 1 and not facts.nulls:
        return "every row holds the same value"
    if listed:
        return None
    unique = facts.distinct == facts.present
    if type_ is ColumnType.STRING:
        if unique:
            return "every row has its own value: an identifier"
        if _is_diverse(facts):
            return f"{facts.distinct} different values in {facts.present} rows: free text"
    if unique and _may_be_identifier(name, type_, facts):
        if _IDENTIFIER_NAME.search(name):
            return "unique integers under the name of an identifier"
        return "unique integers in a run without gaps: an identifier"
    return None


def _may_be_identifier(name: str, type_: ColumnType, facts: _Facts) -> bool:
    """Whether integers are an identifier if each of them is there once."""
    return type_ is ColumnType.INTEGER and (
        bool(_IDENTIFIER_NAME.search(name)) or facts.maximum - facts.minimum + 1 == facts.present
    )


def _is_diverse(facts: _Facts) -> bool:
    return facts.distinct == facts.present or facts.distinct > max(MIN_LABELLED_ROWS, facts.present / 2)


def _is_text(connection: DuckDBPyConnection, name: str, type_: ColumnType, facts: _Facts) -> bool:
    """Whether most of a column's values are different, and of several words."""
    if type_ is not ColumnType.STRING or not facts.present or not _is_diverse(facts):
        return False
    words = f"len(regexp_split_to_array(trim({present(name, type_)}), '\\s+'))"
    ((mean,),) = connection.execute(f"SELECT avg({words}) FROM data").fetchall()
    return bool(mean >= MIN_MEAN_WORDS)


def _text_encoding(connection: DuckDBPyConnection, name: str, spec: TrainingSpec) -> dict[str, Any]:
    """The fields of a feature that say how its texts are encoded."""
    steps = resolve_steps(name, Role.TEXT, spec.preparation, own_preparation(spec).get(name, {}))
    assert isinstance(steps, TextSteps)  # noqa: S101 - what resolve_steps gives for the role
    if steps.vectorize == "hashing":
        return {"buckets": steps.max_features, "ngrams": steps.ngrams}
    texts = read_texts(connection, name, ColumnType.STRING)
    tokens = frequent_tokens(texts, most=steps.max_features, ngrams=steps.ngrams)
    if not tokens:
        raise refusal(
            "invalid_features",
            ("features", name),
            f"{name!r} holds no words of two letters or more; give it another role, or drop it: "
            f'{{"{name}": {{"role": "drop"}}}}.',
        )
    return {"tokens": tokens, "ngrams": steps.ngrams}


def _feature(
    name: str,
    type_: ColumnType,
    role: Role,
    nullable: bool | None,  # noqa: FBT001 - the spec's own field, passed on
    facts: _Facts,
    held: dict[str, Any],
) -> Feature:
    if nullable is False and facts.nulls:
        raise refusal(
            "invalid_features",
            ("features", name, "nullable"),
            f"{name!r} holds null in {facts.nulls} of the rows, so it is nullable; drop it or fill it in the "
            "data.",
        )
    nullable = bool(facts.nulls) if nullable is None else nullable
    common: dict[str, Any] = {"name": name, "type": type_, "role": role, "nullable": nullable}
    if role in (Role.CATEGORICAL, Role.TEXT):
        return Feature(**common, **held)
    if role is Role.BOOLEAN or not facts.present:
        return Feature(**common)
    _check_range(
        name,
        type_,
        facts,
        ("features", name),
        f'mend the data, or drop it: {{"{name}": {{"role": "drop"}}}}.',
    )
    if role is Role.DATETIME:
        return Feature(
            **common, minimum=format_time(facts.minimum, type_), maximum=format_time(facts.maximum, type_)
        )
    return Feature(**common, minimum=facts.minimum, maximum=facts.maximum)


def _check_order(connection: DuckDBPyConnection, columns: Columns, target: str, time_column: str) -> None:
    """Refuse a column that does not give every labelled row its place in time."""
    labelled = f"{present(target, columns[target])} IS NOT NULL"
    moment = present(time_column, columns[time_column])
    ((nulls, distinct),) = connection.execute(
        f"SELECT count(*) FILTER ({moment} IS NULL), count(DISTINCT {moment}) FROM data WHERE {labelled}"
    ).fetchall()
    if nulls or distinct < 2:
        fault = f"is null in {nulls} of the rows with a target" if nulls else "holds a single value"
        raise refusal(
            "invalid_time_column",
            ("validation", "time_column"),
            f"{time_column!r} {fault}, so it cannot order the rows; choose another column, or the method "
            '"random".',
        )


def _check_groups(connection: DuckDBPyConnection, columns: Columns, target: str, group_column: str) -> None:
    """Refuse a column that holds all labelled rows together."""
    group = present(group_column, columns[group_column])
    ((groups,),) = connection.execute(
        f"SELECT count(*) FROM (SELECT DISTINCT {group} FROM data "
        f"WHERE {present(target, columns[target])} IS NOT NULL)"
    ).fetchall()
    if groups < 2:
        raise refusal(
            "invalid_group_column",
            ("validation", "group_column"),
            f"{group_column!r} holds a single value in the rows with a target, so that no group can be held "
            "out; choose another column or method.",
        )
