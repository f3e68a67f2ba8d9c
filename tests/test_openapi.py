"""The OpenAPI document is whole, its examples are true, and the server keeps what it says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from app.access.policy import POLICY, Permission
from app.datasets.reading.ingest import MediaType
from app.http.problems import PROBLEM_TYPE, protocol_error
from app.main import create_app
from app.openapi import TAGS
from tests.client import ADMIN_KEY, Client
from tests.conftest import Start, make_settings, running_server, running_worker

MAX_EXAMPLES = 15
OWN_FORM = {("/readyz", "503"), ("/v2/health/ready", "503")}
"""Answers that are no errors, although something is not as it should be."""

LIFE_CYCLE = [
    "datasets", "training", "models", "deployments", "predictions", "models in service", "feedback",
    "monitoring",
]  # fmt: skip

DOCUMENT: dict[str, Any] = create_app(make_settings(Path())).openapi()
OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method.upper()} {path}")
    for path, at in DOCUMENT["paths"].items()
    for method, operation in at.items()
]
every_operation = pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)


def check_example(schema: dict[str, Any], example: Any) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(example)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def examples_of(media: dict[str, Any]) -> list[Any]:
    found = [media["example"]] if "example" in media else []
    found += [example["value"] for example in media.get("examples", {}).values()]
    return found + list(resolved(media["schema"]).get("examples", []))


# ── The document ─────────────────────────────────────────────────────────────────────────────────


def test_the_sections_follow_the_life_cycle() -> None:
    assert [tag["name"] for tag in DOCUMENT["tags"]] == list(TAGS)
    assert list(TAGS)[: len(LIFE_CYCLE)] == LIFE_CYCLE
    assert all(tag["description"] for tag in DOCUMENT["tags"])


def test_the_operations_follow_the_sections() -> None:
    operations = [operation for at in DOCUMENT["paths"].values() for operation in at.values()]
    order = [list(TAGS).index(operation["tags"][0]) for operation in operations]
    assert order == sorted(order)


@every_operation
def test_an_operation_says_where_it_belongs_and_what_it_does(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    assert len(operation["tags"]) == 1
    assert operation["tags"][0] in TAGS
    assert operation["summary"]
    text = operation["description"].partition("\n\nRoles:")[0]
    assert text.endswith(".")
    public = Permission.PUBLIC in POLICY[method.upper(), path]
    assert ("Roles: " in operation["description"]) is not public
    assert ("security" in operation) is not public


@every_operation
def test_what_is_sent_has_an_example_that_holds(path: str, method: str, operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        for example in examples_of(parameter):
            check_example(parameter["schema"], example)
        if parameter["in"] == "path":
            assert examples_of(parameter), f"{parameter['name']} has no example"
    for media_type, media in operation.get("requestBody", {"content": {}})["content"].items():
        examples = examples_of(media)
        if media_type == "application/json" or media_type.startswith("text/"):
            assert examples, f"{media_type} has no example"
        for example in examples:
            check_example(media["schema"], example)


@every_operation
def test_what_is_answered_has_an_example_that_holds(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    for status, response in operation["responses"].items():
        assert response["description"]
        assert status != "204" or "content" not in response
        for media_type, media in response.get("content", {}).items():
            if media_type.endswith("json"):
                examples = examples_of(media)
                assert examples, f"{status} {media_type} has no example"
                for example in examples:
                    check_example(media["schema"], example)


@every_operation
def test_every_error_is_documented_in_its_form(path: str, method: str, operation: dict[str, Any]) -> None:
    expected = set()
    if Permission.PUBLIC not in POLICY[method.upper(), path]:
        expected |= {"401", "403", "503"}
    if operation.get("parameters") or "requestBody" in operation:
        expected |= {"422"}
    if "requestBody" in operation:
        expected |= {"413"}
    assert expected <= operation["responses"].keys()
    for status, response in operation["responses"].items():
        if status < "400" or (path, status) in OWN_FORM:
            continue
        (media_type,) = response["content"]
        own = protocol_error(path, int(status), "")
        assert media_type == ("application/json" if own else PROBLEM_TYPE)
        media = response["content"][media_type]
        if own:
            assert media["schema"]["required"] == list(own)
        else:
            assert media["schema"] == {"$ref": "#/components/schemas/Problem"}


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_an_example_in_a_schema_holds(name: str) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    for example in schema.get("examples", []):
        check_example(schema, example)
    for part in schema.get("properties", {}).values():
        for example in part.get("examples", []):
            check_example(part, example)


def test_everything_in_the_document_is_referred_to() -> None:
    referred = set(re.findall(r"#/components/schemas/(\w+)", str(DOCUMENT)))
    assert referred == set(DOCUMENT["components"]["schemas"])


# ── The pages ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server whose objects have the names of the document's examples."""
    own = make_settings(tmp_path_factory.mktemp("home"))
    with running_server(own) as url, Client.of(url, own) as client:
        with running_worker(own):
            client.add_dataset("flights", Client.table(rows=100, seed=1))
            client.train("flight-delays", "flights", algorithm="logistic_regression")
        for answer in (
            client.post("/v1/models/flight-delays:promote", json={"version": 1}),
            client.put("/v1/models/flight-delays/aliases/stable", json={"version": 1}),
        ):
            assert answer.is_success, answer.text
        yield client


def test_the_documentation_asks_no_other_host(served: Client) -> None:
    page = served.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page.text)
    assert len(addresses) >= 4
    for address in addresses:
        url = httpx.URL(str(page.url)).join(address)
        assert url.host == served.base_url.host
        assert served.get(url).status_code == 200
    assert "//" not in re.sub(r"https?://127\.0\.0\.1:\d+", "", "".join(addresses))


def test_the_document_is_served_to_everybody(served: Client) -> None:
    assert served.get("/openapi.json", headers={"authorization": ""}).json() == DOCUMENT


# ── The promises ─────────────────────────────────────────────────────────────────────────────────

CONFIG: dict[str, Any] = {
    "seed": 1,
    "generation": {"max-examples": MAX_EXAMPLES, "deterministic": True},
    "auth": {"openapi": {"key": {"bearer": ADMIN_KEY}}},
    # Of a filter or a contract each rule holds others: a case for each, in each place, would be thousands.
    "operations": [
        {"include-path-regex": "(:search|/contract)$", "phases": {"coverage": {"enabled": False}}},
    ],
}
# What the schema allows, a rule may refuse: a row must fit the model's signature, a target must be a column
# of the data. Every other check that Schemathesis has is on.
LENIENT = CONFIG | {"checks": {"positive_data_acceptance": {"enabled": False}}}
# No JSON body may hold U+0000, which PostgreSQL cannot store.
STRICT = CONFIG | {"generation": CONFIG["generation"] | {"allow-x00": False}}
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=schemathesis.Config.from_dict(LENIENT))

few_examples = settings(
    max_examples=MAX_EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@schemathesis.serializer(MediaType.NDJSON, MediaType.PARQUET, MediaType.ARROW_STREAM)
def serialize_file(context: schemathesis.SerializationContext, value: Any) -> bytes:
    data = getattr(value, "data", value)
    return data if isinstance(data, bytes) else str(data).encode()


@SCHEMA.parametrize()
@few_examples
def test_the_server_keeps_what_the_document_says(case: "schemathesis.Case[Any]", served: Client) -> None:
    case.call_and_validate(base_url=str(served.base_url))


@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
def test_a_model_answers_just_what_its_document_allows(
    served: Client, mode: schemathesis.GenerationMode
) -> None:
    document = served.get("/v1/models/flight-delays/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(STRICT))
    operation = schema["/v1/models/flight-delays:predict"]["POST"]

    @few_examples
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: "schemathesis.Case[Any]") -> None:
        case.call_and_validate(base_url=str(served.base_url))

    check()


def test_the_examples_can_be_tried_one_after_the_other(start: Start) -> None:
    client = start(worker=True)
    document = client.get("/openapi.json").json()

    def example(path: str, method: str, media_type: str = "application/json") -> Any:
        content = document["paths"][path][method]["requestBody"]["content"][media_type]
        if "example" in content:
            return content["example"]
        schema = content["schema"]
        return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["examples"][0]

    def try_out(method: str, path: str) -> httpx.Response:
        url = path.format(dataset="flights", model="flight-delays", alias="stable", version=1)
        answer = client.request(method, url, json=example(path, method.lower()))
        assert answer.is_success, answer.text
        return answer

    try_out("POST", "/v1/datasets")
    client.add_version("flights", example("/v1/datasets/{dataset}/versions", "post", "text/csv").encode())
    run = client.wait_for_run(try_out("POST", "/v1/training-runs").json()["id"])
    assert run["status"] == "succeeded", run["error"]
    try_out("POST", "/v1/models/{model}:promote")
    try_out("PUT", "/v1/models/{model}/aliases/{alias}")
    for form in ("", "/versions/{version}", "/aliases/{alias}"):
        try_out("POST", f"/v1/models/{{model}}{form}:predict")
    try_out("POST", "/v1/feedback")
    try_out("POST", "/v1/keys")
