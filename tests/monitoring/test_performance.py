"""Realised performance: the metrics of scikit-learn over the predictions whose outcome is known."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn import metrics

from app.columns import ColumnType
from app.monitoring.performance import JudgedPrediction, evaluate_windows
from app.registry.signature import Signature, Task
from tests.client import Client
from tests.versions import register, train_here

NOON = datetime(2001, 5, 1, 12, tzinfo=UTC)


class Told(NamedTuple):
    """A prediction as it was answered, and what came true of it."""

    prediction_id: str
    version: int
    prediction: Any
    probabilities: list[float] | None
    actual: Any
    observed_at: datetime


class Model(NamedTuple):
    """Two versions on the shared server, each asked the same rows, of which every outcome has been told."""

    name: str
    classes: list[Any] | None
    told: list[Told]

    def windows(self, client: Client, **query: Any) -> list[dict[str, Any]]:
        answer = client.get(f"/v1/models/{self.name}/performance", params=query)
        assert answer.status_code == 200, answer.text
        windows: list[dict[str, Any]] = answer.json()["windows"]
        return windows


def binary(model: Model, told: list[Told]) -> dict[str, float]:
    actual, predicted = [one.actual for one in told], [one.prediction for one in told]
    positive = np.array([one.probabilities for one in told])[:, 1]
    return {
        "accuracy": metrics.accuracy_score(actual, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(actual, predicted),
        "precision": metrics.precision_score(actual, predicted, zero_division=0),
        "recall": metrics.recall_score(actual, predicted),
        "f1": metrics.f1_score(actual, predicted),
        "roc_auc": metrics.roc_auc_score(actual, positive),
        "average_precision": metrics.average_precision_score(actual, positive),
        "log_loss": metrics.log_loss(actual, positive),
        "brier_score": metrics.brier_score_loss(actual, positive),
    }


def multiclass(model: Model, told: list[Told]) -> dict[str, float]:
    actual, predicted = [one.actual for one in told], [one.prediction for one in told]
    probabilities = np.array([one.probabilities for one in told])
    areas = [
        metrics.roc_auc_score([label == one for one in actual], probabilities[:, index])
        for index, label in enumerate(model.classes or [])
    ]
    return {
        "accuracy": metrics.accuracy_score(actual, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(actual, predicted),
        "f1_macro": metrics.f1_score(actual, predicted, average="macro", zero_division=0),
        "log_loss": metrics.log_loss(actual, probabilities, labels=model.classes),
        "roc_auc_ovr": np.mean(areas),
    }


def regression(model: Model, told: list[Told]) -> dict[str, float]:
    actual, predicted = [one.actual for one in told], [one.prediction for one in told]
    return {
        "rmse": metrics.root_mean_squared_error(actual, predicted),
        "mae": metrics.mean_absolute_error(actual, predicted),
        "median_absolute_error": metrics.median_absolute_error(actual, predicted),
        "mape": metrics.mean_absolute_percentage_error(actual, predicted),
        "r2": metrics.r2_score(actual, predicted),
    }


MEASURES = {"late": binary, "carrier": multiclass, "distance": regression}


def tell(client: Client, told: list[tuple[str, Any, datetime]]) -> dict[str, Any]:
    items = [
        {"prediction_id": one, "actual": actual, "observed_at": at.isoformat()} for one, actual, at in told
    ]
    receipt: dict[str, Any] = client.post("/v1/feedback", json={"items": items}).json()
    return receipt


@pytest.fixture(scope="module")
def models(shared: Client, flights: str) -> dict[str, Model]:
    """One model for each task, by its target."""
    found = {}
    for target in MEASURES:
        name, rows = f"judged-{target}", Client.rows(rows=90, seed=8)
        trained = [
            train_here(shared, flights, target=target, **spec)
            for spec in (
                {"algorithm": "ridge" if target == "distance" else "logistic_regression"},
                {"algorithm": "k_neighbors", "features": ["scheduled", "wind"]},
            )
        ]
        register(shared, name, *trained)
        told = []
        for version in (1, 2):
            known = {feature["name"] for feature in trained[version - 1]["signature"]["features"]}
            instances = [{column: row[column] for column in known} for row in rows]
            answer = shared.predict(name, instances, at=f"/versions/{version}")
            probabilities = answer.get("probabilities") or [None] * len(rows)
            for index, row in enumerate(rows):
                if row[target] is not None:
                    told.append(
                        Told(
                            answer["prediction_ids"][index],
                            version,
                            answer["predictions"][index],
                            probabilities[index],
                            row[target],
                            NOON + timedelta(hours=index % 3 * 8),
                        )
                    )
        wrong = {one.actual: other.actual for one in told for other in told if one.actual != other.actual}
        first = tell(shared, [(one.prediction_id, wrong[one.actual], NOON) for one in told[::4]])
        assert (first["accepted"], first["rejected"]) == (len(told[::4]), [])
        tell(shared, [(one.prediction_id, one.actual, one.observed_at) for one in told])
        found[target] = Model(name, answer.get("classes"), told)
    return found


@pytest.mark.parametrize("target", list(MEASURES))
def test_the_metrics_are_those_of_the_last_outcomes(
    shared: Client, models: dict[str, Model], target: str
) -> None:
    model = models[target]
    windows = model.windows(shared, window="9999d")
    assert [(window["version"], window["rows"]) for window in windows] == [
        (version, sum(one.version == version for one in model.told)) for version in (1, 2)
    ]
    for window in windows:
        told = [one for one in model.told if one.version == window["version"]]
        assert window["metrics"] == pytest.approx(MEASURES[target](model, told))


@pytest.mark.parametrize("target", list(MEASURES))
@pytest.mark.parametrize(
    ("window", "starts"),
    [("1d", ["2001-05-01T00:00:00Z", "2001-05-02T00:00:00Z"]),
     ("4h", ["2001-05-01T12:00:00Z", "2001-05-01T20:00:00Z", "2001-05-02T04:00:00Z"])],
)  # fmt: skip
def test_windows_by_the_time_of_the_outcome(
    shared: Client, models: dict[str, Model], target: str, window: str, starts: list[str]
) -> None:
    model = models[target]
    windows = model.windows(shared, by="observed_at", window=window)
    assert [(found["start"], found["version"]) for found in windows] == [
        (start, version) for start in starts for version in (1, 2)
    ]
    for found in windows:
        start, end = datetime.fromisoformat(found["start"]), datetime.fromisoformat(found["end"])
        told = [
            one for one in model.told if one.version == found["version"] and start <= one.observed_at < end
        ]
        assert found["rows"] == len(told)
        assert found["metrics"] == pytest.approx(MEASURES[target](model, told))


def test_windows_by_the_time_of_the_prediction(shared: Client, models: dict[str, Model]) -> None:
    model = models["late"]
    for version in (1, 2):
        told = [one for one in model.told if one.version == version]
        at = shared.get(f"/v1/predictions/{told[0].prediction_id}").json()["at"]
        (window,) = model.windows(shared, version=version, window="1h")
        assert window["start"] == f"{at[:13]}:00:00Z"
        assert window["rows"] == len(told)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ({}, 180),
        ({"version": 1}, 90),
        ({"since": NOON}, 180),
        ({"since": NOON + timedelta(hours=8)}, 120),
        ({"until": NOON + timedelta(hours=8)}, 60),
        ({"since": NOON + timedelta(hours=8), "until": NOON + timedelta(hours=16), "version": 2}, 30),
        ({"until": NOON}, 0),
    ],
)
def test_version_and_time_narrow_what_is_measured(
    shared: Client, models: dict[str, Model], query: dict[str, Any], rows: int
) -> None:
    asked = {name: value if isinstance(value, int) else value.isoformat() for name, value in query.items()}
    windows = models["late"].windows(shared, by="observed_at", **asked)
    assert sum(window["rows"] for window in windows) == rows


def test_the_time_of_the_prediction_narrows_what_is_measured(
    shared: Client, models: dict[str, Model]
) -> None:
    model = models["late"]
    first, second = (
        datetime.fromisoformat(shared.get(f"/v1/predictions/{told.prediction_id}").json()["at"])
        for told in (model.told[0], model.told[-1])
    )
    between = (first + (second - first) / 2).isoformat()
    for query, versions in (({"until": between}, [1]), ({"since": between}, [2]), ({}, [1, 2])):
        windows = model.windows(shared, by="predicted_at", window="9999d", **query)
        assert [(window["version"], window["rows"]) for window in windows] == [
            (version, 90) for version in versions
        ]
        for window in windows:  # of the corrected outcomes
            told = [one for one in model.told if one.version == window["version"]]
            assert window["metrics"] == pytest.approx(binary(model, told))


def test_the_holdout_metrics_stand_beside_the_realised_ones(shared: Client, models: dict[str, Model]) -> None:
    name = models["distance"].name
    answer = shared.get(f"/v1/models/{name}/performance").json()
    assert (answer["model"], answer["by"]) == (name, "predicted_at")
    assert answer["holdout"] == {
        str(version): shared.get(f"/v1/models/{name}/versions/{version}").json()["metrics"]
        for version in (1, 2)
    }


def test_a_model_without_outcomes_has_no_windows(shared: Client, model: str) -> None:
    answer = shared.get(f"/v1/models/{model}/performance")
    assert (answer.status_code, answer.json()["windows"]) == (200, [])


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"window": "0d"}, 422, "invalid_input"),
        ({"window": "1w"}, 422, "invalid_input"),
        ({"by": "received_at"}, 422, "invalid_input"),
        ({"since": "2001-05-01T12:00:00"}, 422, "invalid_input"),
        ({"version": 9}, 404, "model_version_not_found"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    shared: Client, models: dict[str, Model], query: dict[str, Any], status: int, code: str
) -> None:
    answer = shared.get(f"/v1/models/{models['late'].name}/performance", params=query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_unknown_model_is_not_found(shared: Client) -> None:
    answer = shared.get("/v1/models/unknown/performance")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


# ── The pure function ────────────────────────────────────────────────────────────────────────────


def number_signature() -> Signature:
    return Signature(
        features=(),
        ignored=(),
        target="y",
        target_type=ColumnType.NUMBER,
        task=Task.REGRESSION,
        classes=None,
    )


@pytest.mark.parametrize("length", [timedelta(minutes=1), timedelta(hours=7), timedelta(days=1)])
def test_a_window_holds_its_start_and_not_its_end(length: timedelta) -> None:
    start = datetime.fromtimestamp(100_000 * length.total_seconds(), UTC)
    moments = [start - timedelta(microseconds=1), start, start + length - timedelta(microseconds=1)]
    judged = [JudgedPrediction(at, 1, 1.0, None, 2.0) for at in [*moments, start + length]]
    windows = evaluate_windows(judged, {1: number_signature()}, length)
    assert [(window.start, window.end, window.rows) for window in windows] == [
        (start - length, start, 1),
        (start, start + length, 2),
        (start + length, start + 2 * length, 1),
    ]


def test_a_metric_that_a_window_does_not_define_is_left_out() -> None:
    (window,) = evaluate_windows(
        [JudgedPrediction(NOON, 1, 1.0, None, 0.0)], {1: number_signature()}, timedelta(days=1)
    )
    assert window.metrics == {"rmse": 1.0, "mae": 1.0, "median_absolute_error": 1.0}
