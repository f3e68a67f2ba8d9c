"""The rules of a training spec's parts that say how to fit and to measure.

``roles`` applies them, in the request handler and in the fit: first to what is known from the names and
types of the columns, then to the task and classes that the data show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from app.columns import ORDERED, TIMES, ColumnType, Value
from app.errors import InputError, InvalidInput, pointer
from app.registry.signature import Task, shown
from app.training.algorithms.algorithm import Algorithm
from app.training.algorithms.catalogue import ALGORITHMS, algorithm, algorithms_for, check_task
from app.training.metrics import metrics_for
from app.training.spec import Label, TrainingSpec, refusal

Columns = Mapping[str, ColumnType]
"""The type of each column of a table, by name."""

Classes = Sequence[Value]


def check_algorithm(spec: TrainingSpec, task: Task | None) -> None:
    """Refuse an algorithm, its parameters or a search that cannot be; ``task`` is None while not known."""
    chosen = spec.search.algorithms if spec.search else None
    if spec.algorithm == "auto":
        if spec.params:
            raise refusal(
                "invalid_parameter",
                ("params",),
                'The algorithm "auto" takes no parameters: name an algorithm, or send no params.',
            )
        for place, name in enumerate(chosen or ()):
            possible = algorithms_for(task) if task else list(ALGORITHMS)
            if name not in possible:
                raise refusal(
                    "unknown_algorithm",
                    ("search", "algorithms", place),
                    f"There is no algorithm {name!r}{f' for {task}' if task else ''}; choose among "
                    f"{', '.join(possible)}.",
                )
            _check_weighted(spec, algorithm(name))
        return
    if chosen is not None:
        raise refusal(
            "unfit_search",
            ("search", "algorithms"),
            f'The algorithm is {spec.algorithm}: to search several, set "algorithm" to "auto".',
        )
    entry = algorithm(spec.algorithm)
    if task is not None:
        check_task(entry, task)
    entry.complete(spec.params)
    _check_weighted(spec, entry)


def check_metrics(spec: TrainingSpec, task: Task | None) -> None:
    """Refuse names that are no metric of the task; ``task`` is None while not known."""
    fitting = metrics_for(task)
    others = f"; choose one of {', '.join(fitting)}."
    named = [(("metrics", place), name) for place, name in enumerate(spec.metrics)]
    errors = [
        InputError(
            pointer(*at),
            f"There is no metric {name!r}{f' for {task}' if task else ''}{_meant(name, fitting) or others}",
        )
        for at, name in [(("metric",), spec.metric), *named]
        if name is not None and name not in fitting
    ]
    if errors:
        raise InvalidInput("unknown_metric", errors[0].detail, errors=errors)


def check_evaluation(columns: Columns, spec: TrainingSpec) -> None:
    """Refuse columns of the evaluation that are not there, and the target as one of them."""
    named = [
        ((kind, place), name)
        for kind, names in (("fairness", spec.evaluation.fairness), ("slices", spec.evaluation.slices or []))
        for place, name in enumerate(names)
    ]
    errors = [
        InputError(
            pointer("evaluation", *at),
            f"{name!r} is the target; rows are grouped by other columns."
            if name == spec.target
            else f"The data has no column {name!r}{near(name, columns)}",
        )
        for at, name in named
        if name == spec.target or name not in columns
    ]
    if errors:
        raise InvalidInput("unknown_column", errors[0].detail, errors=errors)


def check_class_options(spec: TrainingSpec, task: Task | None, classes: Classes | None = None) -> None:
    """Refuse weights, costs and calibration of what has no classes, and of classes that are not there."""
    given: dict[str, Any] = {
        "class_weight": spec.class_weight,
        "calibration": spec.calibration,
        "costs": spec.costs or None,
    }
    if task is Task.REGRESSION:
        for name, value in given.items():
            if value is not None:
                raise refusal(
                    "unfit_task", (name,), f"A regression has no classes: leave {name} out, or set the task."
                )
    weights = spec.class_weight if isinstance(spec.class_weight, list) else []
    _check_once("class_weight", [entry.label for entry in weights])
    _check_once("costs", [(cost.actual, cost.predicted) for cost in spec.costs])
    if classes is None:
        return
    errors = [
        InputError(pointer(*at), f"The target has no class {shown(label)}; its classes are {_some(classes)}.")
        for at, label in _labels(spec)
        if not any(is_label(label, known) for known in classes)
    ]
    if errors:
        raise InvalidInput("unknown_class", errors[0].detail, errors=errors)
    if sum(entry.weight == 0 for entry in weights) > len(classes) - 2:
        raise refusal(
            "invalid_class_weight", ("class_weight",), "At least two classes must weigh more than 0."
        )


def cost_matrix(spec: TrainingSpec, classes: Classes | None) -> tuple[tuple[float, ...], ...] | None:
    """What it costs to answer a class (column) where another (row) is true; None where the spec is silent."""
    if not spec.costs or classes is None:
        return None
    costs = [
        [float(actual != predicted) for predicted in range(len(classes))] for actual in range(len(classes))
    ]
    places = {(label, isinstance(label, bool)): place for place, label in enumerate(classes)}  # 1 is not true
    for cost in spec.costs:
        actual, predicted = (
            places[label, isinstance(label, bool)] for label in (cost.actual, cost.predicted)
        )
        costs[actual][predicted] = cost.cost
    return tuple(map(tuple, costs))


def is_label(label: Label, known: Label) -> bool:
    """Whether a label of the spec is this class: 1 is 1.0, but not true."""
    return label == known and isinstance(label, bool) == isinstance(known, bool)


def in_json(label: Label) -> str:
    """A class as a request names it."""
    return json.dumps(label, ensure_ascii=False)


def why_no_fold(spec: TrainingSpec, groups: int | None) -> str:
    """Why cross-validation has no fold, with the way out; ``groups`` counts those that are not held out."""
    column, others = spec.validation.group_column, 'Name an algorithm instead of "auto"'
    if groups == 1:
        return (
            f"Cross-validation by groups takes two of them, and the training part has the rows of a single "
            f"value of {column!r}: the others are held out. {others}, hold out a smaller share, or choose "
            "another method."
        )
    if groups is not None:
        return (
            f"Cross-validation has no fold with two classes to learn and to test: the {groups} groups of "
            f"{column!r} that are not held out have hardly more than one class each. {others}, ask for fewer "
            "folds, or choose another method."
        )
    return (
        f"Cross-validation has no fold with two classes to learn and to test. {others}, ask for fewer folds, "
        "or split at random."
    )


def time_column(columns: Columns, spec: TrainingSpec) -> str | None:
    """The column that orders the rows; None where validation is not by time."""
    at = ("validation", "time_column")
    method, name = spec.validation.method, spec.validation.time_column
    if method != "time":
        if name is not None:
            raise refusal(
                "invalid_time_column", at, f'A time_column goes with the method "time", not with "{method}".'
            )
        return None
    times = times_of(columns, spec)
    if name is None:
        if len(times) == 1:
            return times[0]
        held = f"has {', '.join(times)}" if times else "has no date or datetime column"
        raise refusal(
            "invalid_time_column",
            at,
            f"Name the column that orders the rows in time: the data {held}.",
        )
    if name not in columns:
        raise refusal("invalid_time_column", at, f"The data has no column {name!r}{near(name, columns)}")
    if name == spec.target:
        raise refusal(
            "invalid_time_column", at, f"{name!r} is the target; rows are ordered by another column."
        )
    if columns[name] not in ORDERED:
        raise refusal(
            "invalid_time_column",
            at,
            f"{name!r} is of type {columns[name]}; rows are ordered by a date, datetime or numeric column.",
        )
    return name


def times_of(columns: Columns, spec: TrainingSpec) -> list[str]:
    """The columns that could order the rows without being named."""
    return [column for column, type_ in columns.items() if type_ in TIMES and column != spec.target]


def group_column(columns: Columns, spec: TrainingSpec) -> str | None:
    """The column whose equal values hold rows together; None where validation is not by groups."""
    at = ("validation", "group_column")
    method, name = spec.validation.method, spec.validation.group_column
    fault = None
    if method != "grouped":
        if name is not None:
            fault = f'A group_column goes with the method "grouped", not with "{method}".'
    elif name is None:
        fault = "Name the column whose equal values hold rows together."
    elif name not in columns:
        fault = f"The data has no column {name!r}{near(name, columns)}"
    elif name == spec.target:
        fault = f"{name!r} is the target; rows are grouped by another column."
    if fault is not None:
        raise refusal("invalid_group_column", at, fault)
    return name


def near(name: str, columns: Columns) -> str:
    """The end of a sentence about an unknown column: the names that the caller may have meant."""
    meant = _meant(name, columns)
    return meant or (f"; its columns are {', '.join(columns)}." if len(columns) <= 30 else ".")


def _meant(name: str, known: Iterable[str]) -> str:
    folded = {each.casefold(): each for each in known}
    close = [repr(folded[match]) for match in get_close_matches(name.casefold(), folded)]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _some(classes: Classes) -> str:
    return ", ".join(map(in_json, classes[:10])) + (", …" if len(classes) > 10 else "")


def _labels(spec: TrainingSpec) -> list[tuple[tuple[str | int, ...], Label]]:
    """The classes that the spec names, with the paths where it does."""
    weights = spec.class_weight if isinstance(spec.class_weight, list) else []
    return [
        *((("class_weight", place, "class"), entry.label) for place, entry in enumerate(weights)),
        *((("costs", place, "actual"), cost.actual) for place, cost in enumerate(spec.costs)),
        *((("costs", place, "predicted"), cost.predicted) for place, cost in enumerate(spec.costs)),
    ]


def _check_weighted(spec: TrainingSpec, entry: Algorithm) -> None:
    if spec.class_weight is not None and spec.params.get("class_weight") is not None:
        raise refusal(
            "invalid_parameter",
            ("params", "class_weight"),
            "The classes are weighed by the spec's class_weight already: each would undo the other.",
        )
    if spec.class_weight is not None and not entry.weighted:
        raise refusal(
            "unfit_algorithm",
            ("class_weight",),
            f"{entry.id} cannot weigh rows, and so no classes; leave class_weight out, or choose another "
            "algorithm.",
        )


def _check_once(field: str, named: Sequence[object]) -> None:
    seen = set()
    for place, entry in enumerate(named):
        key = repr(entry)  # in which 1 and true are two
        if key in seen:
            raise refusal(f"invalid_{field}", (field, place), f"The same is given twice in {field}.")
        seen.add(key)
