"""Deleting data over HTTP: only what nothing uses, and its number never comes again."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.contracts.rules import Contract, Drift
from app.datasets.contracts.service import put_contract
from app.datasets.growth_service import Draw, sample_version
from app.errors import Conflict, NotFound
from app.store import Store, StoredObject
from tests.client import Client, wait_until
from tests.versions import opened

pytestmark = pytest.mark.sqlite_alone


@pytest.fixture
def name(shared: Client) -> str:
    """A dataset with three versions that nothing uses."""
    name = f"doomed-{uuid4().hex[:8]}"
    shared.add_dataset(name, b"a\n1\n")
    shared.add_version(name, b"a\n2\n")
    shared.add_version(name, b"a\n3\n")
    return name


def refused(client: Client, path: str) -> str:
    answer = client.delete(path)
    assert answer.status_code == 409, answer.text
    assert answer.json()["code"] in ("dataset_version_used", "dataset_used")
    detail: str = answer.json()["detail"]
    return detail


def test_a_version_that_nothing_uses_is_deleted(shared: Client, name: str) -> None:
    assert shared.delete(f"/v1/datasets/{name}/versions/2").status_code == 204
    for path in ("", "/content", "/preview", "/lineage"):
        assert shared.get(f"/v1/datasets/{name}/versions/2{path}").status_code == 404
    versions = shared.get(f"/v1/datasets/{name}/versions").json()["items"]
    assert [version["version"] for version in versions] == [3, 1]
    assert shared.delete(f"/v1/datasets/{name}/versions/2").status_code == 404


def test_the_number_of_a_deleted_version_is_not_given_again(shared: Client, name: str) -> None:
    shared.delete(f"/v1/datasets/{name}/versions/3")
    assert shared.add_version(name, b"a\n3\n")["version"] == 4
    for number in (1, 2, 4):
        shared.delete(f"/v1/datasets/{name}/versions/{number}")
    assert shared.get(f"/v1/datasets/{name}/versions").json()["items"] == []
    assert shared.add_version(name, b"a\n1\n")["version"] == 5


def test_the_log_tells_what_was_deleted(shared: Client, name: str) -> None:
    digest = shared.get(f"/v1/datasets/{name}/versions/3").json()["digest"]
    shared.delete(f"/v1/datasets/{name}/versions/3")
    subject = f"datasets/{name}/versions/3"
    deleted, created = shared.get("/v1/events", params={"subject": subject}).json()["items"]
    assert (deleted["action"], created["action"]) == ("dataset_version.deleted", "dataset_version.created")
    assert (deleted["detail"]["digest"], deleted["detail"]["rows"]) == (digest, 1)


def test_a_version_that_a_model_learned_from_stays(shared: Client) -> None:
    name = f"used-{uuid4().hex[:8]}"
    shared.add_dataset(name, shared.table(rows=60, seed=1))
    run = shared.train(name, name, algorithm="dummy")
    told = refused(shared, f"/v1/datasets/{name}/versions/1")
    assert f"models/{name}/versions/1" in told
    assert f"training-runs/{run['id']}" in told
    assert f"models/{name}/versions/1" in refused(shared, f"/v1/datasets/{name}")
    assert shared.get(f"/v1/datasets/{name}/versions/1/content").status_code == 200


def test_a_version_that_a_run_is_to_use_stays(shared: Client) -> None:
    name = f"used-{uuid4().hex[:8]}"
    shared.add_dataset(name, shared.table(rows=60, seed=1))
    body: dict[str, Any] = {"model": name, "dataset": name, "target": "late", "algorithm": "dummy"}
    run = shared.post("/v1/training-runs", json=body).json()["id"]
    shared.post(f"/v1/training-runs/{run}:cancel")
    shared.wait_for_run(run)
    assert f"training-runs/{run}" in refused(shared, f"/v1/datasets/{name}/versions/1")


def test_a_version_that_was_scored_stays(shared: Client, delays: str) -> None:
    name = f"scored-{uuid4().hex[:8]}"
    shared.add_dataset(name, shared.table(rows=20, seed=2))
    asked = shared.post(f"/v1/models/{delays}/batch-predictions", json={"dataset": name})
    wait_until(lambda: shared.get(asked.headers["location"]).json()["status"] == "succeeded")
    told = refused(shared, f"/v1/datasets/{name}/versions/1")
    assert f"batch-predictions/{asked.json()['id']}" in told


def test_a_version_that_another_was_made_of_stays_as_long_as_that(shared: Client, name: str) -> None:
    grown = shared.post(
        f"/v1/datasets/{name}/versions/1:append", content=b"a\n9\n", headers={"content-type": "text/csv"}
    )
    assert grown.json()["version"] == 4
    assert f"datasets/{name}/versions/4" in refused(shared, f"/v1/datasets/{name}/versions/1")
    assert shared.delete(f"/v1/datasets/{name}/versions/4").status_code == 204
    assert shared.delete(f"/v1/datasets/{name}/versions/1").status_code == 204


def test_the_reference_of_the_contract_in_force_stays(shared: Client, name: str) -> None:
    rule = {"rule": "drift", "column": "a", "reference": 1, "max": 0.5}
    for version in (1, 2):
        put = shared.put(f"/v1/datasets/{name}/contract", json={"rules": [rule | {"reference": version}]})
        assert put.status_code in (200, 201), put.text
    assert f"datasets/{name}/contract" in refused(shared, f"/v1/datasets/{name}/versions/2")
    assert shared.delete(f"/v1/datasets/{name}/versions/1").status_code == 204


def test_a_dataset_goes_with_all_that_is_its_own(shared: Client, name: str) -> None:
    shared.post(
        f"/v1/datasets/{name}/versions/1:append", content=b"a\n9\n", headers={"content-type": "text/csv"}
    )
    rules = [{"rule": "drift", "column": "a", "reference": 1, "max": 0.5}]
    shared.put(f"/v1/datasets/{name}/contract", json={"rules": rules})
    assert shared.delete(f"/v1/datasets/{name}").status_code == 204
    assert shared.get(f"/v1/datasets/{name}").status_code == 404
    (deleted,) = shared.get(
        "/v1/events", params={"subject": f"datasets/{name}", "action": "dataset.deleted"}
    ).json()["items"]
    assert deleted["detail"] == {"versions": 4, "last_version": 4}
    assert shared.add_dataset(name, b"a\n1\n")["version"] == 1


def test_nothing_is_made_of_a_version_that_is_deleted_meanwhile(
    shared: Client, name: str, tmp_path: Path
) -> None:
    class SlowStore(Store):
        def take_file(self, path: Path, digest: str | None = None) -> StoredObject:
            assert shared.delete(f"/v1/datasets/{name}/versions/1").status_code == 204
            return super().take_file(path, digest)

    caller = Caller("tests", Role.ADMIN, datetime.now(UTC))
    settings = shared.settings
    with opened(settings) as (database, _, scratch), pytest.raises(Conflict) as refused:
        store = SlowStore(settings.store_url, folder=settings.home / "objects", scratch=scratch)
        sample_version(database, store, caller, name, 1, 1, Draw(seed=1), tmp_path)
    assert refused.value.code == "base_deleted"
    versions = shared.get(f"/v1/datasets/{name}/versions").json()["items"]
    assert [version["version"] for version in versions] == [3, 2]


def test_a_dataset_that_is_deleted_meanwhile_gets_no_contract(shared: Client, name: str) -> None:
    class SlowStore(Store):
        @contextmanager
        def open_files(self, digests: Iterable[str]) -> Iterator[list[Path]]:
            assert shared.delete(f"/v1/datasets/{name}").status_code == 204
            with super().open_files(digests) as files:
                yield files

    caller = Caller("tests", Role.ADMIN, datetime.now(UTC))
    settings = shared.settings
    contract = Contract(rules=[Drift(rule="drift", column="a", reference=1, max=0.5)])
    with opened(settings) as (database, _, scratch), pytest.raises(NotFound, match=name):
        store = SlowStore(settings.store_url, folder=settings.home / "objects", scratch=scratch)
        put_contract(database, store, scratch, caller, name, contract)


@pytest.mark.parametrize("at", ["", "/versions/1"])
def test_tags_that_are_written_while_it_is_deleted_do_no_harm(shared: Client, name: str, at: str) -> None:
    path = f"/v1/datasets/{name}{at}"
    with ThreadPoolExecutor(8) as pool:
        tagging = pool.map(lambda n: shared.patch(path, json={"tags": {f"tag-{n}": "x"}}), range(12))
        deleting = pool.submit(shared.delete, path)
        statuses = {answer.status_code for answer in tagging}
    assert deleting.result().status_code == 204
    assert statuses <= {200, 404}
    assert shared.get(path).status_code == 404


@pytest.mark.parametrize("role", ["engineer", "viewer"])
def test_only_an_admin_deletes(shared: Client, name: str, role: str) -> None:
    assert shared.as_role(role).delete(f"/v1/datasets/{name}/versions/1").status_code == 403
    assert shared.as_role(role).delete(f"/v1/datasets/{name}").status_code == 403
