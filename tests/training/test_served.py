"""How a fitted pipeline is served, and what is made of answers that are none."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from app.registry.predictor import predict
from app.registry.runtime import Runtime
from app.training.evaluation import evaluate
from app.training.fitting import TrainingFailed, checked_scores, scores_of
from app.training.served import serve
from app.training.spec import TrainingSpec
from app.training.trainer import TrainingResult, train


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "data.parquet"
    with duckdb.connect() as connection:
        rows = connection.table_function("range", [300])
        rows.project("sin(range) AS x, cos(range) AS z, sin(range) > cos(3 * range) AS y").to_parquet(
            str(path)
        )
    return path


def fit(table: Path, algorithm: str, **params: Any) -> TrainingResult:
    spec = TrainingSpec.model_validate({"target": "y", "algorithm": algorithm, "params": params})
    return train(table, spec, lambda *_: None)


@pytest.mark.parametrize(
    ("algorithm", "runtime"), [("hist_gradient_boosting", Runtime.COMPILED), ("k_neighbors", Runtime.NATIVE)]
)
def test_a_model_is_measured_by_its_answers_as_it_is_served(
    table: Path, algorithm: str, runtime: Runtime
) -> None:
    result = fit(table, algorithm)
    assert result.served.runtime is runtime
    assert (result.served.reason is None) == (runtime is Runtime.COMPILED)
    assert result.scores.tobytes() == result.served.score(result.holdout).tobytes()
    native = scores_of(result.signature, *predict(result.pipeline, result.signature, result.holdout))
    np.testing.assert_allclose(result.scores, native, atol=1e-9)
    task, predicted = result.signature.task, result.signature.decide(result.scores)
    assert result.metrics == evaluate(task, result.target, predicted, result.scores)


def test_a_pipeline_that_breaks_the_compiler_is_served_by_scikit_learn_with_the_reason(table: Path) -> None:
    result = fit(table, "logistic_regression")
    result.pipeline[-1].coef_ = None
    served = serve(result.pipeline, result.signature, result.holdout)
    assert served.runtime is Runtime.NATIVE
    assert served.reason is not None
    assert served.reason.startswith("the pipeline could not be compiled: ")


def test_a_pipeline_with_which_its_compiled_form_disagrees_is_served_by_scikit_learn(table: Path) -> None:
    result = fit(table, "logistic_regression")
    model = result.pipeline[-1]
    usual = model.predict_proba
    model.predict_proba = lambda matrix: usual(matrix) ** 2
    served = serve(result.pipeline, result.signature, result.holdout)
    assert served.compiled is None
    assert served.reason is not None
    assert served.reason.startswith("On the holdout, the compiled pipeline")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_answers_that_are_no_numbers_end_the_run(wrong: float) -> None:
    with pytest.raises(TrainingFailed) as failed:
        checked_scores(lambda matrix: np.full((len(matrix), 1), wrong), np.zeros((3, 2)))
    assert failed.value.code == "not_finite"


def test_a_model_that_cannot_answer_ends_the_run_with_the_reason() -> None:
    def refuse(_: np.ndarray) -> np.ndarray:
        raise ValueError("Expected n_neighbors <= n_samples_fit")

    with pytest.raises(TrainingFailed, match="cannot answer: Expected n_neighbors") as failed:
        checked_scores(refuse, np.zeros((3, 2)))
    assert failed.value.code == "fit_failed"
