"""Advice before training, pure: a table and a target in, what to expect and a training spec out.

Task, classes and the target's faults are those of every row; all that takes a fit is measured on a sample.
"""

# ruff: noqa: S608 - every name in SQL is quoted by identifier() and literal()

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.columns import ColumnType
from app.datasets.engine import Parquet, connect, identifier, literal, numbered_rows_of
from app.datasets.profiles.association import Variable, associate
from app.errors import InvalidInput
from app.registry.matrix import Column, open_table, read_columns, table_types
from app.registry.signature import Role, Signature, Task
from app.serving.compile import NotCompilable, compile_pipeline
from app.serving.compiled import CompiledScorer
from app.training.advice.learning_curve import Estimate, estimate_gain, estimate_mean, fit_power_law, grow
from app.training.algorithms.catalogue import algorithm, linear_algorithm
from app.training.fitting import Configuration, Fitter, TrainingFailed, scores_of
from app.training.matrix import read_outcomes, read_rows
from app.training.metrics import greater_is_better
from app.training.report.importance import permutation_importance
from app.training.report.numbers import rounded, rounded_all
from app.training.report.subject import Judged
from app.training.roles import ResolvedSpec, resolve_spec
from app.training.scoring import score
from app.training.search.search import auto_algorithms
from app.training.spec import DEFAULT_TRIALS, TrainingSpec, Validation
from app.training.spec_rules import times_of
from app.training.trainer import MAX_COMPARISON_ROWS, MIN_TRAINING_ROWS
from app.training.validation import Split, Splitter, strata_of

Matrix = NDArray[np.float64]

SEED = 0
SAMPLED_ROWS = 6_000
CLASS_ROWS = 100
"""A sample has so many rows of a rare class, if the table has: an average over fewer tells nothing."""
MOST_CLASSES = 20
"""Of more classes, a sample has the most frequent: boosting grows a tree for each of them in each round."""
FOLDS = 5
COMPARED_ROWS = 2_000
"""Rows from which each candidate learns, to be compared with the others and for its cost."""
LEAST_CURVE_ROWS = 30
SHOWN_CLASSES = 20
RARE_POSITIVES = 0.05
NOTEWORTHY = 0.02
"""A gain by more rows, as a share of what the model is better than the baseline, that is worth having."""
LATER = 0.99

FAST: Mapping[str, dict[str, Any]] = {
    "hist_gradient_boosting": {"max_iter": 30, "learning_rate": 0.15, "max_leaf_nodes": 15},
    "random_forest": {"n_estimators": 30},
}
"""Parameters with which an algorithm says nearly what its defaults do, in a fraction of their time."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What the profile of the whole table has told: columns to leave out with the reasons, those that give
    the target away, and those that may name what a row belongs to.
    """

    drop: Mapping[str, str]
    suspects: Sequence[str]
    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some labelled rows as a matrix of shape (n, features), their targets, shape (n,), and the folds.

    ``classes_to_one`` is the number of the table's classes to each class that the sample has.
    """

    parquet: Path
    resolved: ResolvedSpec
    fitter: Fitter
    matrix: Matrix
    target: NDArray[Any]
    folds: list[Split]
    classes_to_one: float

    @property
    def task(self) -> Task:
        return self.resolved.signature.task

    @property
    def metric(self) -> str:
        return self.resolved.metric

    @property
    def tested(self) -> float:
        """The rows tested in a fold to those learnt."""
        learn, test = self.folds[0]
        return len(test) / len(learn)

    def without(self, names: Sequence[str]) -> _Sample | None:
        """The same without some features; None where none would be left."""
        signature = self.resolved.signature
        kept = [place for place, one in enumerate(signature.features) if one.name not in names]
        if not kept:
            return None
        # Made anew: a copy would keep what was derived from all features.
        features = tuple(signature.features[place] for place in kept)
        less = Signature.model_validate(signature.model_dump() | {"features": features})
        cells = np.r_[tuple(signature.places[place] for place in kept)]
        return _Sample(
            self.parquet,
            self.resolved,
            Fitter(self.fitter.spec, less),
            self.matrix[:, cells],
            self.target,
            self.folds,
            self.classes_to_one,
        )

    def loss(self, value: float) -> float:
        """What is left to a perfect score."""
        if not greater_is_better(self.metric):
            return value
        return 1 - value

    def value(self, loss: float) -> float:
        return 1 - loss if greater_is_better(self.metric) else loss


@dataclass(frozen=True, slots=True)
class _Trial:
    """The losses of an algorithm, shape (folds,), each learnt from ``rows`` rows."""

    algorithm: str
    losses: NDArray[np.float64]
    rows: int


@dataclass(frozen=True, slots=True)
class _Effort:
    """What a fit with the defaults to ``rows`` rows takes of a processor; ``width`` are a row's numbers."""

    seconds: float
    rows: int
    width: int


def advise(parquet: Parquet, spec: TrainingSpec, hints: Hints, folder: Path) -> dict[str, Any]:
    """What to expect of a training under a spec of which target, task and features are given, JSON-ready.

    The same table, spec and hints give the same answer, but for ``cost``, which is measured. ``folder`` takes
    the sample. Raises InvalidInput as a training would, for the same reasons.
    """
    with threadpool_limits(1), np.errstate(all="ignore"):
        try:
            return _advise(parquet, spec, hints, folder)
        except InvalidInput as refused:
            if refused.code != "no_features" or not hints.drop:
                raise
            # With the hints no column is left: a training, which knows none, decides and says why.
            return _advise(parquet, spec, replace(hints, drop={}), folder)


def _advise(parquet: Parquet, spec: TrainingSpec, hints: Hints, folder: Path) -> dict[str, Any]:
    stated = set(spec.features or ())
    listed = isinstance(spec.features, list)
    drop = {} if listed else {name: why for name, why in hints.drop.items() if name not in stated}
    suspects = [name for name in hints.suspects if name not in drop]
    whole = _resolve_target(parquet, spec, drop)
    outcomes = read_outcomes(parquet, whole.signature)
    known = _of_frequent_classes(outcomes.target, whole.signature)
    rows = known[_draw(outcomes.target[known], classes=whole.signature.classes is not None)]
    sample = _read_sample(
        parquet, outcomes.rows[rows], _dropping(spec, drop), whole, folder / "sample.parquet"
    )
    if not listed:
        drop |= {
            name: why
            for name, why in sample.resolved.dropped.items()
            if name not in stated and "identifier" in why
        }
    clean = sample.without([] if listed else [name for name in suspects if name not in stated])
    left_out = [] if listed or clean is None else [name for name in suspects if name not in stated]
    measured = clean or sample
    texts = [one.name for one in measured.fitter.signature.features if one.role is Role.TEXT]
    validation, ordered = _choose_validation(parquet, spec, whole, outcomes.target, hints.groups)
    trials = [
        trial
        for name in (linear_algorithm(sample.task), "hist_gradient_boosting", "random_forest")
        if (trial := _try(measured, name, COMPARED_ROWS)) is not None
    ]
    baseline = _try(measured, "dummy", COMPARED_ROWS)
    efforts = {trial.algorithm: _measure_effort(measured, trial.algorithm) for trial in trials}
    learnt = _compare(measured, trials, baseline)
    labelled, trained = len(outcomes.target), 1 - spec.validation.holdout
    fitted_rows = round(labelled * trained)
    fast = min((trial for trial in trials if trial.algorithm != "random_forest"), key=_mean, default=None)
    metric = _metric(whole, outcomes.target)
    return {
        "rows": {
            "table": labelled + whole.without_target,
            "without_target": whole.without_target,
            "sampled": len(sample.target),
        },
        "task": {"task": sample.task, "reason": _task_reason(spec, whole)},
        "balance": _balance(whole.signature, outcomes.target),
        "metric": sample.metric,
        "learning": _learning(measured, fast, baseline, learnt, len(known), round(len(known) * trained)),
        "leaks": _leaks(sample, measured, fast, left_out),
        "later": ordered,
        "importance": _importance(measured, fast),
        "validation": validation,
        "algorithms": _candidates(measured, trials, baseline, efforts, fitted_rows),
        "spec": _spec(spec, drop, left_out, validation, metric),
        "reasons": _reasons(drop, left_out, texts, validation, metric, whole),
        "cost": _search_cost(sample.task, [effort for effort in efforts.values() if effort], fitted_rows),
        "texts": texts,
        "notes": [
            *whole.notes[: 1 if whole.without_target else 0],
            *_bounds(whole.signature, known, labelled),
        ],
    }


# ── The rows ─────────────────────────────────────────────────────────────────────────────────────


def _quoted(name: str) -> str:
    return f"`{name}`"


def _dropping(spec: TrainingSpec, names: Mapping[str, str] | Sequence[str]) -> TrainingSpec:
    if isinstance(spec.features, list) or not names:
        return spec
    features = {**_stated(spec), **{name: {"role": "drop"} for name in names}}
    return TrainingSpec.model_validate(_asked(spec) | {"features": features})


def _stated(spec: TrainingSpec) -> dict[str, Any]:
    given = spec.model_dump(mode="json", exclude_unset=True).get("features")
    return given if isinstance(given, dict) else {}


def _asked(spec: TrainingSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_unset=True)


def _resolve_target(parquet: Parquet, spec: TrainingSpec, drop: Mapping[str, str]) -> ResolvedSpec:
    """The spec resolved over every row, with one feature alone: the others cost most of the time."""
    with open_table(parquet) as connection:
        types = table_types(connection)
    usable = [
        name
        for name, type_ in types.items()
        if name not in drop
        and name != spec.target
        and type_ in (ColumnType.BOOLEAN, ColumnType.NUMBER, ColumnType.INTEGER)
    ]
    if spec.target in types and usable and spec.features is None:
        return resolve_spec(parquet, spec.model_copy(update={"features": usable[:1]}))
    return resolve_spec(parquet, _dropping(spec, drop))


def _of_frequent_classes(target: NDArray[Any], signature: Signature) -> NDArray[np.intp]:
    """Places of the rows that a sample is drawn from, in order: of many classes the most frequent ones'."""
    if signature.classes is None or len(signature.classes) <= MOST_CLASSES:
        return np.arange(len(target))
    most = np.argsort(-np.bincount(target, minlength=len(signature.classes)), kind="stable")[:MOST_CLASSES]
    return np.flatnonzero(np.isin(target, most))


def _bounds(signature: Signature, known: NDArray[np.intp], labelled: int) -> list[str]:
    """What was measured on less than all classes, in a sentence."""
    if signature.classes is None or len(signature.classes) <= MOST_CLASSES:
        return []
    return [
        f"What takes a fit was measured on the {MOST_CLASSES} most frequent of {len(signature.classes):,} "
        f"classes, {len(known):,} of {labelled:,} rows: to tell all of them apart is harder than the scores "
        "and the learning curve say, and costs are estimated in proportion to the classes."
    ]


def _draw(target: NDArray[Any], *, classes: bool) -> NDArray[np.intp]:
    """Places of the rows of the sample, in order: all, or so many at random and enough of each class."""
    if len(target) <= SAMPLED_ROWS:
        return np.arange(len(target))
    shuffled = np.random.default_rng(SEED).permutation(len(target))
    chosen = shuffled[:SAMPLED_ROWS]
    if classes:
        by_class = shuffled[np.argsort(target[shuffled], kind="stable")]
        starts = np.searchsorted(target[by_class], np.arange(1 + target.max()))
        enough = np.concatenate([part[:CLASS_ROWS] for part in np.split(by_class, starts[1:])])
        chosen = np.union1d(chosen, enough)
    return np.sort(chosen)


def _read_sample(
    parquet: Parquet, rows: NDArray[np.intp], spec: TrainingSpec, whole: ResolvedSpec, path: Path
) -> _Sample:
    """The rows at these places of the table, in a file of their own at ``path``."""
    with connect(path.parent) as connection:
        table, position = numbered_rows_of(connection, parquet)
        connection.execute("CREATE TABLE drawn AS SELECT unnest($rows) AS row", {"rows": rows.tolist()})
        connection.execute(
            f"COPY (SELECT * EXCLUDE ({identifier(position)}) FROM {table} SEMI JOIN drawn "
            f"ON {identifier(position)} = drawn.row ORDER BY {identifier(position)}) "
            f"TO {literal(str(path))} (FORMAT parquet)"
        )
    # A sample of integers may look like another task than all of them.
    resolved = resolve_spec(path, spec.model_copy(update={"task": whole.signature.task}))
    outcomes = read_outcomes(path, resolved.signature)
    (matrix,) = read_rows(path, resolved.signature, outcomes.rows)
    strata = strata_of(outcomes.target, classes=resolved.signature.classes is not None)
    folds = list(Splitter(len(matrix), SEED, strata).folds(FOLDS))
    fitter = Fitter(resolved_spec(spec, whole), resolved.signature)
    classes = len(resolved.signature.classes or ())
    classes_to_one = len(whole.signature.classes or ()) / classes if classes else 1.0
    return _Sample(path, resolved, fitter, matrix, outcomes.target, folds, classes_to_one)


def resolved_spec(spec: TrainingSpec, whole: ResolvedSpec) -> TrainingSpec:
    return spec.model_copy(update={"task": whole.signature.task, "seed": SEED})


# ── What is measured ─────────────────────────────────────────────────────────────────────────────


def _try(sample: _Sample, name: str, most: int) -> _Trial | None:
    """The algorithm cross-validated, learning from at most so many rows; None where it cannot be."""
    losses, learnt = [], 0
    for fold, (learn, test) in enumerate(sample.folds):
        learn = _some(learn, most, fold)
        pipeline = _fit(sample, name, learn, FAST.get(name, {}))
        loss = None if pipeline is None else _loss(sample, pipeline, test)
        if loss is not None:
            losses.append(loss)
            learnt = len(learn)
    return _Trial(name, np.array(losses), learnt) if len(losses) == len(sample.folds) > 1 else None


def _measure_effort(sample: _Sample, name: str) -> _Effort | None:
    rows = _some(sample.folds[0][0], COMPARED_ROWS, 0)
    started = time.process_time()
    pipeline = _fit(sample, name, rows, {})
    if pipeline is None:
        return None
    seconds = (time.process_time() - started) * sample.classes_to_one
    return _Effort(seconds, len(rows), int(pipeline[:-1].transform(sample.matrix[:2]).shape[1]))


def _some(rows: NDArray[np.intp], most: int, fold: int) -> NDArray[np.intp]:
    """At most so many of the rows; more of them hold the fewer ones, too."""
    return np.sort(np.random.default_rng((SEED, fold)).permutation(rows)[:most])


def _fit(sample: _Sample, name: str, rows: NDArray[np.intp], params: dict[str, Any]) -> Pipeline | None:
    """The algorithm fitted to these rows of the sample; None where they lack a class, or the fit fails."""
    target = sample.target[rows]
    classes = sample.resolved.signature.classes
    if np.unique(target).size < (2 if classes is None else len(classes)):
        return None
    configuration = Configuration(name, algorithm(name).complete(params), sample.fitter.spec.preparation)
    try:
        pipeline, _ = sample.fitter.fit(configuration, sample.matrix[rows], target)
    except TrainingFailed:  # advice goes without it
        return None
    return pipeline


def _loss(sample: _Sample, pipeline: Pipeline, test: NDArray[np.intp]) -> float | None:
    try:
        predicted, probabilities = sample.fitter.answer(pipeline, sample.matrix[test])
    except TrainingFailed:
        return None
    found = score(sample.task, [sample.metric], sample.target[test], predicted, probabilities)
    return sample.loss(found[sample.metric]) if sample.metric in found else None


def _mean(trial: _Trial) -> float:
    return float(trial.losses.mean())


def _compare(sample: _Sample, trials: Sequence[_Trial], baseline: _Trial | None) -> Estimate | None:
    """By how much the best candidate's loss is less than the baseline's."""
    if not trials or baseline is None:
        return None
    best = min(trials, key=_mean)
    return estimate_mean(baseline.losses - best.losses, sample.tested)


def _learning(
    sample: _Sample,
    fast: _Trial | None,
    baseline: _Trial | None,
    learnt: Estimate | None,
    labelled: int,
    now: int,
) -> dict[str, Any]:
    """What more rows would bring: the scores at a few sizes, and a power law through them."""
    unknown: dict[str, Any] = {
        "enough": "unknown",
        "metric": sample.metric,
        "algorithm": None,
        "points": [],
        "doubled": None,
    }
    if fast is None or baseline is None or learnt is None or len(sample.folds) < 3:
        text = f"{labelled:,} rows, or those of one class, are too few to measure what more would bring."
        return unknown | {"text": text}
    shortest = min(len(learn) for learn, _ in sample.folds)
    least = max(LEAST_CURVE_ROWS, shortest // 16)
    sizes = grow(shortest, least)
    points = [(size, trial) for size in sizes if (trial := _try(sample, fast.algorithm, size))]
    if len(points) < 3:
        text = f"{labelled:,} rows are too few, or one class has too few of them, to draw a learning curve."
        return unknown | {"text": text}
    losses = np.stack([trial.losses for _, trial in points], axis=1)
    rows = [size for size, _ in points]
    gain = estimate_gain(rows, losses, now, sample.tested)
    law = fit_power_law(np.asarray(rows, np.float64), losses.mean(axis=0))
    better = _mean(baseline) - law.at(now)
    enough, text = _judge(sample, gain, better, learnt, labelled)
    return {
        "enough": enough,
        "text": text,
        "metric": sample.metric,
        "algorithm": fast.algorithm,
        "points": [{"rows": size, "value": rounded(sample.value(_mean(trial)))} for size, trial in points],
        "doubled": {
            "rows": 2 * now,
            "from": rounded(sample.value(law.at(now))),
            "to": rounded(sample.value(law.at(2 * now))),
            "gain": rounded(gain.value),
            "interval": rounded_all([gain.low, gain.high]),
        },
    }


def _judge(
    sample: _Sample, gain: Estimate, better: float, learnt: Estimate, labelled: int
) -> tuple[str, str]:
    """Whether there are enough rows, and that in words."""
    told = f"{gain.value:.2g} (between {gain.low:.2g} and {gain.high:.2g}) of {sample.metric}"
    if learnt.low <= 0:
        return "nothing_learnt", (
            f"In the sample no model is clearly better than one without columns, so that more rows of these "
            f"columns are no promise: look for other columns first. {labelled:,} rows were there."
        )
    if gain.high < NOTEWORTHY * better:
        return "enough", f"{labelled:,} rows are enough: twice as many would bring {told}."
    if gain.low > NOTEWORTHY * better:
        return "more_would_help", f"More rows would help: twice the {labelled:,} would bring {told}."
    return "uncertain", f"Twice the {labelled:,} rows may help: they would bring {told}."


def _leaks(
    sample: _Sample, clean: _Sample, fast: _Trial | None, names: Sequence[str]
) -> dict[str, Any] | None:
    """The score with and without the columns that give the target away."""
    if not names or fast is None:
        return None
    scores = [_try(one, fast.algorithm, COMPARED_ROWS) for one in (sample, clean)]
    with_them, without = [rounded(sample.value(_mean(one))) if one else None for one in scores]
    return {"columns": list(names), "metric": sample.metric, "with": with_them, "without": without}


def _importance(sample: _Sample, fast: _Trial | None) -> dict[str, Any] | None:
    """Permutation importance on one fold, of the model whose learning curve is drawn."""
    if fast is None:
        return None
    learn, test = sample.folds[0]
    pipeline = _fit(sample, fast.algorithm, learn, FAST.get(fast.algorithm, {}))
    if pipeline is None:
        return None
    signature = sample.fitter.signature
    judged = Judged(signature, _scorer(sample, pipeline), sample.matrix[test], sample.target[test])
    return permutation_importance(judged, SEED)


def _scorer(sample: _Sample, pipeline: Pipeline) -> Callable[[Matrix], Matrix]:
    signature = sample.fitter.signature
    try:
        return CompiledScorer(compile_pipeline(pipeline, signature)).score
    except NotCompilable:
        return lambda matrix: scores_of(signature, *sample.fitter.answer(pipeline, matrix))


# ── What is told ─────────────────────────────────────────────────────────────────────────────────


def _task_reason(spec: TrainingSpec, whole: ResolvedSpec) -> str:
    signature = whole.signature
    name, type_ = _quoted(signature.target), signature.target_type
    if spec.task is not None:
        return f"The request says so, and {name}, of type {type_}, can be learnt so."
    if signature.classes is None:
        many = " of many different values" if type_ is ColumnType.INTEGER else ""
        return f"{name} is of type {type_}{many}: an amount."
    if type_ is ColumnType.BOOLEAN:
        return f"{name} is true or false."
    count = len(signature.classes)
    return f"{name} is of type {type_} and holds {count} different values: classes."


def _balance(signature: Signature, target: NDArray[Any]) -> dict[str, Any]:
    if signature.classes is None:
        quantiles = np.quantile(target, (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0))
        return {
            "classes": None,
            "rarest": None,
            "quantiles": rounded_all(quantiles),
            "text": f"Half of the values lie between {quantiles[2]:g} and {quantiles[4]:g}.",
        }
    counts = np.bincount(target, minlength=len(signature.classes))
    order = np.argsort(-counts, kind="stable")
    rarest = int(counts.min())
    label = json.dumps(signature.classes[int(order[-1])], ensure_ascii=False)
    return {
        "classes": [
            {
                "class": signature.classes[code],
                "rows": int(counts[code]),
                "share": rounded(counts[code] / len(target)),
            }
            for code in order[:SHOWN_CLASSES].tolist()
        ],
        "rarest": rounded(rarest / len(target)),
        "quantiles": None,
        "text": f"The rarest of {len(counts)} classes, {label}, has {rarest:,} of {len(target):,} rows.",
    }


def _metric(whole: ResolvedSpec, target: NDArray[Any]) -> str | None:
    """A metric other than the default, where that would look good however rare cases are answered."""
    if whole.signature.task is Task.BINARY and float(target.mean()) < RARE_POSITIVES:
        return "average_precision"
    return None


def _choose_validation(
    parquet: Parquet,
    spec: TrainingSpec,
    whole: ResolvedSpec,
    target: NDArray[Any],
    groups: Sequence[str],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How to hold rows back, with the reason; and the times that lie behind the one that orders the rows."""
    with open_table(parquet) as connection:
        types = table_types(connection)
        columns = [Column(name, types[name]) for name in times_of(types, spec)]
        columns.append(Column(spec.target, types[spec.target], whole.signature.classes))
        read = dict(read_columns(connection, columns))
    labelled = ~np.isnan(read.pop(spec.target))
    times = {name: cells[labelled] for name, cells in read.items()}
    whole_times = [name for name, cells in times.items() if not np.isnan(cells).any() and np.ptp(cells) > 0]
    later: list[dict[str, Any]] = []
    if whole_times:
        first = _earliest(times, whole_times)
        for name, cells in times.items():
            known = ~np.isnan(cells)
            after = cells[known] > times[first][known]
            if name != first and known.any() and after.mean() >= LATER:
                later.append({"column": name, "after": first, "share": rounded(after.mean())})
        if _can_order(times[first], target, whole, spec):
            text = (
                f"The rows can be ordered by {_quoted(first)}: test on the latest of them, as the model will "
                "answer for rows that come after those it learnt from."
            )
            return {"method": "time", "time_column": first, "group_column": None, "reason": text}, later
    if (found := _choose_group(parquet, whole, groups)) is not None:
        name, tie, count = found
        text = (
            f"{_quoted(name)} names {count:,} things of several rows each (what is alike within them is "
            f"{tie:.2f} of 1): keep each on one side, if the model is to answer for new ones."
        )
        return {"method": "grouped", "time_column": None, "group_column": name, "reason": text}, later
    text = "No column orders the rows in time or holds some of them together: a random sample is fair."
    return {"method": "stratified", "time_column": None, "group_column": None, "reason": text}, later


def _earliest(times: Mapping[str, Matrix], names: Sequence[str]) -> str:
    """Of the columns without gaps the one that is most often before the others."""
    if len(names) == 1:
        return names[0]
    means = {name: float(times[name].mean()) for name in names}
    return min(names, key=lambda name: means[name])


def _can_order(order: Matrix, target: NDArray[Any], whole: ResolvedSpec, spec: TrainingSpec) -> bool:
    """Whether both parts of a split by time have what they need."""
    learn, held = Splitter(len(target), SEED, order=order).hold_out(spec.validation.holdout)
    if len(learn) < MIN_TRAINING_ROWS or np.ptp(target[learn]) == 0:
        return False
    classes = whole.signature.classes
    return classes is None or (
        np.unique(target[learn]).size == len(classes) and np.unique(target[held]).size > 1
    )


def _choose_group(
    parquet: Parquet, whole: ResolvedSpec, names: Sequence[str]
) -> tuple[str, float, int] | None:
    """The column whose values hold rows of like targets together most, how much, and how many it has."""
    best = None
    for name in names:
        found = read_outcomes(parquet, whole.signature, group_by=name)
        codes = found.groups
        if codes is None or whole.signature.target == name:
            continue
        target = found.target.astype(np.float64)
        if whole.signature.task is Task.MULTICLASS:
            target = (found.target == np.bincount(found.target.astype(np.intp)).argmax()).astype(np.float64)
        count = 1 + int(codes.max())
        tie = associate(
            Variable(None, codes.astype(np.int64), count),
            Variable.of_numbers(target, np.zeros(len(target), bool)),
        )[1]
        if tie is not None and (best is None or tie > best[1]):
            best = (name, tie, count)
    return best


def _candidates(
    sample: _Sample,
    trials: Sequence[_Trial],
    baseline: _Trial | None,
    efforts: Mapping[str, _Effort | None],
    rows: int,
) -> list[dict[str, Any]]:
    """The candidates, the best first, and the baseline; ``rows`` are those of the training part."""
    ranked = sorted(trials, key=_mean)
    told = []
    for trial in [*ranked, *([baseline] if baseline else [])]:
        mean = estimate_mean(trial.losses, sample.tested)
        effort = efforts.get(trial.algorithm)
        told.append(
            {
                "algorithm": trial.algorithm,
                "title": algorithm(trial.algorithm).title,
                "reason": _candidate_reason(sample, trial, ranked, baseline),
                "value": rounded(sample.value(mean.value)),
                "interval": rounded_all(sorted((sample.value(mean.low), sample.value(mean.high)))),
                "rows": trial.rows,
                "cost": _cost(effort, rows) if effort else None,
            }
        )
    return told


def _candidate_reason(
    sample: _Sample, trial: _Trial, ranked: Sequence[_Trial], baseline: _Trial | None
) -> str:
    entry = algorithm(trial.algorithm)
    if trial is baseline:
        return "What any model must beat: it looks at no column."
    best = ranked[0]
    if trial is best:
        place = f"The best {sample.metric} of those tried"
    else:
        behind = estimate_mean(trial.losses - best.losses, sample.tested)
        place = (
            f"Within noise of the {algorithm(best.algorithm).title}"
            if behind.low <= 0
            else f"{behind.value:.2g} of {sample.metric} behind the {algorithm(best.algorithm).title}"
        )
    return f"{place}, from {trial.rows:,} rows. {entry.choose_when}"


def _cost(effort: _Effort, rows: int) -> dict[str, Any]:
    """What a fit to so many rows takes about: seconds in proportion to them."""
    return {
        "seconds": _roughly(effort.seconds * rows / effort.rows),
        "memory_bytes": _memory(effort, rows),
        "text": f"An estimate, from a fit of {effort.rows:,} rows on one core of this machine.",
    }


def _memory(effort: _Effort, rows: int) -> int:
    """The matrix, its prepared form and the estimator's copy of that, beside what a process holds anyway."""
    held = psutil.Process().memory_info().rss
    return int(_roughly(held + 3 * 8 * rows * effort.width))


def _roughly(number: float) -> float:
    return float(f"{number:.2g}")


def _search_cost(task: Task, efforts: Sequence[_Effort], rows: int) -> dict[str, Any] | None:
    """What the whole suggested run takes about, on one core: each fit the mean of those measured."""
    if not efforts:
        return None
    mean = float(np.mean([effort.seconds / effort.rows for effort in efforts]))
    candidates = auto_algorithms(task, rows)
    fits = Validation().folds * (len(candidates) + DEFAULT_TRIALS)
    return {
        "seconds": _roughly(mean * (fits * min(rows, MAX_COMPARISON_ROWS) + rows)),
        "memory_bytes": max(_memory(effort, rows) for effort in efforts),
        "text": f"An estimate, on one core, of the defaults of {len(candidates)} algorithms, a search of "
        f"{DEFAULT_TRIALS} trials and the fit of the best.",
    }


def _spec(
    spec: TrainingSpec,
    drop: Mapping[str, str],
    suspects: Sequence[str],
    validation: Mapping[str, Any],
    metric: str | None,
) -> dict[str, Any]:
    """The training spec to post, all but the names of the model and the data."""
    chosen = Validation().model_dump(mode="json") | {
        name: value for name, value in validation.items() if name != "reason"
    }
    suggested = _dropping(spec, [*drop, *suspects])
    made = _asked(suggested) | {"algorithm": "auto", "seed": SEED}
    if validation["method"] != "stratified":
        made["validation"] = {
            name: chosen[name] for name in ("method", "time_column", "group_column") if chosen[name]
        }
    if metric is not None:
        made["metric"] = metric
    return made


def _reasons(
    drop: Mapping[str, str],
    suspects: Sequence[str],
    texts: Sequence[str],
    validation: Mapping[str, Any],
    metric: str | None,
    whole: ResolvedSpec,
) -> list[str]:
    told = [f"{_quoted(name)} is left out: {why}" for name, why in drop.items()]
    told += [
        f"{_quoted(name)} is left out, as it alone tells almost all of "
        f"{_quoted(whole.signature.target)}. If it is known before, take it back in."
        for name in suspects
    ]
    told += [f"{_quoted(name)} is taken for texts, and read by its words." for name in texts]
    told.append(str(validation["reason"]))
    if metric is not None:
        told.append(
            f"The metric is {metric}: with so few positives roc_auc looks good even where most of the "
            "alarms are false."
        )
    told.append(
        "`auto` first cross-validates a linear model and the catalogue's defaults, then searches: it never "
        "returns less than the best of them."
    )
    return told
