import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.metrics import get_scorer, get_scorer_names

from app.registry.signature import Task
from app.training.evaluation import evaluate
from app.training.metrics import METRICS, SCORERS, greater_is_better, metrics_for
from app.training.scoring import score

OTHER_TASKS = {
    "adjusted_mutual_info_score",
    "adjusted_rand_score",
    "completeness_score",
    "f1_samples",
    "fowlkes_mallows_score",
    "homogeneity_score",
    "jaccard_samples",
    "mutual_info_score",
    "normalized_mutual_info_score",
    "precision_samples",
    "rand_score",
    "recall_samples",
    "v_measure_score",
}
"""Scorers of clusterings, and of rows with several labels."""


def test_every_scorer_of_scikit_learn_is_a_metric_of_a_task() -> None:
    assert set(get_scorer_names()) - OTHER_TASKS == set(SCORERS) | (set(METRICS) & set(get_scorer_names()))
    assert not set(SCORERS) & set(get_scorer_names()) - set(SCORERS)


class Known(DummyClassifier):  # type: ignore[misc] # scikit-learn has no types
    """A classifier that answers what it was given."""

    def __init__(self, predicted: NDArray[np.intp], probabilities: NDArray[np.float64]) -> None:
        self.predicted, self.probabilities = predicted, probabilities
        self.classes_ = np.arange(probabilities.shape[1])

    def predict(self, X: object) -> NDArray[np.intp]:  # noqa: N803 - scikit-learn's name
        return self.predicted

    def predict_proba(self, X: object) -> NDArray[np.float64]:  # noqa: N803 - scikit-learn's name
        return self.probabilities


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 4]))
def test_a_class_metric_is_what_scikit_learn_says_of_the_same_answers(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    actual = np.concatenate([np.arange(classes), rng.integers(0, classes, 30)])
    probabilities = rng.dirichlet(np.ones(classes), len(actual))
    predicted = probabilities.argmax(axis=1)
    task = Task.BINARY if classes == 2 else Task.MULTICLASS
    scores = score(task, metrics_for(task), actual, predicted, probabilities)
    model = Known(predicted, probabilities)
    for name in metrics_for(task):
        if name in SCORERS or name in get_scorer_names():
            with np.errstate(all="ignore"):
                assert scores.get(name, np.nan) == pytest.approx(
                    float(get_scorer(name)(model, actual[:, None], actual)), nan_ok=True
                ), name


def test_a_number_metric_is_what_scikit_learn_says() -> None:
    rng = np.random.default_rng(0)
    actual, predicted = rng.uniform(1, 5, 50), rng.uniform(1, 5, 50)
    scores = score(Task.REGRESSION, metrics_for(Task.REGRESSION), actual, predicted)
    assert set(scores) == set(metrics_for(Task.REGRESSION))
    errors = predicted - actual
    assert scores["neg_max_error"] == pytest.approx(-abs(errors).max())
    assert scores["neg_mean_squared_error"] == pytest.approx(-(scores["rmse"] ** 2))
    assert scores["explained_variance"] == pytest.approx(1 - errors.var() / actual.var())


def test_a_metric_that_the_sample_does_not_define_is_left_out() -> None:
    actual, predicted = np.array([1.0, -2.0]), np.array([1.0, 1.0])
    asked = ["rmse", "neg_mean_squared_log_error", "neg_mean_gamma_deviance"]
    assert set(score(Task.REGRESSION, asked, actual, predicted)) == {"rmse"}
    one_class = score(
        Task.MULTICLASS,
        ["roc_auc_ovo", "accuracy"],
        np.array([1, 1]),
        np.array([1, 0]),
        np.full((2, 3), 1 / 3),
    )
    assert one_class == {"accuracy": 0.5}


def test_our_metrics_keep_their_own_definition_and_direction() -> None:
    actual, probabilities = np.array([0, 1, 1]), np.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    predicted = probabilities.argmax(axis=1)
    ours = evaluate(Task.BINARY, actual, predicted, probabilities)
    assert score(Task.BINARY, list(ours), actual, predicted, probabilities) == ours
    assert greater_is_better("neg_log_loss")
    assert not greater_is_better("log_loss")
