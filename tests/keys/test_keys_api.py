"""API keys over HTTP: shown once, stored as a digest, refused within a second once revoked."""

import hashlib
import re
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import MetaData, select

from app.db import Database
from tests.client import Client
from tests.conftest import Start

KEYS = "/v1/keys"


@pytest.fixture
def name() -> str:
    return f"key-{uuid4().hex[:8]}"


def create(client: Client, name: str, role: str = "viewer", **more: Any) -> dict[str, Any]:
    made = client.post(KEYS, json={"name": name, "role": role, **more})
    assert made.status_code == 201, made.text
    key: dict[str, Any] = made.json()
    return key


def using(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def listed(client: Client, name: str) -> dict[str, Any]:
    keys = client.get(KEYS, params={"limit": 500}).json()["items"]
    (key,) = (key for key in keys if key["name"] == name)
    found: dict[str, Any] = key
    return found


def refusal(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def stored(client: Client) -> dict[str, str]:
    """All that the database holds, as the text of each table."""
    database = Database(client.settings.sqlalchemy_url)
    tables = MetaData()
    tables.reflect(database.engine)
    with database.engine.connect() as connection:
        content = {
            table.name: "\n".join(map(repr, connection.execute(select(table)).all()))
            for table in tables.sorted_tables
        }
    database.dispose()
    return content


# ── Making ───────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_shown_once_and_works_at_once(shared: Client, name: str) -> None:
    made = shared.post(KEYS, json={"name": name, "role": "viewer"})
    assert (made.status_code, made.headers["location"]) == (201, f"{KEYS}/{name}")
    key = made.json()
    assert re.fullmatch(r"rh_[A-Za-z0-9_-]{43}", key["key"])
    assert shared.get("/v1/datasets", headers=using(key["key"])).status_code == 200
    assert listed(shared, name) == {field: value for field, value in key.items() if field != "key"}
    assert (key["role"], key["models"], key["created_by"], key["revoked_at"]) == (
        "viewer",
        None,
        "admin",
        None,
    )
    assert key["key"] not in shared.get(KEYS, params={"limit": 500}).text
    assert key["key"] not in shared.get("/v1/events", params={"limit": 500}).text


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "secret"}], ids=["plain", "idempotent"])
def test_a_key_is_stored_as_its_digest_only(shared: Client, name: str, headers: dict[str, str]) -> None:
    headers = {field: f"{value}-{name}" for field, value in headers.items()}
    made = shared.post(KEYS, json={"name": name, "role": "viewer"}, headers=headers)
    secret = made.json()["key"]
    content = stored(shared)
    assert name in content["api_keys"]
    assert hashlib.sha256(secret.encode()).hexdigest() in content["api_keys"]
    assert [table for table, text in content.items() if secret in text] == []


def test_a_repeated_request_makes_no_second_key_and_shows_none(shared: Client, name: str) -> None:
    headers = {"idempotency-key": name}
    first, again = (
        shared.post(KEYS, json={"name": name, "role": "viewer"}, headers=headers) for _ in range(2)
    )
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.json() == first.json() | {"key": None}


def test_a_name_is_given_once_and_never_again(shared: Client, name: str) -> None:
    create(shared, name)
    taken = shared.post(KEYS, json={"name": name, "role": "admin"})
    assert refusal(taken) == (409, "key_exists")
    assert listed(shared, name)["role"] == "viewer"
    assert shared.delete(f"{KEYS}/{name}").status_code == 204
    assert refusal(shared.post(KEYS, json={"name": name, "role": "viewer"})) == (409, "key_exists")


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"role": "viewer"}, "/name"),
        ({"name": "a/b", "role": "viewer"}, "/name"),
        ({"name": "x" * 65, "role": "viewer"}, "/name"),
        ({"name": "n"}, "/role"),
        ({"name": "n", "role": "root"}, "/role"),
        ({"name": "n", "role": "client", "models": ""}, "/models"),
        ({"name": "n", "role": "client", "models": "x" * 65}, "/models"),
        ({"name": "n", "role": "client", "models": "a.b"}, "/models"),
        ({"name": "n", "role": "client", "models": "[ab]*"}, "/models"),
        ({"name": "n", "role": "client", "key": "mine"}, "/key"),
    ],
)
def test_a_key_that_cannot_be_is_refused(shared: Client, body: dict[str, Any], at: str) -> None:
    answer = shared.post(KEYS, json=body)
    assert refusal(answer) == (422, "invalid_input")
    assert [error["pointer"] for error in answer.json()["errors"]] == [at]


def test_an_admin_is_not_limited_to_models(shared: Client, name: str) -> None:
    answer = shared.post(KEYS, json={"name": name, "role": "admin", "models": "m-*"})
    assert refusal(answer) == (422, "admin_not_limited")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/models"]


# ── Revoking ─────────────────────────────────────────────────────────────────────────────────────


def test_a_revoked_key_is_refused_and_stays_on_the_list(shared: Client, name: str) -> None:
    secret = create(shared, name)["key"]
    assert shared.get("/v1/datasets", headers=using(secret)).status_code == 200
    for _ in range(2):
        assert shared.delete(f"{KEYS}/{name}").status_code == 204
    time.sleep(1.01)
    assert refusal(shared.get("/v1/datasets", headers=using(secret))) == (401, "unknown_key")
    assert listed(shared, name)["revoked_at"] is not None
    events = shared.get("/v1/events", params={"subject": f"keys/{name}"}).json()["items"]
    assert [event["action"] for event in events] == ["key.revoked", "key.created"]
    assert refusal(shared.delete(f"{KEYS}/none")) == (404, "key_not_found")


def test_every_server_knows_a_new_key_at_once_and_a_revoked_one_within_a_second(
    start: Callable[..., Client], name: str
) -> None:
    one, other = start(), start()
    assert one.base_url != other.base_url
    secret = create(one, name)["key"]
    assert other.get("/v1/datasets", headers=using(secret)).status_code == 200
    assert one.delete(f"{KEYS}/{name}").status_code == 204
    time.sleep(1.01)
    assert refusal(other.get("/v1/datasets", headers=using(secret))) == (401, "unknown_key")


# ── Models and request ids ───────────────────────────────────────────────────────────────────────


def test_a_key_may_be_limited_to_models_by_pattern(shared: Client, model: str, name: str) -> None:
    shared.post(f"/v1/models/{model}:promote", json={"version": 1})
    row = shared.get(f"/v1/models/{model}").json()["example"]
    for pattern, allowed in ((f"{model[:-2]}*", True), (f"{model[:-1]}?", True), (f"{model}-*", False)):
        limited = shared.as_role("engineer", models=pattern)
        answers = [
            limited.get(f"/v1/models/{model}"),
            limited.get(f"/v1/models/{model}/versions/1"),
            limited.post(f"/v1/models/{model}:predict", json={"instances": [row]}),
            limited.post(f"/v1/models/{model}:promote", json={"version": 2}),
            limited.put(f"/v1/models/{model}/aliases/a", json={"version": 1}),
            limited.get(f"/v1/models/{model}/drift"),
        ]
        if allowed:
            assert [answer.status_code for answer in answers[:4]] == [200, 200, 200, 201]
            assert answers[4].status_code in (200, 201)
            assert answers[5].status_code == 200
        else:
            assert {refusal(answer) for answer in answers} == {(403, "model_not_allowed")}
        items = limited.get("/v1/models", params={"limit": 500}).json()["items"]
        assert (model in {item["name"] for item in items}) == allowed


def test_a_pattern_minds_letter_case(shared: Client, model: str) -> None:
    limited = shared.as_role("viewer", models=f"{model[:-1].upper()}*")
    assert refusal(limited.get(f"/v1/models/{model}")) == (403, "model_not_allowed")


@pytest.mark.parametrize("given", ["a", "trace-1.2:3_4", "x" * 64])
def test_a_request_id_is_echoed_in_answer_problem_and_event(shared: Client, name: str, given: str) -> None:
    headers = {"x-request-id": given}
    made = shared.post("/v1/datasets", json={"name": name}, headers=headers)
    assert made.headers["x-request-id"] == given
    event = shared.get("/v1/events", params={"subject": f"datasets/{name}"}).json()["items"][0]
    assert event["request_id"] == given
    for answer, status in (
        (shared.post("/v1/datasets", json={"name": name}, headers=headers), 409),
        (shared.post("/v1/datasets", json={}, headers=headers), 422),
        (shared.get("/nowhere", headers=headers), 404),
        (shared.get("/v1/models", headers=headers | using("wrong")), 401),
    ):
        assert answer.status_code == status
        assert answer.headers["x-request-id"] == answer.json()["request_id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a\tb", "<script>"])
def test_without_a_good_request_id_there_is_a_new_one(shared: Client, given: str | None) -> None:
    headers = {} if given is None else {"x-request-id": given}
    first, second = (shared.get("/livez", headers=headers).headers["x-request-id"] for _ in range(2))
    assert first != second
    assert re.fullmatch("[0-9a-f]{32}", first)


def test_the_last_admin_is_not_locked_out(start: Start) -> None:
    client = start()
    answer = client.delete("/v1/keys/admin")
    assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    other = client.as_role("admin")
    assert other.delete("/v1/keys/admin").status_code == 204
