"""A row is answered alone as in a batch, bit for bit, by every algorithm of the catalogue."""

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import PoissonRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.columns import ColumnType
from app.registry.predictor import predict
from app.registry.signature import Feature, Role, Signature, Task
from app.training.algorithms.catalogue import ALGORITHMS
from app.training.algorithms.estimators import build_estimator

COLUMNS = 12
FEW_TREES = {"n_estimators": 8}
SMALL: dict[str, dict[str, Any]] = {
    "random_forest": FEW_TREES,
    "extra_trees": FEW_TREES,
    "gradient_boosting": FEW_TREES,
    "hist_gradient_boosting": {"max_iter": 8},
    "mlp": {"max_iter": 20},
}
CLASSES: dict[Task, tuple[str, ...] | None] = {
    Task.BINARY: ("no", "yes"),
    Task.MULTICLASS: tuple("abcdefghij"),
    Task.REGRESSION: None,
}


def table(task: Task) -> tuple[Signature, NDArray[np.float64], NDArray[Any]]:
    """300 rows of numbers, the last column of zeros and ones, and a target that three of them explain."""
    source = np.random.default_rng(3)
    matrix = source.normal(size=(300, COLUMNS)) * 10.0 ** source.integers(-2, 3, COLUMNS)
    matrix[:, -1] = matrix[:, -1] > 0
    target = np.sin(matrix[:, 0] / matrix[:, 0].std()) + matrix[:, -1] + source.normal(0, 0.3, 300)
    classes = CLASSES[task]
    signature = Signature(
        features=tuple(
            Feature(name=f"column {place}", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=False)
            for place in range(COLUMNS)
        ),
        target="y",
        target_type=ColumnType.STRING if classes else ColumnType.NUMBER,
        task=task,
        classes=classes,
    )
    return signature, matrix, target.argsort().argsort() * len(classes) // 300 if classes else target * 1000


def fitted(model: Any, matrix: NDArray[np.float64], target: NDArray[Any]) -> Pipeline:
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return Pipeline([("scale", StandardScaler()), ("model", model)]).fit(matrix, target)


def assert_each_row_is_answered_alone_as_in_a_batch(
    pipeline: Pipeline, signature: Signature, matrix: NDArray[np.float64]
) -> None:
    extremes = np.where(np.eye(COLUMNS) > 0, 1e9, matrix[:COLUMNS])
    rows = np.vstack((matrix[:30], extremes, np.full(COLUMNS, -1e9)))

    def answers(some: NDArray[np.float64]) -> NDArray[np.float64]:
        values, probabilities = predict(pipeline, signature, some)
        return values[:, None] if probabilities is None else probabilities

    together = answers(rows)
    for size in (1, 7):
        parts = [answers(rows[start : start + size]) for start in range(0, len(rows), size)]
        assert np.concatenate(parts).tobytes() == together.tobytes()
    with np.errstate(over="ignore"):  # exp of 1e9 standard deviations
        own = pipeline.predict_proba(rows) if signature.classes else pipeline.predict(rows)[:, None]
    np.testing.assert_allclose(together, own, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("algorithm", "task", "calibration"),
    [
        pytest.param(entry.id, task, calibration, id=f"{entry.id}-{task}-{calibration or 'plain'}")
        for entry in ALGORITHMS.values()
        for task in entry.tasks
        for calibration in {Task.BINARY: (None, "isotonic"), Task.MULTICLASS: (None, "sigmoid")}.get(
            task, (None,)
        )
    ],
)
def test_a_row_alone_gets_the_bits_that_it_gets_in_a_batch(
    algorithm: str, task: Task, calibration: str | None
) -> None:
    signature, matrix, target = table(task)
    model = build_estimator(algorithm, task, SMALL.get(algorithm, {}), 0)
    if calibration:
        model = CalibratedClassifierCV(model, method=calibration, cv=2, ensemble=False)
    pipeline = fitted(model, matrix, target)
    assert_each_row_is_answered_alone_as_in_a_batch(pipeline, signature, matrix)


# In the suite itself they are not installed: ``test_plugins`` runs this with them.
@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("algorithm", sorted({"lightgbm", "xgboost"} & set(ALGORITHMS)))
def test_an_extra_is_asked_for_all_rows_of_a_batch_at_once(
    monkeypatch: pytest.MonkeyPatch, algorithm: str, task: Task
) -> None:
    signature, matrix, target = table(task)
    pipeline = fitted(build_estimator(algorithm, task, FEW_TREES, 0), matrix, target)
    asked: list[int] = []
    kind = type(pipeline[-1])
    method = "predict_proba" if signature.classes else "predict"
    own = getattr(kind, method)

    def answer(model: Any, rows: NDArray[np.float64]) -> Any:
        asked.append(len(rows))
        return own(model, rows)

    monkeypatch.setattr(kind, method, answer)
    predict(pipeline, signature, matrix)
    assert asked == [len(matrix)]


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (PoissonRegressor(), Task.REGRESSION),
        (GaussianProcessRegressor(alpha=1.0), Task.REGRESSION),
        (LinearDiscriminantAnalysis(), Task.MULTICLASS),
        (CalibratedClassifierCV(LinearDiscriminantAnalysis(), cv=2, ensemble=False), Task.BINARY),
    ],
)
def test_so_it_does_from_a_model_that_the_catalogue_does_not_have(model: Any, task: Task) -> None:
    signature, matrix, target = table(task)
    pipeline = fitted(model, matrix, np.abs(target))
    assert_each_row_is_answered_alone_as_in_a_batch(pipeline, signature, matrix)
