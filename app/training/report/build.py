"""The evaluation report: how good a model is on rows that it has not seen, how sure that is, and why."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.training.metrics import METRICS, greater_is_better
from app.training.report.answers import Answers, Assessment, Measured, assess, favours, resample
from app.training.report.curves import draw_curves
from app.training.report.fairness import compare_groups
from app.training.report.grouping import Groups, feature_columns, group_feature, read_groups
from app.training.report.importance import measure_slowness, partial_dependence, permutation_importance
from app.training.report.intervals import LEVEL, Resampling
from app.training.report.numbers import rounded, rounded_interval
from app.training.report.slices import SLICED_COLUMNS, cut_slices
from app.training.report.stability import measure_stability
from app.training.report.subject import Subject

FORMAT = 1
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
    resampling = resample(task, subject.target, seed)
    metrics, rivals = _compare(subject, Answers(predicted, scores), resampling)
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
            "method": resampling.method,
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


def _compare(
    subject: Subject, answers: Answers, resampling: Resampling
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The model's metrics and each rival's, with their intervals, and the differences, pair by pair."""
    task, actual = subject.signature.task, subject.target
    named = (subject.metric, *subject.spec.metrics)
    own = assess(task, actual, answers, resampling, named)
    rivals = []
    for rival in subject.rivals:
        theirs = Answers(subject.signature.decide(rival.scores), rival.scores)
        other = assess(task, actual, theirs, resampling, named)
        rivals.append(
            {
                "name": rival.name,
                "title": rival.title,
                "metrics": _tell_metrics(other),
                "differences": {
                    name: _tell_difference(name, difference)
                    for name, difference in own.less(other).items()
                    if name in METRICS
                },
            }
        )
    return _tell_metrics(own), rivals


def _tell_metrics(found: Assessment) -> dict[str, Any]:
    return {
        name: {
            "value": rounded(one.value),
            "interval": rounded_interval(one.interval),
            "greater_is_better": greater_is_better(name),
        }
        for name, one in found.metrics().items()
    }


def _tell_difference(name: str, difference: Measured) -> dict[str, Any]:
    """Model less rival, and who is better: nobody, as far as can be told, where the interval holds 0."""
    return {
        "value": rounded(difference.value),
        "interval": rounded_interval(difference.interval),
        "better": {1: "model", -1: "rival", 0: None}[favours(name, difference)],
    }


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
