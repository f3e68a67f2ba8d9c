"""The live table: versions change under load, across processes, and never for a version that cannot load."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.registry.models import ModelVersion
from app.serving.models import Deployment, DeploymentSlot
from tests.client import Client, wait_until
from tests.servers import postgres_server
from tests.versions import artifact_of, opened, register, train_here

ROW: dict[str, Any] = {
    "scheduled": "2013-05-31T14:15:00Z",
    "carrier": "B6",
    "distance": 700,
    "wind": 17.5,
    "international": False,
}


def begin(start: Callable[..., Client]) -> Client:
    """A server that serves version 1 of the model ``m``; version 2 is a different one."""
    client = start()
    client.add_dataset("few", client.table(rows=100, seed=2))
    linear = train_here(client, "few", algorithm="logistic_regression")
    forest = train_here(client, "few", algorithm="random_forest", params={"n_estimators": 3})
    register(client, "m", linear, forest)
    promote(client, 1)
    return client


def promote(client: Client, version: int) -> None:
    answer = client.post("/v1/models/m:promote", json={"version": version})
    assert answer.status_code == 201, answer.text


def wait_for(client: Client, version: int) -> None:
    """Every other process looks for new deployments more than once a second."""
    deadline = time.monotonic() + 60
    while client.predict("m", [ROW])["version"] != version:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def damage(client: Client, version: int) -> Callable[[], object]:
    """Change one byte of the version's artifact; returns what repairs it."""
    path = artifact_of(client, "m", version)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    return lambda: path.write_bytes(content)


def deployments(client: Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get("/v1/models/m/deployments").json()["items"]
    return items


def refused(answer: httpx.Response, code: str) -> str:
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["code"]) == (503, code), problem
    detail: str = problem["detail"]
    return detail


def test_another_server_follows_promotions_and_rollbacks(start: Callable[..., Client]) -> None:
    one = begin(start)
    other = start()
    wait_for(other, 1)
    promote(one, 2)
    assert one.predict("m", [ROW])["version"] == 2
    wait_for(other, 2)
    assert other.post("/v1/models/m:rollback").status_code == 201
    assert other.predict("m", [ROW])["version"] == 1
    wait_for(one, 1)


def test_another_server_serves_a_models_first_deployment_at_once(start: Callable[..., Client]) -> None:
    one, other = start(live_poll_seconds=1), start(live_poll_seconds=1)
    one.add_dataset("few", one.table(rows=100, seed=2))
    register(one, "m", train_here(one, "few", algorithm="dummy"))
    assert other.post("/v1/models/m:predict", json={"instances": [ROW]}).status_code == 409
    promote(one, 1)
    assert other.predict("m", [ROW])["version"] == 1


def test_predictions_under_load_never_fail_while_versions_change(start: Callable[..., Client]) -> None:
    one = begin(start)
    servers = [one, start()]
    rows = [ROW, ROW | {"carrier": None, "wind": None}]
    expected = {version: one.predict("m", rows, at=f"/versions/{version}") for version in (1, 2)}
    assert expected[1]["probabilities"] != expected[2]["probabilities"]
    done = threading.Event()
    wrong: list[str] = []
    answered = [0, 0, 0, 0]

    def load(number: int) -> None:
        client = servers[number % 2]
        while not done.is_set():
            answer = client.post("/v1/models/m:predict", json={"instances": rows})
            body = answer.json()
            right = answer.status_code == 200 and (
                body["probabilities"] == expected[body["version"]]["probabilities"]
            )
            if not right:
                wrong.append(answer.text)
            answered[number] += 1

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for step in range(20):
            promote(one, 2 - step % 2)
            assert one.predict("m", rows)["version"] == 2 - step % 2, "a promotion answered is in service"
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert min(answered) > 0
    assert len(deployments(one)) == 21


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_a_damaged_version_cannot_be_put_into_service(start: Callable[..., Client], verb: str) -> None:
    one = begin(start)
    body = {"version": 2}
    if verb == "rollback":
        promote(one, 2)
        promote(one, 1)
        body = {}
    repair = damage(one, 2)
    fresh = start()  # has never loaded version 2
    before = deployments(one)
    detail = refused(fresh.post(f"/v1/models/m:{verb}", json=body), "version_not_loadable")
    assert "Version 2 of model 'm' cannot be loaded" in detail
    assert deployments(one) == before
    for server in (one, fresh):
        assert server.predict("m", [ROW])["version"] == 1
        assert server.get("/readyz").json()["status"] == "ready"
    refused(fresh.post("/v1/models/m/versions/2:predict", json={"instances": [ROW]}), "version_not_loadable")
    repair()
    assert fresh.post(f"/v1/models/m:{verb}", json=body).status_code == 201
    assert fresh.predict("m", [ROW])["version"] == 2


def test_a_version_damaged_in_service_is_named_after_a_restart(start: Callable[..., Client]) -> None:
    one = begin(start)
    repair = damage(one, 1)
    assert one.predict("m", [ROW])["version"] == 1, "it is in memory"
    restarted = start()
    ready = restarted.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["database"] == ready.json()["store"] == "ok"
    assert ready.json()["models"].startswith("model m: Version 1 of model 'm' cannot be loaded")
    predicted = restarted.post("/v1/models/m:predict", json={"instances": [ROW]})
    assert "Version 1 of model 'm' cannot be loaded" in refused(predicted, "deployment_not_loaded")
    assert restarted.get("/v1/models/m").json()["ready"] is False
    # Any sound version can take its place.
    promote(restarted, 2)
    assert restarted.predict("m", [ROW])["version"] == 2
    assert restarted.get("/readyz").json()["status"] == "ready"
    assert restarted.get("/v1/models/m").json()["ready"] is True
    repair()
    promote(restarted, 1)
    assert restarted.predict("m", [ROW])["version"] == 1


def test_a_version_that_is_repaired_is_served_without_a_restart(start: Callable[..., Client]) -> None:
    one = begin(start)
    repair = damage(one, 1)
    restarted = start()
    assert restarted.get("/readyz").status_code == 503
    repair()
    wait_until(lambda: restarted.get("/readyz").is_success)
    assert restarted.predict("m", [ROW])["version"] == 1


@pytest.mark.parametrize("compiled", [True, False])
def test_a_version_whose_artifact_is_no_model_stops_no_other_model(
    start: Callable[..., Client], *, compiled: bool
) -> None:
    one = begin(start)
    facts = train_here(one, "few", algorithm="dummy")
    register(one, "broken", facts)
    assert one.post("/v1/models/broken:promote", json={"version": 1}).status_code == 201
    with opened(one.settings) as (database, store, _), database.session_scope() as session:
        # What the registry says, and no model: as another release may have left it.
        garbage = store.write([b"not a model"])
        version = session.scalars(select(ModelVersion).filter_by(model="broken")).one()
        version.artifact_digest, version.scorer_digest = garbage.digest, garbage.digest if compiled else None
    fresh = start()
    assert fresh.predict("m", [ROW])["version"] == 1
    assert "model broken: Version 1" in fresh.get("/readyz").json()["models"]
    assert "cannot be loaded" in refused(
        fresh.post("/v1/models/broken:predict", json={"instances": [ROW]}), "deployment_not_loaded"
    )


def test_a_deployment_that_is_committed_after_a_later_one_is_served_all_the_same(
    start: Callable[..., Client],
) -> None:
    one = begin(start)
    register(one, "n", train_here(one, "few", algorithm="dummy"))
    with opened(one.settings) as (database, _, _):
        # Two transactions on PostgreSQL may take their ids in one order and commit in the other.
        for number, name in ((100, "n"), (50, "m")):
            with database.session_scope() as session:
                version = session.scalars(
                    select(ModelVersion).filter_by(model=name).order_by(ModelVersion.number.desc())
                ).first()
                assert version is not None
                slot = DeploymentSlot(
                    position=0, variant="champion", version_id=version.id, version=version.number, weight=1.0
                )
                session.add(
                    Deployment(
                        id=number,
                        model_id=version.model_id,
                        model=name,
                        reason="promote",
                        created_by="tests",
                        created_at=datetime.now(UTC),
                        slots=[slot],
                    )
                )

            def serves(name: str = name, number: int = version.number) -> bool:
                return bool(one.predict(name, [ROW])["version"] == number)

            wait_until(serves)


def test_a_shadow_that_fails_does_not_fail_the_answer(start: Callable[..., Client]) -> None:
    one = begin(start)
    other_columns = b"wind,late\n" + b"1,true\n2,false\n" * 15
    one.add_dataset("other", other_columns)
    register(one, "m", train_here(one, "other", algorithm="dummy"))
    assert one.post("/v1/models/m:promote", json={"version": 3, "shadow": True}).status_code == 201
    assert one.predict("m", [ROW])["version"] == 1
    wait_until(
        lambda: 'roundhouse_shadow_failures_total{model="m",version="3"} 1.0' in one.get("/metrics").text
    )


def test_predictions_go_on_while_the_database_is_away(start: Callable[..., Client], tmp_path: Path) -> None:
    with postgres_server(tmp_path) as server:
        one = begin(lambda **changes: start(database_url=server, **changes))
        before = one.predict("m", [ROW])
    time.sleep(1.2)  # the keys that it knows are a second old then
    after = one.predict("m", [ROW])
    assert after["predictions"] == before["predictions"]
    assert one.get("/v1/datasets").status_code == 503
