"""Comparing versions of a model on rows that none of them has learnt from."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from app.access.caller import Caller
from app.columns import NUMBERS
from app.datasets.contracts.service import require_accepted
from app.datasets.models import DatasetVersion
from app.datasets.service import get_rows_of
from app.db import Database
from app.errors import Conflict, InputError, InvalidInput, pointer
from app.registry.models import ModelVersion
from app.registry.runtime import Runtime
from app.registry.service import get_version
from app.registry.signature import Signature, Task
from app.serving.batch_service import check_columns
from app.serving.versions import load_version
from app.store import Store
from app.training.classes import lay_out, places_among, unite_classes
from app.training.comparison.answers import (
    AccuracyFinding,
    AreaFinding,
    BasisKind,
    ComparedMetric,
    ComparedModelVersion,
    ComparisonBasis,
    ComparisonIntervals,
    DifferenceTests,
    FieldChange,
    MetricDifference,
    Scored,
    ServingCost,
    VersionComparison,
    VersionPair,
)
from app.training.comparison.common_rows import data_of, find_data, shared_rows
from app.training.differences import find_differences
from app.training.holdouts import Holdout, Learnt, Rows, read_holdout, read_scores
from app.training.matrix import read_outcomes, read_rows
from app.training.metrics import DEFAULT_METRIC, METRICS, greater_is_better
from app.training.report.intervals import LEVEL, adjust_p_values
from app.training.report.numbers import rounded, rounded_interval
from app.training.slots import Slots
from app.training.spec import TrainingSpec
from app.training.spec_rules import in_json

if TYPE_CHECKING:
    from app.training.comparison.statistics import Pair
    from app.training.report.answers import Answers, Measured

MIN_ROWS = 20
MAX_ROWS = 100_000
MAX_SCORED_ROWS = 10_000
"""Rows for one answer: more change it little. Fewer where versions are to be scored on them."""
AT_ONCE = 2
"""Comparisons that a process of the server works out at once: each takes a core for seconds."""
SEED = 0
WAY_OUT = (
    "Name rows to compare on that none of them has learnt from, with the labels: "
    "?dataset=…&dataset_version=… in the query."
)

_slots = Slots(AT_ONCE, "comparison_busy", "comparisons are being worked out")


class Asked(NamedTuple):
    """A data version to compare on; without a number the dataset's newest."""

    dataset: str
    version: int | None


class _Candidate(NamedTuple):
    """A version among others, and what of the table it has learnt from."""

    row: ModelVersion
    signature: Signature
    learnt: Learnt


class _Table(NamedTuple):
    """What the versions are compared on: the data as ``ModelVersion.data`` names it, and rows of it.

    ``found`` is None where that data is no more. ``actual`` has shape (n,): class indices or values.
    """

    kind: BasisKind
    data: Mapping[str, Any]
    found: DatasetVersion | None
    rows: Rows
    actual: NDArray[Any]


def compare_versions(
    database: Database,
    store: Store,
    caller: Caller,
    model: str,
    numbers: Sequence[int],
    asked: Asked | None = None,
) -> VersionComparison:
    """Compare versions, the first named with each other, on rows that none is known to have learnt from.

    Without ``asked`` these are rows that the newest of them held out. Raises NotFound; Conflict where the
    versions answer different questions or have too few rows in common, or the data asked for is quarantined;
    Forbidden where the caller may not see its rows; InvalidInput where it does not fit them; ServerBusy.
    """
    with _slots.take():
        return _compare_versions(database, store, caller, model, numbers, asked)


def _compare_versions(
    database: Database,
    store: Store,
    caller: Caller,
    model: str,
    numbers: Sequence[int],
    asked: Asked | None,
) -> VersionComparison:
    with database.session_scope(write=False) as session:
        versions = [get_version(session, model, number) for number in numbers]
    signatures = [Signature.model_validate(version.signature) for version in versions]
    _require_one_question(versions, signatures)
    classes = _union([signature.classes for signature in signatures])
    holdouts = [_holdout_of(store, version) for version in versions]
    if asked is None:
        table = _held_out(database, versions, signatures, holdouts, classes)
    else:
        table = _labelled(database, store, caller, asked, signatures[0], classes)
    with database.session_scope(write=False) as session:
        candidates = [
            _Candidate(
                version,
                signature,
                Learnt(
                    version.number,
                    version.data,
                    None if holdout is None else holdout.rows,
                    shared_rows(session, version.data, table.data),
                ),
            )
            for version, signature, holdout in zip(versions, signatures, holdouts, strict=True)
        ]
    return _compare(store, table, candidates, classes)


def _holdout_of(store: Store, version: ModelVersion) -> Holdout | None:
    if version.holdout_digest is None:
        return None
    with store.open_file(version.holdout_digest) as path:
        return read_holdout(path)


def _require_one_question(versions: Sequence[ModelVersion], signatures: Sequence[Signature]) -> None:
    """Raises Conflict where the versions do not predict the same target in the same way."""
    first = signatures[0]
    for version, signature in zip(versions[1:], signatures[1:], strict=True):
        if (signature.target, signature.task) != (first.target, first.task) or (
            first.task is Task.BINARY
            and len(unite_classes([first.classes or (), signature.classes or ()])) > 2
        ):
            raise Conflict(
                "different_questions",
                f"Version {versions[0].number} {_question(first)}, and version {version.number} "
                f"{_question(signature)}: their answers cannot be compared. Choose versions of one target "
                "and task.",
            )


def _question(signature: Signature) -> str:
    classes = " and ".join(map(in_json, signature.classes or ()))
    among = f" of {classes}" if signature.task is Task.BINARY else ""
    return f"predicts {signature.target!r} as {signature.task}{among}"


def _union(known: Sequence[Sequence[Any] | None]) -> list[Any] | None:
    """Every class that any of the versions knows, the first version's first; None for regressions."""
    if known[0] is None:
        return None
    return unite_classes(classes or () for classes in known)


# ── The rows ─────────────────────────────────────────────────────────────────────────────────────


def _held_out(
    database: Database,
    versions: Sequence[ModelVersion],
    signatures: Sequence[Signature],
    holdouts: Sequence[Holdout | None],
    classes: Sequence[Any] | None,
) -> _Table:
    """The rows that the newest version that tells of its holdout held out."""
    telling = [
        (version, signature, holdout)
        for version, signature, holdout in zip(versions, signatures, holdouts, strict=True)
        if holdout is not None
    ]
    if not telling:
        raise Conflict(
            "no_common_rows",
            "None of these versions tells which rows it held out: a release before this one trained them. "
            f"{WAY_OUT}",
        )
    newest, signature, held = max(telling, key=lambda one: one[0].number)
    actual = held.actual
    if classes is not None:
        actual = places_among(signature.classes or (), classes)[actual]
    with database.session_scope(write=False) as session:
        found = find_data(session, newest.data)
    return _Table("holdout", newest.data, found, held.rows, actual)


def _labelled(
    database: Database,
    store: Store,
    caller: Caller,
    asked: Asked,
    signature: Signature,
    classes: Sequence[Any] | None,
) -> _Table:
    """The rows of a data version that have a value of the target that a version knows."""
    with database.session_scope(write=False) as session:
        found = get_rows_of(session, caller, asked.dataset, asked.version)
        require_accepted(found)
    given = found.column_types.get(signature.target)
    if given != signature.target_type and not {given, signature.target_type} <= set(NUMBERS):
        detail = (
            f"Version {found.number} of dataset {found.dataset!r} has no column {signature.target!r} of type "
            f"{signature.target_type}, which the versions predict. Name data that tells what came true."
        )
        fault = InputError(pointer("query", "dataset"), detail)
        raise InvalidInput("data_does_not_fit", detail, errors=[fault])
    question = signature.model_copy(update={"classes": None if classes is None else tuple(classes)})
    with store.open_files(found.parts) as parts:
        outcomes = read_outcomes(parts, question)
    known = np.ones(len(outcomes.rows), dtype=bool) if classes is None else outcomes.target >= 0
    return _Table(
        "dataset", data_of(found), found, outcomes.rows[known].astype(np.int64), outcomes.target[known]
    )


def _choose(table: _Table, candidates: Sequence[_Candidate]) -> tuple[NDArray[np.intp], int]:
    """Places in the table's rows of those to compare on, and how many there were to choose from."""
    unseen = np.flatnonzero(np.logical_and.reduce([one.learnt.unseen(table.rows) for one in candidates]))
    if len(unseen) < MIN_ROWS:
        numbers = ", ".join(str(one.row.number) for one in candidates)
        raise Conflict(
            "too_few_common_rows",
            f"In version {table.data['version']} of dataset {table.data['dataset']!r} are {len(unseen)} rows "
            f"that none of the versions {numbers} has learnt from, and a comparison takes at least "
            f"{MIN_ROWS}. {WAY_OUT}",
        )
    rows = table.rows[unseen]
    most = MAX_ROWS if all(one.learnt.held_out(rows) for one in candidates) else MAX_SCORED_ROWS
    if len(rows) <= most:
        return unseen, len(unseen)
    drawn = np.random.default_rng(SEED).choice(len(unseen), most, replace=False)
    return unseen[np.sort(drawn)], len(unseen)


# ── The answers ──────────────────────────────────────────────────────────────────────────────────


def _align(candidate: _Candidate, scores: NDArray[np.float64], classes: Sequence[Any] | None) -> "Answers":
    """A version's answers in the classes that all have in common; of those unknown to it the chance is 0."""
    from app.training.report.answers import Answers  # loads scikit-learn, which serving does without

    predicted = candidate.signature.decide(scores)
    if classes is None:
        return Answers(predicted, scores)
    places = places_among(candidate.signature.classes or (), classes)
    return Answers(places[predicted], lay_out(scores, places, len(classes)))


def _kept_scores(store: Store, version: ModelVersion, rows: Rows) -> NDArray[np.float64]:
    """What the version answered to some of the rows that it held out."""
    assert version.holdout_digest is not None  # noqa: S101 - or else it is not known to have held them out
    with store.open_file(version.holdout_digest) as path:
        return read_scores(path, rows)


def _score(store: Store, table: _Table, rows: Rows, candidate: _Candidate) -> NDArray[np.float64]:
    """What the version answers now, as it is served. Raises Conflict where it cannot."""
    number = candidate.row.number
    if table.found is None:
        raise Conflict(
            "data_deleted",
            f"Version {number} would have to be scored on version {table.data['version']} of dataset "
            f"{table.data['dataset']!r}, which is no more. {WAY_OUT}",
        )
    try:
        check_columns(candidate.signature, table.found.typed_columns, table.found)
    except InvalidInput as refused:
        raise Conflict(
            "data_does_not_fit", f"Version {number} cannot answer the rows. {refused.detail} {WAY_OUT}"
        ) from refused
    scorer = load_version(candidate.row, store).scorer
    with store.open_files(table.found.parts) as parts:
        (matrix,) = read_rows(parts, candidate.signature, rows.astype(np.intp))
    return scorer.score(matrix)


# ── What is told ─────────────────────────────────────────────────────────────────────────────────


def _compare(
    store: Store, table: _Table, candidates: Sequence[_Candidate], classes: Sequence[Any] | None
) -> VersionComparison:
    from app.training.comparison.statistics import compare  # loads scikit-learn, which serving does without

    chosen, available = _choose(table, candidates)
    rows, actual = table.rows[chosen], table.actual[chosen]
    held = [one.learnt.held_out(rows) for one in candidates]
    scores = [
        _kept_scores(store, one.row, rows) if kept else _score(store, table, rows, one)
        for one, kept in zip(candidates, held, strict=True)
    ]
    answers = [_align(one, given, classes) for one, given in zip(candidates, scores, strict=True)]
    first = candidates[0]
    named = [name for one in candidates for name in _metrics_of(one.row) if name not in METRICS]
    found = compare(first.signature.task, actual, answers, seed=SEED, scorers=list(dict.fromkeys(named)))
    resampling = found.resampling
    return VersionComparison(
        model=first.row.model,
        task=first.signature.task,
        target=first.signature.target,
        classes=None if classes is None else list(classes),
        metric=_metrics_of(first.row)[0],
        basis=ComparisonBasis(
            kind=table.kind,
            dataset=table.data["dataset"],
            version=table.data["version"],
            available=available,
            rows=len(rows),
        ),
        warnings=[doubt for one in candidates if (doubt := one.learnt.doubt(rows)) is not None],
        intervals=ComparisonIntervals(
            level=LEVEL,
            method=resampling.method,
            resamples=resampling.resamples,
        ),
        versions=[
            _tell_version(one.row, metrics, scored="at_training" if kept else "now")
            for one, kept, metrics in zip(candidates, held, found.metrics, strict=True)
        ],
        pairs=[
            _tell_pair(first.row, one.row, pair, tests)
            for one, pair, tests in zip(candidates[1:], found.pairs, _tests(found.pairs), strict=True)
        ],
    )


def _metrics_of(version: ModelVersion) -> list[str]:
    """The metric by which the version was chosen, and those that its spec asked for beside."""
    task = Task(version.task)
    return [version.spec.get("metric") or DEFAULT_METRIC[task], *version.spec.get("metrics", ())]


def _tell_version(
    version: ModelVersion, metrics: Mapping[str, "Measured"], *, scored: Scored
) -> ComparedModelVersion:
    rows, search = version.evaluation.get("rows", {}), version.evaluation.get("search")
    measured = version.evaluation.get("as_served", {})
    return ComparedModelVersion(
        version=version.number,
        algorithm=version.algorithm,
        created_by=version.created_by,
        created_at=version.created_at,
        data=version.data,
        training_rows=rows.get("training"),
        search=search
        and {
            "trials": len(search["trials"]),
            **{name: search[name] for name in ("metric", "value", "stopped")},
        },
        served=ServingCost(
            runtime=Runtime(version.runtime),
            runtime_reason=version.runtime_reason,
            bytes=version.scorer_size or version.artifact_size,
            row_microseconds=rounded(measured["row_microseconds"]) if measured else None,
        ),
        scored=scored,
        metrics={
            name: ComparedMetric(
                value=rounded(found.value),
                interval=_rounded(found.interval),
                greater_is_better=greater_is_better(name),
            )
            for name, found in metrics.items()
        },
    )


def _tell_pair(
    first: ModelVersion, second: ModelVersion, pair: "Pair", tests: DifferenceTests
) -> VersionPair:
    from app.training.report.answers import favours

    better = {1: second.number, -1: first.number, 0: None}
    same = all(first.data[name] == second.data[name] for name in ("dataset", "version", "digest"))
    return VersionPair(
        first=first.number,
        second=second.number,
        differences={
            name: MetricDifference(
                value=rounded(found.value),
                interval=_rounded(found.interval),
                better=better[favours(name, found)],
            )
            for name, found in pair.differences.items()
        },
        tests=tests,
        same_data=same,
        data_diff=None if same else _diff_link(first.data, second.data),
        spec=_changes(_complete(first.spec), _complete(second.spec)),
        fitted=_changes(_fitted(first), _fitted(second)),
        environment=_changes(first.environment, second.environment),
    )


def _tests(pairs: Sequence["Pair"]) -> list[DifferenceTests]:
    areas = [pair.area for pair in pairs]
    accuracies = [pair.accuracy for pair in pairs]
    of_areas = iter(adjust_p_values([one.p_value for one in areas if one is not None]))
    of_accuracies = iter(adjust_p_values([one.p_value for one in accuracies if one is not None]))
    return [
        DifferenceTests(
            roc_auc=area and AreaFinding(**area._asdict(), p_adjusted=next(of_areas)),
            accuracy=accuracy
            and AccuracyFinding(
                only_first_right=accuracy.only_first,
                only_second_right=accuracy.only_second,
                p_value=accuracy.p_value,
                p_adjusted=next(of_accuracies),
            ),
        )
        for area, accuracy in zip(areas, accuracies, strict=True)
    ]


def _rounded(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    bounds = rounded_interval(interval)
    if bounds is None or bounds[0] is None or bounds[1] is None:
        return None
    return bounds[0], bounds[1]


def _diff_link(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    link = f"/v1/datasets/{first['dataset']}/versions/{first['version']}/diff/{second['version']}"
    return link if first["dataset"] == second["dataset"] else f"{link}?of={second['dataset']}"


def _complete(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec with the fields that have come since it was written, at what they mean where left out."""
    try:
        return TrainingSpec.model_validate(spec).model_dump(mode="json", by_alias=True)
    except ValidationError:  # of a release whose fields meant something else
        return spec


def _fitted(version: ModelVersion) -> dict[str, Any]:
    configuration = version.evaluation.get("configuration") or {}
    return {
        "algorithm": version.algorithm,
        "params": version.params,
        "preparation": configuration.get("preparation"),
    }


def _changes(first: Any, second: Any) -> list[FieldChange]:
    found = find_differences(first, second)
    return [FieldChange(pointer=at, first=one, second=other) for at, one, other in found]
