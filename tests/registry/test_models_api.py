"""Models, their versions and aliases, over HTTP."""

from typing import Any

import httpx
import pytest

from tests.client import Client
from tests.versions import register, train_here


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    return problem


@pytest.fixture(scope="module")
def described(shared: Client, flights: str) -> str:
    """A model with two versions of different algorithms, the first in service."""
    linear = train_here(shared, flights, algorithm="logistic_regression", seed=3)
    forest = train_here(shared, flights, algorithm="random_forest", params={"n_estimators": 5})
    register(shared, "described", linear, forest)
    assert shared.post("/v1/models/described:promote", json={"version": 1}).status_code == 201
    return "described"


def test_a_client_can_start_from_the_models_description(shared: Client, described: str) -> None:
    client = shared.as_role("client")
    info = client.get(f"/v1/models/{described}").json()
    assert (info["name"], info["ready"], info["version"]) == (described, True, 1)
    signature = info["signature"]
    assert (signature["target"], signature["target_type"], signature["task"]) == ("late", "boolean", "binary")
    assert signature["classes"] == [False, True]
    features = {feature["name"]: feature for feature in signature["features"]}
    assert set(info["example"]) == set(features)
    assert {name: feature["type"] for name, feature in features.items()} == {
        "scheduled": "datetime",
        "carrier": "string",
        "distance": "integer",
        "wind": "number",
        "international": "boolean",
    }
    assert {name for name, feature in features.items() if feature["nullable"]} == {"carrier", "wind"}
    assert features["carrier"]["categories"] == ["AA", "B6", "UA"]
    assert 100 <= features["distance"]["minimum"] < features["distance"]["maximum"] < 3000
    rows = Client.rows(rows=400, seed=1)
    assert all(value is not None for value in info["example"].values())
    assert info["example"] in [{name: row[name] for name in features} for row in rows]
    answer = client.predict(described, [info["example"]])
    assert (answer["model"], answer["version"]) == (described, 1)


def test_a_client_sees_no_more_than_the_description(shared: Client, described: str) -> None:
    client = shared.as_role("client")
    for path in ("versions", "versions/1", "versions/1/evaluation", "aliases", "deployments"):
        refused(client.get(f"/v1/models/{described}/{path}"), 403, "role_not_allowed")


def test_a_model_that_is_not_in_service_says_so(shared: Client, model: str) -> None:
    info = shared.get(f"/v1/models/{model}").json()
    assert info == {
        "name": model,
        "created_at": info["created_at"],
        "ready": False,
        "version": None,
        "deployment": None,
        "signature": None,
        "example": None,
    }


def test_versions_are_listed_newest_first(shared: Client, described: str) -> None:
    page = shared.get(f"/v1/models/{described}/versions", params={"limit": 1}).json()
    rest = shared.get(f"/v1/models/{described}/versions", params={"cursor": page["next"]}).json()
    assert rest["next"] is None
    listed = page["items"] + rest["items"]
    assert [(item["version"], item["algorithm"]) for item in listed] == [
        (2, "random_forest"),
        (1, "logistic_regression"),
    ]
    for item in listed:
        one = shared.get(f"/v1/models/{described}/versions/{item['version']}").json()
        assert item == {name: one[name] for name in item}


def test_a_version_stands_for_itself(shared: Client, described: str, flights: str) -> None:
    info = shared.get(f"/v1/models/{described}/versions/2").json()
    assert info["params"]["n_estimators"] == 5
    assert info["spec"]["algorithm"] == "random_forest"
    assert (info["data"]["dataset"], info["data"]["version"], info["data"]["rows"]) == (flights, 1, 400)
    assert info["signature"]["ignored"] == ["flight_id"]
    assert info["artifact_digest"].startswith("sha256:")
    assert info["artifact_size"] > 0
    assert "scikit-learn" in info["environment"]
    assert info["reference"]
    assert shared.predict(described, [info["example"]], at="/versions/2")["version"] == 2


def test_an_evaluation_shows_the_version_beside_its_baseline(shared: Client, described: str) -> None:
    info = shared.get(f"/v1/models/{described}/versions/1").json()
    evaluation = shared.get(f"/v1/models/{described}/versions/1/evaluation").json()
    assert evaluation["metrics"] == info["metrics"]
    assert evaluation["metrics"]["roc_auc"] > evaluation["baseline_metrics"]["roc_auc"] == 0.5
    assert set(evaluation["baseline_metrics"]) == set(evaluation["metrics"])
    assert sum(map(sum, evaluation["confusion_matrix"])) == evaluation["rows"]["holdout"]
    assert evaluation["rows"]["training"] + evaluation["rows"]["holdout"] == 400
    assert "flight_id" in evaluation["dropped"]


# ── Aliases ──────────────────────────────────────────────────────────────────────────────────────


def test_predictions_follow_an_alias_from_set_to_deleted(shared: Client, described: str) -> None:
    engineer = shared.as_role("engineer")
    path = f"/v1/models/{described}/aliases/stable"
    example = shared.get(f"/v1/models/{described}").json()["example"]
    for version, status, location in ((2, 201, path), (1, 200, None)):
        answer = engineer.put(path, json={"version": version})
        assert (answer.status_code, answer.headers.get("location")) == (status, location), answer.text
        info = answer.json()
        assert (info["alias"], info["model"], info["version"]) == ("stable", described, version)
        assert shared.get(f"/v1/models/{described}/aliases").json() == {"items": [info], "next": None}
        predicted = shared.predict(described, [example], at="/aliases/stable")
        assert (predicted["version"], predicted["variant"]) == (version, None)
    assert engineer.delete(path).status_code == 204
    assert shared.get(f"/v1/models/{described}/aliases").json()["items"] == []
    refused(shared.post(f"{path}:predict", json={"instances": [example]}), 404, "alias_not_found")
    refused(engineer.delete(path), 404, "alias_not_found")
    found = shared.get("/v1/events", params={"subject": f"models/{described}/aliases/stable"}).json()["items"]
    assert [(event["action"], event["detail"].get("version")) for event in found] == [
        ("alias.deleted", None),
        ("alias.set", 1),
        ("alias.set", 2),
    ]
    assert {event["actor"] for event in found} == {info["updated_by"]}


@pytest.mark.parametrize(
    ("alias", "body", "status", "code", "pointer"),
    [
        ("ghost", {"version": 3}, 404, "model_version_not_found", None),
        ("ghost", {"version": 0}, 422, "invalid_input", "/version"),
        ("ghost", {"version": 10**30}, 422, "invalid_input", "/version"),
        ("ghost", {}, 422, "invalid_input", "/version"),
        ("ghost", {"version": 1, "more": 1}, 422, "invalid_input", "/more"),
        ("gh.st", {"version": 1}, 422, "invalid_input", "/path/alias"),
        ("gh%20st", {"version": 1}, 422, "invalid_input", "/path/alias"),
        ("g" * 65, {"version": 1}, 422, "invalid_input", "/path/alias"),
        ("gh%2Fst", {"version": 1}, 404, "not_found", None),
    ],
)
def test_an_alias_that_makes_no_sense_is_not_set(
    shared: Client, described: str, alias: str, body: Any, status: int, code: str, pointer: str | None
) -> None:
    problem = refused(shared.put(f"/v1/models/{described}/aliases/{alias}", json=body), status, code)
    assert [error["pointer"] for error in problem.get("errors", [])] == ([] if pointer is None else [pointer])
    assert shared.get(f"/v1/models/{described}/aliases").json()["items"] == []


# ── What is not there, and what a key may not see ────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("described/versions/3", 404, "model_version_not_found"),
        ("described/versions/3/evaluation", 404, "model_version_not_found"),
        ("described/versions/0", 422, "invalid_input"),
        ("described/versions/99999999999999999999", 422, "invalid_input"),
        ("described/versions/one", 422, "invalid_input"),
        ("described/versions/1.0.0", 422, "invalid_input"),
        ("nobody", 404, "model_not_found"),
        ("nobody/versions", 404, "model_not_found"),
        ("nobody/versions/1", 404, "model_not_found"),
        ("nobody/aliases", 404, "model_not_found"),
        ("nobody/deployments", 404, "model_not_found"),
        ("..%2F..%2Fv1", 404, "not_found"),
        ("a.b", 404, "model_not_found"),
    ],
)
def test_what_is_not_there_is_named(
    shared: Client, described: str, path: str, status: int, code: str
) -> None:
    refused(shared.get(f"/v1/models/{path}"), status, code)


def test_a_name_that_no_database_holds_is_never_a_fault_of_the_server(shared: Client) -> None:
    answer = shared.get("/v1/models/a%00b")
    assert answer.status_code in (404, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_misspelt_model_is_told_its_likely_name(shared: Client, described: str) -> None:
    assert (
        "Did you mean 'described'?"
        in refused(shared.get("/v1/models/descibed"), 404, "model_not_found")["detail"]
    )


def test_a_hint_names_no_model_outside_of_the_keys_pattern(shared: Client, described: str) -> None:
    limited = shared.as_role("viewer", models="descibe?")
    problem = refused(limited.get("/v1/models/descibed"), 404, "model_not_found")
    assert described not in problem["detail"]


def test_a_limited_key_gets_full_pages(shared: Client, described: str, model: str) -> None:
    limited = shared.as_role("viewer", models="desc?ibed")
    page = limited.get("/v1/models", params={"limit": 1}).json()
    assert [item["name"] for item in page["items"]] == [described]
    assert page["next"] is None


def test_a_key_limited_to_models_reaches_no_other(shared: Client, described: str, model: str) -> None:
    limited = shared.as_role("engineer", models="desc*")
    names = [item["name"] for item in limited.get("/v1/models", params={"limit": 500}).json()["items"]]
    assert names == [described]
    assert limited.get(f"/v1/models/{described}/versions/1").status_code == 200
    example = limited.get(f"/v1/models/{described}").json()["example"]
    assert limited.predict(described, [example])["version"] == 1
    for answer in (
        limited.get(f"/v1/models/{model}"),
        limited.get(f"/v1/models/{model}/versions"),
        limited.post(f"/v1/models/{model}/versions/1:predict", json={"instances": [example]}),
        limited.post(f"/v1/models/{model}:promote", json={"version": 1}),
        limited.put(f"/v1/models/{model}/aliases/a", json={"version": 1}),
        limited.get("/v1/models/nobody"),
    ):
        problem = refused(answer, 403, "model_not_allowed")
        assert "'desc*'" in problem["detail"]
    assert shared.get(f"/v1/models/{model}/deployments").json()["items"] == []
