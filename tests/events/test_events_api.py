"""The audit log: every change writes one event in its own transaction, and nothing else does."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest

from app.access.policy import POLICY
from tests.client import Client
from tests.versions import register

EVENTS = "/v1/events"
CSV = {"content-type": "text/csv"}
LONG = {"target": "late", "algorithm": "hist_gradient_boosting", "params": {"max_iter": 5000}}

STRICT = {"rules": [{"rule": "range", "column": "a", "max": 5}]}

UNCHANGING = {
    "POST /v1/models/{model}:predict",
    "POST /v1/models/{model}/versions/{version}:predict",
    "POST /v1/models/{model}/aliases/{alias}:predict",
    "POST /v1/predictions/{prediction}:replay",
    "POST /v1/datasets/{dataset}/contract:infer",
    "POST /v1/datasets/{dataset}/versions/{version}:check",
    "POST /v1/datasets/{dataset}/versions/{version}:advise",
    "POST /v1/training-runs:search",
    "POST /v1/model-versions:search",
    "POST /invocations",
    "POST /v1/models/{model}/invocations",
    "POST /v2/models/{model}/infer",
    "POST /v2/models/{model}/versions/{version}/infer",
    "POST /v2/repository/index",
    "POST /v2/repository/models/{model}/unload",  # refused for a model in service
}
"""What is recorded in the journal and not among the events, or changes nothing at all."""


class Ground(NamedTuple):
    """Objects of this test's own: names and ids that the requests below are filled with."""

    admin: Client
    actor: str
    names: dict[str, Any]


@pytest.fixture(scope="module")
def ground(shared: Client, flights: str, constant: dict[str, Any]) -> Ground:
    name = f"audited-{uuid4().hex[:8]}"
    made = shared.post("/v1/keys", json={"name": f"{name}-actor", "role": "admin"})
    admin = shared.as_role("admin")
    admin.headers["authorization"] = f"Bearer {made.json()['key']}"
    register(shared, name, constant, constant)
    shared.add_dataset(name, b"a\n1\n")
    shared.add_dataset(f"{name}-doomed", b"a\n1\n")
    shared.add_dataset(f"{name}-grown", b"a\n1\n2\n3\n")
    shared.add_dataset(f"{name}-strict", b"a\n1\n")
    shared.put(f"/v1/datasets/{name}-strict/contract", json=STRICT)
    shared.add_version(f"{name}-strict", b"a\n9\n")
    shared.post("/v1/keys", json={"name": f"{name}-doomed", "role": "client"})
    for version in (1, 2):
        shared.post(f"/v1/models/{name}:promote", json={"version": version})
    shared.put(f"/v1/models/{name}/aliases/old", json={"version": 1})
    example = shared.get(f"/v1/models/{name}").json()["example"]
    prediction, judged = shared.predict(name, [example, example])["prediction_ids"]
    shared.post("/v1/feedback", json={"items": [{"prediction_id": judged, "actual": True}]})
    return Ground(admin, f"{name}-actor", {"name": name, "prediction": prediction})


def send(ground: Ground, request: dict[str, Any], request_id: str) -> httpx.Response:
    """Send a request, its url and body filled with the names of the ground."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return value.format(**ground.names)
        if isinstance(value, dict):
            return {name: fill(part) for name, part in value.items()}
        return [fill(part) for part in value] if isinstance(value, list) else value

    method, url = fill(request["to"]).split(" ")
    headers = {"x-request-id": request_id} | request.get("headers", {})
    options = {name: fill(request[name]) for name in ("json", "content") if name in request}
    return ground.admin.request(method, url, headers=headers, **options)


@pytest.fixture
def request_id() -> str:
    return uuid4().hex


def events_of(client: Client, request_id: str) -> list[dict[str, Any]]:
    newest = client.get(EVENTS, params={"limit": 500}).json()["items"]
    return [event for event in newest if event["request_id"] == request_id]


CHANGES: dict[str, tuple[dict[str, Any], str, str]] = {
    # Each route that changes something: a request, and the action and subject of its event.
    "POST /v1/keys": (
        {"to": "POST /v1/keys", "json": {"name": "{name}-new", "role": "viewer"}},
        "key.created",
        "keys/{name}-new",
    ),
    "DELETE /v1/keys/{key}": (
        {"to": "DELETE /v1/keys/{name}-doomed"},
        "key.revoked",
        "keys/{name}-doomed",
    ),
    "POST /v1/datasets": (
        {"to": "POST /v1/datasets", "json": {"name": "{name}-new"}},
        "dataset.created",
        "datasets/{name}-new",
    ),
    "POST /v1/datasets/{dataset}/versions": (
        {"to": "POST /v1/datasets/{name}/versions", "content": "a\n2\n", "headers": CSV},
        "dataset_version.created",
        "datasets/{name}/versions/2",
    ),
    "DELETE /v1/datasets/{dataset}/versions/{version}": (
        {"to": "DELETE /v1/datasets/{name}-doomed/versions/1"},
        "dataset_version.deleted",
        "datasets/{name}-doomed/versions/1",
    ),
    "DELETE /v1/datasets/{dataset}": (
        {"to": "DELETE /v1/datasets/{name}-doomed"},
        "dataset.deleted",
        "datasets/{name}-doomed",
    ),
    "POST /v1/datasets/{dataset}/versions/{version}:append": (
        {"to": "POST /v1/datasets/{name}-grown/versions/1:append", "content": "a\n4\n", "headers": CSV},
        "dataset_version.created",
        "datasets/{name}-grown/versions/2",
    ),
    "POST /v1/datasets/{dataset}/versions/{version}:split": (
        {"to": "POST /v1/datasets/{name}-grown/versions/1:split", "json": {"parts": {"a": 0.6, "b": 0.4}}},
        "dataset_version.created",
        "datasets/{name}-grown/versions/3",
    ),
    "POST /v1/datasets/{dataset}/versions/{version}:sample": (
        {"to": "POST /v1/datasets/{name}-grown/versions/2:sample", "json": {"rows": 3}},
        "dataset_version.created",
        "datasets/{name}-grown/versions/5",
    ),
    "POST /v1/datasets/{dataset}/versions:from-feedback": (
        {"to": "POST /v1/datasets/{name}-grown/versions:from-feedback", "json": {"model": "{name}"}},
        "dataset_version.created",
        "datasets/{name}-grown/versions/6",
    ),
    "PUT /v1/datasets/{dataset}/contract": (
        {"to": "PUT /v1/datasets/{name}/contract", "json": STRICT},
        "dataset_contract.changed",
        "datasets/{name}/contract",
    ),
    "POST /v1/datasets/{dataset}/versions/{version}:accept": (
        {"to": "POST /v1/datasets/{name}-strict/versions/2:accept", "json": {"reason": "a good one"}},
        "dataset_version.accepted",
        "datasets/{name}-strict/versions/2",
    ),
    "PATCH /v1/datasets/{dataset}": (
        {"to": "PATCH /v1/datasets/{name}", "json": {"description": "new"}},
        "dataset.described",
        "datasets/{name}",
    ),
    "PATCH /v1/datasets/{dataset}/versions/{version}": (
        {"to": "PATCH /v1/datasets/{name}/versions/1", "json": {"tags": {"a": "b"}}},
        "dataset_version.described",
        "datasets/{name}/versions/1",
    ),
    "POST /v1/training-runs": (
        {"to": "POST /v1/training-runs", "json": {"model": "{name}", "dataset": "flights", **LONG}},
        "training_run.created",
        "training-runs/{run}",
    ),
    "PATCH /v1/training-runs/{run}": (
        {"to": "PATCH /v1/training-runs/{run}", "json": {"tags": {"a": "b"}}},
        "training_run.changed",
        "training-runs/{run}",
    ),
    "POST /v1/training-runs/{run}:cancel": (
        {"to": "POST /v1/training-runs/{run}:cancel"},
        "training_run.cancel_requested",
        "training-runs/{run}",
    ),
    "PUT /v1/models/{model}/aliases/{alias}": (
        {"to": "PUT /v1/models/{name}/aliases/new", "json": {"version": 2}},
        "alias.set",
        "models/{name}/aliases/new",
    ),
    "DELETE /v1/models/{model}/aliases/{alias}": (
        {"to": "DELETE /v1/models/{name}/aliases/old"},
        "alias.deleted",
        "models/{name}/aliases/old",
    ),
    "POST /v1/models/{model}:promote": (
        {"to": "POST /v1/models/{name}:promote", "json": {"version": 1}},
        "model.promoted",
        "models/{name}",
    ),
    "POST /v1/models/{model}/versions/{version}:verify": (
        {"to": "POST /v1/models/{name}/versions/1:verify"},
        "training_run.created",
        "training-runs/{run}",
    ),
    "POST /v1/models/{model}:rollback": (
        {"to": "POST /v1/models/{name}:rollback"},
        "model.rolled_back",
        "models/{name}",
    ),
    "POST /v2/repository/models/{model}/load": (
        {
            "to": "POST /v2/repository/models/{name}/load",
            "json": {"parameters": {"config": '{{"version_policy": {{"specific": {{"versions": [1]}}}}}}'}},
        },
        "model.promoted",
        "models/{name}",
    ),
    "POST /v1/models/{model}/batch-predictions": (
        {"to": "POST /v1/models/{name}/batch-predictions", "json": {"dataset": "flights"}},
        "batch_prediction.created",
        "batch-predictions/{batch}",
    ),
    "POST /v1/batch-predictions/{batch}:cancel": (
        {"to": "POST /v1/batch-predictions/{batch}:cancel"},
        "batch_prediction.cancel_requested",
        "batch-predictions/{batch}",
    ),
    "POST /v1/feedback": (
        {"to": "POST /v1/feedback", "json": {"items": [{"prediction_id": "{prediction}", "actual": True}]}},
        "feedback.recorded",
        "models/{name}",
    ),
}

ALSO = {
    "cancel": {"training_run.cancelled", "batch_prediction.cancelled"},  # at once, if no worker has taken it
    "split": {"dataset_version.created"},
}
"""The events that a verb may write besides."""


def test_every_route_that_changes_something_is_tried() -> None:
    changing = {f"{method} {path}" for method, path in POLICY if method != "GET"}
    assert changing - UNCHANGING == CHANGES.keys()


@pytest.mark.parametrize("route", list(CHANGES))
def test_a_change_writes_one_event(ground: Ground, request_id: str, route: str) -> None:
    request, action, subject = CHANGES[route]
    batches = f"/v1/models/{ground.names['name']}/batch-predictions"
    if "/training-runs/{run}" in route:
        asked = {"model": ground.names["name"], "dataset": "flights", **LONG}
        ground.names["run"] = ground.admin.post("/v1/training-runs", json=asked).json()["id"]
    if route == "POST /v1/batch-predictions/{batch}:cancel":
        ground.names["batch"] = ground.admin.post(batches, json={"dataset": "flights"}).json()["id"]
    answer = send(ground, request, request_id)
    assert answer.status_code in (200, 201, 202, 204), answer.text
    if route.endswith(("/v1/training-runs", "PATCH /v1/training-runs/{run}", ":verify")):
        ground.names["run"] = answer.json()["id"]
        ground.admin.post(f"/v1/training-runs/{ground.names['run']}:cancel")
    if route == "POST /v1/models/{model}/batch-predictions":
        ground.names["batch"] = answer.json()["id"]
        ground.admin.post(f"/v1/batch-predictions/{ground.names['batch']}:cancel")
    *more, event = events_of(ground.admin, request_id)
    assert {one["action"] for one in more} <= ALSO.get(route.rpartition(":")[2], set())
    assert event["model"] == (ground.names["name"] if about_a_model(route) else None)
    assert (event["action"], event["actor"], event["subject"]) == (
        action,
        ground.actor,
        subject.format(**ground.names),
    )


def about_a_model(route: str) -> bool:
    return "datasets" not in route and any(
        part in route for part in ("models", "training-runs", "feedback", "batch")
    )


REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "a key's name is taken": (409, {"to": "POST /v1/keys", "json": {"name": "admin", "role": "client"}}),
    "no such key": (404, {"to": "DELETE /v1/keys/none"}),
    "a dataset's name is taken": (409, {"to": "POST /v1/datasets", "json": {"name": "{name}"}}),
    "a malformed file": (
        422,
        {"to": "POST /v1/datasets/{name}/versions", "content": "a\n1,2\n", "headers": CSV},
    ),
    "an unknown target, of a new model": (
        422,
        {"to": "POST /v1/training-runs", "json": {"model": "{name}-2", "dataset": "flights", "target": "x"}},
    ),
    "a description that is the same": (
        200,
        {"to": "PATCH /v1/datasets/{name}-grown", "json": {"description": "", "tags": {"none": None}}},
    ),
    "no such version": (404, {"to": "DELETE /v1/datasets/{name}/versions/9"}),
    "no such run": (404, {"to": "POST /v1/training-runs/999999:cancel"}),
    "an alias for no version": (404, {"to": "PUT /v1/models/{name}/aliases/new", "json": {"version": 9}}),
    "no such alias": (404, {"to": "DELETE /v1/models/{name}/aliases/none"}),
    "promotion of no version": (404, {"to": "POST /v1/models/{name}:promote", "json": {"version": 9}}),
    "promotion after another": (
        409,
        {"to": "POST /v1/models/{name}:promote", "json": {"version": 1, "expected_deployment": 0}},
    ),
    "rollback to no deployment": (
        404,
        {"to": "POST /v1/models/{name}:rollback", "json": {"to_deployment": 999999}},
    ),
    # Answered, and no change either.
    "bytes that are a version": (
        200,
        {"to": "POST /v1/datasets/{name}/versions", "content": "a\n1\n", "headers": CSV},
    ),
    "an outcome that is rejected": (
        200,
        {"to": "POST /v1/feedback", "json": {"items": [{"prediction_id": "{prediction}", "actual": "x"}]}},
    ),
    "a prediction": (
        422,
        {"to": "POST /v1/models/{name}:predict", "json": {"instances": [{}]}},
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_changes_nothing_writes_no_event(ground: Ground, request_id: str, case: str) -> None:
    status, request = REFUSED[case]
    before = ground.admin.get(EVENTS, params={"actor": ground.actor}).json()
    answer = send(ground, request, request_id)
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"] == request_id
    assert events_of(ground.admin, request_id) == []
    assert ground.admin.get(EVENTS, params={"actor": ground.actor}).json() == before


def test_a_change_that_loses_the_race_takes_its_event_with_it(ground: Ground) -> None:
    url = f"/v1/models/{ground.names['name']}"

    def made() -> tuple[int, int]:
        deployments = ground.admin.get(f"{url}/deployments", params={"limit": 500}).json()["items"]
        query = {"subject": url.removeprefix("/v1/"), "action": "model.promoted", "limit": 500}
        promotions = [one for one in deployments if one["reason"] == "promote"]
        return len(promotions), len(found(ground.admin, **query))

    deployments, events = made()

    def promote(_: int) -> httpx.Response:
        key = {"idempotency-key": "race"}
        return ground.admin.post(f"{url}:promote", json={"version": 1}, headers=key)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(promote, range(6)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert made() == (deployments + 1, events + 1)


# ── Finding them ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def log(shared: Client) -> tuple[str, list[dict[str, Any]]]:
    """A prefix, and the events of five datasets whose names begin with it, newest first."""
    prefix = f"log-{uuid4().hex[:8]}"
    for name in (prefix, f"{prefix}_2", f"{prefix}x2", f"{prefix}-3"):
        shared.add_dataset(name, b"a\n1\n")
    newest = shared.get(EVENTS, params={"limit": 500}).json()["items"]
    return prefix, [event for event in newest if event["subject"].startswith(f"datasets/{prefix}")]


def found(client: Client, **query: Any) -> list[int]:
    answer = client.get(EVENTS, params=query)
    assert answer.status_code == 200, answer.text
    return [event["id"] for event in answer.json()["items"]]


def test_events_come_newest_first(log: tuple[str, list[dict[str, Any]]]) -> None:
    _, events = log
    assert len(events) == 8
    assert [event["id"] for event in events] == sorted((event["id"] for event in events), reverse=True)
    assert [event["at"] for event in events] == sorted((event["at"] for event in events), reverse=True)


@pytest.mark.parametrize(
    ("subject", "number"),
    [
        ("datasets/{}", 2),
        ("datasets/{}/", 1),
        ("datasets/{}/versions", 1),
        ("datasets/{}/versions/1", 1),
        ("datasets/{}_2", 2),
        ("datasets/{}/version", 0),
        ("datasets/{}%", 0),
        ("{}", 0),
    ],
)
def test_a_subject_finds_itself_and_what_lies_below(
    shared: Client, log: tuple[str, list[dict[str, Any]]], subject: str, number: int
) -> None:
    prefix, events = log
    asked = subject.format(prefix)
    below = [event["id"] for event in events if f"{event['subject']}/".startswith(f"{asked.rstrip('/')}/")]
    ids = found(shared, subject=asked)
    assert len(ids) == number
    assert set(ids) <= set(below)


def test_action_and_time_narrow_what_is_found(shared: Client, log: tuple[str, list[dict[str, Any]]]) -> None:
    prefix, events = log
    ids = [event["id"] for event in events]
    first, last = events[-1]["at"], events[0]["at"]

    def ours(**query: Any) -> list[int]:
        return [one for one in found(shared, limit=500, **query) if one in ids]

    assert ours(action="dataset.created") == ids[1::2]
    assert ours(since=first) == ids
    assert ours(since=last) == ids[:1]
    assert ours(since=first, until=last) == ids[1:]
    assert ours(until=first) == []
    assert found(shared, subject=f"datasets/{prefix}", action="dataset_version.created") == [ids[-2]]


def test_the_actor_narrows_what_is_found(shared: Client, ground: Ground) -> None:
    assert found(shared, actor=ground.actor[:-1]) == []
    before = found(shared, actor=ground.actor, limit=499)
    ground.admin.post("/v1/datasets", json={"name": f"{ground.actor}-d"})
    shared.post("/v1/datasets", json={"name": f"{ground.actor}-e"})
    query: dict[str, Any] = {"actor": ground.actor, "limit": 500}
    newest, *others = shared.get(EVENTS, params=query).json()["items"]
    assert newest["subject"] == f"datasets/{ground.actor}-d"
    assert [event["id"] for event in others] == before


def test_a_limited_key_finds_the_events_of_its_models_and_of_none(
    shared: Client, log: tuple[str, list[dict[str, Any]]], constant: dict[str, Any]
) -> None:
    prefix, datasets = log
    for name in ("mine", "yours"):
        register(shared, f"{prefix}_{name}", constant)
        shared.put(f"/v1/models/{prefix}_{name}/aliases/a", json={"version": 1})
    query: dict[str, Any] = {"limit": 500, "since": datasets[-1]["at"]}
    everything = shared.get(EVENTS, params=query).json()["items"]
    about = {"alias.set", "model.created", "model_version.registered"}
    assert {event["action"] for event in everything if event["model"] == f"{prefix}_yours"} == about
    for pattern in (f"{prefix}_m*", f"{prefix[:-1]}?_mine"):
        limited = shared.as_role("viewer", models=pattern)
        allowed = [event["id"] for event in everything if event["model"] in (None, f"{prefix}_mine")]
        found_ids = [event_id for event_id in found(limited, **query) if event_id <= everything[0]["id"]]
        assert found_ids == allowed
        assert found(limited, subject=f"models/{prefix}_yours") == []
        assert len(found(limited, limit=2)) == 2


@pytest.mark.parametrize(
    "query", [{"since": "2026-11-23T08:00:00"}, {"until": "now"}, {"limit": 501}, {"cursor": "x"}]
)
def test_a_question_that_makes_no_sense_is_refused(shared: Client, query: dict[str, Any]) -> None:
    answer = shared.get(EVENTS, params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/query/{next(iter(query))}"]


def test_paging_shows_each_event_once_while_new_ones_arrive(
    shared: Client, log: tuple[str, list[dict[str, Any]]]
) -> None:
    prefix, events = log
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 3, "since": events[-1]["at"]}
    while True:
        page = shared.get(EVENTS, params=query).json()
        assert len(page["items"]) <= 3
        seen += [event["id"] for event in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
        assert shared.post("/v1/datasets", json={"name": f"{prefix}-new-{len(seen)}"}).status_code == 201
    assert seen == sorted(set(seen), reverse=True)
    assert {event["id"] for event in events} <= set(seen)
