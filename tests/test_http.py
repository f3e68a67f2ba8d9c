"""What holds for every operation: errors, ids of requests, pages, repeated requests, health."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client import Client
from tests.servers import postgres_server

Start = Callable[..., Client]


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:roundhouse:error:{code}"
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v1/models/a/b/c", "/v1/models/a%2Fb:predict"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_a_problem(shared: Client, method: str, path: str) -> None:
    body = check_problem(shared.request(method, path, content=b"{not json"), 404, "not_found")
    assert "/docs" in body["detail"]


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/ping", "/health", "/v2/health/live", "/v2/health/ready"]
)
def test_a_health_check_may_ask_for_the_head_alone(shared: Client, path: str) -> None:
    full, head = shared.get(path), shared.head(path)
    assert full.content
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]
    assert shared.head("/v1/models").status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/v1/datasets", "GET, POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/v1/models/m/aliases/a", "DELETE, PUT"),
        ("POST", "/livez", "GET"),
    ],
)
def test_a_method_that_a_path_does_not_know_is_a_problem_that_names_the_others(
    shared: Client, method: str, path: str, allowed: str
) -> None:
    answer = shared.request(method, path)
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "missing"),
        (b"{", "not JSON"),
        (b'{"name": "a" "b"}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"name": 1}', "valid string"),
        (b'{"name": "../etc"}', "only letters, digits, - and _"),
        (b'{"name": "a.b"}', "only letters, digits, - and _"),
        (b'{"name": "n", "color": "red"}', "there is no such field"),
        (b'{"name": "\\u0000"}', "U+0000"),
        (b'{"name": "n", "description": "\\ud800"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_wrong_body_is_a_problem_that_points_at_the_fault(
    shared: Client, content: bytes, says: str
) -> None:
    answer = shared.post("/v1/datasets", content=content, headers={"content-type": "application/json"})
    body = check_problem(answer, 422, "invalid_input")
    assert body["errors"]
    assert says in body["detail"]


def test_a_fault_is_pointed_at_where_it_is(shared: Client) -> None:
    answer = shared.post("/v1/datasets", json={"name": "n", "description": ["x"]})
    assert [item["pointer"] for item in check_problem(answer, 422, "invalid_input")["errors"]] == [
        "/description"
    ]
    answer = shared.get("/v1/events", params={"limit": "many", "since": "yesterday"})
    assert sorted(item["pointer"] for item in check_problem(answer, 422, "invalid_input")["errors"]) == [
        "/query/limit",
        "/query/since",
    ]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_json_is_read_whatever_a_client_calls_it(shared: Client, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    name = f"called-{(content_type or 'nothing').replace('/', '-')}"
    answer = shared.post("/v1/datasets", content=b'{"name": "%s"}' % name.encode(), headers=headers)
    assert answer.status_code == 201, answer.text
    check_problem(shared.post("/v1/datasets", content=b"name=n", headers=headers), 422, "invalid_input")


def test_a_body_beyond_the_limit_is_refused_with_and_without_its_length(start: Start) -> None:
    client = start(max_request_bytes=1000)
    exact = b'{"name": "exact"}'.ljust(1000)
    headers = {"content-type": "application/json"}
    assert client.post("/v1/datasets", content=exact, headers=headers).status_code == 201

    def chunks() -> Iterator[bytes]:
        yield exact
        yield b" "

    for content in (exact + b" ", chunks()):
        answer = client.post("/v1/datasets", content=content, headers=headers)
        body = check_problem(answer, 413, "body_too_large")
        assert "ROUNDHOUSE_MAX_REQUEST_BYTES" in body["detail"]


def test_an_upload_beyond_its_own_limit_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    client = start(max_request_bytes=100, max_upload_bytes=100_000)
    client.add_dataset("flights", Client.table(rows=400, seed=1))
    path, headers = "/v1/datasets/flights/versions", {"content-type": "text/csv"}
    big = Client.table(rows=4000, seed=2)

    def chunks() -> Iterator[bytes]:
        yield big[:50_000]
        yield big[50_000:]

    for content in (big, chunks()):
        body = check_problem(client.post(path, content=content, headers=headers), 413, "body_too_large")
        assert "ROUNDHOUSE_MAX_UPLOAD_BYTES" in body["detail"]
    assert len(client.get(path).json()["items"]) == 1
    assert not list((tmp_path / "home" / "scratch").glob("*/*/*"))


# ── Request ids ──────────────────────────────────────────────────────────────────────────────────


def test_a_request_keeps_the_id_that_it_brings(shared: Client) -> None:
    answer = shared.get("/v1/nothing", headers={"x-request-id": "from-the-proxy:1"})
    assert check_problem(answer, 404, "not_found")["request_id"] == "from-the-proxy:1"


@pytest.mark.parametrize("given", ["", "a b", 'x"y', "x" * 65, "{}"])
def test_an_id_that_would_spoil_the_log_is_replaced(shared: Client, given: str) -> None:
    answer = shared.get("/livez", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] not in ("", given)


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cursor", ["", "abc", "-1", "1.5", "9" * 19, "٣"])
def test_a_cursor_that_no_page_gave_is_refused(shared: Client, cursor: str) -> None:
    answer = shared.get("/v1/datasets", params={"cursor": cursor})
    (fault,) = check_problem(answer, 422, "invalid_input")["errors"]
    assert fault["pointer"] == "/query/cursor"


@pytest.mark.parametrize("limit", ["0", "501", "-1", "ten"])
def test_a_page_holds_1_to_500_items(shared: Client, limit: str) -> None:
    (fault,) = check_problem(shared.get("/v1/datasets", params={"limit": limit}), 422, "invalid_input")[
        "errors"
    ]
    assert fault["pointer"] == "/query/limit"


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_the_pages_hold_every_item_once_newest_first(start: Start, limit: int) -> None:
    client = start()
    names = [f"d{number}" for number in range(5)]
    for name in names:
        assert client.post("/v1/datasets", json={"name": name}).status_code == 201
    seen: list[str] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        page = client.get("/v1/datasets", params=query).json()
        assert 0 < len(page["items"]) <= limit
        seen += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert seen == names[::-1]


# ── Idempotency ──────────────────────────────────────────────────────────────────────────────────


def create(client: Client, key: str, name: str) -> httpx.Response:
    return client.post("/v1/datasets", json={"name": name}, headers={"idempotency-key": key})


def test_a_repeated_request_gets_the_first_answer_and_changes_nothing(shared: Client) -> None:
    first, second = create(shared, "repeat", "asked-twice"), create(shared, "repeat", "asked-twice")
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    events = shared.get("/v1/events", params={"subject": "datasets/asked-twice"}).json()["items"]
    assert len(events) == 1


def test_a_key_is_not_taken_for_another_request(shared: Client) -> None:
    assert create(shared, "reuse", "reused").status_code == 201
    check_problem(create(shared, "reuse", "other"), 422, "idempotency_key_reused")
    answer = shared.post(
        "/v1/keys", json={"name": "reused", "role": "viewer"}, headers={"idempotency-key": "reuse"}
    )
    check_problem(answer, 422, "idempotency_key_reused")


def test_callers_do_not_share_their_keys(shared: Client) -> None:
    other = shared.as_role("scientist")
    assert create(shared, "mine", "of-the-admin").status_code == 201
    assert create(other, "mine", "of-another").status_code == 201
    other.close()


def test_a_refused_request_may_be_mended_under_the_same_key(shared: Client) -> None:
    assert create(shared, "mend", "no/name").status_code == 422
    assert create(shared, "mend", "mended").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_has_1_to_200_characters(shared: Client, key: str) -> None:
    check_problem(create(shared, key, "unkeyed"), 422, "invalid_idempotency_key")
    assert create(shared, "x" * 200, "keyed-200").status_code == 201
    check_problem(shared.get("/v1/datasets/unkeyed"), 404, "dataset_not_found")


def test_of_simultaneous_requests_with_one_key_one_is_carried_out(shared: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: create(shared, "at-once", "at-once"), range(8)))
    statuses = {answer.status_code for answer in answers}
    assert 201 in statuses
    assert statuses <= {201, 409}
    events = shared.get("/v1/events", params={"subject": "datasets/at-once"}).json()["items"]
    assert len(events) == 1


# ── Health ───────────────────────────────────────────────────────────────────────────────────────


def test_without_its_database_the_server_lives_and_says_what_is_wrong(start: Start, tmp_path: Path) -> None:
    with postgres_server(tmp_path) as url:
        client = start(database_url=url)
        assert client.get("/readyz").json() == {
            "status": "ready",
            "database": "ok",
            "store": "ok",
            "models": "ok",
            "journal": "ok",
        }
        assert client.get("/v1/datasets").status_code == 200
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/metrics").status_code == 200
    for method, path in (("GET", "/v1/datasets"), ("POST", "/v1/datasets")):
        answer = client.request(method, path, json={"name": "n"})
        check_problem(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    answer = client.get("/readyz")
    assert answer.status_code == 503
    body = answer.json()
    assert (body["status"], body["store"]) == ("not ready", "ok")
    assert body["database"] == "OperationalError; see the log"


def test_a_store_that_does_not_answer_is_named(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_REGION": "none",
    }.items():
        monkeypatch.setenv(name, value)
    client = start(store_url="s3://none/none")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["database"]) == ("not ready", "ok")
    assert answer.json()["store"] == "StoreUnavailable; see the log"
    client.post("/v1/datasets", json={"name": "d"})
    uploaded = client.post(
        "/v1/datasets/d/versions", content=b"a,b\n1,2\n", headers={"content-type": "text/csv"}
    )
    check_problem(uploaded, 503, "store_unavailable")
    assert client.get("/v1/datasets/d/versions").json()["items"] == []


def test_a_burst_of_requests_waits_its_turn_and_predictions_do_not_wait_with_it(shared: Client) -> None:
    # More than there are threads and connections: were each to hold one and wait for the other, all stood.
    def ask(number: int) -> int:
        if number % 2:
            return shared.get("/v1/datasets").status_code
        return shared.post("/v1/datasets", json={"name": f"burst-{number}"}).status_code

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(ask, range(100)))
    assert answers == [201, 200] * 50


FIRST_MOMENT, LAST_MOMENT = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"


@pytest.mark.parametrize("moment", [FIRST_MOMENT, LAST_MOMENT])
def test_a_time_that_utc_cannot_tell_is_refused(shared: Client, delays: str, moment: str) -> None:
    for path, name in (
        ("/v1/events", "since"),
        ("/v1/events", "until"),
        (f"/v1/models/{delays}/deployments", "as_of"),
        (f"/v1/models/{delays}/drift", "since"),
        (f"/v1/models/{delays}/performance", "until"),
    ):
        body = check_problem(shared.get(path, params={name: moment}), 422, "invalid_input")
        assert body["errors"] == [
            {"pointer": f"/query/{name}", "detail": "must lie within the years 1 to 9999 in UTC"}
        ]
    item = {"prediction_id": "x", "actual": True, "observed_at": moment}
    check_problem(shared.post("/v1/feedback", json={"items": [item]}), 422, "invalid_input")


def test_one_request_sent_several_times_at_once_is_carried_out_once(shared: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: create(shared, "all-at-once", "made-at-once"), range(8)))
    made = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.text for answer in made}) == 1
    for answer in answers:
        if answer not in made:
            check_problem(answer, 409, "concurrent_change")


def test_the_callers_text_is_not_sent_back_without_bound(shared: Client) -> None:
    answer = shared.post("/v1/training-runs", json={"model": "m", "dataset": "x" * 100_000, "target": "t"})
    check_problem(answer, 404, "dataset_not_found")
    assert len(answer.content) < 5000


def test_the_front_door_leads_to_the_documentation(shared: Client) -> None:
    page = shared.get("/", headers={"authorization": "", "accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.headers["location"]) == (307, "docs")
    program = shared.get("/", headers={"authorization": ""})
    assert (program.status_code, program.json()) == (200, {"status": "alive"})
