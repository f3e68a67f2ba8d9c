"""A training run's work, pure: a Parquet file and a spec in, a fitted pipeline and its evaluation out."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.datasets.engine import Parquet
from app.registry.signature import Signature, Task
from app.training.algorithms.builtin import CALIBRATION_FOLDS
from app.training.algorithms.catalogue import algorithm
from app.training.evaluation import confusion_matrix, evaluate
from app.training.fitting import Configuration, Fitter, TrainingFailed, checked_scores
from app.training.matrix import read_outcomes, read_rows
from app.training.report.subject import Rival
from app.training.rivals import NoRival, fit_baselines, score_champion
from app.training.roles import ResolvedSpec, resolve_spec
from app.training.scoring import score_all
from app.training.search.footprint import excess, measure
from app.training.search.search import ROUND_TRIALS, Study, Trial
from app.training.search.trial_bench import Bench, open_bench
from app.training.served import Served, serve
from app.training.spec import TrainingSpec, refusal
from app.training.spec_rules import why_no_fold
from app.training.validation import Split, Splitter, strata_of

MIN_TRAINING_ROWS = 15
MAX_COMPARISON_ROWS = 10_000
"""More rows change the order of the candidates rarely, and cost the more."""

Report = Callable[[float, str], None]
"""Told the fraction done, from 0 to 1 and never less than before, and the step in words."""


@dataclass(frozen=True, slots=True)
class Before:
    """What is there before a run's work begins.

    ``trials`` are those that an earlier worker finished, ``warm_start`` the configuration of the model's
    version before, ``champion`` the version that serves: see ``rivals.score_champion``.
    """

    trials: Sequence[Mapping[str, Any]] = ()
    warm_start: Mapping[str, Any] | None = None
    champion: dict[str, Any] | None = None


NOTHING_BEFORE = Before()


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A fitted pipeline and all that is to be known of it.

    ``metrics`` and ``confusion_matrix`` (classifiers only) are of the holdout, ``baseline_metrics`` those of
    the dummy there. ``choice`` says how ``auto`` came to the algorithm, ``search`` how a search went.
    ``rows`` counts ``training``, ``holdout`` and ``without_target``. ``training`` and ``holdout`` hold the
    rows, shape (n, features), ``training_target`` and ``target`` what came true in them, ``holdout_rows``
    the places of the held-out ones in the table, ``scores`` the answers to them as they are ``served``, of
    shape (n, classes) or (n, 1). ``refit`` fits the same configuration to the training rows with another
    seed.
    """

    pipeline: Pipeline
    served: Served
    signature: Signature
    dropped: dict[str, str]
    configuration: Configuration
    metric: str
    metrics: dict[str, float]
    baseline_metrics: dict[str, float]
    confusion_matrix: list[list[int]] | None
    choice: dict[str, Any] | None
    search: dict[str, Any] | None
    reproducible: bool
    notes: list[str]
    rows: dict[str, int]
    training: NDArray[np.float64]
    training_target: NDArray[Any]
    holdout: NDArray[np.float64]
    target: NDArray[Any]
    holdout_rows: NDArray[np.intp]
    scores: NDArray[np.float64]
    rivals: tuple[Rival, ...]
    refit: Callable[[int], Pipeline]
    fit_seconds: float

    @property
    def algorithm(self) -> str:
        return self.configuration.algorithm

    @property
    def params(self) -> dict[str, Any]:
        """Complete, with the defaults."""
        return self.configuration.params

    @property
    def reference_scores(self) -> NDArray[np.float64]:
        """Of the holdout, shape (n,): on rows that the model has not seen, as live rows will be.

        The positive class's probability (binary), the predicted class's index (multiclass) or the value.
        """
        if self.signature.task is Task.BINARY:
            return np.ascontiguousarray(self.scores[:, 1])
        return self.signature.decide(self.scores).astype(np.float64)


def train(
    parquet: Parquet,
    spec: TrainingSpec,
    report: Report,
    *,
    before: Before = NOTHING_BEFORE,
    tell: Callable[[dict[str, Any]], None] = lambda _: None,
) -> TrainingResult:
    """Fit the spec's model on the canonical Parquet, and evaluate it on rows held out.

    The same file, spec, seed and, in a search, start (``warm_start``) give the same metrics and predictions,
    unless the spec asks for a search by time: every fit runs on one thread, as a sum over several depends on
    how many there are. ``tell`` is given each trial of a search as it ends. Raises InvalidInput where the
    spec and the data do not fit each other, TrainingFailed where a fit breaks down.
    """
    with threadpool_limits(1), np.errstate(over="ignore"):
        return _Run(parquet, spec, report, before, tell).train()


@dataclass(slots=True)
class _Run:
    """What the steps of one run share; ``training`` and ``target`` are of the training rows."""

    parquet: Parquet
    spec: TrainingSpec
    report: Report
    before: Before
    tell: Callable[[dict[str, Any]], None]
    notes: list[str] = field(default_factory=list)

    def train(self) -> TrainingResult:
        self.report(0.0, "looking at the columns")
        resolved = resolve_spec(self.parquet, self.spec)
        signature = resolved.signature
        self.notes += resolved.notes
        self.report(0.05, "reading the rows")
        outcomes = read_outcomes(
            self.parquet, signature, order_by=resolved.time_column, group_by=resolved.group_column
        )
        target = outcomes.target
        stratified = self.spec.validation.method == "stratified"
        splitter = Splitter(
            len(target),
            self.spec.seed,
            strata_of(target, classes=signature.classes is not None) if stratified else None,
            outcomes.groups,
            outcomes.order,
        )
        learnt, held = splitter.hold_out(self.spec.validation.holdout)
        actual, target = target[held], target[learnt]
        self._check_training_part(signature, target)
        training, holdout = read_rows(self.parquet, signature, outcomes.rows[learnt], outcomes.rows[held])
        fitter = Fitter(self.spec, signature)
        study = None
        if self.spec.searches:
            study = self._search(fitter, resolved, splitter.of(learnt), training, target)
        pipeline, configuration, seconds = self._fit(fitter, study, training, target)
        self.report(0.85, f"evaluating on {len(held):,} held-out rows")
        # Compiled trees answer many rows in a fraction of scikit-learn's time.
        served = serve(pipeline, signature, holdout)
        scores = checked_scores(served.score, holdout)
        predicted = signature.decide(scores)
        rivals = fit_baselines(fitter, training, target, holdout)
        if self.before.champion is not None:
            try:
                rival, doubt = score_champion(
                    self.before.champion, signature, self.parquet, outcomes.rows[held]
                )
            except NoRival as reason:
                self.notes.append(str(reason))
            else:
                rivals.append(rival)
                self.notes += [doubt] if doubt else []
        baseline = rivals[0].scores
        search = self.spec.search
        return TrainingResult(
            pipeline=pipeline,
            served=served,
            signature=signature,
            dropped=resolved.dropped,
            configuration=configuration,
            metric=resolved.metric,
            metrics=score_all(
                signature.task,
                (resolved.metric, *resolved.metrics),
                actual,
                predicted,
                None if signature.classes is None else scores,
            ),
            baseline_metrics=evaluate(
                signature.task,
                actual,
                signature.decide(baseline),
                None if signature.classes is None else baseline,
            ),
            confusion_matrix=(
                confusion_matrix(actual, predicted, len(signature.classes)) if signature.classes else None
            ),
            choice=_choice(study) if study and self.spec.algorithm == "auto" else None,
            search=_summary(study) if study else None,
            reproducible=search is None or (search.seconds is None and search.max_row_microseconds is None),
            notes=list(dict.fromkeys(self.notes)),
            rows={
                "training": len(learnt),
                "holdout": len(held),
                "without_target": resolved.without_target,
            },
            training=training,
            training_target=target,
            holdout=holdout,
            target=actual,
            holdout_rows=outcomes.rows[held],
            scores=scores,
            rivals=tuple(rivals),
            refit=lambda seed: fitter.fit(configuration, training, target, seed=seed)[0],
            fit_seconds=seconds,
        )

    def _processes(self, folds: int) -> int:
        asked = self.spec.search and self.spec.search.processes
        return min(asked or int(joblib.cpu_count()), ROUND_TRIALS * folds)

    def _check_training_part(self, signature: Signature, target: NDArray[Any]) -> None:
        """Refuse a training part that no algorithm, or not the named one, can learn from."""
        if len(target) < MIN_TRAINING_ROWS:
            raise refusal(
                "too_few_rows",
                ("validation", "holdout"),
                f"The holdout leaves {len(target)} rows to learn from; it takes at least "
                f"{MIN_TRAINING_ROWS}. Hold out a smaller share, or add rows.",
            )
        if np.ptp(target) == 0:
            raise refusal(
                "unusable_target",
                ("validation",),
                f"The target {self.spec.target!r} has the same value in every row of the training part. "
                "Split at random, or hold out a smaller share.",
            )
        rarest = int(np.unique(target, return_counts=True)[1].min()) if signature.classes else None
        if self.spec.algorithm != "auto":
            algorithm(self.spec.algorithm).check_rows(self.spec.params, len(target), rarest)
        if self.spec.calibration is not None and rarest is not None and rarest < CALIBRATION_FOLDS:
            raise refusal(
                "too_few_rows",
                ("calibration",),
                f"Calibration needs {CALIBRATION_FOLDS} rows of each class; one class has {rarest} in the "
                "training part. Leave it out, or add rows of that class.",
            )

    def _search(
        self,
        fitter: Fitter,
        resolved: ResolvedSpec,
        splitter: Splitter,
        training: NDArray[np.float64],
        target: NDArray[Any],
    ) -> Study:
        rows = np.arange(len(training))
        if len(training) > MAX_COMPARISON_ROWS:
            self.notes.append(
                f"The candidates were compared on a random {MAX_COMPARISON_ROWS:,} of the "
                f"{len(training):,} training rows."
            )
            drawn = np.random.default_rng(self.spec.seed)
            rows = np.sort(drawn.choice(len(training), MAX_COMPARISON_ROWS, replace=False))
            training, target, splitter = training[rows], target[rows], splitter.of(rows)
        folds = [fold for fold in splitter.folds(self.spec.validation.folds) if self._usable(target, fold)]
        if not folds:
            groups = None if splitter.groups is None else np.unique(splitter.groups).size
            raise refusal("no_usable_fold", ("validation",), why_no_fold(self.spec, groups))
        metrics = (resolved.metric, *resolved.metrics)
        bench = Bench(fitter, metrics, training, target, folds)
        processes = self._processes(len(folds))
        with open_bench(bench, processes) as evaluate_tasks:
            study = Study(
                self.spec,
                resolved.signature,
                metrics,
                folds=len(folds),
                rows=len(training),
                fold_rows=min(len(learn) for learn, _ in folds),
                evaluate=evaluate_tasks,
                tell=self.tell,
                report=lambda share, step: self.report(0.1 + 0.6 * share, step),
                told=self.before.trials,
                warm_start=self.before.warm_start,
                processes=processes,
            )
            study.run()
        self.notes += study.notes
        if not study.ranking():
            raise _nothing_found(study)
        return study

    def _usable(self, target: NDArray[Any], fold: Split) -> bool:
        return all(np.unique(target[part]).size > 1 for part in fold) or target.dtype.kind == "f"

    def _fit(
        self, fitter: Fitter, study: Study | None, training: NDArray[np.float64], target: NDArray[Any]
    ) -> tuple[Pipeline, Configuration, float]:
        """Fit the best candidate, or the named algorithm, to all training rows; and how long that took.

        A candidate that exceeds a limit when it has all rows gives way to the next best.
        """
        candidates = (
            [trial.configuration for trial in study.ranking()]
            if study
            else [
                Configuration(
                    self.spec.algorithm,
                    algorithm(self.spec.algorithm).complete(self.spec.params),
                    self.spec.preparation,
                )
            ]
        )
        reasons = []
        for configuration in candidates:
            title = algorithm(configuration.algorithm).title
            self.report(0.7, f"fitting {title} on {len(target):,} rows")
            started = time.perf_counter()
            pipeline, notes = fitter.fit(configuration, training, target)
            seconds = time.perf_counter() - started
            search = self.spec.search
            reason = None
            if search and (search.max_model_bytes or search.max_row_microseconds):
                reason = excess(measure(pipeline, fitter.signature, training[:100]), search)
            if reason is None:
                self.notes += notes
                return pipeline, configuration, seconds
            reasons.append(f"The {title}, fitted to all training rows, was refused: {reason}.")
            self.notes.append(reasons[-1])
        raise TrainingFailed("limits_exceeded", f"No candidate keeps the limits of the search. {reasons[0]}")


def _nothing_found(study: Study) -> Exception:
    """Why no trial of a search came to an end."""
    refused = [trial for trial in study.trials if trial.status == "refused"]
    if refused:
        first = refused[0]
        return refusal(
            "limits_exceeded",
            ("search",),
            f"No candidate keeps the limits. Of {first.configuration.algorithm}: {first.reason}.",
        )
    if all(trial.reason == study.undefined for trial in study.trials):
        return refusal(
            "undefined_metric",
            ("metric",),
            f"{study.metric} is not defined on any fold of the data; choose another metric.",
        )
    first = study.trials[0]
    return TrainingFailed(
        "fit_failed", f"No candidate could be fitted. Of {first.configuration.algorithm}: {first.reason}"
    )


def _choice(study: Study) -> dict[str, Any]:
    """The best trial of each algorithm, and why the first of them was chosen."""
    best: dict[str, Trial] = {}
    for trial in study.ranking():
        best.setdefault(trial.configuration.algorithm, trial)
    chosen = next(iter(best))
    title = algorithm(chosen).title
    mean = best[chosen].mean(study.metric)
    return {
        "algorithm": chosen,
        "metric": study.metric,
        "reason": f"The {title} had the best mean {study.metric}, {mean:.4g}, of {len(study.trials)} "
        f"candidates over {study.folds} folds.",
        "rows": study.rows,
        "folds": study.folds,
        "candidates": [_candidate(trial, study.metric) for trial in best.values()],
    }


def _candidate(trial: Trial, metric: str) -> dict[str, Any]:
    scores = [value for value in trial.scores[metric] if value is not None]
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    return {
        "algorithm": trial.configuration.algorithm,
        "trial": trial.number,
        "scores": scores,
        "mean": float(np.mean(scores)),
        "std": spread,
    }


def _summary(study: Study) -> dict[str, Any]:
    best = study.ranking()[0]
    budget = {"trials": study.budget} if study.budget is not None else {"seconds": study.search.seconds}
    return {
        "metric": study.metric,
        "budget": budget,
        "stopped": study.stopped,
        "rows": study.rows,
        "folds": study.folds,
        "best": best.number,
        "value": best.mean(study.metric),
        "trials": [
            {
                "number": trial.number,
                "algorithm": trial.configuration.algorithm,
                "status": trial.status,
                "value": trial.mean(study.metric),
            }
            for trial in study.trials
        ],
    }
