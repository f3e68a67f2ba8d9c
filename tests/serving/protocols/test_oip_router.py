"""The Open Inference Protocol over HTTP: the same predictions as ``/v1``, and errors in its own form."""

import gzip
import json
import struct
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from tests.client import Client
from tests.conftest import Start
from tests.serving.protocols.flights import COLUMNS, flight_rows
from tests.versions import journal_of, register, train_here

pytestmark = pytest.mark.sqlite_alone

ROWS = flight_rows(rows=100, seed=5)


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": datatype, "shape": [len(rows), 1], "data": [row[name] for row in rows]}
        for name, datatype in COLUMNS.items()
    ]


def infer(client: Client, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(f"/v2/models/{path}/infer", content=content, headers=headers)


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    error: str = body["error"]
    return error


def test_the_answer_is_that_of_version_1(shared: Client, spoken: dict[str, str]) -> None:
    expected = shared.predict("spoken", ROWS)
    answer = infer(shared, "spoken", {"id": "order-17", "inputs": tensors(ROWS)})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    prediction, probabilities = body["outputs"]
    assert prediction["data"] == expected["predictions"]
    assert probabilities["shape"] == [len(ROWS), 2]
    assert probabilities["data"] == [share for row in expected["probabilities"] for share in row]
    assert probabilities["parameters"]["classes"] == expected["classes"]
    assert (body["model_name"], body["model_version"], body["id"]) == ("spoken", "1", "order-17")


def test_a_version_is_asked_by_its_number(shared: Client, spoken: dict[str, str]) -> None:
    expected = shared.predict("spoken", ROWS, at="/versions/2")
    body = infer(shared, "spoken/versions/2", {"inputs": tensors(ROWS)}).json()
    assert body["model_version"] == "2"
    assert body["outputs"][0]["data"] == expected["predictions"]


def test_a_prediction_is_recorded_as_if_it_came_in_json(shared: Client, spoken: dict[str, str]) -> None:
    distances = np.array([700.0], "<f4").tobytes()
    inputs = tensors(ROWS[:1])
    inputs[2] = {
        "name": "distance", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4},
    }  # fmt: skip
    text = json.dumps({"inputs": inputs, "id": "order-18"}).encode()
    length = {"inference-header-content-length": str(len(text))}
    body = infer(shared, "spoken", text + distances, **length).json()
    (prediction_id,) = body["parameters"]["prediction_ids"]
    found = shared.get(f"/v1/predictions/{prediction_id}").json()
    assert json.dumps(found["inputs"]) == json.dumps(ROWS[0] | {"distance": 700})
    with journal_of(shared.settings) as journal:
        (record,) = [one for one in journal.read("spoken") if one.prediction_id == prediction_id]
    assert record.client_id == "order-18"


def test_whatever_a_client_calls_the_body_it_is_read(shared: Client, spoken: dict[str, str]) -> None:
    for content_type in ("", "application/octet-stream", "text/html"):
        answer = infer(shared, "spoken", {"inputs": tensors(ROWS[:1])}, **{"content-type": content_type})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_bodies_are_compressed_both_ways(
    shared: Client, spoken: dict[str, str], encoding: str, encode: Any
) -> None:
    text = json.dumps({"inputs": tensors(ROWS)}).encode()
    headers = {"content-encoding": encoding, "accept-encoding": encoding}
    answer = infer(shared, "spoken", encode(text), **headers)
    assert answer.headers["content-encoding"] == encoding
    expected = shared.predict("spoken", ROWS)["predictions"]
    assert answer.json()["outputs"][0]["data"] == expected


def test_binary_answers_tell_where_their_json_ends(shared: Client, spoken: dict[str, str]) -> None:
    request = {"inputs": tensors(ROWS), "parameters": {"binary_data_output": True}}
    answer = infer(shared, "spoken", request)
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers["inference-header-content-length"])
    prediction, probabilities = json.loads(answer.content[:end])["outputs"]
    start = end + prediction["parameters"]["binary_data_size"]
    expected = shared.predict("spoken", ROWS)
    assert list(struct.unpack(f"{len(ROWS)}?", answer.content[end:start])) == expected["predictions"]
    shares = np.frombuffer(answer.content[start:]).reshape(probabilities["shape"])
    assert shares.tolist() == expected["probabilities"]


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"distance": ["far"]}, "Input 'distance' has the datatype INT64"),
        ({"distance": [None]}, "/inputs/0/distance: must not be null"),
        ({"scheduled": ["tomorrow"]}, "/inputs/0/scheduled: must be an ISO 8601 time"),
        ({"international": [1]}, "Input 'international' has the datatype BOOL"),
    ],
)
def test_a_wrong_value_is_refused_by_its_column(
    shared: Client, spoken: dict[str, str], change: dict[str, list[Any]], told: str
) -> None:
    inputs = [one | {"data": change.get(one["name"], one["data"])} for one in tensors(ROWS[:1])]
    assert told in refused(infer(shared, "spoken", {"inputs": inputs}), 422)


def test_a_missing_input_is_named(shared: Client, spoken: dict[str, str]) -> None:
    inputs = [one for one in tensors(ROWS[:1]) if one["name"] != "distance"]
    assert "distance: the column is missing" in refused(infer(shared, "spoken", {"inputs": inputs}), 422)


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/v2/models/nobody", 404, "'nobody'"),
        ("GET", "/v2/models/nobody/ready", 404, "'nobody'"),
        ("GET", "/v2/models/nobody/stats", 404, "'nobody'"),
        ("POST", "/v2/models/nobody/infer", 404, "'nobody'"),
        ("POST", "/v2/models/spoken/versions/9/infer", 404, "no version 9"),
        ("GET", "/v2/models/spoken/versions/one", 422, "version"),
        ("GET", "/v2/nothing", 404, ""),
        ("GET", "/v2/models/spoken/infer", 405, "not possible"),
        ("PUT", "/v2", 405, "not possible"),
        ("POST", "/v2/models/spoken/infer", 422, "not JSON"),
        ("POST", "/v2/repository/models/nobody/load", 404, "'nobody'"),
        ("POST", "/v2/repository/models/nobody/unload", 404, "'nobody'"),
    ],
)
def test_errors_have_the_protocols_form(
    shared: Client, spoken: dict[str, str], method: str, path: str, status: int, told: str
) -> None:
    assert told in refused(shared.request(method, path), status)


def test_a_model_without_deployment_is_not_ready(shared: Client, model: str) -> None:
    for path in ("", "/ready", "/config", "/stats"):
        assert "no version in service" in refused(shared.get(f"/v2/models/{model}{path}"), 409)
    assert shared.get(f"/v2/models/{model}/versions/3/ready").json() == {"name": model, "ready": True}


def test_bodies_have_limits(start: Start) -> None:
    client = start(max_instances=3, max_request_bytes=5_000)
    client.add_dataset("few", client.table(rows=60, seed=2))
    register(client, "limited", train_here(client, "few", algorithm="dummy"))
    client.post("/v1/models/limited:promote", json={"version": 1})
    four = {"inputs": tensors(ROWS[:4])}
    assert "at most 3 instances" in refused(infer(client, "limited", four), 422)
    assert "5000 bytes" in refused(infer(client, "limited", b" " * 5_001), 413)
    bomb = gzip.compress(b" " * 5_001)
    assert "5000 bytes" in refused(infer(client, "limited", bomb, **{"content-encoding": "gzip"}), 413)
    assert "'br'" in refused(infer(client, "limited", b"x", **{"content-encoding": "br"}), 415)
    config = client.get("/v2/models/limited/config").json()
    assert config["max_batch_size"] == 3


# ── The server and its models ────────────────────────────────────────────────────────────────────


def test_the_server_describes_itself_to_everybody(shared: Client) -> None:
    def read(path: str) -> Any:
        answer = shared.get(path, headers={"authorization": ""})
        assert answer.status_code == 200
        return answer.json()

    assert read("/v2")["name"] == "roundhouse"
    assert "binary_tensor_data" in read("/v2")["extensions"]
    assert read("/v2/health/live") == {"live": True}
    assert read("/v2/health/ready") == {"ready": True}


def test_metadata_names_versions_inputs_and_outputs(shared: Client, spoken: dict[str, str]) -> None:
    described = shared.get("/v2/models/spoken").json()
    assert described["name"] == "spoken"
    assert described["versions"] == ["1", "2"]
    assert {one["name"]: one["datatype"] for one in described["inputs"]} == COLUMNS
    assert [one["name"] for one in described["outputs"]] == ["prediction", "probabilities", "prediction_id"]
    assert shared.get("/v2/models/spoken/versions/2").json()["versions"] == ["2"]


def test_statistics_count_rows_and_requests(shared: Client, model: str) -> None:
    shared.post(f"/v1/models/{model}:promote", json={"version": 2})

    def counted(path: str) -> dict[str, tuple[int, int, int]]:
        read = shared.get(path).json()["model_stats"]
        return {
            one["version"]: (
                one["inference_count"],
                one["inference_stats"]["success"]["count"],
                one["inference_stats"]["fail"]["count"],
            )
            for one in read
            if one["name"] == model
        }

    assert counted(f"/v2/models/{model}/stats") == {"2": (0, 0, 0)}
    infer(shared, model, {"inputs": tensors(ROWS[:7])})
    shared.predict(model, ROWS[:2])
    refused(infer(shared, model, {"inputs": tensors(ROWS[:1])[:1]}), 422)
    infer(shared, f"{model}/versions/3", {"inputs": tensors(ROWS[:1])})
    assert counted(f"/v2/models/{model}/stats") == {"2": (9, 2, 1), "3": (1, 1, 0)}
    assert counted(f"/v2/models/{model}/versions/3/stats") == {"3": (1, 1, 0)}
    assert counted(f"/v2/models/{model}/versions/1/stats") == {"1": (0, 0, 0)}
    assert counted("/v2/models/stats") == {"2": (9, 2, 1), "3": (1, 1, 0)}


# ── The repository ───────────────────────────────────────────────────────────────────────────────


def load(client: Client, model: str, config: dict[str, Any] | None = None) -> httpx.Response:
    parameters = {} if config is None else {"config": json.dumps(config)}
    return client.post(f"/v2/repository/models/{model}/load", json={"parameters": parameters})


def one_version(number: int) -> dict[str, Any]:
    return {"version_policy": {"specific": {"versions": [number]}}}


def deployed(client: Client, model: str) -> list[int]:
    """The versions of all deployments, the newest first."""
    items = client.get(f"/v1/models/{model}/deployments").json()["items"]
    return [item["slots"][0]["version"] for item in items]


def test_load_promotes_the_newest_version_once(shared: Client, model: str) -> None:
    for _ in range(2):
        assert load(shared, model).status_code == 200
        assert deployed(shared, model) == [3]
    assert infer(shared, model, {"inputs": tensors(ROWS[:1])}).json()["model_version"] == "3"


def test_load_promotes_the_version_it_names(shared: Client, model: str) -> None:
    load(shared, model)
    for _ in range(2):
        assert load(shared, model, one_version(1)).status_code == 200
        assert deployed(shared, model) == [1, 3]
    assert "no version 9" in refused(load(shared, model, one_version(9)), 404)
    assert "version_policy" in refused(load(shared, model, {"max_batch_size": 8}), 422)


def test_unload_is_refused_for_what_is_in_service(shared: Client, model: str) -> None:
    path = f"/v2/repository/models/{model}/unload"
    assert shared.post(path).status_code == 200
    load(shared, model)
    assert "stays in service" in refused(shared.post(path), 409)
    assert deployed(shared, model) == [3]


def test_the_index_lists_what_a_key_may_see(shared: Client, model: str) -> None:
    shared.post(f"/v1/models/{model}:promote", json={"version": 2})
    other = shared.as_role("client", models=model)

    def states(**body: Any) -> dict[str, str]:
        return {one["version"]: one["state"] for one in other.post("/v2/repository/index", json=body).json()}

    assert states() == {"1": "UNAVAILABLE", "2": "READY", "3": "UNAVAILABLE"}
    assert states(ready=True) == {"2": "READY"}
    named = {one["name"] for one in other.post("/v2/repository/index").json()}
    assert named == {model}
    assert model in {one["name"] for one in shared.post("/v2/repository/index").json()}
