"""Promotion, rollback and the history of both, over HTTP."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.client import Client
from tests.versions import register


def promote(client: Client, model: str, version: int, **more: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/models/{model}:promote", json={"version": version, **more})
    assert answer.status_code == 201, answer.text
    deployment: dict[str, Any] = answer.json()
    return deployment


def roll_back(client: Client, model: str, **more: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/models/{model}:rollback", json=more)
    assert answer.status_code == 201, answer.text
    deployment: dict[str, Any] = answer.json()
    return deployment


def history(client: Client, model: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/models/{model}/deployments", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def events(client: Client, model: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get("/v1/events", params={"subject": f"models/{model}"}).json()[
        "items"
    ]
    return items


def slots(deployment: dict[str, Any]) -> list[tuple[str, int, float]]:
    return [(slot["variant"], slot["version"], slot["weight"]) for slot in deployment["slots"]]


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    return problem


def serving(client: Client, model: str) -> int:
    """The version that answers now."""
    example = client.get(f"/v1/models/{model}").json()["example"]
    version: int = client.predict(model, [example])["version"]
    return version


# ── Promotion ────────────────────────────────────────────────────────────────────────────────────


def test_a_promoted_version_serves_at_once(shared: Client, model: str) -> None:
    before = shared.get(f"/v1/models/{model}").json()
    assert (before["ready"], before["version"], before["deployment"]) == (False, None, None)
    answer = shared.post(f"/v1/models/{model}:promote", json={"version": 2, "comment": "the first"})
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/models/{model}/deployments/{answer.json()['id']}"
    made = answer.json()
    assert made["model"] == model
    assert (made["reason"], made["comment"], made["restores"]) == ("promote", "the first", None)
    assert made["created_by"] == "admin"
    assert slots(made) == [("champion", 2, 1.0)]
    assert serving(shared, model) == 2
    after = shared.get(f"/v1/models/{model}").json()
    assert (after["ready"], after["version"], after["deployment"]) == (True, 2, made["id"])
    promote(shared, model, 1)
    assert serving(shared, model) == 1


def test_the_expected_deployment_guards_against_a_change_in_between(shared: Client, model: str) -> None:
    first = promote(shared, model, 1, expected_deployment=0)
    second = promote(shared, model, 2, expected_deployment=first["id"])
    for outdated in (0, first["id"], second["id"] + 1):
        answer = shared.post(
            f"/v1/models/{model}:promote", json={"version": 3, "expected_deployment": outdated}
        )
        problem = refused(answer, 409, "deployment_changed")
        assert f"deployment {second['id']}" in problem["detail"]
    assert history(shared, model) == [second, first]
    assert serving(shared, model) == 2


def test_of_two_promoters_who_saw_the_same_deployment_one_wins(shared: Client, model: str) -> None:
    seen = 0
    start = Barrier(2)

    def race(version: int) -> httpx.Response:
        start.wait()
        return shared.post(
            f"/v1/models/{model}:promote", json={"version": version, "expected_deployment": seen}
        )

    with ThreadPoolExecutor(2) as pool:
        for turn in range(1, 6):
            answers = list(pool.map(race, (1, 2)))
            won = [answer for answer in answers if answer.status_code == 201]
            lost = [answer for answer in answers if answer.status_code != 201]
            assert len(won) == len(lost) == 1, [answer.text for answer in answers]
            refused(lost[0], 409, "deployment_changed")
            newest, *older = history(shared, model)
            assert newest == won[0].json()
            assert len(older) == turn - 1
            assert serving(shared, model) == newest["slots"][0]["version"]
            seen = newest["id"]


def test_a_canary_answers_beside_the_champion(shared: Client, model: str) -> None:
    promote(shared, model, 1)
    assert slots(promote(shared, model, 2, canary=0.5)) == [("champion", 1, 0.5), ("canary", 2, 0.5)]
    example = shared.get(f"/v1/models/{model}").json()["example"]
    # A fair coin shows one side 60 times with a probability of 2e-18.
    answers = [shared.predict(model, [example]) for _ in range(60)]
    assert {(answer["variant"], answer["version"]) for answer in answers} == {("champion", 1), ("canary", 2)}
    # A further canary takes the place of the first, and a full promotion ends it.
    assert slots(promote(shared, model, 3, canary=0.25)) == [("champion", 1, 0.75), ("canary", 3, 0.25)]
    assert slots(promote(shared, model, 2)) == [("champion", 2, 1.0)]


def test_a_shadow_never_answers(shared: Client, model: str) -> None:
    promote(shared, model, 1)
    assert slots(promote(shared, model, 2, shadow=True)) == [("champion", 1, 1.0), ("shadow", 2, 0.0)]
    example = shared.get(f"/v1/models/{model}").json()["example"]
    answers = [shared.predict(model, [example]) for _ in range(20)]
    assert {(answer["variant"], answer["version"]) for answer in answers} == {("champion", 1)}


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"version": 1, "canary": 0.1}, 409, "no_champion", None),
        ({"version": 1, "shadow": True}, 409, "no_champion", None),
        ({"version": 1, "canary": 0.1, "shadow": True}, 422, "canary_or_shadow", "/shadow"),
        ({"version": 1, "canary": 0}, 422, "invalid_input", "/canary"),
        ({"version": 1, "canary": 1}, 422, "invalid_input", "/canary"),
        ({"version": 1, "canary": -0.5}, 422, "invalid_input", "/canary"),
        ({"version": 1, "canary": "half"}, 422, "invalid_input", "/canary"),
        ({"version": 4}, 404, "model_version_not_found", None),
        ({"version": 0}, 422, "invalid_input", "/version"),
        ({"version": 10**30}, 422, "invalid_input", "/version"),
        ({"version": "one"}, 422, "invalid_input", "/version"),
        ({"version": 1, "expected_deployment": -1}, 422, "invalid_input", "/expected_deployment"),
        ({"version": 1, "comment": "x" * 2001}, 422, "invalid_input", "/comment"),
        ({"version": 1, "canry": 0.1}, 422, "invalid_input", "/canry"),
        ({}, 422, "invalid_input", "/version"),
        ([], 422, "invalid_input", ""),
    ],
)
def test_a_promotion_that_makes_no_sense_changes_nothing(
    shared: Client, refusing: str, body: Any, status: int, code: str, pointer: str | None
) -> None:
    problem = refused(shared.post(f"/v1/models/{refusing}:promote", json=body), status, code)
    assert [error["pointer"] for error in problem.get("errors", [])] == ([] if pointer is None else [pointer])
    assert history(shared, refusing) == []
    assert not [event for event in events(shared, refusing) if event["action"] == "model.promoted"]


@pytest.fixture(scope="module")
def refusing(shared: Client, constant: dict[str, Any]) -> str:
    register(shared, "refusing", constant, constant, constant)
    return "refusing"


def test_a_promotion_without_a_body_is_refused(shared: Client, refusing: str) -> None:
    problem = refused(shared.post(f"/v1/models/{refusing}:promote"), 422, "invalid_input")
    assert problem["detail"].startswith("The request is wrong: the body: is missing")
    assert history(shared, refusing) == []


@pytest.mark.parametrize("comment", [b"\\ud800", b"\xff"])
def test_a_comment_that_is_no_text_is_refused(shared: Client, refusing: str, comment: bytes) -> None:
    answer = shared.post(
        f"/v1/models/{refusing}:promote",
        content=b'{"version": 1, "comment": "%b"}' % comment,
        headers={"content-type": "application/json"},
    )
    assert "the text is not Unicode" in refused(answer, 422, "invalid_input")["detail"]
    assert history(shared, refusing) == []


def test_only_a_version_of_the_model_itself_can_be_promoted(shared: Client, model: str) -> None:
    other = f"{model}-without-version"
    register(shared, other)
    problem = refused(
        shared.post(f"/v1/models/{other}:promote", json={"version": 1}), 404, "model_version_not_found"
    )
    assert other in problem["detail"]
    problem = refused(
        shared.post(f"/v1/models/{model}x:promote", json={"version": 1}), 404, "model_not_found"
    )
    assert repr(model) in problem["detail"], "the model that may have been meant is named"
    assert history(shared, other) == []


# ── Rollback ─────────────────────────────────────────────────────────────────────────────────────


def test_a_rollback_serves_again_what_served_before(shared: Client, model: str) -> None:
    first, second, third = (promote(shared, model, version)["id"] for version in (1, 2, 3))
    back = roll_back(shared, model, comment="complaints")
    assert back["id"] > third
    assert (back["reason"], back["comment"], back["restores"]) == ("rollback", "complaints", second)
    assert slots(back) == [("champion", 2, 1.0)]
    assert serving(shared, model) == 2
    again = roll_back(shared, model)
    assert (again["restores"], slots(again)) == (first, [("champion", 1, 1.0)])
    assert serving(shared, model) == 1
    refused(shared.post(f"/v1/models/{model}:rollback"), 409, "nothing_to_roll_back_to")
    assert serving(shared, model) == 1


def test_a_rollback_after_a_new_promotion_returns_to_what_that_replaced(shared: Client, model: str) -> None:
    promote(shared, model, 1)
    promote(shared, model, 2)
    assert slots(roll_back(shared, model)) == [("champion", 1, 1.0)]
    promote(shared, model, 3)
    assert slots(roll_back(shared, model)) == [("champion", 1, 1.0)]
    refused(shared.post(f"/v1/models/{model}:rollback", json={}), 409, "nothing_to_roll_back_to")


def test_a_rollback_may_name_its_deployment(shared: Client, model: str) -> None:
    first, second, third = (promote(shared, model, version)["id"] for version in (1, 2, 3))
    back = roll_back(shared, model, to_deployment=first)
    assert (back["restores"], slots(back)) == (first, [("champion", 1, 1.0)])
    # A restored deployment can itself be named; what it restored is told.
    promote(shared, model, 2)
    assert roll_back(shared, model, to_deployment=back["id"])["restores"] == first
    # Forward again, to what was rolled back.
    assert slots(roll_back(shared, model, to_deployment=third)) == [("champion", 3, 1.0)]
    assert serving(shared, model) == 3
    assert second not in [deployment["restores"] for deployment in history(shared, model)]


def test_a_rollback_restores_the_whole_split(shared: Client, model: str) -> None:
    promote(shared, model, 1)
    split = promote(shared, model, 2, canary=0.125)
    promote(shared, model, 3)
    assert roll_back(shared, model)["slots"] == split["slots"]
    # Rolling the canary back leaves the champion alone.
    assert slots(roll_back(shared, model)) == [("champion", 1, 1.0)]


def test_a_model_without_deployment_has_nothing_to_roll_back_to(shared: Client, refusing: str) -> None:
    refused(shared.post(f"/v1/models/{refusing}:rollback"), 409, "nothing_to_roll_back_to")
    refused(shared.post("/v1/models/nobody:rollback"), 404, "model_not_found")


def test_a_rollback_to_a_deployment_of_another_model_is_refused(
    shared: Client, model: str, refusing: str
) -> None:
    made = promote(shared, model, 1)
    for foreign in (made["id"], 2**31 - 1):
        answer = shared.post(f"/v1/models/{refusing}:rollback", json={"to_deployment": foreign})
        refused(answer, 404, "deployment_not_found")
    answer = shared.post(f"/v1/models/{refusing}:rollback", json={"to_deployment": 0})
    assert refused(answer, 422, "invalid_input")["errors"][0]["pointer"] == "/to_deployment"
    assert history(shared, refusing) == []


# ── History ──────────────────────────────────────────────────────────────────────────────────────


def test_history_only_grows(shared: Client, model: str) -> None:
    steps: list[Callable[[], dict[str, Any]]] = [
        lambda: promote(shared, model, 1),
        lambda: promote(shared, model, 2, canary=0.1),
        lambda: promote(shared, model, 2),
        lambda: roll_back(shared, model),
        lambda: promote(shared, model, 3, shadow=True),
        lambda: roll_back(shared, model),
    ]
    before: list[dict[str, Any]] = []
    for step in steps:
        made = step()
        after = history(shared, model)
        assert after == [made, *before]
        before = after
    first_page = shared.get(f"/v1/models/{model}/deployments", params={"limit": 4}).json()
    rest = history(shared, model, cursor=first_page["next"])
    assert first_page["items"] + rest == before


def test_history_tells_what_served_at_a_time(shared: Client, model: str) -> None:
    made = [promote(shared, model, version) for version in (1, 2, 3)]
    for position, deployment in enumerate(made):
        then = history(shared, model, as_of=deployment["created_at"])
        assert then == made[position::-1]
    assert history(shared, model, as_of="2020-01-01T00:00:00+01:00") == []
    assert history(shared, model, as_of="2999-01-01T00:00:00Z") == made[::-1]
    for wrong in ("yesterday", "2026-01-01T00:00:00"):
        answer = shared.get(f"/v1/models/{model}/deployments", params={"as_of": wrong})
        assert refused(answer, 422, "invalid_input")["errors"][0]["pointer"] == "/query/as_of"


def test_every_change_writes_its_event(shared: Client, model: str) -> None:
    engineer = shared.as_role("engineer")
    headers = {"x-request-id": "the-promotion"}
    body = {"version": 1, "comment": "why"}
    first = engineer.post(f"/v1/models/{model}:promote", json=body, headers=headers).json()
    canary = promote(engineer, model, 2, canary=0.25)
    back = roll_back(engineer, model, comment="back")
    found = [event for event in events(shared, model) if event["action"] != "model_version.registered"]
    rolled_back, promoted_canary, promoted = found[:3]
    assert promoted["action"] == promoted_canary["action"] == "model.promoted"
    assert rolled_back["action"] == "model.rolled_back"
    for event, deployment in ((promoted, first), (promoted_canary, canary), (rolled_back, back)):
        assert event["subject"] == f"models/{model}"
        assert event["detail"]["deployment"] == deployment["id"]
        assert event["actor"] == deployment["created_by"]
        assert event["at"] == deployment["created_at"]
    assert promoted["request_id"] == "the-promotion"
    assert promoted["detail"]["comment"] == "why"
    assert promoted_canary["detail"]["canary"] == 0.25
    assert (rolled_back["detail"]["restores"], rolled_back["detail"]["version"]) == (first["id"], 1)


def test_a_promotion_repeated_with_its_idempotency_key_is_made_once(shared: Client, model: str) -> None:
    headers = {"idempotency-key": f"promote {model}"}
    first, again = (
        shared.post(f"/v1/models/{model}:promote", json={"version": 1}, headers=headers) for _ in range(2)
    )
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert history(shared, model) == [first.json()]


@pytest.mark.parametrize("beside", [{"canary": 0.1}, {"shadow": True}])
def test_a_champion_does_not_stand_beside_itself(shared: Client, model: str, beside: dict[str, Any]) -> None:
    assert shared.post(f"/v1/models/{model}:promote", json={"version": 1}).status_code == 201
    answer = shared.post(f"/v1/models/{model}:promote", json={"version": 1, **beside})
    refused(answer, 409, "already_champion")


@pytest.mark.parametrize("version", [True, "1", 1.0, 1.5, 0, -1, 2**31, None])
def test_what_is_no_number_of_a_version_is_not_promoted(shared: Client, model: str, version: Any) -> None:
    answer = shared.post(f"/v1/models/{model}:promote", json={"version": version})
    (error,) = refused(answer, 422, "invalid_input")["errors"]
    assert error["pointer"] == "/version"


def test_one_rollback_sent_several_times_at_once_is_carried_out_once(shared: Client, model: str) -> None:
    for version in (1, 2):
        assert shared.post(f"/v1/models/{model}:promote", json={"version": version}).status_code == 201
    headers = {"idempotency-key": f"back-{model}"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: shared.post(f"/v1/models/{model}:rollback", headers=headers), range(8))
        )
    assert len({answer.text for answer in answers if answer.status_code == 201}) == 1
    for answer in answers:
        if answer.status_code != 201:
            assert answer.status_code == 409, answer.text
    assert len(history(shared, model)) == 3
