"""The evaluation report: how good a model is on rows that it has not seen, how sure that is, and why."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.registry.signature import Task
from app.training.evaluation import evaluate
from app.training.metrics import METRICS
from app.training.report.curves import draw_curves
from app.training.report.fairness import compare_groups
from app.training.report.grouping import Groups, feature_columns, group_feature, read_groups
from app.training.report.importance import measure_slowness, partial_dependence, permutation_importance
from app.training.report.intervals import LEVEL, SUBSET_ROWS, Deviations, Numbers, Resampling, draw_resamples
from app.training.report.numbers import rounded, rounded_interval
from app.training.report.slices import SLICED_COLUMNS, cut_slices
from app.training.report.stability import measure_stability
from app.training.report.subject import Scores, Subject
from app.training.report.weighted import weighted_metrics
from app.training.scoring import score

FORMAT = 1
RARE_ROWS = 50
"""A subset of a large holdout is made large enough to hold so many rows of the rarest class."""
FEW_ROWS = 30


def build_report(subject: Subject, preparation: list[dict[str, Any]]) -> dict[str, Any]:
    """The report as JSON-ready values, without NaN; ``docs/evaluation.md`` says what each part means.

    ``preparation`` is what each step did to the data. Randomness comes from the spec's seed. The holdout
    has at least one row. What it does not define is left out, and ``notes`` say so.
    """
    # Values near the largest float overflow in squares; what is then not finite is left out.
    with np.errstate(all="ignore"):
        return _build(subject, preparation)


def _build(subject: Subject, preparation: list[dict[str, Any]]) -> dict[str, Any]:
    signature, seed = subject.signature, subject.spec.seed
    task, labels = signature.task, signature.classes or ()
    scores = subject.scores
    predicted = signature.decide(scores)
    counts = np.bincount(subject.target) if labels else np.empty(0, dtype=np.intp)
    resampling = _resampling(counts, len(subject.target), seed)
    metrics, rivals = _compare(subject, scores, resampling)
    slowness = measure_slowness(subject)
    importance = permutation_importance(subject, seed, slowness)
    foremost = [one["column"] for one in importance["columns"]]
    explicit = subject.spec.evaluation.slices
    fairness = subject.spec.evaluation.fairness
    read = {groups.column: groups for groups in read_groups(subject, [*(explicit or ()), *fairness])}
    slices = _default_groups(subject, foremost) if explicit is None else _named(read, explicit)
    return {
        "format": FORMAT,
        "task": task.value,
        "metric": subject.metric,
        "classes": list(labels) or None,
        "target": signature.target,
        "rows": {"training": len(subject.training_target), "holdout": len(subject.target)},
        "intervals": {
            "level": LEVEL,
            "method": "bootstrap" if len(resampling.subsets) == 1 else "bag_of_little_bootstraps",
            "resamples": resampling.resamples,
        },
        "notes": _notes(subject, metrics, [*(explicit or ()), *fairness], read),
        "metrics": metrics,
        "rivals": rivals,
        "curves": draw_curves(task, subject.target, predicted, scores, resampling, labels),
        "importance": importance,
        "dependence": partial_dependence(subject, foremost, seed, slowness),
        "slices": cut_slices(task, subject.target, predicted, scores, slices) if slices else None,
        "fairness": [
            compare_groups(task, subject.target, predicted, scores, labels, groups)
            for groups in _named(read, fairness)
        ],
        "stability": measure_stability(subject, scores),
        "preparation": preparation,
    }


def _resampling(counts: NDArray[np.intp], rows: int, seed: int) -> Resampling:
    rarest = int(counts[counts > 0].min()) if len(counts) else rows
    return draw_resamples(
        rows, seed, least=min(rows, RARE_ROWS * rows // rarest) if rows > SUBSET_ROWS else 1
    )


def _compare(
    subject: Subject, scores: Scores, resampling: Resampling
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The model's metrics and each rival's, with their intervals, and the differences, pair by pair."""
    own, deviations = _evaluate(subject, scores, resampling)
    rivals = []
    for rival in subject.rivals:
        theirs, spread = _evaluate(subject, rival.scores, resampling)
        rivals.append(
            {
                "name": rival.name,
                "title": rival.title,
                "metrics": _with_intervals(theirs, spread),
                "differences": {
                    name: _difference(
                        name,
                        own[name] - theirs[name],
                        deviations.interval(name, own[name] - theirs[name], spread),
                    )
                    for name in own
                    if name in theirs and name in METRICS
                },
            }
        )
    return _with_intervals(own, deviations), rivals


def _evaluate(
    subject: Subject, scores: Scores, resampling: Resampling
) -> tuple[dict[str, float], Deviations]:
    task, actual = subject.signature.task, subject.target
    predicted = subject.signature.decide(scores)

    def resampled(rows: NDArray[np.intp], weights: Numbers) -> dict[str, Numbers]:
        return weighted_metrics(task, actual[rows], predicted[rows], scores[rows], weights)

    probabilities = None if task is Task.REGRESSION else scores
    values = evaluate(task, actual, predicted, probabilities)
    named = [name for name in (subject.metric, *subject.spec.metrics) if name not in METRICS]
    if named:
        values |= score(task, named, actual, predicted, probabilities)
    return values, resampling.deviations(resampled)


def _with_intervals(values: dict[str, float], deviations: Deviations) -> dict[str, Any]:
    return {
        name: {
            "value": rounded(value),
            "interval": rounded_interval(deviations.interval(name, value)),
            # Of scikit-learn's scorers more is always better.
            "greater_is_better": METRICS[name].greater_is_better if name in METRICS else True,
        }
        for name, value in values.items()
    }


def _difference(name: str, value: float, interval: tuple[float, float] | None) -> dict[str, Any]:
    """Model less rival, and who is better: nobody, as far as can be told, where the interval holds 0."""
    better = None
    if interval is not None and not interval[0] <= 0 <= interval[1]:
        better = "model" if (value > 0) == METRICS[name].greater_is_better else "rival"
    return {"value": rounded(value), "interval": rounded_interval(interval), "better": better}


def _default_groups(subject: Subject, foremost: Sequence[str]) -> list[Groups]:
    features = {feature.name: (feature, place) for feature, place in feature_columns(subject)}
    groups = [
        group_feature(features[name][0], subject.holdout[:, features[name][1]])
        for name in foremost[:SLICED_COLUMNS]
    ]
    return [one for one in groups if len(one.labels) > 1]


def _named(read: dict[str, Groups], names: Sequence[str]) -> list[Groups]:
    return [read[name] for name in dict.fromkeys(names) if name in read]


def _notes(
    subject: Subject,
    metrics: dict[str, Any],
    asked: Sequence[str],
    read: dict[str, Groups],
) -> list[str]:
    notes = []
    labels, rows = subject.signature.classes, len(subject.target)
    if rows < FEW_ROWS:
        notes.append(f"The holdout has {rows} rows: too few to say much. Intervals are rough.")
    if labels:
        present = np.bincount(subject.target, minlength=len(labels)) > 0
        if absent := [str(label) for label, held in zip(labels, present, strict=True) if not held]:
            shown = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
            notes.append(
                f"The holdout has no row of {'class' if len(absent) == 1 else f'{len(absent)} classes:'} "
                f"{shown}. Metrics and curves that need all classes are left out."
            )
    if subject.metric not in metrics:
        notes.append(f"The holdout does not define {subject.metric}.")
    if scorers := [name for name in metrics if name not in METRICS]:
        notes.append(f"Metrics of scikit-learn have no intervals: {', '.join(scorers)}.")
    if without := [name for name, one in metrics.items() if name in METRICS and one["interval"] is None]:
        notes.append(
            f"No interval could be told for {', '.join(without)}: too few resamples define it, or all agree."
        )
    notes += [f"The data has no column {name!r}." for name in dict.fromkeys(asked) if name not in read]
    return notes
