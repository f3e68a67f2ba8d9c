"""MLflow's scoring protocol: every form of its bodies, its errors, and its own client."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.columns import ColumnType
from app.errors import InvalidInput
from app.registry.signature import Feature, Role, Signature, Task
from app.serving.protocols.mlflow import parse_csv, parse_json
from tests.client import Client
from tests.clients.environments import run_client
from tests.conftest import Start
from tests.versions import register, train_here

pytestmark = pytest.mark.sqlite_alone


def signature(**types: str) -> Signature:
    return Signature(
        features=tuple(
            Feature(name=name, type=ColumnType(type_), role=Role.NUMERIC, nullable=True)
            for name, type_ in types.items()
        ),
        target="y",
        target_type=ColumnType.NUMBER,
        task=Task.REGRESSION,
    )


TWO = signature(a="number", b="string")
ONE = signature(a="number")

A1, A2 = {"a": 1, "b": "x"}, {"a": None, "b": "y"}


def parse(of: Signature = TWO, **body: Any) -> list[dict[str, Any]]:
    return parse_json(json.dumps(body).encode(), of).rows


# ── The forms ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["b", "a"], "data": [["x", 1], ["y", None]], "index": [7, 8]}},
        {"dataframe_split": {"data": [[1, "x"], [None, "y"]]}},
        {"dataframe_records": [A1, A2]},
        {"instances": [A1, A2]},
        {"instances": [[1, "x"], [None, "y"]]},
        {"instances": {"a": [1, None], "b": ["x", "y"]}},
        {"inputs": [A1, A2], "params": {}},
        {"inputs": [[1, "x"], [None, "y"]], "params": None},
        {"inputs": {"b": ["x", "y"], "a": [[1], [None]]}},
    ],
)
def test_every_form_holds_the_same_rows(body: dict[str, Any]) -> None:
    assert parse(**body) == [A1, A2]


def test_one_row_may_be_an_object_of_values() -> None:
    assert parse(inputs=A1) == [A1]


@pytest.mark.parametrize("field", ["instances", "inputs"])
def test_a_model_of_one_column_takes_a_list_of_values(field: str) -> None:
    assert parse(ONE, **{field: [1, None, 2.5]}) == [{"a": 1}, {"a": None}, {"a": 2.5}]


def test_csv_is_typed_by_the_signature() -> None:
    body = b'a,b,note\r\n1.5,x,\r\n,"",2\r\nNA,NA,"a ""b"""\r\n'
    assert parse_csv(body, TWO).rows == [
        {"a": 1.5, "b": "x", "note": None},
        {"a": None, "b": "", "note": "2"},
        {"a": None, "b": "NA", "note": 'a "b"'},
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "exactly one of dataframe_split, dataframe_records, instances, inputs"),
        ({"instances": [A1], "inputs": [A1]}, "exactly one of"),
        ({"columns": ["a"], "data": [[1]]}, "exactly one of"),
        ({"instances": []}, "/instances: there are no rows"),
        ({"instances": 3}, "/instances: must be a list of records"),
        ({"instances": [A1, 3]}, "/instances/1: must be an object"),
        ({"instances": [[1, "x"], [1]]}, "/instances/1: must be a list of 2 values: a, b"),
        ({"instances": [[1, "x", 2]]}, "/instances/0: must be a list of 2 values"),
        ({"inputs": {"a": [1, 2], "b": ["x"]}}, "/inputs/b: has 1 values, and the columns before it 2"),
        ({"inputs": {"a": [1, 2], "b": "x"}}, "/inputs/b: must be a list of values"),
        ({"dataframe_records": A1}, "/dataframe_records: must be a list of records"),
        ({"dataframe_records": [[1, "x"]]}, "/dataframe_records/0: must be an object"),
        ({"dataframe_split": [A1]}, "/dataframe_split: must be an object with data"),
        ({"dataframe_split": {"columns": ["a", "b"]}}, "/dataframe_split: must be an object with data"),
        ({"dataframe_split": {"data": [], "dtype": "f"}}, "/dataframe_split: must be an object with data"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "must not name a column twice"),
        ({"dataframe_split": {"columns": [0, 1], "data": [[1, 2]]}}, "must be a list of names"),
        (
            {"dataframe_split": {"columns": ["a"], "data": [[1], 2]}},
            "/dataframe_split/data/1: must be a list",
        ),
        ({"dataframe_split": {"columns": ["a"], "data": 1}}, "/dataframe_split/data: must be a list of rows"),
        ({"instances": [A1], "params": {"temperature": 1}}, "/params: the model takes no parameters"),
    ],
)
def test_a_body_that_is_no_table_is_refused(body: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid input") as caught:
        parse(**body)
    assert caught.value.status == 400
    assert told in caught.value.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)


@given(
    st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]),
    json_values | st.fixed_dictionaries({"columns": json_values, "data": json_values}),
    st.sampled_from([ONE, TWO]),
)
def test_any_json_is_rows_or_is_refused(field: str, value: Any, of: Signature) -> None:
    try:
        rows = parse(of, **{field: value})
    except InvalidInput as refusal:
        status = refusal.status
        rows = []
    else:
        status = 200
    assert status == (200 if rows else 400)
    assert all(type(row) is dict for row in rows)


# ── The server ───────────────────────────────────────────────────────────────────────────────────

ROW: dict[str, Any] = {
    "scheduled": "2013-05-31T14:15:00Z",
    "carrier": "B6",
    "distance": 700,
    "wind": 17.5,
    "international": False,
}


@pytest.fixture(scope="module")
def scored(shared: Client, flights: str) -> str:
    register(shared, "scored", train_here(shared, flights, algorithm="logistic_regression"))
    assert shared.post("/v1/models/scored:promote", json={"version": 1}).status_code == 201
    return "scored"


def invoke(client: Client, model: str, body: Any, media_type: str = "application/json") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(
        f"/v1/models/{model}/invocations", content=content, headers={"content-type": media_type}
    )


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    body = answer.json()
    assert list(body) == ["error_code", "message"]
    assert body["error_code"] == code
    message: str = body["message"]
    return message


ROWS = [{name: row[name] for name in ROW} for row in Client.rows(rows=20, seed=4)]


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ({"dataframe_records": ROWS}, "application/json"),
        ({"dataframe_records": ROWS}, "application/json; charset=utf-8"),
        ({"dataframe_split": {"columns": [*ROW], "data": [[*row.values()] for row in ROWS]}}, "text/json"),
        ({"inputs": {name: [row[name] for row in ROWS] for name in ROW}}, ""),
        (Client.as_csv(ROWS), "text/csv"),
        (Client.as_csv(ROWS), 'Text/CSV; charset="UTF-8"'),
    ],
)
def test_a_model_answers_as_predict_does(shared: Client, scored: str, body: Any, media_type: str) -> None:
    answer = invoke(shared, scored, body, media_type)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert list(found) == ["predictions", "prediction_ids"]
    assert found["predictions"] == shared.predict(scored, ROWS)["predictions"]
    recorded = shared.get(f"/v1/predictions/{found['prediction_ids'][7]}").json()
    assert (recorded["prediction"], recorded["inputs"]) == (found["predictions"][7], ROWS[7])


SECRET = "hunter2"  # noqa: S105 - it looks like what should not be repeated


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"distance": 2.9}, "/dataframe_records/1/distance: must be an integer"),
        ({"distance": True}, "/dataframe_records/1/distance: must be an integer"),
        ({"international": 1}, "/dataframe_records/1/international: must be true or false"),
        ({"distance": SECRET}, "/dataframe_records/1/distance: must be an integer"),
        ({"distance": None}, "/dataframe_records/1/distance: must not be null"),
        ({"gate": SECRET}, "/dataframe_records/1/gate: the model has no such column"),
        ({"wind": [SECRET]}, "/dataframe_records/1/wind: must be a number"),
    ],
)
def test_a_wrong_value_is_neither_bent_nor_repeated(
    shared: Client, scored: str, change: dict[str, Any], at: str
) -> None:
    answer = invoke(shared, scored, {"dataframe_records": [ROW, ROW | change]})
    message = refused(answer, 400, "BAD_REQUEST")
    assert at in message
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("body", [b"{", b'{"instances": [' + SECRET.encode(), b"\xff", b"[]", b""])
def test_a_body_that_is_not_json_is_refused_and_not_repeated(
    shared: Client, scored: str, body: bytes
) -> None:
    answer = invoke(shared, scored, body)
    refused(answer, 400, "BAD_REQUEST")
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"carrier,distance\nAA,2.9\n", "/rows/0/distance: must be an integer"),
        (b"carrier,distance\nAA,1\nAA\n", "Row 2 has 1 fields, and the header 2"),
        (b'carrier,distance\n"AA,1\n', "out of place"),
        (b"", "there are no rows"),
        (b"carrier,distance\n", "there are no rows"),
    ],
)
def test_wrong_csv_is_refused(shared: Client, scored: str, body: bytes, told: str) -> None:
    assert told in refused(invoke(shared, scored, body, "text/csv"), 400, "BAD_REQUEST")


@pytest.mark.parametrize("media_type", ["application/vnd.apache.parquet", "text/csv; charset=latin-1"])
def test_other_types_of_bodies_are_refused(shared: Client, scored: str, media_type: str) -> None:
    answer = invoke(shared, scored, b"", media_type)
    assert answer.status_code == 415
    assert ":predict" in answer.json()["message"]


def test_what_is_not_there_is_told_in_mlflows_words(shared: Client, model: str) -> None:
    refused(invoke(shared, "nobody", {"inputs": [ROW]}), 404, "RESOURCE_DOES_NOT_EXIST")
    assert invoke(shared, model, {"inputs": [ROW]}).status_code == 409
    refused(shared.get("/v1/models/nobody/invocations"), 405, "ENDPOINT_NOT_FOUND")


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_health_needs_no_key(shared: Client, path: str) -> None:
    answer = shared.get(path, headers={"authorization": ""})
    assert (answer.status_code, answer.text) == (200, "\n")


def test_health_tells_of_a_model_that_cannot_be_loaded(start: Start) -> None:
    client = start()
    serve(client, "flights")
    for artifact in (client.settings.home / "objects").rglob("*"):
        if artifact.is_file():
            artifact.unlink()
    restarted = start()
    answer = restarted.get("/ping")
    assert (answer.status_code, answer.json()["code"]) == (503, "model_not_loaded")
    assert "cannot be loaded" in restarted.get("/readyz").json()["models"]
    message = refused(invoke(restarted, "flights", {"inputs": [ROW]}), 503, "TEMPORARILY_UNAVAILABLE")
    assert "cannot be loaded" in message


# ── The root ─────────────────────────────────────────────────────────────────────────────────────


def serve(client: Client, *models: str) -> None:
    client.add_dataset("flights", client.table(rows=60, seed=1))
    trained = train_here(client, "flights", algorithm="logistic_regression")
    for name in models:
        register(client, name, trained)
        assert client.post(f"/v1/models/{name}:promote", json={"version": 1}).status_code == 201


def test_the_root_asks_the_only_model_that_the_key_may_see(start: Start) -> None:
    client = start()
    body = {"inputs": [ROW]}
    assert "No model is in service" in client.post("/invocations", json=body).json()["message"]
    serve(client, "first", "second")
    several = client.post("/invocations", json=body)
    assert several.status_code == 409
    assert "Several models are in service" in several.json()["message"]
    answer = client.as_role("client", models="first").post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    assert client.get(f"/v1/predictions/{answer.json()['prediction_ids'][0]}").json()["model"] == "first"


def test_the_root_asks_the_default_model(start: Start) -> None:
    client = start(default_model="second")
    serve(client, "first", "second")
    answer = client.post("/invocations", json={"inputs": [ROW]})
    assert client.get(f"/v1/predictions/{answer.json()['prediction_ids'][0]}").json()["model"] == "second"
    forbidden = client.as_role("client", models="first").post("/invocations", json={"inputs": [ROW]})
    refused(forbidden, 403, "PERMISSION_DENIED")


def test_mlflows_own_client_works(start: Start) -> None:
    client = start(no_auth=True)
    serve(client, "flights")
    predictions = client.predict("flights", ROWS)["predictions"]
    url = client.base_url
    told = run_client("mlflow", "mlflow_scoring", {"host": url.host, "port": url.port, "rows": ROWS})
    assert told["version"]
    assert told["frame"]["predictions"] == predictions
    assert len(set(told["frame"]["prediction_ids"])) == len(ROWS)
    for form in ("table", "array", "list", "text", "no_params"):
        assert told[form] == predictions, form
    assert "must be an integer" in told["refused"]
    assert "BAD_REQUEST" in told["refused"]
    assert "takes no parameters" in told["refused_params"]
