"""Drift over HTTP: what a version was asked lately, against what it learned from."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.client import Client
from tests.versions import register, train_here

TASKS = {"late": "logistic_regression", "carrier": "logistic_regression", "distance": "ridge"}
"""Targets of a binary, a multiclass and a regression model, and their algorithms."""


@pytest.fixture(scope="module")
def models(shared: Client, flights: str) -> dict[str, str]:
    """A deployed model of two versions for each target."""
    for target, algorithm in TASKS.items():
        trained = train_here(shared, flights, target=target, algorithm=algorithm)
        register(shared, f"drift-{target}", trained, trained)
        assert shared.post(f"/v1/models/drift-{target}:promote", json={"version": 1}).status_code == 201
    return {target: f"drift-{target}" for target in TASKS}


def training_rows(target: str = "late") -> list[dict[str, Any]]:
    rows = Client.rows(rows=400, seed=1)
    return [
        {name: value for name, value in row.items() if name != target}
        for row in rows
        if row[target] is not None
    ]


def shifted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Longer flights of an unknown carrier."""
    return [
        row
        | ({"distance": row["distance"] + 2500} if "distance" in row else {})
        | ({"carrier": "ZZ"} if "carrier" in row else {})
        for row in rows
    ]


def now() -> str:
    return datetime.now(UTC).isoformat()


def drift(client: Client, model: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/models/{model}/drift", params=query)
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {column["name"]: column["status"] for column in [*report["columns"], report["prediction"]]}


@pytest.mark.parametrize("target", list(TASKS))
def test_the_training_rows_are_no_drift(shared: Client, models: dict[str, str], target: str) -> None:
    since, rows = now(), training_rows(target)
    shared.predict(models[target], rows)
    report = drift(shared, models[target], since=since)
    assert (report["status"], report["model"], report["version"]) == ("ok", models[target], 1)
    assert since <= report["first_at"].replace("Z", "+00:00") <= report["last_at"] <= now()
    assert set(statuses(report).values()) == {"ok"}
    assert [*statuses(report)][-1] == "prediction"
    for column in [*report["columns"], report["prediction"]]:
        assert column["n"] == len(rows)
        assert column["p_adjusted"] > report["alpha"] or column["effect"] < report["minimum_effect"]
        assert 0 < column["detectable_effect"] < 1


@pytest.mark.parametrize("target", list(TASKS))
def test_shifted_columns_drift_and_the_others_do_not(
    shared: Client, models: dict[str, str], target: str
) -> None:
    since, known = now(), {"distance", "carrier"} - {target}
    shared.predict(models[target], shifted(training_rows(target)))
    report = drift(shared, models[target], since=since)
    assert report["status"] == "drift"
    verdicts = statuses(report)
    del verdicts["prediction"]
    assert {name for name, status in verdicts.items() if status == "drift"} == known
    assert {name for name, status in verdicts.items() if status == "ok"} == verdicts.keys() - known
    for column in report["columns"]:
        if column["name"] in known:
            assert column["p_adjusted"] <= report["alpha"]
            assert column["effect"] >= report["minimum_effect"]
            low, high = column["effect_interval"]
            assert low <= column["effect"] <= high
        if column["name"] == "carrier":
            assert column["unknown_share"] == 1.0


def test_shifted_answers_drift_too(shared: Client, models: dict[str, str]) -> None:
    since, windy = now(), [row | {"wind": 40.0} for row in training_rows()]
    shared.predict(models["late"], windy)
    assert statuses(drift(shared, models["late"], since=since))["prediction"] == "drift"


@pytest.mark.parametrize("count", [0, 1, 49])
def test_few_rows_are_insufficient_and_never_ok(shared: Client, models: dict[str, str], count: int) -> None:
    since = now()
    if count:
        shared.predict(models["late"], training_rows()[:count])
    report = drift(shared, models["late"], since=since)
    assert report["status"] == "insufficient_data"
    assert set(statuses(report).values()) == {"insufficient_data"}
    for column in [*report["columns"], report["prediction"]]:
        assert column["n"] == count
        assert f"{count} are live" in column["reason"]
        assert (column["p_value"], column["effect"]) == (None, None)
    assert (report["first_at"] is None) == (count == 0)


def test_each_version_is_asked_of_its_own_rows(shared: Client, models: dict[str, str]) -> None:
    since, rows = now(), training_rows()
    shared.predict(models["late"], shifted(rows)[:100], at="/versions/2")
    shared.predict(models["late"], rows[:120])
    champion = drift(shared, models["late"], since=since)
    assert (champion["version"], champion["prediction"]["n"]) == (1, 120)
    second = drift(shared, models["late"], since=since, version=2)
    assert (second["version"], second["prediction"]["n"], second["status"]) == (2, 100, "drift")


def test_since_until_and_limit_choose_the_rows(shared: Client, models: dict[str, str]) -> None:
    rows = training_rows()
    times = [now()]
    for batch in (shifted(rows)[:150], rows[:200]):
        shared.predict(models["late"], batch)
        times.append(now())
    before, between, after = times
    first = drift(shared, models["late"], since=before, until=between)
    assert (first["prediction"]["n"], first["status"]) == (150, "drift")
    second = drift(shared, models["late"], since=between, until=after)
    assert second["prediction"]["n"] == 200
    assert statuses(second)["distance"] == "ok"
    assert drift(shared, models["late"], since=before)["prediction"]["n"] == 350
    newest = drift(shared, models["late"], since=before, limit=200)
    assert [column["n"] for column in newest["columns"]] == [200] * len(newest["columns"])
    assert newest["columns"] == second["columns"]


def test_a_model_that_is_not_deployed_is_asked_by_version(shared: Client, model: str) -> None:
    answer = shared.get(f"/v1/models/{model}/drift")
    assert (answer.status_code, answer.json()["code"]) == (409, "model_not_deployed")
    assert drift(shared, model, version=2)["status"] == "insufficient_data"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"version": 9}, 404, "model_version_not_found"),
        ({"version": 0}, 422, "invalid_input"),
        ({"limit": 0}, 422, "invalid_input"),
        ({"since": "2026-11-23T08:00:00"}, 422, "invalid_input"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    shared: Client, models: dict[str, str], query: dict[str, Any], status: int, code: str
) -> None:
    answer = shared.get(f"/v1/models/{models['late']}/drift", params=query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    unknown = shared.get("/v1/models/unknown/drift")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")
