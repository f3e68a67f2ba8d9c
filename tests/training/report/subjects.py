"""Subjects of evaluation reports, made by hand: a small table, a scikit-learn pipeline, a holdout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from app.columns import ColumnType
from app.registry.predictor import predict
from app.registry.signature import Feature, Role, Signature, Task
from app.training.report.subject import Rival, Scores, Subject
from app.training.spec import TrainingSpec

CLASSES: dict[Task, tuple[Any, ...] | None] = {
    Task.BINARY: (False, True),
    Task.MULTICLASS: ("low", "middle", "high"),
    Task.REGRESSION: None,
}
START = 1_356_998_400.0  # 2013-01-01
SEXES = ("f", "m")


def signature_of(task: Task, noise: int = 0) -> Signature:
    features = [
        Feature(name="size", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=True),
        Feature(name="age", type=ColumnType.INTEGER, role=Role.NUMERIC, nullable=False),
        Feature(
            name="place",
            type=ColumnType.STRING,
            role=Role.CATEGORICAL,
            nullable=True,
            categories=("<b>Bonn</b>", "Köln & Deutz", "Ulm"),
        ),
        Feature(name="fresh", type=ColumnType.BOOLEAN, role=Role.BOOLEAN, nullable=False),
        Feature(name="seen", type=ColumnType.DATETIME, role=Role.DATETIME, nullable=False),
        *(
            Feature(name=f"noise_{number}", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=False)
            for number in range(noise)
        ),
    ]
    kind = {Task.BINARY: ColumnType.BOOLEAN, Task.MULTICLASS: ColumnType.STRING}.get(task, ColumnType.NUMBER)
    return Signature(features=tuple(features), target="y", target_type=kind, task=task, classes=CLASSES[task])


def draw_rows(rng: np.random.Generator, rows: int, task: Task, noise: int = 0) -> tuple[Any, Any]:
    """A matrix that the signature fits and targets that ``size`` explains most, ``age`` a little."""
    matrix = np.column_stack(
        [
            np.where(rng.random(rows) < 0.1, np.nan, rng.normal(5, 2, rows)),
            rng.integers(18, 90, rows),
            np.where(rng.random(rows) < 0.1, np.nan, rng.integers(-1, 3, rows)),
            rng.integers(0, 2, rows),
            START + 3_600 * rng.integers(0, 9_000, rows),
            rng.normal(size=(rows, noise)),
        ]
    )
    signal = np.nan_to_num(matrix[:, 0] - 5) + (matrix[:, 1] - 54) / 40 + rng.logistic(size=rows)
    if task is Task.REGRESSION:
        return matrix, signal
    return matrix, np.digitize(signal, [0.0] if task is Task.BINARY else [-1.0, 1.0])


def make_subject(
    folder: Path,
    task: Task = Task.BINARY,
    *,
    rows: int = 600,
    holdout: int = 400,
    noise: int = 0,
    seed: int = 0,
    estimator: Callable[[int], Any] | None = None,
    change: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]] | None = None,
    **evaluation: Any,
) -> Subject:
    """A fitted subject; ``change`` makes another target of the holdout's matrix and target."""
    rng = np.random.default_rng(seed)
    signature = signature_of(task, noise)
    training, training_target = draw_rows(rng, rows, task, noise)
    held_out, target = draw_rows(rng, holdout, task, noise)
    if change is not None:
        target = change(held_out, target)

    def fit(fit_seed: int) -> Pipeline:
        model = (
            estimator(fit_seed)
            if estimator
            else (Ridge() if task is Task.REGRESSION else LogisticRegression(random_state=fit_seed))
        )
        pipeline = make_pipeline(FunctionTransformer(np.nan_to_num), StandardScaler(), model)
        return pipeline.fit(training, training_target)

    pipeline = fit(seed)

    def score(matrix: NDArray[np.float64]) -> Scores:
        answers, probabilities = predict(pipeline, signature, matrix)
        return answers[:, None] if probabilities is None else probabilities

    if signature.classes is None:
        prior: Any = np.full((holdout, 1), training_target.mean())
    else:
        shares = np.bincount(training_target, minlength=len(signature.classes)) / rows
        prior = np.tile(shares, (holdout, 1))
    path = folder / f"{task}-{rows}-{holdout}-{seed}.parquet"
    write_table(path, rng, rows + holdout)
    metric = {Task.BINARY: "roc_auc", Task.MULTICLASS: "log_loss", Task.REGRESSION: "rmse"}[task]
    return Subject(
        spec=TrainingSpec.model_validate({"target": "y", "seed": seed, "evaluation": evaluation}),
        signature=signature,
        pipeline=pipeline,
        score=score,
        metric=metric,
        scores=score(held_out),
        training=training,
        training_target=training_target,
        holdout=held_out,
        target=target,
        holdout_rows=np.arange(rows, rows + holdout),
        rivals=(Rival("dummy", "Baseline: class shares", prior),),
        refit=fit,
        parquet=path,
    )


def with_score(subject: Subject, score: Callable[[NDArray[np.float64]], Scores]) -> Subject:
    return replace(subject, score=score, scores=score(subject.holdout))


def write_table(path: Path, rng: np.random.Generator, rows: int) -> None:
    """Columns that no model uses, for slices and fairness: ``sex`` and ``income``."""
    sexes = [SEXES[place] for place in (rng.random(rows) < 0.4).astype(int)]
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE people AS SELECT unnest($sexes) AS sex, unnest(range($rows)) % 997 + 0.0 AS income",
            {"sexes": sexes, "rows": rows},
        )
        connection.table("people").to_parquet(str(path))


def sexes_of(subject: Subject) -> NDArray[Any]:
    """The column ``sex`` of the held-out rows."""
    with duckdb.connect() as connection:
        read = connection.read_parquet(str(subject.parquet)).fetchnumpy()["sex"]
    return np.asarray(read)[subject.holdout_rows]
