"""``roundhouse gc``: it removes what nothing refers to, and nothing else, whoever is writing meanwhile."""

import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import obstore
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import LocalStore, S3Store
from sqlalchemy import JSON, select

from app import store as app_store
from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.models import Dataset, DatasetVersion
from app.db import Base, Database
from app.errors import Conflict
from app.events.service import record_event
from app.http.idempotency import IdempotencyRecord
from app.lineage.deletion import delete_version
from app.owned import Scratch
from app.retention import collect_garbage, find_garbage, list_used, object_columns
from app.store import SHARDS, Store, StoreUnavailable, object_path
from tests.client import Client, wait_until
from tests.processes import COMMAND, Serve, environment_of, run
from tests.servers import S3Server, create_database
from tests.versions import opened

DAY = timedelta(days=1)
CSV = {"content-type": "text/csv"}


def now() -> datetime:
    return datetime.now(UTC)


# ── What is referred to ──────────────────────────────────────────────────────────────────────────

OTHER_DIGESTS = {"api_keys.digest", "dataset_versions.content_digest"}
"""Of secrets and of a table's values: of no object."""

WITHOUT_OBJECTS = {
    "batch_predictions.error",
    "dataset_contracts.rules",
    "dataset_versions.columns",
    "dataset_versions.origin",
    "dataset_versions.recipe",
    "dataset_versions.report",
    "dataset_versions.tags",
    "datasets.tags",
    "events.detail",  # they tell of objects that may be gone
    "feedback.actual",
    "model_versions.data",  # of a data version that cannot be deleted
    "model_versions.environment",
    "model_versions.evaluation",
    "model_versions.example",
    "model_versions.metrics",
    "model_versions.params",
    "model_versions.reference",
    "model_versions.signature",
    "model_versions.spec",
    "receipt_keys.jwk",
    "training_runs.error",
    "training_runs.limits",
    "training_runs.spec",
    "training_runs.tags",
    "training_runs.warm_start",
    "trials.configuration",
    "trials.scores",
}
"""The columns of JSON that keep no object from being removed."""


def test_every_column_that_may_name_an_object_is_one_that_keeps_it_or_is_known_not_to() -> None:
    columns = {str(column): column for table in Base.metadata.sorted_tables for column in table.columns}
    suspects = {
        name
        for name, column in columns.items()
        if "digest" in name or "part" in column.name or isinstance(column.type, JSON)
    }
    known = {str(column) for column in object_columns()} | OTHER_DIGESTS | WITHOUT_OBJECTS
    assert suspects - known == set(), "declare it as ObjectDigest, or say here that it names no object"
    assert known - set(columns) == set()


def test_whatever_a_life_cycle_stores_is_referred_to(shared: Client) -> None:
    name = f"kept-{uuid4().hex[:8]}"
    with opened(shared.settings) as (database, store, _):

        def stored() -> set[str]:
            entries = [store.list_unused(shard, (), before=now() + DAY) for shard in SHARDS]
            return {entry.digest for of_shard in entries for entry in of_shard}

        def used() -> set[str]:
            with database.session_scope(write=False) as session:
                return list_used(session)

        before = stored()
        shared.add_dataset(name, shared.table(rows=100, seed=uuid4().int))
        shared.train(name, name, algorithm="logistic_regression")
        shared.post(f"/v1/models/{name}:promote", json={"version": 1})
        shared.predict(name, [shared.get(f"/v1/models/{name}").json()["example"]])
        asked = shared.post(f"/v1/models/{name}/batch-predictions", json={"dataset": name})
        wait_until(lambda: shared.get(asked.headers["location"]).json()["status"] == "succeeded")
        wait_until(lambda: shared.get(f"/v1/models/{name}/versions/1/lineage").json()["predictions"] == 1)
        # An upload and its table, a model and its scorer, a segment, a part of the batch.
        assert len(stored() - before) >= 6
        wait_until(lambda: stored() - before <= used())


# ── Beside writers ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    scratch = Scratch(tmp_path / "scratch")
    yield scratch
    scratch.close()


@pytest.fixture(params=["folder", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Empty for a folder."""
    if request.param == "folder":
        return ""
    s3: S3Server = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket}/{tmp_path.name}-{uuid4().hex}"


@pytest.fixture
def store(store_url: str, tmp_path: Path, scratch: Scratch) -> Store:
    return Store(store_url, folder=tmp_path / "objects", scratch=scratch)


@pytest.fixture
def raw(store_url: str, store: Store, tmp_path: Path) -> LocalStore | S3Store:
    """The same place without our rules."""
    return S3Store.from_url(store_url) if store_url else LocalStore(tmp_path / "objects")


CONTENT = b"relied on again"


class Old:
    """An object that was written before ``cutoff``; a write of now comes after that."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.digest = store.write([CONTENT]).digest
        self.shard = self.digest.removeprefix("sha256:")[:2]
        (found,) = store.list_unused(self.shard, (), now() + DAY)
        self.cutoff = found.last_modified + timedelta(milliseconds=1)
        time.sleep(1.1)  # a store may tell times to the second

    def is_old(self) -> bool:
        return self._store.list_unused(self.shard, (), self.cutoff) != []

    def remove(self, *, meanwhile: Callable[[int], None]) -> None:
        """``meanwhile`` runs after each look at the objects: 1 before the notice is given, 2 after."""
        looks = 0

        class Unused:
            def __contains__(self, digest: object) -> bool:
                nonlocal looks
                looks += 1
                meanwhile(looks)
                return False

        self._store.remove_unused(self.shard, Unused(), self.cutoff)


@pytest.fixture
def old(store: Store) -> Old:
    return Old(store)


def test_an_old_object_is_removed_and_a_young_one_stays(store: Store, old: Old) -> None:
    young = store.write([b"young"])
    for shard in SHARDS:
        store.remove_unused(shard, (), old.cutoff)
    assert not old.is_old()
    assert store.read(young.digest) == b"young"


def test_what_is_written_again_before_the_notice_stays(store: Store, old: Old) -> None:
    def meanwhile(look: int) -> None:
        if look == 1:
            store.write([CONTENT])

    old.remove(meanwhile=meanwhile)
    assert store.read(old.digest) == CONTENT


def test_what_is_written_again_after_the_second_look_is_written_once_more(store: Store, old: Old) -> None:
    with ThreadPoolExecutor() as pool:

        def meanwhile(look: int) -> None:
            if look == 2:
                writing.append(pool.submit(store.write, [CONTENT]))
                wait_until(lambda: not old.is_old())

        writing: list[Any] = []
        old.remove(meanwhile=meanwhile)
        assert writing[0].result().digest == old.digest
    assert store.read(old.digest) == CONTENT


def test_a_writer_notices_that_its_object_went_before_it_looked_for_notices(
    store: Store, old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_twice, copied = threading.Event(), threading.Event()

    def meanwhile(look: int) -> None:
        if look == 2:
            looked_twice.set()
            assert copied.wait(60)

    copy = obstore.copy
    with ThreadPoolExecutor() as pool:
        removing = pool.submit(old.remove, meanwhile=meanwhile)
        assert looked_twice.wait(60)

        def copy_and_be_slow(*arguments: Any, **options: Any) -> None:
            copy(*arguments, **options)
            copied.set()
            removing.result()

        monkeypatch.setattr(obstore, "copy", copy_and_be_slow)
        store.write([CONTENT])
    assert store.read(old.digest) == CONTENT


def test_a_writer_does_not_wait_for_ever_for_a_dead_remover(
    store: Store, raw: LocalStore | S3Store, old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_store, "DEAD_NOTICE_SECONDS", 0.6)
    notice = f"notices/{uuid4().hex}"
    obstore.put(raw, notice, object_path(old.digest.removeprefix("sha256:")).encode())
    assert [entry.path for entry in store.list_abandoned(now() + DAY)] == [notice]
    assert store.write([CONTENT]).digest == old.digest
    assert store.list_abandoned(now() + DAY) == [], "the next writer would wait again"


def test_a_dead_removers_notice_of_other_objects_is_left_to_the_sweep(
    store: Store, raw: LocalStore | S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_store, "DEAD_NOTICE_SECONDS", 0)
    notice = f"notices/{uuid4().hex}"
    obstore.put(raw, notice, object_path("ab" * 32).encode())
    store.write([CONTENT])
    assert [entry.path for entry in store.sweep(now() + DAY)] == [notice]


def test_a_notice_that_is_half_written_stops_no_writer(tmp_path: Path, scratch: Scratch) -> None:
    store = Store("", folder=tmp_path / "objects", scratch=scratch)
    path = tmp_path / "objects" / "notices" / f"{uuid4().hex}#1"
    path.parent.mkdir()
    path.write_text(object_path(hashlib.sha256(CONTENT).hexdigest()))
    assert store.read(store.write([CONTENT]).digest) == CONTENT
    assert store.sweep(now() - DAY) == []
    assert [tmp_path / "objects" / entry.path for entry in store.sweep(now() + DAY)] == [path]
    assert not path.exists()


def test_a_remover_that_was_held_up_removes_nothing(
    store: Store, old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_store, "NOTICE_SECONDS", -1)
    with pytest.raises(StoreUnavailable, match="too slowly"):
        old.remove(meanwhile=lambda _: None)
    assert store.read(old.digest) == CONTENT


def test_two_removers_do_not_disturb_each_other(store: Store, old: Old) -> None:
    def meanwhile(look: int) -> None:
        if look == 2:
            assert [entry.digest for entry in store.remove_unused(old.shard, (), old.cutoff)] == [old.digest]

    old.remove(meanwhile=meanwhile)
    assert not old.is_old()


def test_what_a_process_left_that_died_while_it_named_an_object_is_seen(
    tmp_path: Path, scratch: Scratch
) -> None:
    store = Store("", folder=tmp_path / "objects", scratch=scratch)
    path = tmp_path / "objects" / f"{object_path('ab' * 32)}#1"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half an object")
    assert store.sweep(now() - DAY) == []
    assert [tmp_path / "objects" / entry.path for entry in store.sweep(now() + DAY)] == [path]
    assert not path.exists()


# ── Any sequence of uploads, derivations and deletions ───────────────────────────────────────────


def caller() -> Caller:
    return Caller("tests", Role.ADMIN, now())


contents = st.integers(0, 4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("upload"), contents),
        st.tuples(st.just("derive"), contents, contents),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.tuples(st.just("abandon"), contents),
        st.tuples(st.just("age")),
        st.tuples(st.just("collect")),
    ),
    max_size=25,
)


class Installation:
    """Data versions whose parts are the objects of small numbers, and the clock of the store's files."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'registry.db'}")
        self.database.migrate()
        self.scratch = Scratch(folder / "scratch")
        self.objects = folder / "objects"
        self.store = Store("", folder=self.objects, scratch=self.scratch)
        self.name = ""

    def close(self) -> None:
        self.scratch.close()
        self.database.dispose()

    def begin(self) -> None:
        self.name = f"data-{uuid4().hex[:8]}"
        with self.database.session_scope() as session:
            session.add(Dataset(name=self.name, description="", tags={}, created_by="t", created_at=now()))
            record_event(session, caller(), "dataset.created", f"datasets/{self.name}")

    def upload(self, content: int) -> None:
        original = self.store.write([b"original %d" % content]).digest
        part = self.store.write([b"part %d" % content]).digest
        self._add([part], {"kind": "upload"}, digest=original)

    def derive(self, which: int, content: int) -> None:
        """A version with the parts of another, stored without a copy, and one more."""
        with self.database.session_scope(write=False) as session:
            versions = self._versions(session)
        if versions:
            base = versions[which % len(versions)]
            part = self.store.write([b"part %d" % content]).digest
            self._add([*base.parts, part], {"kind": "append", "base": base.number}, digest=part)

    def _add(self, parts: list[str], origin: dict[str, Any], *, digest: str) -> None:
        with self.database.session_scope() as session:
            dataset = session.scalars(select(Dataset).filter_by(name=self.name).with_for_update()).one()
            content = "+".join(parts)
            same = select(DatasetVersion.id).filter_by(dataset_id=dataset.id, content_digest=content)
            if session.scalar(same) is None:
                dataset.last_version += 1
                session.add(
                    DatasetVersion(
                        dataset_id=dataset.id, dataset=self.name, number=dataset.last_version, origin=origin,
                        media_type="text/csv", digest=digest, size=1, recipe={}, content_digest=content,
                        parts=parts, rows=1, columns=[], status="accepted", description="", tags={},
                        created_by="t", created_at=now(),
                    )
                )  # fmt: skip

    def delete(self, which: int) -> None:
        with self.database.session_scope(write=False) as session:
            numbers = [version.number for version in self._versions(session)]
        if numbers:
            with suppress(Conflict), self.database.session_scope() as session:
                delete_version(session, caller(), self.name, numbers[which % len(numbers)])

    def abandon(self, content: int) -> None:
        """An upload that died before its version was there."""
        self.store.write([b"part %d" % content])

    def age(self) -> None:
        for path in self.objects.rglob("*"):
            if path.is_file():
                changed = path.stat().st_mtime - 1.5 * DAY.total_seconds()
                os.utime(path, (changed, changed))

    def collect(self) -> None:
        collect_garbage(self.database, self.store, caller(), older_than=DAY)
        with self.database.session_scope(write=False) as session:
            used = list_used(session)
        left = [entry for shard in SHARDS for entry in self.store.list_unused(shard, used, now() - DAY)]
        assert left == []

    def check(self) -> None:
        with self.database.session_scope(write=False) as session:
            for version in self._versions(session):
                for digest in (version.digest, *version.parts):
                    self.store.read(digest)

    def _versions(self, session: Any) -> list[DatasetVersion]:
        query = select(DatasetVersion).filter_by(dataset=self.name).order_by(DatasetVersion.number)
        return list(session.scalars(query))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("installation"))
    yield made
    made.close()


@given(steps=steps)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_all_that_is_referred_to_is_kept_and_all_else_that_is_old_removed(
    installation: Installation, steps: list[tuple[Any, ...]]
) -> None:
    installation.begin()
    for name, *arguments in [*steps, ("age",), ("collect",)]:
        getattr(installation, name)(*arguments)
        installation.check()


# ── The command ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def environment(s3: S3Server, postgres: str, tmp_path: Path) -> dict[str, str]:
    """Of PostgreSQL and S3."""
    environment = {
        **s3.environment,
        "ROUNDHOUSE_DATABASE_URL": create_database(postgres),
        "ROUNDHOUSE_STORE_URL": f"s3://{s3.bucket}/{tmp_path.name}-{uuid4().hex}",
    }
    assert run(tmp_path, "migrate", **environment).returncode == 0
    return environment


def collected(home: Path, environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    answer = run(home, "gc", "--json", *arguments, **environment)
    assert answer.returncode == 0, answer.stderr
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


@contextmanager
def adding_no_version(environment: dict[str, str]) -> Iterator[None]:
    """Every upload waits at its last step: its files are stored, and its version is not there."""
    database = Database(environment["ROUNDHOUSE_DATABASE_URL"])
    with database.session_scope() as session:
        session.scalars(select(Dataset).with_for_update()).all()
        yield
    database.dispose()


def test_what_a_killed_upload_stored_is_listed_and_removed_once_it_is_old(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    content = b"a,b\n1,2\n3,4\n"
    with Serve(tmp_path, "--no-worker", port=None, **environment) as server:
        client = server.wait_until_ready()
        kept = client.add_dataset("kept", b"a\n1\n")
        with adding_no_version(environment), ThreadPoolExecutor() as pool:
            uploading = pool.submit(client.post, "/v1/datasets/kept/versions", content=content, headers=CSV)
            old = ("--dry-run", "--older-than", "0")
            wait_until(lambda: len(collected(tmp_path, environment, *old)["objects"]) >= 2)
            server.kill_everything()
            with pytest.raises(httpx.TransportError):
                uploading.result()
    assert collected(tmp_path, environment, "--dry-run")["objects"] == [], "what is young is not touched"
    listed = collected(tmp_path, environment, *old)
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" in [entry["digest"] for entry in listed["objects"]]
    removed = collected(tmp_path, environment, "--older-than", "0")
    assert removed == listed | {"dry_run": False}
    assert collected(tmp_path, environment, "--older-than", "0")["objects"] == []
    with Serve(tmp_path, "--no-worker", port=None, **environment) as server:
        client = server.wait_until_ready()
        assert client.get("/v1/datasets/kept/versions").json()["items"] == [kept]
        assert client.get("/v1/datasets/kept/versions/1/content").status_code == 200
        assert client.add_version("kept", content)["version"] == 2
        (event,) = client.get("/v1/events", params={"action": "store.collected"}).json()["items"]
        assert event["detail"]["objects"] == len(removed["objects"])
        assert event["detail"]["bytes"] == removed["bytes"]


def test_a_killed_collection_breaks_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    with Serve(tmp_path, "--no-worker") as server:
        client = server.wait_until_ready()
        kept = client.add_dataset("kept", b"a\n1\n")
    objects = tmp_path / "home" / "objects" / "sha256"
    used = sum(1 for _ in objects.glob("*/*"))
    for number in range(3000):
        name = hashlib.sha256(b"%d" % number).hexdigest()
        (objects / name[:2]).mkdir(exist_ok=True)
        (objects / name[:2] / name).write_bytes(b"%d" % number)
    command = [*COMMAND, "gc", "--older-than", "0"]
    with psutil.Popen(command, env=environment_of(tmp_path), stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: sum(1 for _ in objects.glob("*/*")) < 2900)
        process.kill()
    left = sum(1 for _ in objects.glob("*/*"))
    assert left > used, "it was killed too late"
    assert len(collected(tmp_path, {}, "--older-than", "0")["objects"]) == left - used
    with Serve(tmp_path, "--no-worker") as server:
        client = server.wait_until_ready()
        assert client.get("/v1/datasets/kept/versions").json()["items"] == [kept]
        assert client.get("/v1/datasets/kept/versions/1/content").status_code == 200


def test_old_idempotency_records_go_and_young_ones_stay(installation: Installation) -> None:
    installation.begin()
    for key, age in (("old", 25), ("young", 23)):
        record = IdempotencyRecord(
            caller="t", key=f"{key}-{installation.name}", fingerprint="", status=201, location=None, body=b"",
            created_at=now() - timedelta(hours=age),
        )  # fmt: skip
        with installation.database.session_scope() as session:
            session.add(record)
    database, store = installation.database, installation.store
    found = find_garbage(database, store, now=now(), older_than=timedelta(0))
    assert found.idempotency_records == 1
    removed = collect_garbage(database, store, caller(), older_than=timedelta(0))
    assert removed.idempotency_records == 1
    with database.session_scope(write=False) as session:
        assert session.scalars(select(IdempotencyRecord.key)).all() == [f"young-{installation.name}"]


def test_what_was_removed_is_told_in_a_table(tmp_path: Path) -> None:
    with Serve(tmp_path, "--no-worker") as server:
        server.wait_until_ready().add_dataset("kept", b"a\n1\n")
    name = hashlib.sha256(b"lost").hexdigest()
    path = tmp_path / "home" / "objects" / "sha256" / name[:2] / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"lost")
    told = run(tmp_path, "gc", "--older-than", "0", "--dry-run").stdout
    assert f"sha256:{name}" in told
    assert "Would remove 1 objects and 0 temporary files, 4 bytes in all" in told
    assert path.exists()
    assert "Removed 1 objects" in run(tmp_path, "gc", "--older-than", "0").stdout
    assert not path.exists()


def test_a_database_that_is_not_the_stores_removes_nothing(tmp_path: Path) -> None:
    name = hashlib.sha256(b"another's").hexdigest()
    path = tmp_path / "home" / "objects" / "sha256" / name[:2] / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another's")
    answer = run(tmp_path, "gc", "--older-than", "0")
    assert answer.returncode == 1
    assert "has never held a dataset" in answer.stderr
    assert path.exists()


def test_a_store_that_is_not_the_databases_loses_nothing(installation: Installation, tmp_path: Path) -> None:
    installation.begin()
    for content in (0, 1):
        installation.upload(content)
    other = Store("", folder=tmp_path / "objects", scratch=installation.scratch)
    theirs = other.write([b"another's"])
    with installation.database.session_scope(write=False) as session:
        digest = min(list_used(session))
    other.write([installation.store.read(digest)])  # two stores may hold the same table
    with pytest.raises(Conflict, match="objects that this database names"):
        find_garbage(installation.database, other, now=now(), older_than=timedelta(0))
    with pytest.raises(Conflict, match="objects that this database names"):
        collect_garbage(installation.database, other, caller(), older_than=timedelta(0))
    assert other.read(theirs.digest) == b"another's"


def test_a_store_that_lost_some_objects_is_cleaned_up(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    installation.begin()
    for content in (0, 1):
        installation.upload(content)
    lost = hashlib.sha256(b"part 1").hexdigest()
    (installation.objects / object_path(lost)).unlink()
    unused = installation.store.write([b"unused"])
    garbage = collect_garbage(installation.database, installation.store, caller(), older_than=timedelta(0))
    assert [entry.digest for entry in garbage.objects] == [unused.digest]
    installation.close()


def test_a_store_that_does_not_answer_is_one_clear_line(tmp_path: Path) -> None:
    away = {
        "ROUNDHOUSE_STORE_URL": "s3://nobody/there",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    answer = run(tmp_path, "gc", **away)
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("The object store did not do what was asked")
