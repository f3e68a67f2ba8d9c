"""The contract of the data watches what a model is asked."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.client import Client
from tests.datasets.test_datasets_api import code_of
from tests.versions import register, train_here

pytestmark = pytest.mark.sqlite_alone

RULES: list[dict[str, Any]] = [
    {"rule": "range", "column": "distance", "min": 0, "max": 3000},
    {"rule": "allowed", "column": "carrier", "values": ["AA", "B6", "UA"], "severity": "warn"},
    {"rule": "nulls", "column": "wind", "max_share": 0.5},
    {
        "rule": "compare",
        "that": {
            "any": [
                {"column": "international", "op": "=", "value": True},
                {"column": "scheduled", "op": "<", "value": "2014-01-01"},
            ]
        },
    },
    {"rule": "nulls", "column": "late"},
    {"rule": "unique", "columns": ["flight_id"]},
    {"rule": "row_count", "min": 1_000_000},
    {"rule": "freshness", "column": "scheduled", "max_age": "1h"},
]


@pytest.fixture(scope="module")
def watched(shared: Client) -> str:
    """A model in service, of a dataset of its own with a contract."""
    name = f"watched-{uuid4().hex[:8]}"
    shared.add_dataset(name, shared.table(rows=400, seed=1))
    trained = train_here(shared, name, algorithm="logistic_regression")
    register(shared, name, trained, trained)
    assert shared.post(f"/v1/models/{name}:promote", json={"version": 1}).status_code == 201
    assert shared.put(f"/v1/datasets/{name}/contract", json={"rules": RULES}).status_code == 200
    return name


def good_rows(count: int) -> list[dict[str, Any]]:
    rows = [
        {key: value for key, value in row.items() if key != "late"} for row in Client.rows(rows=400, seed=1)
    ]
    return [row for row in rows if row["wind"] is not None][:count]


def report(client: Client, model: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/models/{model}/input-report", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def now() -> str:
    return datetime.now(UTC).isoformat()


def test_inputs_like_the_data_break_nothing(shared: Client, watched: str) -> None:
    since = now()
    shared.predict(watched, good_rows(50))
    found = report(shared, watched, since=since)
    assert (found["model"], found["version"], found["dataset"], found["contract"]) == (
        watched,
        1,
        watched,
        1,
    )
    assert (found["predictions"], found["checked"], found["violations"]) == (50, 4, [])
    assert [one["pointer"] for one in found["unchecked"]] == ["/rules/4"]
    assert since <= found["first_at"].replace("Z", "+00:00") <= found["last_at"] <= now()


def test_each_broken_rule_is_told_with_count_share_and_predictions(shared: Client, watched: str) -> None:
    rows, since = good_rows(40), now()
    rows[3]["distance"] = 3001
    rows[5]["carrier"] = "ZZ"
    rows[6]["carrier"] = None
    rows[7] |= {"scheduled": "2014-01-01T01:00:00+01:00", "international": False}
    rows[8] |= {"scheduled": "20131231T235959Z", "international": False}
    rows[9] |= {"scheduled": "2014-01-02", "international": True}
    ids = shared.predict(watched, rows)["prediction_ids"]
    violations = {one["rule"]: one for one in report(shared, watched, since=since)["violations"]}
    assert {rule: (one["count"], one["share"]) for rule, one in violations.items()} == {
        "range": (1, 0.025),
        "allowed": (1, 0.025),
        "compare": (1, 0.025),
    }
    assert violations["range"]["samples"] == [{"prediction_id": ids[3], "values": {"distance": 3001}}]
    assert violations["allowed"]["severity"] == "warn"
    assert violations["compare"]["samples"] == [
        {"prediction_id": ids[7], "values": {"international": False, "scheduled": "2014-01-01T00:00:00Z"}}
    ]


def test_too_many_nulls_are_told(shared: Client, watched: str) -> None:
    since, rows = now(), good_rows(10)
    shared.predict(watched, [row | {"wind": None} for row in rows[:5]] + rows[5:])
    assert report(shared, watched, since=since)["violations"] == []
    shared.predict(watched, [{key: value for key, value in rows[0].items() if key != "wind"}])
    (violation,) = report(shared, watched, since=since)["violations"]
    assert (violation["rule"], violation["columns"], violation["count"]) == ("nulls", ["wind"], 6)


def test_version_time_and_limit_choose_the_predictions(shared: Client, watched: str) -> None:
    since = now()
    shared.predict(watched, good_rows(5), at="/versions/2")
    between = now()
    shared.predict(watched, good_rows(7))
    asked: list[tuple[dict[str, Any], int]] = [
        ({"version": 2, "since": since}, 5),
        ({"since": since}, 7),
        ({"since": since, "until": between}, 0),
        ({"since": between, "limit": 3}, 3),
    ]
    assert [report(shared, watched, **query)["predictions"] for query, _ in asked] == [n for _, n in asked]


def test_without_predictions_there_is_nothing_to_tell(shared: Client, watched: str) -> None:
    found = report(shared, watched, since=now())
    assert (found["predictions"], found["violations"], found["first_at"]) == (0, [], None)


def test_without_a_contract_or_a_champion_it_says_so(shared: Client, model: str, flights: str) -> None:
    url = f"/v1/models/{model}/input-report"
    assert code_of(shared.get(url), 409) == "model_not_deployed"
    answer = shared.get(url, params={"version": 1})
    assert code_of(answer, 404) == "contract_not_found"
    assert flights in answer.json()["detail"]
    assert code_of(shared.get("/v1/models/no-such-model/input-report"), 404) == "model_not_found"


def test_viewers_of_the_model_read_it_and_clients_do_not(shared: Client, watched: str) -> None:
    def ask(role: str, models: str | None = None) -> httpx.Response:
        return shared.as_role(role, models=models).get(f"/v1/models/{watched}/input-report")

    assert ask("viewer").status_code == 200
    assert ask("viewer", "watched-*").status_code == 200
    assert code_of(ask("viewer", "other-*"), 403) == "model_not_allowed"
    assert code_of(ask("client"), 403) == "role_not_allowed"
