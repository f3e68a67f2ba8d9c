"""Imports: data files from where the operator allows, and from nowhere else."""

import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from obstore.store import S3Store

from app.datasets.imports import check_allowed
from app.errors import AppError
from tests.client import Client
from tests.conftest import Start
from tests.servers import S3Server

URL = "/v1/datasets/imported/versions"
TABLE = b"a,b\n1,x\n2,y\n"
ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def import_from(client: Client, url: str, **more: Any) -> httpx.Response:
    client.post("/v1/datasets", json={"name": "imported"})
    return client.post(URL, json={"url": url} | more)


def imported(client: Client, url: str, **more: Any) -> dict[str, Any]:
    answer = import_from(client, url, **more)
    assert answer.status_code in (200, 201), answer.text
    version: dict[str, Any] = answer.json()
    return version


def refused(client: Client, url: str, status: int, **more: Any) -> str:
    answer = import_from(client, url, **more)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get(URL).json()["items"] == []
    code: str = answer.json()["code"]
    return code


# ── Files ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data sets"
    folder.mkdir()
    (folder / "flights.csv").write_bytes(TABLE)
    return folder


def test_a_file_below_an_allowed_folder_becomes_a_version(start: Start, folder: Path) -> None:
    client = start(import_prefixes=["s3://elsewhere", folder.as_uri()])
    url = f"{folder.as_uri()}/flights.csv"
    version = imported(client, url)
    assert version["origin"] == {"kind": "import", "url": url}
    assert version["digest"] == f"sha256:{hashlib.sha256(TABLE).hexdigest()}"
    assert version["media_type"] == "text/csv"
    assert client.get(f"{URL}/1/preview").json()["rows"] == ROWS
    again = import_from(client, url)
    assert (again.status_code, again.json()) == (200, version)
    uploaded = client.add_version("imported", TABLE)
    assert uploaded == version


def test_an_import_takes_a_type_and_a_recipe(start: Start, folder: Path) -> None:
    client = start(import_prefixes=[folder.as_uri()])
    (folder / "export").write_bytes("a;b\n1;é\n".encode("cp1252"))
    recipe = {"encoding": "windows-1252", "types": {"a": "string"}}
    version = imported(client, f"{folder.as_uri()}/export", media_type="text/csv", recipe=recipe)
    assert version["recipe"]["asked"] == recipe
    assert version["recipe"]["found"]["encoding"] == "cp1252"


@pytest.mark.parametrize("name", ["t.csv.gz", "T.CSV.GZ", "t.tsv"])
def test_the_ending_of_the_name_tells_the_type(start: Start, folder: Path, name: str) -> None:
    client = start(import_prefixes=[folder.as_uri()])
    (folder / name).write_bytes(gzip.compress(TABLE) if name.lower().endswith("gz") else TABLE)
    assert imported(client, f"{folder.as_uri()}/{name}")["media_type"] == "text/csv"


def test_a_name_that_tells_no_type_is_refused(start: Start, folder: Path) -> None:
    client = start(import_prefixes=[folder.as_uri()])
    assert refused(client, f"{folder.as_uri()}/flights", 415) == "unsupported_media_type"
    answer = import_from(client, f"{folder.as_uri()}/flights")
    assert answer.json()["errors"][0]["pointer"] == "/media_type"
    assert "'flights'" in answer.json()["detail"]
    assert "Content-Type" not in answer.json()["detail"]


def test_nothing_is_imported_unless_the_operator_allows_it(start: Start, folder: Path) -> None:
    client = start()
    answer = import_from(client, f"{folder.as_uri()}/flights.csv")
    assert (answer.status_code, answer.json()["code"]) == (403, "imports_not_allowed")
    assert "ROUNDHOUSE_IMPORT_PREFIXES" in answer.json()["detail"]


def test_a_link_out_of_the_folder_is_not_followed(start: Start, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_bytes(TABLE)
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "inner.csv").symlink_to(folder / "flights.csv")
    client = start(import_prefixes=[folder.as_uri()])
    assert refused(client, f"{folder.as_uri()}/link.csv", 403) == "import_not_allowed"
    assert imported(client, f"{folder.as_uri()}/inner.csv")["rows"] == 2


def test_what_is_no_file_is_not_found(start: Start, folder: Path) -> None:
    client = start(import_prefixes=[folder.as_uri()])
    (folder / "folder.csv").mkdir()
    assert refused(client, f"{folder.as_uri()}/nowhere.csv", 404) == "source_not_found"
    assert refused(client, f"{folder.as_uri()}/folder.csv", 404) == "source_not_found"


def test_a_file_beyond_the_limit_is_refused(start: Start, folder: Path) -> None:
    client = start(import_prefixes=[folder.as_uri()], max_upload_bytes=1000)
    (folder / "large.csv").write_bytes(b"a\n" + b"1\n" * 500)
    assert refused(client, f"{folder.as_uri()}/large.csv", 413) == "body_too_large"
    long = client.post(URL, content=b" " * 2000, headers={"content-type": "application/json"})
    assert long.status_code == 413


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": 7}, "/url"),
        ({"url": "file:///a.csv", "way": 1}, "/way"),
        ({"url": "file:///a.csv", "media_type": "text/plain"}, "/media_type"),
        ({"url": "file:///a.csv", "recipe": {"delimiter": ",,"}}, "/recipe/delimiter"),
        ({"url": "file:///a.csv", "recipe": {"types": {"a": "text"}}}, "/recipe/types/a"),
        ([], ""),
    ],
)
def test_a_wrong_body_is_refused_by_field(shared: Client, body: Any, pointer: str) -> None:
    shared.post("/v1/datasets", json={"name": "imported"})
    answer = shared.post(URL, json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


# ── Which URLs are allowed ───────────────────────────────────────────────────────────────────────

PREFIXES = ["s3://bucket/raw/", "https://data.example.com/tables", "file:///srv/data"]


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/raw/a.csv",
        "s3://bucket/raw/2026/a.csv",
        "https://data.example.com/tables/a.csv?signature=x",
        "https://DATA.example.com/tables/a.csv",
        "https://data.example.com/%74ables/a%20b.csv",
        "file:///srv/data/a.csv",
    ],
)
def test_a_url_below_a_prefix_is_allowed(url: str) -> None:
    check_allowed(url, PREFIXES)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("s3://bucket/rawer/a.csv", 403),
        ("s3://bucket/a.csv", 403),
        ("s3://other/raw/a.csv", 403),
        ("gs://bucket/raw/a.csv", 403),
        ("https://data.example.com.evil.example/tables/a.csv", 403),
        ("https://data.example.com:8443/tables/a.csv", 403),
        ("http://data.example.com/tables/a.csv", 403),
        ("https://169.254.169.254/tables/a.csv", 403),
        ("https://data.example.com/a.csv", 403),
        ("file:///etc/passwd", 403),
        ("s3://bucket/raw/../secret/a.csv", 422),
        ("s3://bucket/raw/%2e%2e/secret/a.csv", 422),
        ("s3://bucket/raw/%252e%252e/secret/a.csv", 422),
        ("https://data.example.com/tables/..%2fsecret/a.csv", 422),
        ("https://data.example.com/tables\\..\\a.csv", 422),
        ("https://data.example.com//tables/a.csv", 422),
        ("https://data.example.com/tables/./a.csv", 422),
        ("https://data.example.com/tables/\ta.csv", 422),
        ("https://data.example.com/tables/a%00.csv", 422),
        ("https://ana:secret@data.example.com/tables/a.csv", 422),
        ("https://data.example.com@evil.example/tables/a.csv", 422),
        ("https://[::1/tables/a.csv", 422),
        ("file://server/srv/data/a.csv", 422),
        ("file:///srv/data/../../etc/passwd", 422),
        ("s3:///raw/a.csv", 422),
        ("s3://bucket/raw/a.csv?versionId=1", 422),
        ("s3://bucket/raw/", 422),
        ("ftp://data.example.com/tables/a.csv", 422),
        ("/srv/data/a.csv", 422),
        ("", 422),
    ],
)
def test_any_other_url_is_refused(url: str, status: int) -> None:
    with pytest.raises(AppError) as caught:
        check_allowed(url, PREFIXES)
    assert caught.value.status == status
    assert "secret@" not in caught.value.detail


# ── Stores and the web ───────────────────────────────────────────────────────────────────────────


def test_an_object_of_a_store_becomes_a_version(
    start: Start, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = S3Store(s3.bucket)
    store.put("exports/flights.csv.gz", gzip.compress(TABLE))
    store.put("private/flights.csv", TABLE)
    prefix = f"s3://{s3.bucket}/exports"
    client = start(import_prefixes=[prefix])
    assert refused(client, f"{prefix}/nowhere.csv", 404) == "source_not_found"
    assert refused(client, f"s3://{s3.bucket}/private/flights.csv", 403) == "import_not_allowed"
    version = imported(client, f"{prefix}/flights.csv.gz")
    assert version["origin"] == {"kind": "import", "url": f"{prefix}/flights.csv.gz"}
    assert client.get(f"{URL}/1/preview").json()["rows"] == ROWS


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        match path:
            case "/tables/flights.csv":
                self._answer(200, TABLE)
            case "/tables/moved.csv":
                self._answer(302, location=f"flights.csv?{query}")
            case "/tables/out.csv":
                self._answer(302, location="/secret/flights.csv")
            case "/tables/abroad.csv":
                self._answer(302, location="https://169.254.169.254/tables/flights.csv")
            case "/tables/round.csv":
                self._answer(302, location="round.csv")
            case "/tables/broken.csv":
                self._answer(500)
            case "/tables/short.csv":
                self._answer(200, TABLE, length=10_000)
            case _:
                self._answer(404)

    def _answer(self, status: int, body: bytes = b"", location: str = "", length: int | None = None) -> None:
        self.send_response(status)
        if location:
            self.send_header("location", location)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_of_the_web_becomes_a_version(start: Start, site: str) -> None:
    client = start(import_prefixes=[f"{site}/tables"])
    version = imported(client, f"{site}/tables/moved.csv?signature=secret")
    assert version["origin"] == {"kind": "import", "url": f"{site}/tables/moved.csv"}
    assert client.get(f"{URL}/1/preview").json()["rows"] == ROWS


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("out.csv", 403, "import_not_allowed"),
        ("abroad.csv", 403, "import_not_allowed"),
        ("round.csv", 503, "source_unavailable"),
        ("broken.csv", 503, "source_unavailable"),
        ("short.csv", 503, "source_unavailable"),
        ("nowhere.csv", 404, "source_not_found"),
    ],
)
def test_what_the_web_does_not_give_is_refused(
    start: Start, site: str, name: str, status: int, code: str
) -> None:
    assert refused(start(import_prefixes=[f"{site}/tables"]), f"{site}/tables/{name}", status) == code


def test_a_host_that_does_not_answer_is_told(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    client = start(import_prefixes=[f"http://127.0.0.1:{port}"])
    assert refused(client, f"http://127.0.0.1:{port}/a.csv", 503) == "source_unavailable"
