"""A training run's work, pure: a Parquet file and a spec in, a fitted pipeline and its evaluation out."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.datasets.engine import Parquet
from app.errors import AppError
from app.registry.predictor import predict
from app.registry.signature import Signature, Task
from app.training.catalogue import ALGORITHMS, algorithm, linear_algorithm
from app.training.estimators import build_estimator
from app.training.evaluation import confusion_matrix, evaluate
from app.training.matrix import read_examples
from app.training.metrics import METRICS
from app.training.preprocessing import build_pipeline
from app.training.roles import ResolvedSpec, resolve_spec
from app.training.spec import TrainingSpec, refusal

MIN_TRAINING_ROWS = 15
MIN_FOLD_ROWS = 5
MAX_COMPARISON_ROWS = 10_000
"""More rows change the order of the candidates rarely, and cost the more."""

Report = Callable[[float, str], None]
"""Told the fraction done, from 0 to 1 and never less than before, and the step in words."""

Rows = NDArray[np.intp]


class TrainingFailed(AppError):
    """The spec and the data are sound, and the fit still did not yield a model (422)."""

    status = 422


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A fitted pipeline and all that is to be known of it.

    ``params`` are complete, with the defaults. ``metrics`` and ``confusion_matrix`` (classifiers only) are
    of the holdout, ``baseline_metrics`` those of the dummy there. ``choice`` says how ``auto`` came to the
    algorithm. ``rows`` counts ``training``, ``holdout`` and ``without_target``. ``reference_matrix`` holds
    the training rows, shape (training, features), ``holdout_matrix`` the held-out ones, and
    ``reference_scores``, shape (holdout,), the
    positive class's probability (binary), the predicted class's index (multiclass) or the predicted value:
    on rows that the model has not seen, as live rows will be.
    """

    pipeline: Pipeline
    signature: Signature
    dropped: dict[str, str]
    algorithm: str
    params: dict[str, Any]
    metrics: dict[str, float]
    baseline_metrics: dict[str, float]
    confusion_matrix: list[list[int]] | None
    choice: dict[str, Any] | None
    notes: list[str]
    rows: dict[str, int]
    reference_matrix: NDArray[np.float64]
    holdout_matrix: NDArray[np.float64]
    reference_scores: NDArray[np.float64]


@dataclass(slots=True)
class _Trainer:
    """The examples of one run and what its fits share."""

    spec: TrainingSpec
    resolved: ResolvedSpec
    features: NDArray[np.float64]
    target: NDArray[Any]
    order: NDArray[np.float64] | None
    report: Report
    notes: list[str]

    @property
    def task(self) -> Task:
        return self.resolved.signature.task

    def split(self) -> tuple[Rows, Rows]:
        """The training and the holdout rows; both in time order where validation is by time.

        Otherwise every 1/holdout-th row of a seeded shuffle, class after class, is held out: each class
        then has its share in the holdout, to within one row, and keeps one at least to learn from.
        """
        count = len(self.target)
        share = self.spec.validation.holdout
        if self.order is not None:
            rows = np.argsort(self.order, kind="stable")
            cut = count - max(1, round(count * share))
            training, holdout = rows[:cut], rows[cut:]
        else:
            rows = self._class_after_class(np.arange(count))
            steps = np.floor(np.arange(count + 1) * share)
            held = np.diff(steps) > 0
            training, holdout = np.sort(rows[~held]), np.sort(rows[held])
        self._check_training_part(training)
        return training, holdout

    def choose(self, training: Rows) -> dict[str, Any]:
        """Cross-validate the candidates with their defaults on the training rows; see ``_preferred``."""
        rows = self._comparison_rows(training)
        folds = [fold for fold in self._folds(rows) if self._usable(*fold)]
        names = [linear_algorithm(self.task), "random_forest", "hist_gradient_boosting", "k_neighbors"]
        if not folds:
            raise refusal(
                "no_usable_fold",
                ("validation",),
                "Cross-validation has no fold with two classes to learn and to test. Name an algorithm "
                'instead of "auto", ask for fewer folds, or split at random.',
            )
        neighbours = ALGORITHMS["k_neighbors"].complete({})["n_neighbors"]
        if min(len(learn) for learn, _ in folds) < neighbours:
            names.remove("k_neighbors")
            self.notes.append(f"k_neighbors was not compared: a fold has fewer than {neighbours} rows.")
        total = len(names) * len(folds)
        candidates = []
        for place, name in enumerate(names):
            scores = []
            for index, (learn, test) in enumerate(folds):
                self.report(
                    0.1 + 0.6 * (place * len(folds) + index) / total,
                    f"cross-validating {ALGORITHMS[name].title}, fold {index + 1} of {len(folds)}",
                )
                score = self._score(self.fit(name, {}, learn), test).get(self.resolved.metric)
                if score is not None:
                    scores.append(score)
            if scores:
                candidates.append(_candidate(name, scores))
        if not candidates:
            raise refusal(
                "undefined_metric",
                ("metric",),
                f"{self.resolved.metric} is not defined on any fold of the data; choose another metric.",
            )
        chosen, reason = _preferred(candidates, self.task, self.resolved.metric)
        return {
            "algorithm": chosen,
            "metric": self.resolved.metric,
            "reason": reason,
            "rows": len(rows),
            "folds": len(folds),
            "candidates": candidates,
        }

    def fit(self, name: str, params: dict[str, Any], rows: Rows) -> Pipeline:
        """The pipeline of one algorithm fitted on ``rows``; what the fit warns of becomes a note."""
        chosen = algorithm(name)
        estimator = build_estimator(name, self.task, params, self.spec.seed)
        pipeline = build_pipeline(self.resolved.signature, estimator)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                pipeline.fit(self.features[rows], self.target[rows])
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                raise TrainingFailed(
                    "fit_failed", f"The {chosen.title} could not be fitted: {error}"
                ) from error
            except MemoryError as error:
                raise TrainingFailed(
                    "out_of_memory",
                    f"The {chosen.title} needs more memory than a run may use. Choose fewer features, "
                    "smaller parameters or another algorithm.",
                ) from error
        for warning in caught:
            text = f"The {chosen.title} warned: {' '.join(str(warning.message).split())}"
            if issubclass(warning.category, ConvergenceWarning):
                text = f"The {chosen.title} stopped at max_iter before it had converged: raise max_iter."
            if text not in self.notes:
                self.notes.append(text)
        return pipeline

    def predict(self, pipeline: Pipeline, rows: Rows) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        predicted, probabilities = predict(pipeline, self.resolved.signature, self.features[rows])
        answers = predicted if probabilities is None else probabilities
        if not np.isfinite(answers).all():
            raise TrainingFailed(
                "not_finite",
                "The fitted model answers with numbers that are not finite. Look for extreme values in the "
                "data, or choose another algorithm.",
            )
        return predicted, probabilities

    def _score(self, pipeline: Pipeline, rows: Rows) -> dict[str, float]:
        return evaluate(self.task, self.target[rows], *self.predict(pipeline, rows))

    def _check_training_part(self, training: Rows) -> None:
        """Refuse a training part that no algorithm can learn from."""
        if len(training) < MIN_TRAINING_ROWS:
            raise refusal(
                "too_few_rows",
                ("validation", "holdout"),
                f"The holdout leaves {len(training)} rows to learn from; it takes at least "
                f"{MIN_TRAINING_ROWS}. Hold out a smaller share, or add rows.",
            )
        if np.ptp(self.target[training]) == 0:
            raise refusal(
                "unusable_target",
                ("validation",),
                f"The target {self.spec.target!r} has the same value in every row of the training part. "
                "Split at random, or hold out a smaller share.",
            )
        neighbours = self.spec.params.get("n_neighbors", 0)
        if neighbours > len(training):
            raise refusal(
                "invalid_parameter",
                ("params", "n_neighbors"),
                f"n_neighbors of k_neighbors must be at most {len(training)}, the rows of the training part.",
            )

    def _class_after_class(self, rows: Rows) -> Rows:
        """A seeded shuffle of ``rows``, in which the rows of a class then stand together."""
        shuffled = np.random.default_rng(self.spec.seed).permutation(rows)
        if self.task is Task.REGRESSION:
            return shuffled
        return shuffled[np.argsort(self.target[shuffled], kind="stable")]

    def _comparison_rows(self, training: Rows) -> Rows:
        if len(training) <= MAX_COMPARISON_ROWS:
            return training
        self.notes.append(
            f"auto compared the algorithms on a random {MAX_COMPARISON_ROWS:,} of the {len(training):,} "
            "training rows."
        )
        drawn = np.random.default_rng(self.spec.seed).choice(
            len(training), MAX_COMPARISON_ROWS, replace=False
        )
        return training[np.sort(drawn)]

    def _folds(self, rows: Rows) -> Iterator[tuple[Rows, Rows]]:
        """Pairs of rows to learn from and to test on: stratified, or forward in time."""
        count = min(self.spec.validation.folds, len(rows) // MIN_FOLD_ROWS)
        if self.order is not None:
            blocks = np.array_split(rows, min(count, len(rows) // MIN_FOLD_ROWS - 1) + 1)
            for index in range(1, len(blocks)):
                yield np.concatenate(blocks[:index]), blocks[index]
        else:
            dealt = self._class_after_class(rows)
            for index in range(count):
                test = np.arange(len(dealt)) % count == index
                yield np.sort(dealt[~test]), np.sort(dealt[test])

    def _usable(self, learn: Rows, test: Rows) -> bool:
        if self.task is Task.REGRESSION:
            return True
        return all(np.unique(self.target[part]).size > 1 for part in (learn, test))


def train(parquet: Parquet, spec: TrainingSpec, report: Report) -> TrainingResult:
    """Fit the spec's model on the canonical Parquet, and evaluate it on rows held out.

    The same file, spec and seed give the same metrics and predictions: every fit runs on one thread, as a
    sum over several depends on how many there are. Raises InvalidInput where the spec and the data do not
    fit each other, TrainingFailed where a fit breaks down.
    """
    with threadpool_limits(1), np.errstate(over="ignore"):
        return _train(parquet, spec, report)


def _train(parquet: Parquet, spec: TrainingSpec, report: Report) -> TrainingResult:
    report(0.0, "looking at the columns")
    resolved = resolve_spec(parquet, spec)
    report(0.05, "reading the rows")
    examples = read_examples(parquet, resolved.signature, order_by=resolved.time_column)
    trainer = _Trainer(
        spec, resolved, examples.features, examples.target, examples.order, report, list(resolved.notes)
    )
    training, holdout = trainer.split()
    choice = trainer.choose(training) if spec.algorithm == "auto" else None
    name = choice["algorithm"] if choice else spec.algorithm
    chosen = algorithm(name)
    report(0.7, f"fitting {chosen.title} on {len(training):,} rows")
    pipeline = trainer.fit(name, spec.params, training)
    report(0.9, f"evaluating on {len(holdout):,} held-out rows")
    actual = examples.target[holdout]
    predicted, probabilities = trainer.predict(pipeline, holdout)
    baseline = trainer.predict(trainer.fit("dummy", {}, training), holdout)
    signature = resolved.signature
    scores = probabilities[:, 1] if probabilities is not None and signature.task is Task.BINARY else predicted
    report(1.0, "done")
    return TrainingResult(
        pipeline=pipeline,
        signature=signature,
        dropped=resolved.dropped,
        algorithm=name,
        params=chosen.complete(spec.params),
        metrics=evaluate(signature.task, actual, predicted, probabilities),
        baseline_metrics=evaluate(signature.task, actual, *baseline),
        confusion_matrix=(
            confusion_matrix(actual, predicted, len(signature.classes)) if signature.classes else None
        ),
        choice=choice,
        notes=trainer.notes,
        rows={
            "training": len(training),
            "holdout": len(holdout),
            "without_target": resolved.without_target,
        },
        reference_matrix=examples.features[training],
        holdout_matrix=examples.features[holdout],
        reference_scores=scores.astype(np.float64),
    )


def _candidate(name: str, scores: Sequence[float]) -> dict[str, Any]:
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    return {"algorithm": name, "scores": list(scores), "mean": float(np.mean(scores)), "std": spread}


def _preferred(candidates: list[dict[str, Any]], task: Task, metric: str) -> tuple[str, str]:
    """The candidate with the best mean, or the linear one within a standard error of it; and why.

    The one-standard-error rule: Breiman, Friedman, Olshen and Stone, Classification and Regression Trees,
    1984, section 3.4.3.
    """
    sign = 1 if METRICS[metric].greater_is_better else -1
    best = max(candidates, key=lambda candidate: sign * candidate["mean"])
    linear = next(
        (candidate for candidate in candidates if candidate["algorithm"] == linear_algorithm(task)), best
    )
    error = best["std"] / np.sqrt(len(best["scores"]))
    title = ALGORITHMS[best["algorithm"]].title
    won = f"{title} had the best mean {metric}, {best['mean']:.4g}, of {len(candidates)} algorithms"
    if linear is best or sign * (best["mean"] - linear["mean"]) > error:
        return best["algorithm"], f"The {won} over {len(best['scores'])} folds."
    return linear["algorithm"], (
        f"The {won}, but {ALGORITHMS[linear['algorithm']].title} is simpler and its {linear['mean']:.4g} is "
        f"within one standard error ({error:.2g}) of it."
    )
