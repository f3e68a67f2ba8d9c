"""Datasets over HTTP: uploads become immutable versions, whole or not at all."""

import gzip
import hashlib
import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.datasets.reading.ingest import MediaType
from tests.client import ADMIN_KEY, PATIENCE_SECONDS, Client, wait_until

MEGABYTE = 1024 * 1024
CSV = {"content-type": "text/csv"}

COLUMNS = [
    {"name": "flight_id", "type": "integer", "nullable": False},
    {"name": "scheduled", "type": "datetime", "nullable": False},
    {"name": "carrier", "type": "string", "nullable": True},
    {"name": "distance", "type": "integer", "nullable": False},
    {"name": "wind", "type": "number", "nullable": True},
    {"name": "international", "type": "boolean", "nullable": False},
    {"name": "late", "type": "boolean", "nullable": False},
]


def code_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    code: str = answer.json()["code"]
    return code


def events_at(client: Client, subject: str) -> list[str]:
    events = client.get("/v1/events", params={"subject": subject}).json()["items"]
    return [event["action"] for event in events]


# ── Datasets ─────────────────────────────────────────────────────────────────────────────────────


def test_a_long_name_is_not_echoed_whole(shared: Client, flights: str) -> None:
    url = f"/v1/datasets/{flights}/versions/1"
    for answer in (
        shared.get(f"/v1/datasets/{'x' * 5000}"),
        shared.get(f"{url}/content", params={"columns": "x" * 5000}),
        shared.get(f"{url}/content", params={"where": "x" * 5000}),
        shared.get(f"{url}/profile", params={"target": "x" * 5000}),
        shared.get(f"{url}/diff/1", params={"key": "x" * 5000}),
        shared.get(f"{url}/content", headers={"accept": "x" * 5000}),
    ):
        assert answer.status_code in (404, 406, 422)
        assert len(answer.json()["detail"]) < 600


def test_a_dataset_is_created_once(shared: Client) -> None:
    created = shared.post("/v1/datasets", json={"name": "once", "description": "the first"})
    assert created.status_code == 201
    assert created.headers["location"] == "/v1/datasets/once"
    assert shared.get(created.headers["location"]).json() == created.json()
    assert created.json()["created_by"] == "admin"
    again = shared.post("/v1/datasets", json={"name": "once", "description": "the second"})
    assert code_of(again, 409) == "dataset_exists"
    assert shared.get("/v1/datasets/once").json()["description"] == "the first"
    assert events_at(shared, "datasets/once") == ["dataset.created"]


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "a.csv", "a b", "-a", "é", "a\n", "a" * 65, "a%2Fb", 7, None]
)
def test_a_name_that_does_not_fit_into_a_path_is_refused(shared: Client, name: Any) -> None:
    answer = shared.post("/v1/datasets", json={"name": name})
    assert code_of(answer, 422) == "invalid_input"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/name"]


def test_the_longest_name_is_taken(shared: Client) -> None:
    assert shared.post("/v1/datasets", json={"name": "a" * 64}).status_code == 201


# ── Uploads ──────────────────────────────────────────────────────────────────────────────────────


def test_an_upload_becomes_a_version_with_digest_and_schema(shared: Client) -> None:
    content = Client.table(rows=30, seed=2)
    shared.post("/v1/datasets", json={"name": "described"})
    added = shared.post("/v1/datasets/described/versions", content=content, headers=CSV)
    assert added.status_code == 201
    assert added.headers["location"] == "/v1/datasets/described/versions/1"
    version = added.json()
    assert version["version"] == 1
    assert version["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (version["rows"], version["size"], version["media_type"]) == (30, len(content), "text/csv")
    assert version["columns"] == COLUMNS
    assert shared.get(added.headers["location"]).json() == version
    assert shared.get("/v1/datasets/described/versions").json()["items"] == [version]
    assert events_at(shared, "datasets/described/versions/1") == ["dataset_version.created"]


def test_the_same_bytes_are_the_same_version(shared: Client) -> None:
    first = shared.add_dataset("repeated", b"a\n1\n")
    shared.add_version("repeated", b"a\n2\n")
    again = shared.post("/v1/datasets/repeated/versions", content=b"a\n1\n", headers=CSV)
    assert again.status_code == 200
    assert again.json() == first
    assert again.headers["location"] == "/v1/datasets/repeated/versions/1"
    assert events_at(shared, "datasets/repeated/versions") == ["dataset_version.created"] * 2


def test_the_same_bytes_are_a_version_of_each_dataset(shared: Client) -> None:
    one, other = shared.add_dataset("twin-1", b"a\n1\n"), shared.add_dataset("twin-2", b"a\n1\n")
    assert (one["digest"], one["version"]) == (other["digest"], other["version"])
    assert (one["dataset"], other["dataset"]) == ("twin-1", "twin-2")


def test_versions_uploaded_at_once_are_numbered_without_gaps(shared: Client) -> None:
    shared.post("/v1/datasets", json={"name": "crowded"})
    contents = [f"a\n{number}\n".encode() for number in range(8)] * 2
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda content: shared.add_version("crowded", content), contents))
    assert sorted(version["version"] for version in versions) == sorted([*range(1, 9)] * 2)
    assert versions[:8] == versions[8:]
    assert events_at(shared, "datasets/crowded/versions") == ["dataset_version.created"] * 8


@pytest.mark.parametrize("media_type", list(MediaType))
def test_a_version_comes_back_in_every_format_as_the_same_table(
    shared: Client, flights: str, media_type: MediaType
) -> None:
    content = shared.get(f"/v1/datasets/{flights}/versions/1/content", headers={"accept": media_type})
    assert content.status_code == 200
    assert content.headers["content-type"].partition(";")[0] == media_type
    assert re.fullmatch(
        rf'attachment; filename="{flights}-1\.[a-z]+"', content.headers["content-disposition"]
    )
    name = f"back-{list(MediaType).index(media_type)}"
    raw = shared.add_dataset(name, content.content, media_type)
    form = shared.post(
        f"/v1/datasets/{name}/versions", files={"file": ("any.name", content.content, media_type)}
    )
    assert (form.status_code, form.json()) == (200, raw)
    assert raw["columns"] == COLUMNS
    whole = {"limit": 1000}
    original = shared.get(f"/v1/datasets/{flights}/versions/1/preview", params=whole).json()
    assert len(original["rows"]) == 400
    assert shared.get(f"/v1/datasets/{name}/versions/1/preview", params=whole).json() == original


def test_a_form_makes_a_new_version_too(shared: Client) -> None:
    shared.post("/v1/datasets", json={"name": "by-form"})
    added = shared.post("/v1/datasets/by-form/versions", files={"file": ("a.csv", b"a\n1\n", "text/csv")})
    assert added.status_code == 201
    assert added.headers["location"] == "/v1/datasets/by-form/versions/1"
    digest = hashlib.sha256(b"a\n1\n").hexdigest()
    assert added.json()["digest"] == f"sha256:{digest}"


def test_a_form_without_its_file_is_refused(shared: Client) -> None:
    shared.post("/v1/datasets", json={"name": "no-file"})
    url = "/v1/datasets/no-file/versions"
    other = shared.post(url, files={"data": ("a.csv", b"a\n1\n", "text/csv")})
    assert code_of(other, 422) == "file_missing"
    text = shared.post(url, data={"file": "a\n1\n"}, files={"x": b""})
    assert code_of(text, 422) == "file_missing"
    broken = shared.post(url, content=b"no form", headers={"content-type": "multipart/form-data"})
    assert code_of(broken, 400) == "bad_request"
    assert shared.get(url).json()["items"] == []


@pytest.mark.parametrize("media_type", ["application/xml", "text/plain", "", "csv"])
def test_another_media_type_is_refused(shared: Client, flights: str, media_type: str) -> None:
    url = f"/v1/datasets/{flights}/versions"
    answers = [
        shared.post(url, content=b"a\n1\n", headers={"content-type": media_type}),
        shared.post(url, files={"file": ("a.csv", b"a\n1\n", media_type or "a/b")}),
    ]
    for answer in answers:
        assert code_of(answer, 415) == "unsupported_media_type"
        assert all(known in answer.json()["detail"] for known in MediaType)


@pytest.mark.parametrize(
    ("media_type", "content", "at"),
    [
        ("text/csv", b"a,b\n1,2\n3,4\n5,6,7\n", "/rows/3"),
        ("text/csv", b"a,b\n1,2\n3,\xff\n", "/rows/2/columns/b"),
        ("text/csv", b"a,a\n1,2\n", "/columns/a"),
        ("application/x-ndjson", b'{"a": 1, "b": 2}\n{"a": 3, "b": {"c": 4}}\n', "/rows/2/columns/b"),
        ("application/x-ndjson", b'{"a": 1}\n{"a": \n', "/rows/2"),
        ("application/vnd.apache.parquet", b"PAR1 not really PAR1", ""),
        ("application/vnd.apache.arrow.stream", b"not a stream", ""),
        *((media_type, b"", "") for media_type in MediaType),
        ("text/csv", b"a,b\n", ""),
    ],
)
def test_a_malformed_file_is_refused_with_its_place_and_leaves_nothing(
    shared: Client, media_type: str, content: bytes, at: str
) -> None:
    name = f"malformed-{hashlib.sha256(media_type.encode() + content).hexdigest()[:20]}"
    shared.post("/v1/datasets", json={"name": name})
    url = f"/v1/datasets/{name}/versions"
    for answer in (
        shared.post(url, content=content, headers={"content-type": media_type}),
        shared.post(url, files={"file": ("file", content, media_type)}),
    ):
        code_of(answer, 422)
        (error,) = answer.json()["errors"]
        assert error["pointer"].startswith(at)
        assert error["detail"] == answer.json()["detail"]
    assert shared.get(url).json()["items"] == []
    assert events_at(shared, f"datasets/{name}") == ["dataset.created"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "key_missing"),
        ({"authorization": f"Bearer {ADMIN_KEY}"}, "dataset_not_found"),
    ],
)
def test_an_upload_that_cannot_be_taken_is_refused_before_its_body_is_read(
    shared: Client, headers: dict[str, str], code: str
) -> None:
    with begin_upload(shared, "nowhere", {"content-length": "1000000"} | headers) as connection:
        connection.sendall(b"a\n1\n")
        answer = b""
        while code.encode() not in answer:
            received = connection.recv(10_000)
            assert received, answer
            answer += received


def test_the_same_table_is_the_same_version_however_it_is_written(shared: Client) -> None:
    first = shared.add_dataset("rewritten", b"a,b\n1,x\n2,\n")
    url = "/v1/datasets/rewritten/versions"
    for content, headers in (
        (b'a,b\r\n1,"x"\r\n2,\r\n', CSV),
        (gzip.compress(b"a;b\n1;x\n2;\n"), CSV | {"content-encoding": "gzip"}),
        (b'{"a": 1, "b": "x"}\n{"a": 2}\n', {"content-type": "application/x-ndjson"}),
    ):
        again = shared.post(url, content=content, headers=headers)
        assert (again.status_code, again.json()) == (200, first)
    swapped = shared.post(url, content=b"a,b\n2,\n1,x\n", headers=CSV)
    assert (swapped.status_code, swapped.json()["version"]) == (201, 2)


# ── How a file is to be read ─────────────────────────────────────────────────────────────────────


def test_a_version_tells_where_it_comes_from_and_how_it_was_read(shared: Client) -> None:
    shared.post("/v1/datasets", json={"name": "recorded"})
    content = gzip.compress("id;ville\n1;Orléans\n".encode("cp1252"))
    added = shared.post(
        "/v1/datasets/recorded/versions", content=content, params={"encoding": "windows-1252"}, headers=CSV
    )
    assert added.status_code == 201, added.text
    version = added.json()
    assert version["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert version["origin"] == {"kind": "upload"}
    assert version["recipe"]["asked"] == {"encoding": "windows-1252"}
    found = version["recipe"]["found"]
    assert (found["encoding"], found["compression"]) == ("cp1252", "gzip")
    assert re.fullmatch("sha256:[0-9a-f]{64}", version["content_digest"])
    assert (version["status"], version["contract"]) == ("accepted", None)
    assert (version["description"], version["tags"]) == ("", {})


ASKED: dict[str, Any] = {
    "delimiter": ";",
    "nulls": ["", "-"],
    "types": {"a:b": "string"},
    "header": True,
    "quote": "'",
}


def test_the_parameters_and_a_form_ask_for_the_same(shared: Client) -> None:
    shared.post("/v1/datasets", json={"name": "asked"})
    url = "/v1/datasets/asked/versions"
    content = b"a:b;c\n1;-\n2;3\n"
    parameters = ASKED | {"types": ["a:b:string"], "header": "true"}
    added = shared.post(url, content=content, params=parameters, headers=CSV)
    assert added.status_code == 201, added.text
    assert added.json()["recipe"]["asked"] == ASKED
    form = shared.post(
        url, files={"file": ("a.csv", content, "text/csv")}, data={"recipe": json.dumps(ASKED)}
    )
    assert (form.status_code, form.json()) == (200, added.json())


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"delimeter": ";"}, "/query/delimeter"),
        ({"delimiter": ";;"}, "/query/delimiter"),
        ({"delimiter": ""}, "/query/delimiter"),
        ({"quote": "''"}, "/query/quote"),
        ({"header": "perhaps"}, "/query/header"),
        ({"compression": "br"}, "/query/compression"),
        ({"encoding": "latin-99"}, "/query/encoding"),
        ({"types": "age"}, "/query/types/0"),
        ({"types": ["a:string", "b:text"]}, "/query/types/1"),
        ({"types": ["a:string", "a:number"]}, "/query/types"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(
    shared: Client, flights: str, parameters: dict[str, Any], pointer: str
) -> None:
    url = f"/v1/datasets/{flights}/versions"
    answer = shared.post(url, content=b"a\n1\n", params=parameters, headers=CSV)
    assert code_of(answer, 422) == "invalid_input"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("recipe", "pointer"),
    [
        ('{"delimiter": ";;"}', "/recipe/delimiter"),
        ('{"types": {"a": "text"}}', "/recipe/types/a"),
        ('{"way": 1}', "/recipe/way"),
        ('{"encoding": "base64"}', "/recipe/encoding"),
        ("[]", "/recipe"),
        ("{", "/recipe"),
    ],
)
def test_a_wrong_recipe_in_a_form_is_refused_by_field(
    shared: Client, flights: str, recipe: str, pointer: str
) -> None:
    answer = shared.post(
        f"/v1/datasets/{flights}/versions",
        files={"file": ("a.csv", b"a\n1\n", "text/csv")},
        data={"recipe": recipe},
    )
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_what_is_said_twice_must_agree(shared: Client, flights: str) -> None:
    url = f"/v1/datasets/{flights}/versions"
    both = shared.post(
        url,
        params={"delimiter": ";"},
        files={"file": ("a.csv", b"a\n1\n", "text/csv")},
        data={"recipe": '{"delimiter": ","}'},
    )
    assert code_of(both, 422) == "invalid_recipe"
    coded = shared.post(
        url, content=b"a\n1\n", params={"compression": "none"}, headers=CSV | {"content-encoding": "gzip"}
    )
    assert code_of(coded, 422) == "invalid_recipe"
    form = shared.post(url, files={"file": ("a.csv", b"a\n")}, headers={"content-encoding": "gzip"})
    assert code_of(form, 415) == "unsupported_encoding"
    charset = shared.post(url, content=b"a\n1\n", headers={"content-type": "text/csv; charset=latin-99"})
    assert code_of(charset, 422) == "invalid_recipe"


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tail", ["", "/preview", "/content"])
def test_a_version_that_is_not_there_is_not_found(shared: Client, flights: str, tail: str) -> None:
    for version in (1000, 2**31 - 1):
        answer = shared.get(f"/v1/datasets/{flights}/versions/{version}{tail}")
        assert code_of(answer, 404) == "dataset_version_not_found"
    assert code_of(shared.get(f"/v1/datasets/nowhere/versions/1{tail}"), 404) == "dataset_not_found"


@pytest.mark.parametrize("version", [0, -1, 2**31, 2**63, "one"])
def test_what_cannot_be_a_version_is_refused(shared: Client, flights: str, version: int | str) -> None:
    for tail in ("", "/preview", "/content"):
        answer = shared.get(f"/v1/datasets/{flights}/versions/{version}{tail}")
        assert code_of(answer, 422) == "invalid_input"
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/path/version"]


def test_a_preview_is_a_window_on_the_rows(shared: Client, flights: str) -> None:
    url = f"/v1/datasets/{flights}/versions/1/preview"
    rows = Client.rows(rows=400, seed=1)
    default = shared.get(url).json()
    assert default == {"columns": COLUMNS, "rows": rows[:20], "offset": 0, "total": 400}
    middle = shared.get(url, params={"limit": 3, "offset": 200}).json()
    assert (middle["rows"], middle["offset"]) == (rows[200:203], 200)
    assert shared.get(url, params={"limit": 10, "offset": 395}).json()["rows"] == rows[395:]
    assert shared.get(url, params={"offset": 400}).json()["rows"] == []


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"limit": "x"}])
def test_a_preview_outside_the_limits_is_refused(shared: Client, flights: str, query: dict[str, Any]) -> None:
    answer = shared.get(f"/v1/datasets/{flights}/versions/1/preview", params=query)
    assert code_of(answer, 422) == "invalid_input"
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/query/{next(iter(query))}"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", MediaType.PARQUET),
        ("text/*", MediaType.CSV),
        ("image/png, text/csv;q=0.9, */*;q=0.1", MediaType.CSV),
        ("text/csv;q=0, */*;q=0.1", MediaType.PARQUET),
        ("APPLICATION/X-NDJSON", MediaType.NDJSON),
    ],
)
def test_content_comes_in_the_format_that_accept_names(
    shared: Client, flights: str, accept: str, media_type: MediaType
) -> None:
    answer = shared.get(f"/v1/datasets/{flights}/versions/1/content", headers={"accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == media_type


@pytest.mark.parametrize("accept", ["application/json", "image/*", "csv"])
def test_content_in_no_acceptable_format_is_refused(shared: Client, flights: str, accept: str) -> None:
    answer = shared.get(f"/v1/datasets/{flights}/versions/1/content", headers={"accept": accept})
    assert code_of(answer, 406) == "not_acceptable"
    assert all(known in answer.json()["detail"] for known in MediaType)


# ── Limits and broken connections ────────────────────────────────────────────────────────────────


def csv_of(size: int) -> bytes:
    """A CSV of exactly ``size`` bytes: lines of ten."""
    return b"a\n" + b"123456789\n" * ((size - 2) // 10) + b"1" * ((size - 2) % 10)


def test_an_upload_has_a_limit_of_its_own(start: Callable[..., Client]) -> None:
    limit = 100_000
    client = start(max_upload_bytes=limit, max_request_bytes=1_000)
    url = "/v1/datasets/limited/versions"
    assert client.post("/v1/datasets", json={"name": "limited"}).status_code == 201
    long = client.post("/v1/datasets", json={"name": "long", "description": "x" * 1_000})
    assert code_of(long, 413) == "body_too_large"
    assert client.post(url, content=csv_of(limit), headers=CSV).status_code == 201
    too_long = csv_of(limit + 1)
    for answer in (
        client.post(url, content=too_long, headers=CSV),
        client.post(url, content=iter([too_long[:60_000], too_long[60_000:]]), headers=CSV),
        client.post(url, files={"file": ("a.csv", too_long, "text/csv")}),
    ):
        assert code_of(answer, 413) == "body_too_large"
        assert "ROUNDHOUSE_MAX_UPLOAD_BYTES" in answer.json()["detail"]
    packed = client.post(url, content=gzip.compress(too_long), headers=CSV)
    assert code_of(packed, 413) == "body_too_large"
    assert "ROUNDHOUSE_MAX_UPLOAD_BYTES" in packed.json()["detail"]
    assert [version["version"] for version in client.get(url).json()["items"]] == [1]


def test_the_operator_sets_what_a_compressed_file_may_become(start: Callable[..., Client]) -> None:
    content = gzip.compress(csv_of(70 * MEGABYTE))
    strict, lenient = start(max_decompression_ratio=2), start(max_decompression_ratio=2000)
    assert strict.post("/v1/datasets", json={"name": "packed"}).status_code == 201
    answer = strict.post("/v1/datasets/packed/versions", content=content, headers=CSV)
    assert code_of(answer, 413) == "decompression_bomb"
    assert lenient.add_version("packed", content)["rows"] == 7 * MEGABYTE


def test_an_upload_may_be_larger_than_other_requests_only(start: Callable[..., Client]) -> None:
    client = start(max_upload_bytes=1_000, max_request_bytes=3_000)
    made = client.post("/v1/datasets", json={"name": "small", "description": "x" * 1_500})
    assert made.status_code == 201
    answer = client.post("/v1/datasets/small/versions", content=csv_of(1_500), headers=CSV)
    assert code_of(answer, 413) == "body_too_large"


@pytest.mark.parametrize(
    "framing", [{"content-length": "90000000"}, {"transfer-encoding": "chunked"}], ids=["length", "chunked"]
)
def test_an_upload_that_breaks_off_leaves_nothing_behind_and_never_was_in_memory(
    start: Callable[..., Client], tmp_path: Path, framing: dict[str, str]
) -> None:
    client = start()
    home = tmp_path / "home"
    client.post("/v1/datasets", json={"name": "broken"})
    size, block = 60 * MEGABYTE, csv_of(MEGABYTE)
    faults = answers(client, "500")
    memory = psutil.Process().memory_info().rss  # the server runs in this process
    with begin_upload(client, "broken", framing | {"authorization": f"Bearer {ADMIN_KEY}"}) as connection:
        for _ in range(size // len(block)):
            if "transfer-encoding" in framing:
                connection.sendall(b"%x\r\n%b\r\n" % (len(block), block))
            else:
                connection.sendall(block)
        wait_until(lambda: sum(path.stat().st_size for path in uploads(home)) > size - MEGABYTE)
        assert psutil.Process().memory_info().rss - memory < size / 2
    wait_until(lambda: not uploads(home))
    assert not [path for path in (home / "objects").rglob("*") if path.is_file()]
    assert client.get("/v1/datasets/broken/versions").json()["items"] == []
    assert events_at(client, "datasets/broken") == ["dataset.created"]
    assert answers(client, "500") == faults
    assert client.add_version("broken", b"a\n1\n")["version"] == 1


def begin_upload(client: Client, dataset: str, headers: dict[str, str]) -> socket.socket:
    """A connection on which the head of an upload has been sent."""
    address = (client.base_url.host, client.base_url.port or 80)
    connection = socket.create_connection(address, timeout=PATIENCE_SECONDS)
    head = {"host": "localhost", "content-type": "text/csv"} | headers
    lines = [f"POST /v1/datasets/{dataset}/versions HTTP/1.1", *(f"{k}: {v}" for k, v in head.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def uploads(home: Path) -> list[Path]:
    return list((home / "scratch").glob("*/*/*"))


def answers(client: Client, status: str) -> float:
    """How many uploads were answered with this status."""
    name = "roundhouse_http_requests_total"
    labels = f'method="POST",route="/v1/datasets/{{dataset}}/versions",status="{status}"'
    found = re.search(rf"^{name}{{{re.escape(labels)}}} (.*)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("part_type", ["application/octet-stream", "text/csv"])
def test_a_form_without_the_files_type_goes_by_its_name(shared: Client, part_type: str) -> None:
    name = f"form-{part_type.replace('/', '-')}"
    shared.post("/v1/datasets", json={"name": name})
    answer = shared.post(
        f"/v1/datasets/{name}/versions", files={"file": ("table.CSV", b"a,b\n1,2\n", part_type)}
    )
    assert (answer.status_code, answer.json()["media_type"]) == (201, "text/csv")
    unknown = shared.post(
        f"/v1/datasets/{name}/versions",
        files={"file": ("table.xlsx", b"a,b\n1,2\n", "application/octet-stream")},
    )
    assert unknown.status_code == 415
