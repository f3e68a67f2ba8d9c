"""Killed at any moment and started again, the server has lost nothing that it acknowledged."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from app.owned import LOCK
from tests.client import Client
from tests.processes import Serve, connect, free_port, run
from tests.servers import S3Server, create_database

SEED = 20
LEASE_SECONDS = 2


@pytest.fixture(params=["laptop", "production"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Of SQLite and a folder, and of PostgreSQL and S3."""
    settings = {
        "ROUNDHOUSE_LEASE_SECONDS": str(LEASE_SECONDS),
        "ROUNDHOUSE_RUN_ATTEMPTS": "100",
        "ROUNDHOUSE_JOURNAL_SEAL_SECONDS": "0.5",
    }
    if request.param == "production":
        s3: S3Server = request.getfixturevalue("s3")
        settings |= s3.environment
        settings["ROUNDHOUSE_DATABASE_URL"] = create_database(request.getfixturevalue("postgres"))
        settings["ROUNDHOUSE_STORE_URL"] = f"s3://{s3.bucket}/{tmp_path.name}"
        migrated = run(tmp_path, "migrate", **settings)
        assert migrated.returncode == 0, migrated.stderr
    return settings


class Crowd:
    """Clients that drive the loop, each asking again until it is answered, and what they were answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._pool = ThreadPoolExecutor()
        self._futures: list[Future[None]] = []
        self.uploads: dict[int, str] = {}
        self.runs: list[int] = []
        self.deployments: list[dict[str, Any]] = []
        self.predictions: dict[str, tuple[dict[str, Any], Any]] = {}
        self.feedback: dict[str, bool] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._given_up.set()
        self._pool.shutdown()

    def start(self) -> None:
        for step, pause in (
            (self._upload, 0.05),
            (self._train, 12.0),
            (self._promote, 0.1),
            (self._predict, 0.1),
            (self._tell, 0.1),
        ):
            self._futures.append(self._pool.submit(self._repeat, step, pause))

    def stop(self) -> None:
        """Wait until the last request of each is answered."""
        self._stopping.set()
        for future in self._futures:
            future.result()

    def _repeat(self, step: Callable[[int], None], pause: float) -> None:
        for number in count():
            while True:
                try:
                    step(number)
                    break
                except httpx.TransportError:
                    if self._given_up.wait(0.02):
                        return
            if self._stopping.wait(pause):
                return

    def _upload(self, number: int) -> None:
        content = Client.table(rows=200, seed=1000 + number)

        def slowly() -> Iterator[bytes]:
            for start in range(0, len(content), 4000):
                yield content[start : start + 4000]
                time.sleep(0.01)

        answer = self._client.post(
            "/v1/datasets/arrivals/versions", content=slowly(), headers={"content-type": "text/csv"}
        )
        assert answer.status_code in (200, 201), answer.text
        assert answer.json()["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.uploads[answer.json()["version"]] = answer.json()["digest"]

    def _train(self, number: int) -> None:
        algorithm = ("dummy", "logistic_regression")[number % 2]
        spec: dict[str, Any] = {
            "model": "delays",
            "dataset": "flights",
            "target": "late",
            "algorithm": algorithm,
            "seed": number + 1,  # each asks for a version of its own
        }
        self.runs.append(self._create(f"train-{number}", "/v1/training-runs", spec)["id"])

    def _promote(self, number: int) -> None:
        body: dict[str, Any] = {"version": 1, "comment": f"number {number}"}
        if number % 2:
            body |= {"version": 2, "canary": 0.25}
        self.deployments.append(self._create(f"promote-{number}", "/v1/models/delays:promote", body))

    def _create(self, key: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(path, json=body, headers={"idempotency-key": key})
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def _predict(self, number: int) -> None:
        (row,) = Client.rows(rows=1, seed=number)
        del row["late"]
        answer = self._client.predict("delays", [row])
        self.predictions[answer["prediction_ids"][0]] = (row, answer["predictions"][0])

    def _tell(self, number: int) -> None:
        unknown = [one for one in list(self.predictions) if one not in self.feedback][:5]
        told = dict.fromkeys(unknown, number % 2 == 0)
        if told:
            items = [{"prediction_id": one, "actual": actual} for one, actual in told.items()]
            answer = self._client.post("/v1/feedback", json={"items": items})
            assert answer.status_code == 200, answer.text
            receipt = answer.json()
            assert receipt["accepted"] + receipt["duplicates"] == len(items), receipt
            self.feedback |= told


def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path, settings: dict[str, str]) -> None:
    moments = random.Random(SEED)
    port = free_port()
    with connect(f"http://127.0.0.1:{port}") as client, Crowd(client) as crowd:
        with Serve(tmp_path, port=port, **settings) as server:
            server.wait_until_ready()
            client.add_dataset("flights", Client.table(rows=100, seed=1))
            assert client.post("/v1/datasets", json={"name": "arrivals"}).status_code == 201
            client.train("delays", "flights", algorithm="logistic_regression")
            client.train("delays", "flights", algorithm="dummy")
            first = client.post("/v1/models/delays:promote", json={"version": 1})
            assert first.status_code == 201, first.text
            crowd.start()
            time.sleep(moments.uniform(0.5, 2))
            server.worker().kill()
            time.sleep(moments.uniform(0.5, 3))
            server.kill()
        with Serve(tmp_path, port=port, **settings) as server:
            time.sleep(moments.uniform(0, 4))
            server.kill_everything()
        with Serve(tmp_path, port=port, **settings) as server:
            server.wait_until_ready()
            time.sleep(moments.uniform(0.5, 3))
            server.kill_everything()
        with Serve(tmp_path, port=port, **settings) as server:
            server.wait_until_ready()
            crowd.stop()
            runs = [client.wait_for_run(run_id) for run_id in crowd.runs]
            check_uploads(client, crowd)
            check_runs(client, runs)
            check_deployments(client, [first.json(), *crowd.deployments])
            check_predictions(client, crowd)
            check_feedback(client, crowd)
            assert server.terminate() == 0
    check_leftovers(tmp_path, settings)


def everything(client: Client, path: str, **query: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": None}
    while not items or page["next"]:
        answer = client.get(path, params=query | ({"cursor": page["next"]} if items else {}))
        page = answer.json()
        items += page["items"]
    return items


def check_uploads(client: Client, crowd: Crowd) -> None:
    versions = everything(client, "/v1/datasets/arrivals/versions")
    assert {one["version"]: one["digest"] for one in versions} == crowd.uploads
    assert sorted(crowd.uploads) == list(range(1, len(versions) + 1))
    assert len(set(crowd.uploads.values())) == len(versions)
    for number in crowd.uploads:
        preview = client.get(f"/v1/datasets/arrivals/versions/{number}/preview", params={"limit": 1})
        assert preview.json()["total"] == 200, preview.text
    events = everything(client, "/v1/events", action="dataset_version.created", subject="datasets/arrivals")
    assert len(events) == len(versions)


def check_runs(client: Client, runs: list[dict[str, Any]]) -> None:
    assert [run["status"] for run in runs] == ["succeeded"] * len(runs)
    listed = everything(client, "/v1/training-runs", model="delays")
    assert sorted(run["id"] for run in listed)[2:] == [run["id"] for run in runs]
    versions = everything(client, "/v1/models/delays/versions")
    assert sorted(run["model_version"] for run in listed) == sorted(one["version"] for one in versions)
    assert len(versions) == len(listed)


def check_deployments(client: Client, acknowledged: list[dict[str, Any]]) -> None:
    assert everything(client, "/v1/models/delays/deployments")[::-1] == acknowledged


def check_predictions(client: Client, crowd: Crowd) -> None:
    for prediction_id, (row, output) in crowd.predictions.items():
        answer = client.get(f"/v1/predictions/{prediction_id}")
        assert answer.status_code == 200, answer.text
        assert (answer.json()["inputs"], answer.json()["prediction"]) == (row, output)


def check_feedback(client: Client, crowd: Crowd) -> None:
    items = [{"prediction_id": one, "actual": actual} for one, actual in crowd.feedback.items()]
    receipt = client.post("/v1/feedback", json={"items": items}).json()
    assert receipt == {"accepted": 0, "duplicates": len(items), "corrected": 0, "rejected": []}
    # A prediction that the journal held twice would count twice.
    performance = client.get("/v1/models/delays/performance").json()
    assert sum(window["rows"] for window in performance["windows"]) == len(items)


def check_leftovers(tmp_path: Path, settings: dict[str, str]) -> None:
    """Of the stopped server and of the killed ones there is nothing but what the loop made."""
    home = tmp_path / "home"
    assert list((home / "scratch").iterdir()) == []
    assert {path.name for path in (home / "journal").glob("spool/*/*")} <= {LOCK}
    assert list((tmp_path / "tmp").iterdir()) == []
    if "ROUNDHOUSE_STORE_URL" in settings:
        return
    assert list((home / "objects" / "tmp").iterdir()) == []
    for path in (home / "objects" / "sha256").glob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
