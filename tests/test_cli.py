"""The ``roundhouse`` command: what an operator does with it, and what it says when it cannot."""

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import select

from app.db import Database
from app.settings import Settings
from app.training.models import TrainingRun
from tests.client import PATIENCE_SECONDS, Client
from tests.processes import Serve, connect, is_alive, run
from tests.servers import create_database


def eventually(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def holding(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


# ── Help and refusals ────────────────────────────────────────────────────────────────────────────


def test_help_names_every_command(tmp_path: Path) -> None:
    answer = run(tmp_path, "--help")
    assert answer.returncode == 0
    for command in ("serve", "worker", "migrate", "gc", "demo", "keys"):
        assert re.search(rf"\b{command}\s+[A-Z]", answer.stdout), f"{command} is not explained"


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("ROUNDHOUSE_LEASE_SECONDS", "abc", "valid number"),
        ("ROUNDHOUSE_LEASE_SECONDS", "1", "greater than or equal to 2"),
        ("ROUNDHOUSE_LOG_FORMAT", "xml", "pattern"),
        ("ROUNDHOUSE_DATABASE_URL", "nonsense", "not a database's URL"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    tmp_path: Path, setting: str, value: str, says: str
) -> None:
    answer = run(tmp_path, "serve", **{setting: value})
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert line.startswith(setting)
    assert says in line


def test_a_short_admin_key_is_refused(tmp_path: Path) -> None:
    answer = run(tmp_path, "serve", ROUNDHOUSE_ADMIN_KEY="short")
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1] == "ROUNDHOUSE_ADMIN_KEY must have at least 16 characters."


def test_serving_without_keys_is_refused_beyond_loopback(tmp_path: Path) -> None:
    answer = run(tmp_path, "serve", "--no-auth", "--host", "0.0.0.0")  # noqa: S104 - it is refused
    assert answer.returncode == 2
    assert answer.stderr == "--no-auth works on a loopback address only, not on 0.0.0.0.\n"


def test_an_occupied_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run(tmp_path, "serve", "--port", str(port))
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith(f"Port {port} of 127.0.0.1 cannot be had: ")
    assert not (tmp_path / "home").exists()


def test_a_database_that_does_not_answer_is_one_clear_line(tmp_path: Path) -> None:
    answer = run(tmp_path, "migrate", ROUNDHOUSE_DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("The database did not answer: ")


def test_postgresql_is_served_only_once_it_is_migrated(tmp_path: Path, postgres: str) -> None:
    url = create_database(postgres)
    refused = run(tmp_path, "serve", ROUNDHOUSE_DATABASE_URL=url)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith("Run `roundhouse migrate` first.")
    migrated = run(tmp_path, "migrate", ROUNDHOUSE_DATABASE_URL=url)
    assert migrated.returncode == 0, migrated.stderr
    made = run(tmp_path, "keys", "create", "--role", "admin", "--name", "ana", ROUNDHOUSE_DATABASE_URL=url)
    assert made.returncode == 0, made.stderr
    with Serve(tmp_path, "--no-worker", ROUNDHOUSE_DATABASE_URL=url) as server:
        client = server.wait_until_ready()
        assert client.get("/v1/keys", headers=holding(made.stdout.strip())).status_code == 200


# ── Serving ──────────────────────────────────────────────────────────────────────────────────────


def test_the_first_start_makes_the_database_and_tells_the_admin_key_once(tmp_path: Path) -> None:
    made = run(tmp_path, "keys", "create", "--role", "client", "--name", "shop", "--models", "flight-*")
    assert made.returncode == 0, made.stderr
    with Serve(tmp_path, "--no-worker", ROUNDHOUSE_ADMIN_KEY="") as server:
        client = server.wait_until_ready()
        assert psutil.Process(server.process.pid).children() == []
        (key,) = re.findall(r"shown this once:\s+(rh_\S+)", server.output)
        listed = client.get("/v1/keys", headers=holding(key))
        assert {item["name"]: item["role"] for item in listed.json()["items"]} == {
            "admin": "admin",
            "shop": "client",
        }
        assert client.get("/v1/models", headers=holding(made.stdout.strip())).status_code == 200
        assert server.terminate() == 0
    with Serve(tmp_path, "--no-worker", ROUNDHOUSE_ADMIN_KEY="") as server:
        client = server.wait_until_ready()
        assert "rh_" not in server.output
        assert client.get("/v1/keys", headers=holding(key)).status_code == 200


def test_sigterm_lets_a_request_finish_and_gives_the_unfinished_run_back(tmp_path: Path) -> None:
    content = Client.table(rows=400, seed=1)
    half_sent, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield content[:5000]
        half_sent.set()
        assert go_on.wait(PATIENCE_SECONDS)
        yield content[5000:]

    answers: list[httpx.Response] = []

    def upload() -> None:
        answers.append(
            client.post("/v1/datasets/slow/versions", content=slowly(), headers={"content-type": "text/csv"})
        )

    with Serve(tmp_path) as server:
        client = server.wait_until_ready()
        client.add_dataset("flights", content)
        assert client.post("/v1/datasets", json={"name": "slow"}).status_code == 201
        spec = {"model": "m", "dataset": "flights", "target": "late", "algorithm": "random_forest"}
        training = client.post("/v1/training-runs", json=spec | {"params": {"n_estimators": 1000}}).json()
        path = f"/v1/training-runs/{training['id']}"
        eventually(lambda: client.get(path).json()["status"] == "running")
        uploading = threading.Thread(target=upload)
        uploading.start()
        assert half_sent.wait(PATIENCE_SECONDS)
        eventually(lambda: list((tmp_path / "home" / "scratch").glob("*/*/upload")))
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert server.worker() in family
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: not is_listening(server.port))
        go_on.set()
        uploading.join()
        assert [answer.status_code for answer in answers] == [201]
        assert server.process.wait(PATIENCE_SECONDS) == 0, server.output
        assert not any(process.is_running() for process in family)
    database = Database(Settings(home=tmp_path / "home").sqlalchemy_url)
    with database.session_scope(write=False) as session:
        returned = session.scalars(select(TrainingRun)).one()
    database.dispose()
    assert (returned.status, returned.attempts, returned.lease_owner) == ("queued", 0, None)
    assert list((tmp_path / "home" / "scratch").iterdir()) == []


def test_a_worker_that_dies_is_replaced_and_one_whose_server_dies_ends(tmp_path: Path) -> None:
    with Serve(tmp_path) as server:
        server.wait_until_ready()
        first = server.worker()
        first.kill()
        eventually(lambda: not is_alive(first))
        second = server.worker()
        eventually(lambda: f":{second.pid}:" in server.output)
        server.kill()
        second.wait(PATIENCE_SECONDS)


def test_without_keys_it_answers_on_loopback_and_refuses_a_foreign_host_name(tmp_path: Path) -> None:
    with Serve(tmp_path, "--no-worker", "--no-auth") as server:
        client = server.wait_until_ready()
        del client.headers["authorization"]
        assert client.post("/v1/datasets", json={"name": "d"}).status_code == 201
        foreign = client.get("/v1/datasets", headers={"host": "evil.example"})
        assert foreign.status_code == 403
        assert foreign.json()["code"] == "loopback_only"
        assert "shown this once" not in server.output


def test_several_processes_count_together_and_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    with Serve(tmp_path, "--no-worker", "--workers", "2") as server:
        server.wait_until_ready()
        eventually(lambda: server.output.count("Application startup complete") == 2)
        for _ in range(20):  # a new connection each time: the kernel gives it to either process
            with connect(server.url) as client:
                assert client.get("/v1/models").status_code == 200
        counted = re.search(
            r'^roundhouse_http_requests_total\{method="GET",route="/v1/models",status="200"\} (\S+)$',
            server.client.get("/metrics").text,
            re.MULTILINE,
        )
        assert counted
        assert float(counted[1]) == 20
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.kill()
        _, alive = psutil.wait_procs(children, PATIENCE_SECONDS)
        assert alive == []
        assert not is_listening(server.port)


def test_the_log_is_json(tmp_path: Path) -> None:
    with Serve(tmp_path, "--no-worker") as server:
        client = server.wait_until_ready()
        client.get("/v1/models", headers={"x-request-id": "of-the-test"})
        eventually(lambda: "of-the-test" in server.output)
        lines = [json.loads(line) for line in server.output.splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "of-the-test"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/models", 200)
