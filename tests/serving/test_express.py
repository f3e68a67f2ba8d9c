"""The express lane: what goes by it, and that nothing else can be told from the ordinary route."""

import io
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from arro3.core import Array, DataType, Table
from arro3.io import read_ipc_stream, write_ipc_stream
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.express import read_head
from tests.client import Client, wait_until
from tests.conftest import Start
from tests.processes import Serve
from tests.versions import register, train_here

pytestmark = pytest.mark.sqlite_alone

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
    """The way that one request took: only the ordinary one is counted with the web framework's requests.

    On a machine so busy that keys are not read for a second, all go the ordinary way: see ``wait_until``.
    """
    route = "/v1/models/{model}:predict"
    before = counted(client, "roundhouse_http_requests_total", route=route)
    ask()
    after = counted(client, "roundhouse_http_requests_total", route=route)
    return "express" if after == before else "ordinary"


def test_a_plain_request_goes_by_the_express_lane(shared: Client, ridden: str) -> None:
    labels = {"model": ridden, "version": "1", "variant": "champion", "protocol": "v1"}
    rows = counted(shared, "roundhouse_predictions_total", **labels)
    answered = counted(shared, "roundhouse_predict_seconds_count", **labels, code="200")
    asked: list[int] = []

    def ask(sent: int) -> None:
        asked.append(sent)
        shared.predict(ridden, [ROW] * sent)

    ask(1)  # the key is known from here on

    def rides(this: Callable[[], None]) -> bool:
        return went_by(shared, this) == "express"

    for sent in (1, 3, 64, 2000):
        wait_until(partial(rides, partial(ask, sent)))
    assert counted(shared, "roundhouse_predictions_total", **labels) == rows + sum(asked)
    assert counted(shared, "roundhouse_predict_seconds_count", **labels, code="200") == answered + len(asked)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"instances": [ROW | {"wind": float("nan")}]}),
        json.dumps({"instances": [ROW] * 65}),
        json.dumps({"instances": [ROW]}) + "x" * 70_000,
    ],
    ids=["a NaN token", "many rows in few bytes", "a large body that is no JSON"],
)
def test_what_is_not_plain_goes_by_the_ordinary_route_and_is_answered_alike(
    shared: Client, ridden: str, content: str
) -> None:
    by_version = f"/v1/models/{ridden}/versions/1:predict"
    expected = shared.post(by_version, content=content).json()

    def ask() -> None:
        answer = shared.post(f"/v1/models/{ridden}:predict", content=content).json()
        for name in ("predictions", "probabilities", "classes", "model", "version", "code", "errors"):
            assert answer.get(name) == expected.get(name)

    assert went_by(shared, ask) == "ordinary"


def test_both_ways_give_the_same_answer_and_leave_the_same_record(shared: Client, ridden: str) -> None:
    answers, records = [], []
    for query, padding in (("", ""), ("", " " * 70_000), ("?ordinary", "")):
        content = json.dumps({"instances": [ROW], "padding": padding})
        answer = shared.post(
            f"/v1/models/{ridden}:predict{query}", content=content, headers={"x-request-id": "mine.1"}
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
    assert answers[0] == answers[1] == answers[2]
    assert records[0] == records[1] == records[2]
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
    before, asked = counted(shared, "roundhouse_predictions_total", **labels), []

    def ask() -> None:
        asked.append(shared.predict(ridden, [ROW, ROW]))

    wait_until(lambda: went_by(shared, ask) == "express")
    wait_until(lambda: counted(shared, "roundhouse_predictions_total", **labels) == before + 2 * len(asked))
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


ARROW = "application/vnd.apache.arrow.stream"
TYPES = {
    "scheduled": DataType.utf8(),
    "carrier": DataType.utf8(),
    "distance": DataType.int64(),
    "wind": DataType.float64(),
    "international": DataType.bool(),
}


@pytest.mark.parametrize(
    ("version", "dates", "rows", "accept", "way"),
    [  # the first is linear, the second a tree
        (1, "text", 1, "*/*", "express"),
        (1, "text", 100, ARROW, "ordinary"),
        (1, "timestamp", 100, ARROW, "express"),
        (1, "timestamp", 2000, ARROW, "express"),
        (1, "timestamp", 2001, ARROW, "ordinary"),
        (2, "text", 1, ARROW, "express"),
        (2, "timestamp", 100, ARROW, "ordinary"),
        (2, "text", 1500, ARROW, "express"),
        (1, "timestamp", 2, "application/json", "ordinary"),
        (1, "timestamp", 2, "text/csv", "ordinary"),
    ],
)
def test_a_short_arrow_stream_goes_by_the_express_lane_and_is_answered_alike(
    shared: Client, ridden: str, version: int, dates: str, rows: int, accept: str, way: str
) -> None:
    assert shared.post(f"/v1/models/{ridden}:promote", json={"version": version}).status_code == 201
    columns: dict[str, Any] = {name: Array([ROW[name]] * rows, type_) for name, type_ in TYPES.items()}
    if dates == "timestamp":
        ticks = int(datetime.fromisoformat(ROW["scheduled"]).timestamp() * 1e6)
        columns["scheduled"] = Array([ticks] * rows, DataType.int64()).cast(DataType.timestamp("us"))
    written = io.BytesIO()
    write_ipc_stream(Table.from_pydict(columns), written, compression=None)
    headers = {"content-type": ARROW, "accept": accept}
    asked: dict[str, Any] = {"content": written.getvalue(), "headers": headers}
    expected = shared.post(f"/v1/models/{ridden}/versions/{version}:predict", **asked)
    answers: list[Any] = []

    def ask() -> None:
        answers.append(shared.post(f"/v1/models/{ridden}:predict", **asked))

    wait_until(lambda: went_by(shared, ask) == way)
    answer = answers[-1]
    assert answer.status_code == expected.status_code == 200
    told = {"content-type", "x-model", "x-model-version"}
    assert {name: answer.headers[name] for name in told} == {name: expected.headers[name] for name in told}
    assert answer.headers["x-variant"] == "champion"
    if accept in (ARROW, "*/*"):
        tables = [read_ipc_stream(io.BytesIO(one.content)).read_all() for one in (answer, expected)]
        for name in ("prediction", "probability_false", "probability_true"):
            ours, theirs = (table.column(name).to_pylist() for table in tables)
            assert ours == theirs
        for prediction_id in list(tables[0].column("prediction_id").to_pylist())[:: max(rows - 1, 1)]:
            recorded = shared.get(f"/v1/predictions/{prediction_id}").json()["inputs"]
            assert datetime.fromisoformat(recorded["scheduled"]).hour == 14
            assert recorded | {"scheduled": ROW["scheduled"]} == ROW


# ── On the wire ──────────────────────────────────────────────────────────────────────────────────


def request_text(
    client: Client, model: str, *, rows: int = 1, head: str = "", body: str | None = None
) -> bytes:
    """The bytes of a plain request, with more lines in its head."""
    body = json.dumps({"instances": [ROW] * rows}) if body is None else body
    lines = [
        f"POST /v1/models/{model}:predict HTTP/1.1",
        "Host: here",
        f"Authorization: {client.headers['authorization']}",
        f"Content-Length: {len(body)}",
    ]
    return ("\r\n".join(lines) + "\r\n" + head + "\r\n" + body).encode()


class Wire:
    """A connection, and the answers that come over it, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self.send = connection.sendall
        self._stream = connection.makefile("rb")

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of the next answer."""
        status = self._stream.readline()
        assert status, "the server has closed the connection"
        lines = iter(self._stream.readline, b"\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.decode().partition(":") for x in lines)
        }
        content = self._stream.read(int(headers.get("content-length", 0)))
        return int(status.split()[1]), headers, json.loads(content) if content else None

    def is_closed(self) -> bool:
        return self._stream.read(1) == b""


@contextmanager
def wire(client: Client) -> Iterator[Wire]:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        connection.settimeout(20)
        yield Wire(connection)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_requests_are_answered_in_order_however_their_bytes_are_cut(
    shared: Client, ridden: str, data: st.DataObject
) -> None:
    plain = st.tuples(
        st.just(200), st.integers(1, 3).map(lambda rows: request_text(shared, ridden, rows=rows))
    )
    other = st.sampled_from(
        [
            (200, b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"),
            (404, request_text(shared, "nobody")),
            (422, request_text(shared, ridden, body="{}")),
            (200, request_text(shared, ridden, body=json.dumps({"instances": [ROW]}) + " " * 70_000)),
        ]
    )
    asked = data.draw(st.lists(plain | other, min_size=1, max_size=6))
    stream = b"".join(text for _, text in asked)
    cuts = sorted(data.draw(st.lists(st.integers(0, min(len(stream), 2000)), max_size=5)))
    with wire(shared) as connection:
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            connection.send(stream[start:end])
            time.sleep(0.002)  # so that the pieces arrive as such
        for status, text in asked:
            got, _, body = connection.answer()
            assert got == status
            if b":predict" in text and status == 200:
                assert len(body["predictions"]) == text.count(b"carrier")


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(shared: Client, ridden: str) -> None:
    text = request_text(shared, ridden, head="Expect: 100-continue\r\n")
    head, _, body = text.partition(b"\r\n\r\n")
    with wire(shared) as connection:
        connection.send(head + b"\r\n\r\n")
        assert connection.answer()[0] == 100
        connection.send(body)
        assert connection.answer()[0] == 200


def test_a_client_that_wants_the_connection_closed_gets_that(shared: Client, ridden: str) -> None:
    with wire(shared) as connection:
        connection.send(request_text(shared, ridden, head="Connection: close\r\n"))
        status, headers, _ = connection.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert connection.is_closed()


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(start: Start) -> None:
    owner = start(keep_alive_seconds=2)
    owner.add_dataset("few", owner.table(rows=60, seed=2))
    register(owner, "m", train_here(owner, "few", algorithm="dummy"))
    assert owner.post("/v1/models/m:promote", json={"version": 1}).status_code == 201
    text = request_text(owner, "m")
    with wire(owner) as busy, wire(owner) as idle:
        idle.send(text)
        assert idle.answer()[0] == 200
        for _ in range(8):
            busy.send(text[:300])
            time.sleep(0.25)
            busy.send(text[300:])
            assert busy.answer()[0] == 200
            time.sleep(0.25)
        assert idle.is_closed()


def test_a_request_that_has_begun_is_answered_by_a_server_that_ends(tmp_path: Path, start: Start) -> None:
    owner = start()
    owner.add_dataset("few", owner.table(rows=60, seed=2))
    register(owner, "m", train_here(owner, "few", algorithm="dummy"))
    assert owner.post("/v1/models/m:promote", json={"version": 1}).status_code == 201
    with Serve(tmp_path, "--no-worker") as serve:  # over the same home
        client = serve.wait_until_ready()
        client.predict("m", [ROW])
        text = request_text(client, "m")
        with wire(client) as connection:
            connection.send(text[:-5])
            time.sleep(0.2)
            serve.process.terminate()
            wait_until(lambda: "Waiting for" in serve.output)
            connection.send(text[-5:])
            assert connection.answer()[0] == 200


PLAIN = [
    "POST /v1/models/m:predict HTTP/1.1",
    "Host: here",
    "Authorization: Bearer k",
    "Content-Type: application/json",
    "Accept: */*",
    "Content-Length: 17",
]


def test_a_plain_head_is_read() -> None:
    head = read_head("\r\n".join([*PLAIN, "X-Request-Id: mine"]).encode())
    assert head is not None
    assert (head.model, head.authorization, head.request_id, head.length) == ("m", b"Bearer k", "mine", 17)


@pytest.mark.parametrize(
    "lines",
    [
        PLAIN[:-1],
        ["GET /v1/models/m:predict HTTP/1.1", *PLAIN[1:]],
        ["POST /v1/models/m:predict HTTP/1.0", *PLAIN[1:]],
        ["POST /v1/models/m:predict?a=b HTTP/1.1", *PLAIN[1:]],
        ["POST /v1/models/m%41:predict HTTP/1.1", *PLAIN[1:]],
        ["POST /v1/models/m/versions/1:predict HTTP/1.1", *PLAIN[1:]],
        ["POST /v1/models/m:predict", *PLAIN[1:]],
        [*PLAIN, "Content-Length: 18"],
        [*PLAIN[:-1], "Content-Length: +17"],
        [*PLAIN, "Transfer-Encoding: chunked"],
        [*PLAIN[:-1], "Transfer-Encoding: chunked"],
        [*PLAIN, "Content-Encoding: gzip"],
        [*PLAIN, "Expect: 100-continue"],
        [*PLAIN, "Connection: close"],
        [*PLAIN, "Connection: upgrade", "Upgrade: websocket"],
        [*PLAIN, "Accept: application/vnd.apache.arrow.stream"],
        [*PLAIN, "Content-Type: text/csv"],
        [*PLAIN, "no colon"],
        [*PLAIN, "X: a\n\nPOST /v1/models/m:predict HTTP/1.1"],
        [*PLAIN, "X: a\x00b"],
        [*PLAIN[:3], "", *PLAIN[3:]],
    ],
)
def test_any_other_head_is_left_to_the_server(lines: list[str]) -> None:
    assert read_head("\r\n".join(lines).encode()) is None


def test_heads_that_are_all_different_are_answered(shared: Client, ridden: str) -> None:
    answered = set()
    for number in range(1200):  # more than the lane remembers
        headers = {"traceparent": f"00-{number:032x}-00f067aa0ba902b7-01", "x-request-id": f"r{number}"}
        answer = shared.post(f"/v1/models/{ridden}:predict", json={"instances": [ROW]}, headers=headers)
        answered.add((answer.status_code, answer.headers["x-request-id"] == headers["x-request-id"]))
    assert answered == {(httpx.codes.OK, True)}
