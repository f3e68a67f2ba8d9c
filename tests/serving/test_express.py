"""The express lane: what goes by it, and that nothing else can be told from the ordinary route."""

import json
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.client import Client, wait_until
from tests.conftest import Start
from tests.versions import register, train_here

ROW: dict[str, Any] = {
    "scheduled": "2013-05-31T14:15:00Z",
    "carrier": "B6",
    "distance": 700,
    "wind": 17.5,
    "international": False,
}


@pytest.fixture(scope="module")
def ridden(shared: Client, flights: str) -> str:
    """A compiled classifier in service."""
    linear = train_here(shared, flights, algorithm="logistic_regression")
    tree = train_here(shared, flights, algorithm="decision_tree")
    register(shared, "ridden", linear, tree)
    assert shared.post("/v1/models/ridden:promote", json={"version": 1}).status_code == 201
    return "ridden"


def counted(client: Client, name: str, **labels: str) -> float:
    """A sample of the server's metrics; 0 where there is none."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = re.findall(rf"^{name}{{(.*)}} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(float(value) for found, value in lines if all(one in found for one in wanted))


def went_by(client: Client, ask: Callable[[], Any]) -> str:
    """The way that one request took: only the ordinary one is counted with the web framework's requests."""
    route = "/v1/models/{model}:predict"
    before = counted(client, "roundhouse_http_requests_total", route=route)
    ask()
    after = counted(client, "roundhouse_http_requests_total", route=route)
    return "express" if after == before else "ordinary"


def test_a_plain_request_goes_by_the_express_lane(shared: Client, ridden: str) -> None:
    labels = {"model": ridden, "version": "1", "variant": "champion", "protocol": "v1"}
    rows = counted(shared, "roundhouse_predictions_total", **labels)
    answered = counted(shared, "roundhouse_predict_seconds_count", **labels, code="200")
    shared.predict(ridden, [ROW])  # the key is known from here on
    for sent in (1, 3, 64):
        assert went_by(shared, partial(shared.predict, ridden, [ROW] * sent)) == "express"
    assert counted(shared, "roundhouse_predictions_total", **labels) == rows + 1 + 1 + 3 + 64
    assert counted(shared, "roundhouse_predict_seconds_count", **labels, code="200") == answered + 4


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"instances": [ROW | {"wind": float("nan")}]}),
        json.dumps({"instances": [ROW] * 65}),
        json.dumps({"instances": [ROW], "padding": " " * 70_000}),
    ],
    ids=["a NaN token", "many rows", "a large body"],
)
def test_what_is_not_plain_goes_by_the_ordinary_route_and_is_answered_alike(
    shared: Client, ridden: str, content: str
) -> None:
    by_version = f"/v1/models/{ridden}/versions/1:predict"
    expected = shared.post(by_version, content=content).json()

    def ask() -> None:
        answer = shared.post(f"/v1/models/{ridden}:predict", content=content).json()
        for name in ("predictions", "probabilities", "classes", "model", "version"):
            assert answer[name] == expected[name]

    assert went_by(shared, ask) == "ordinary"


def test_both_ways_give_the_same_answer_and_leave_the_same_record(shared: Client, ridden: str) -> None:
    answers, records = [], []
    for padding in ("", " " * 70_000):
        content = json.dumps({"instances": [ROW], "padding": padding})
        answer = shared.post(
            f"/v1/models/{ridden}:predict", content=content, headers={"x-request-id": "mine.1"}
        )
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "mine.1"
        body = answer.json()
        (prediction_id,) = body.pop("prediction_ids")
        record = shared.get(f"/v1/predictions/{prediction_id}").json()
        assert record.pop("prediction_id") == prediction_id
        record.pop("at")
        answers.append(body)
        records.append(record)
    assert answers[0] == answers[1]
    assert records[0] == records[1]
    assert (records[0]["inputs"], records[0]["request_id"]) == (ROW, "mine.1")


def test_pretty_printed_rows_are_recorded_on_one_line(shared: Client, ridden: str) -> None:
    content = json.dumps({"instances": [ROW, ROW | {"carrier": "a\nb"}]}, indent=4)
    answer = shared.post(f"/v1/models/{ridden}:predict", content=content).json()
    found = [shared.get(f"/v1/predictions/{one}").json()["inputs"] for one in answer["prediction_ids"]]
    assert found == [ROW, ROW | {"carrier": "a\nb"}]


def test_an_odd_request_id_is_replaced(shared: Client, ridden: str) -> None:
    answer = shared.post(
        f"/v1/models/{ridden}:predict", json={"instances": [ROW]}, headers={"x-request-id": 'a"b'}
    )
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_revoked_key_rides_for_a_second_at_most(shared: Client, ridden: str) -> None:
    name = f"short-lived-{time.time_ns()}"
    made = shared.post("/v1/keys", json={"name": name, "role": "client"}).json()
    using = {"authorization": f"Bearer {made['key']}"}

    def status() -> int:
        body = {"instances": [ROW]}
        return shared.post(f"/v1/models/{ridden}:predict", json=body, headers=using).status_code

    assert {status() for _ in range(3)} == {200}
    assert shared.delete(f"/v1/keys/{name}").is_success
    time.sleep(1.0)
    assert {status() for _ in range(20)} == {401}


def test_a_key_rides_to_its_own_models_only(shared: Client, ridden: str) -> None:
    elsewhere = dict(shared.as_role("client", models="other-*").headers)
    for headers, status in ((elsewhere, 403), ({"authorization": "Bearer nobody's"}, 401)):
        for _ in range(2):
            answer = shared.post(f"/v1/models/{ridden}:predict", json={"instances": [ROW]}, headers=headers)
            assert answer.status_code == status


def test_a_canary_and_a_shadow_ride_too(shared: Client, ridden: str) -> None:
    canary = {"version": 2, "canary": 0.5}
    assert shared.post(f"/v1/models/{ridden}:promote", json=canary).status_code == 201
    variants = {shared.predict(ridden, [ROW])["variant"] for _ in range(40)}
    assert variants == {"champion", "canary"}
    shadow = {"version": 2, "shadow": True}
    assert shared.post(f"/v1/models/{ridden}:promote", json=shadow).status_code == 201
    labels = {"model": ridden, "version": "2", "variant": "shadow", "protocol": "v1"}
    before = counted(shared, "roundhouse_predictions_total", **labels)
    assert went_by(shared, lambda: shared.predict(ridden, [ROW, ROW])) == "express"
    wait_until(lambda: counted(shared, "roundhouse_predictions_total", **labels) == before + 2)
    assert shared.post(f"/v1/models/{ridden}:promote", json={"version": 1}).status_code == 201


def test_a_canary_gets_its_share_whatever_way_its_requests_go(shared: Client, flights: str) -> None:
    native = train_here(shared, flights, algorithm="k_neighbors")
    compiled = train_here(shared, flights, algorithm="dummy")
    register(shared, "mixed", native, compiled)
    for body in ({"version": 1}, {"version": 2, "canary": 0.2}):
        assert shared.post("/v1/models/mixed:promote", json=body).status_code == 201
    variants = [shared.predict("mixed", [ROW])["variant"] for _ in range(400)]
    # 80 expected; drawn twice it would be 144. Chance gives fewer than 45 or more than 115 once in 90,000.
    assert 45 <= variants.count("canary") <= 115


def test_the_express_lane_holds_to_the_limits_of_requests(start: Start) -> None:
    few = start(max_instances=3, max_request_bytes=1000)
    few.add_dataset("few", few.table(rows=60, seed=2))
    register(few, "m", train_here(few, "few", algorithm="dummy"))
    assert few.post("/v1/models/m:promote", json={"version": 1}).status_code == 201
    assert len(few.predict("m", [ROW] * 3)["predictions"]) == 3
    for rows, status, code in ((4, 422, "too_many_instances"), (20, 413, "body_too_large")):
        refused = few.post("/v1/models/m:predict", json={"instances": [ROW] * rows})
        assert (refused.status_code, refused.json()["code"]) == (status, code)
