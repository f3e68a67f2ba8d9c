"""Each model is documented as it is served: by a schema that the server keeps, to those who may see it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.columns import ColumnType
from app.registry.signature import Feature, Role
from app.serving.openapi import MAX_CATEGORIES, column_schema
from tests.client import ADMIN_KEY, Client
from tests.conftest import Start, make_settings, running_server
from tests.versions import register, train_here

GENERATOR = "openapi-python-client==0.29.1"
NAMES = ("delays", "grades", "wind")

# ── Columns ──────────────────────────────────────────────────────────────────────────────────────

ROLES = {
    ColumnType.INTEGER: Role.NUMERIC,
    ColumnType.NUMBER: Role.NUMERIC,
    ColumnType.BOOLEAN: Role.BOOLEAN,
    ColumnType.STRING: Role.CATEGORICAL,
    ColumnType.DATE: Role.DATETIME,
    ColumnType.DATETIME: Role.DATETIME,
}
times = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.isoformat().replace("+00:00", "Z"))
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.dates().map(lambda day: day.isoformat()),
    times,
    st.lists(st.integers(), max_size=1),
    st.dictionaries(st.text(max_size=1), st.integers(), max_size=1),
)


@st.composite
def features(draw: st.DrawFn) -> Feature:
    type_, nullable = draw(st.sampled_from(ColumnType)), draw(st.booleans())
    role = ROLES[type_]
    categories: tuple[int, ...] | tuple[str, ...] | None = None
    if role is Role.CATEGORICAL:
        categories = tuple(draw(st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=60)))
    elif type_ is ColumnType.INTEGER and draw(st.booleans()):
        role, categories = Role.CATEGORICAL, tuple(range(draw(st.integers(1, 60))))
    return Feature(name="x", type=type_, role=role, nullable=nullable, categories=categories)


@given(features(), values)
def test_a_column_takes_what_its_schema_allows_and_nothing_else(feature: Feature, value: Any) -> None:
    schema = jsonschema_rs.Draft202012Validator(column_schema(feature), validate_formats=True)
    allowed = schema.is_valid(value)
    try:
        feature.encode(value)
    except ValueError:
        taken = False
    else:
        taken = True
    if feature.role is Role.DATETIME and isinstance(value, str):
        assert taken or not allowed, "ISO 8601 knows more ways to write a time than the format has"
    else:
        assert taken is allowed


def column(type_: ColumnType, role: Role, **facts: Any) -> dict[str, Any]:
    return column_schema(Feature(name="x", type=type_, role=role, **{"nullable": False, **facts}))


def test_categories_are_listed_beside_the_open_type_up_to_fifty() -> None:
    few = column(ColumnType.STRING, Role.CATEGORICAL, categories=("AA", "B6"))
    assert few["anyOf"] == [{"type": "string", "enum": ["AA", "B6"]}, {"type": "string"}]
    null = column(ColumnType.STRING, Role.CATEGORICAL, categories=("AA", "B6"), nullable=True)
    assert null["anyOf"] == [*few["anyOf"], {"type": "null"}]
    most = column(ColumnType.INTEGER, Role.CATEGORICAL, categories=tuple(range(MAX_CATEGORIES)))
    assert most["anyOf"][0] == {"type": "integer", "enum": list(range(50))}
    more = column(ColumnType.INTEGER, Role.CATEGORICAL, categories=tuple(range(MAX_CATEGORIES + 1)))
    assert more["type"] == "integer"
    assert more["examples"] == [0, 1, 2]
    assert "51 in training" in more["description"]


def test_the_range_seen_in_training_is_told() -> None:
    distance = column(ColumnType.INTEGER, Role.NUMERIC, minimum=80.0, maximum=4983.0)
    assert distance["description"].startswith("From 80 to 4983 in training")
    day = column(ColumnType.DATE, Role.DATETIME, minimum="2013-01-01", maximum="2013-12-31", nullable=True)
    assert day["description"].startswith("From 2013-01-01 to 2013-12-31 in training")
    assert (day["type"], day["format"]) == (["string", "null"], "date")


# ── A model's document ───────────────────────────────────────────────────────────────────────────


def prepare(client: Client) -> None:
    """Three promoted models: of two classes, of three, and of a number."""
    client.add_dataset("flights", client.table(rows=100, seed=1))
    lines = ["wind,grade,month"]
    lines += [f"{row % 17},{['low', 'mid', 'high'][row % 3]},{1 + row % 12}" for row in range(90)]
    client.add_dataset("grades", "\n".join(lines).encode())
    months = {"wind": {}, "month": {"role": "categorical"}}
    delays = train_here(client, "flights", algorithm="logistic_regression")
    register(client, "delays", delays, train_here(client, "flights", algorithm="dummy", features=["wind"]))
    register(
        client,
        "grades",
        train_here(client, "grades", target="grade", algorithm="decision_tree", features=months),
    )
    register(client, "wind", train_here(client, "flights", target="wind", algorithm="ridge"))
    for name in NAMES:
        promote(client, name)


def promote(client: Client, model: str, version: int = 1, **how: Any) -> None:
    answer = client.post(f"/v1/models/{model}:promote", json={"version": version, **how})
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = make_settings(tmp_path_factory.mktemp("home"))
    with running_server(settings) as url, Client.of(url, settings) as client:
        prepare(client)
        yield client


def document_of(client: Client, model: str) -> dict[str, Any]:
    answer = client.get(f"/v1/models/{model}/openapi.json")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    schema: dict[str, Any] = document["components"]["schemas"][name]
    return schema


def check(document: dict[str, Any], name: str, value: Any) -> None:
    whole = {**schema_of(document, name), "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def shown(client: Client) -> list[str]:
    """The models in the server's document, in its order."""
    paths = "\n".join(client.get("/openapi.json").json()["paths"])
    return re.findall(r"^/v1/models/([\w-]+):predict$", paths, re.MULTILINE)


def test_a_models_columns_are_described(served: Client) -> None:
    instance = schema_of(document_of(served, "delays"), "delays-Instance")
    signature = served.get("/v1/models/delays").json()["signature"]
    features = [feature["name"] for feature in signature["features"]]
    assert list(instance["properties"]) == features + signature["ignored"]
    assert instance["required"] == ["scheduled", "distance", "international"]
    assert instance["additionalProperties"] is False
    properties = instance["properties"]
    assert properties["wind"]["type"] == ["number", "null"]
    assert properties["scheduled"]["format"] == "date-time"
    assert properties["carrier"]["anyOf"][0]["enum"] == ["AA", "B6", "UA"]
    assert properties["international"] == {"type": "boolean"}


def test_a_models_classes_are_described(served: Client) -> None:
    answer = schema_of(document_of(served, "grades"), "grades-PredictResponse")["properties"]
    labels = {"type": "string", "enum": ["high", "low", "mid"]}
    assert answer["predictions"]["items"] == answer["classes"]["items"] == labels
    assert (answer["probabilities"]["items"]["minItems"], answer["probabilities"]["items"]["maxItems"]) == (
        3,
        3,
    )
    number = schema_of(document_of(served, "wind"), "wind-PredictResponse")["properties"]
    assert number["predictions"]["items"] == {"type": "number"}
    assert "classes" not in number
    assert "probabilities" not in number


@pytest.mark.parametrize("model", NAMES)
def test_a_models_example_is_answered_as_documented(served: Client, model: str) -> None:
    document = document_of(served, model)
    (path,) = (path for path in document["paths"] if path.endswith(":predict"))
    (example,) = schema_of(document, f"{model}-PredictRequest")["examples"]
    check(document, f"{model}-PredictRequest", example)
    answer = served.post(path, json=example)
    assert answer.status_code == 200, answer.text
    check(document, f"{model}-PredictResponse", answer.json())
    batch = deepcopy(schema_of(document, "FeedbackBatch")["examples"][0])
    check(document, "FeedbackBatch", batch)
    batch["items"][0]["prediction_id"] = answer.json()["prediction_ids"][0]
    assert served.post("/v1/feedback", json=batch).json()["accepted"] == 1


@pytest.mark.parametrize("model", NAMES)
def test_a_models_document_stands_alone(served: Client, model: str) -> None:
    document = document_of(served, model)
    assert document["info"]["title"] == model
    assert list(document["paths"]) == [f"/v1/models/{model}:predict", "/v1/feedback"]
    referred = set(re.findall(r"#/components/schemas/([\w-]+)", json.dumps(document)))
    assert referred == set(document["components"]["schemas"])
    operations = [operation for at in document["paths"].values() for operation in at.values()]
    assert [tag["name"] for tag in document["tags"]] == [operation["tags"][0] for operation in operations]
    assert all(operation["security"] == [{"key": []}] for operation in operations)
    assert "bearer" in str(document["components"]["securitySchemes"])


@pytest.mark.parametrize("model", NAMES)
def test_a_client_that_is_generated_from_the_document_predicts(
    served: Client, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document_of(served, model)))
    script = Path(__file__).with_name("generated_client.py")
    run = [
        "uv",
        "run",
        "--no-project",
        "--python",
        sys.executable,
        "--with",
        GENERATOR,
        "python",
        str(script),
    ]
    told = subprocess.run(
        [*run, str(file), str(tmp_path), str(served.base_url), ADMIN_KEY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    said = json.loads(told.stdout)
    assert said["receipt"]["accepted"] == 1
    same = served.predict(model, said["sent"]["instances"])
    assert said["answer"] | {"prediction_ids": []} == same | {"prediction_ids": []}


def test_a_model_without_a_deployment_has_no_document(served: Client) -> None:
    register(served, "waiting", train_here(served, "flights", algorithm="dummy"))
    answer = served.get("/v1/models/waiting/openapi.json")
    assert (answer.status_code, answer.json()["code"]) == (409, "model_not_deployed")
    answer = served.get("/v1/models/delay/openapi.json")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
    assert "'delays'" in answer.json()["detail"]


def test_a_models_document_is_for_keys_that_may_see_the_model(served: Client) -> None:
    limited = served.as_role("client", models="gr*")
    assert document_of(limited, "grades") == document_of(served, "grades")
    assert limited.get("/v1/models/delays/openapi.json").json()["code"] == "model_not_allowed"


# ── The server's document ────────────────────────────────────────────────────────────────────────


def test_the_servers_document_shows_the_models_that_the_key_may_see(served: Client) -> None:
    assert shown(served) == sorted(NAMES)
    assert shown(served.as_role("client", models="gr*")) == ["grades"]
    assert shown(served.as_role("viewer", models="none-*")) == []
    answer = served.get("/openapi.json")
    assert "delays-Instance" in answer.json()["components"]["schemas"]
    assert answer.headers["vary"] == "authorization"


def test_without_a_good_key_no_model_is_shown(served: Client) -> None:
    public = served.get("/openapi.json", headers={"authorization": ""})
    assert "delays-Instance" not in public.text
    refused = served.get("/openapi.json", headers={"authorization": "Bearer revoked"}).json()
    assert "The API key is unknown or revoked." in refused["info"]["description"]
    assert refused["paths"] == public.json()["paths"]
    assert refused["components"] == public.json()["components"]


def test_a_models_operation_is_the_same_in_both_documents(served: Client) -> None:
    whole, own = served.get("/openapi.json").json(), document_of(served, "grades")
    path = "/v1/models/grades:predict"
    assert whole["paths"][path] == own["paths"][path]
    for name in ("Instance", "PredictRequest", "PredictResponse"):
        assert schema_of(whole, f"grades-{name}") == schema_of(own, f"grades-{name}")


def test_without_authorization_every_model_is_shown(start: Start) -> None:
    client = start(no_auth=True)
    prepare(client)
    assert shown(client) == sorted(NAMES)
    abroad = client.get("/openapi.json", headers={"origin": "https://example.com"}).json()
    assert "loopback only" in abroad["info"]["description"]
    assert "delays-Instance" not in abroad["components"]["schemas"]


def test_of_many_models_the_most_used_are_shown(start: Start) -> None:
    client = start(docs_models=2)
    prepare(client)
    assert shown(client) == ["grades", "wind"], "promoted last"
    (row,) = schema_of(document_of(client, "delays"), "delays-PredictRequest")["examples"][0]["instances"]
    client.predict("delays", [row])
    assert shown(client) == ["delays", "wind"]
    assert shown(start(docs_models=0)) == []


def test_the_documents_of_every_process_follow_a_promotion(start: Start) -> None:
    client = start()
    prepare(client)
    other = start()
    assert "carrier" in schema_of(document_of(other, "delays"), "delays-Instance")["properties"]
    promote(client, "delays", 2)
    for server in (client, other):
        for document in (document_of(server, "delays"), server.get("/openapi.json").json()):
            instance = schema_of(document, "delays-Instance")
            assert "wind" in instance["properties"]
            assert instance["required"] == []
    assert document_of(other, "delays")["info"]["version"] == "2"


def test_a_canarys_answers_are_documented_too(start: Start) -> None:
    client = start()
    client.add_dataset("two", b"wind,grade\n" + b"1,low\n2,high\n" * 20)
    client.add_dataset("three", b"wind,grade\n" + b"1,low\n2,high\n3,mid\n" * 20)
    trained = [train_here(client, name, target="grade", algorithm="dummy") for name in ("two", "three")]
    register(client, "grades", *trained)
    promote(client, "grades")
    promote(client, "grades", 2, shadow=True)
    alone = document_of(client, "grades")
    assert "Version 2" not in alone["info"]["description"], "a shadow never answers"
    promote(client, "grades", 2, canary=0.25)
    document = document_of(client, "grades")
    assert "Version 2 (canary) answers 25 % of the requests" in document["info"]["description"]
    answer = schema_of(document, "grades-PredictResponse")["properties"]
    assert answer["predictions"]["items"]["enum"] == ["high", "low", "mid"]
    assert (answer["classes"]["minItems"], answer["classes"]["maxItems"]) == (2, 3)
    for version in (1, 2):
        told = client.predict("grades", [{"wind": 1}], at=f"/versions/{version}")
        check(document, "grades-PredictResponse", told | {"variant": "canary"})
