"""Leased work, of both kinds and on both engines: one worker a piece, and no piece is lost."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import leases
from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.models import DatasetVersion
from app.datasets.service import create_dataset
from app.db import Database
from app.errors import Conflict
from app.events.service import list_events
from app.http.paging import Paging
from app.leases import Leased, LeaseLost, Status
from app.registry.models import ModelVersion
from app.registry.service import ensure_model, register_version
from app.serving.batch_models import BatchPrediction
from app.serving.batch_service import add_part, cancel_batch, create_batch, get_batch, succeed_batch
from app.store import StoredObject
from app.training.models import Fact, TrainingRun
from app.training.service import (
    cancel_run,
    change_run,
    claim_run,
    create_run,
    get_run,
    queue_positions,
    succeed_run,
)
from app.training.spec import TrainingSpec
from tests.servers import create_database

START = datetime(2026, 11, 23, 8, tzinfo=UTC)
LEASE = timedelta(seconds=30)
ROWS = 100


def worker(name: str, seconds: float = 0) -> Caller:
    """The worker, so many seconds after the start."""
    return Caller(name, Role.ADMIN, START + timedelta(seconds=seconds))


ANA = worker("ana")


class Queue(ABC):
    """Work of one kind in a database, each step in a transaction of its own."""

    kind: type[Leased]

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.session_scope() as session:
            dataset = create_dataset(session, ANA, name="flights", description="")
            self.data = DatasetVersion(
                dataset_id=dataset.id,
                dataset="flights",
                number=1,
                media_type="text/csv",
                digest="sha256:a",
                size=1,
                origin={"kind": "upload"},
                recipe={},
                content_digest="sha256:c",
                parts=["sha256:b"],
                status="accepted",
                description="",
                tags={},
                rows=ROWS,
                columns=[
                    {"name": "late", "type": "boolean", "nullable": False},
                    {"name": "wind", "type": "number", "nullable": False},
                ],
                created_by="ana",
                created_at=START,
            )
            session.add(self.data)
            ensure_model(session, ANA, "m")
            self.version = self.register(session, ANA)

    def register(self, session: Session, by: Caller) -> ModelVersion:
        empty = ("params", "example", "metrics", "evaluation", "reference", "spec", "data", "environment")
        facts: dict[str, Any] = {name: {} for name in empty}
        facts["signature"] = {
            "features": [], "target": "late", "target_type": "boolean", "task": "binary",
            "classes": [False, True],
        }  # fmt: skip
        return register_version(
            session, by, "m", algorithm="dummy", task="binary", artifact_digest="sha256:c", artifact_size=1,
            created_by="ana", **facts,
        )  # fmt: skip

    @abstractmethod
    def create(self, session: Session) -> Leased: ...

    @abstractmethod
    def get(self, session: Session, work: int) -> Leased: ...

    @abstractmethod
    def succeed(self, session: Session, by: Caller, work: Any) -> None: ...

    @abstractmethod
    def cancel_as(self, session: Session, by: Caller, work: int) -> Leased: ...

    def add(self, count: int = 1) -> list[int]:
        with self.database.session_scope() as session:
            return [self.create(session).id for _ in range(count)]

    def claim(self, by: Caller) -> int | None:
        with self.database.session_scope() as session:
            work = self.claim_in(session, by)
            return work.id if work else None

    def claim_in(self, session: Session, by: Caller) -> Leased | None:
        return leases.claim(session, by, self.kind, LEASE)

    def do(self, action: Callable[..., Any], by: Caller, work: int, *arguments: Any, **options: Any) -> Any:
        """A transition, with the row as the worker knows it: read in another transaction."""
        row = self.row(work)
        with self.database.session_scope() as session:
            return action(session, by, row, *arguments, **options)

    def renew(self, by: Caller, work: int) -> bool:
        told: bool = self.do(leases.renew, by, work, LEASE, fraction=0.5, step="fitting")
        return told

    def cancel(self, work: int) -> None:
        with self.database.session_scope() as session:
            self.cancel_as(session, ANA, work)

    def recover(self, by: Caller, max_attempts: int = 3) -> None:
        with self.database.session_scope() as session:
            leases.recover_lost(session, by, self.kind, max_attempts)

    def row(self, work: int) -> Leased:
        with self.database.session_scope(write=False) as session:
            return self.get(session, work)

    def status(self, work: int) -> str:
        return self.row(work).status

    def events(self, work: int) -> list[str]:
        """What happened to the work, in order."""
        paging = Paging(limit=100, cursor=None)
        with self.database.session_scope(write=False) as session:
            events, _ = list_events(session, ANA, paging, subject=self.row(work).path)
            return [event.action.removeprefix(f"{self.kind.KIND}.") for event in reversed(events)]


class TrainingRuns(Queue):
    kind = TrainingRun

    def __init__(self, database: Database, *, per_model: int = 100) -> None:
        super().__init__(database)
        self.per_model = per_model

    def create(self, session: Session, **options: Any) -> TrainingRun:
        asked: dict[str, Any] = {"model": "m", "data": self.data, "spec": TrainingSpec(target="late")}
        return create_run(session, ANA, **asked | {"force": True} | options)

    def add_with(self, **options: Any) -> int:
        with self.database.session_scope() as session:
            return self.create(session, **options).id

    def claim_in(self, session: Session, by: Caller) -> Leased | None:
        return claim_run(session, by, LEASE, per_model=self.per_model)

    def places(self) -> dict[int, int]:
        """The places in the queue of the runs that wait."""
        with self.database.session_scope(write=False) as session:
            return queue_positions(session, session.scalars(select(TrainingRun)).all())

    def get(self, session: Session, work: int) -> Leased:
        return get_run(session, work)

    def succeed(self, session: Session, by: Caller, work: Any) -> None:
        succeed_run(session, by, work, self.register(session, by))

    def cancel_as(self, session: Session, by: Caller, work: int) -> Leased:
        return cancel_run(session, by, work)


class BatchPredictions(Queue):
    kind = BatchPrediction

    def create(self, session: Session) -> Leased:
        return create_batch(session, ANA, model="m", version=1, data=self.data)

    def get(self, session: Session, work: int) -> Leased:
        return get_batch(session, ANA, work)

    def succeed(self, session: Session, by: Caller, work: Any) -> None:
        add_part(session, by, work, range(ROWS), StoredObject("sha256:d", 1))
        succeed_batch(session, by, work)

    def cancel_as(self, session: Session, by: Caller, work: int) -> Leased:
        return cancel_batch(session, by, work)


@pytest.fixture(params=[TrainingRuns, BatchPredictions])
def runs(request: pytest.FixtureRequest, database: Database) -> Queue:
    made: Queue = request.param(database)
    return made


def test_the_oldest_run_is_claimed_first(runs: Queue) -> None:
    added = runs.add(3)
    assert [runs.claim(worker("w")) for _ in range(4)] == [*added, None]


def test_a_claimed_run_is_running_under_a_lease(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w", 5))
    claimed = runs.row(run)
    assert (claimed.status, claimed.lease_owner, claimed.attempts) == ("running", "w", 1)
    assert claimed.started_at == START + timedelta(seconds=5)
    assert claimed.lease_expires_at == START + timedelta(seconds=5) + LEASE
    assert runs.events(run) == ["created", "started"]


def test_no_run_is_claimed_twice_however_many_claim_at_once(runs: Queue) -> None:
    added = runs.add(24)

    def claim_all(name: str) -> list[int]:
        claimed = []
        while (run := runs.claim(worker(name))) is not None:
            claimed.append(run)
        return claimed

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(claim_all, [f"w{number}" for number in range(8)]))
    assert sorted(run for share in shares for run in share) == added
    for number, share in enumerate(shares):
        assert share == sorted(share)
        assert all(runs.row(run).lease_owner == f"w{number}" for run in share)
    assert all(runs.row(run).attempts == 1 for run in added)


def test_a_renewed_lease_keeps_the_run(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    assert runs.renew(worker("w", 20), run) is False
    runs.recover(worker("other", 45))
    kept = runs.row(run)
    assert (kept.status, kept.lease_owner, kept.fraction, kept.step) == ("running", "w", 0.5, "fitting")
    assert kept.lease_expires_at == START + timedelta(seconds=20) + LEASE


def test_a_lost_run_goes_to_another_worker_and_the_first_learns_of_it(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("first"))
    runs.recover(worker("second", 29))
    assert runs.status(run) == "running"
    runs.recover(worker("second", 31))
    assert runs.status(run) == "queued"
    assert runs.claim(worker("second", 31)) == run
    late = worker("first", 32)
    error = {"code": "late", "detail": "too late"}
    for attempt in (
        lambda: runs.renew(late, run),
        lambda: runs.do(leases.fail, late, run, error),
        lambda: runs.do(leases.retry, late, run, error, 3),
        lambda: runs.do(leases.give_back, late, run),
        lambda: runs.do(leases.end_cancelled, late, run),
        lambda: runs.do(runs.succeed, late, run),
    ):
        with pytest.raises(LeaseLost):
            attempt()
    held = runs.row(run)
    assert (held.status, held.lease_owner, held.attempts, held.error) == ("running", "second", 2, None)
    assert runs.events(run) == ["created", "started", "requeued", "started"]


def test_a_lost_run_is_recovered_once_however_many_workers_look(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("first"))
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(runs.recover, [worker(f"w{number}", 31) for number in range(6)]))
    assert runs.events(run) == ["created", "started", "requeued"]


def test_a_run_that_loses_every_worker_fails(runs: Queue) -> None:
    (run,) = runs.add()
    for attempt in range(3):
        assert runs.claim(worker("w", 100 * attempt)) == run
        runs.recover(worker("w", 100 * attempt + 31), max_attempts=3)
    failed = runs.row(run)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "worker_lost"
    assert "3 attempts" in failed.error["detail"]
    assert (failed.lease_owner, failed.finished_at) == (None, START + timedelta(seconds=231))
    assert runs.claim(worker("w", 300)) is None
    assert runs.events(run) == ["created", *["started", "requeued"] * 2, "started", "failed"]


def test_a_returned_run_waits_again_and_its_attempt_does_not_count(runs: Queue) -> None:
    (run,) = runs.add()
    for _ in range(5):
        assert runs.claim(worker("w")) == run
        runs.do(leases.give_back, worker("w"), run)
    returned = runs.row(run)
    assert (returned.status, returned.attempts, returned.lease_owner) == ("queued", 0, None)
    assert runs.claim(worker("other")) == run


def test_a_retried_run_fails_with_the_fault_after_its_last_attempt(runs: Queue) -> None:
    (run,) = runs.add()
    error = {"code": "store_unavailable", "detail": "The store is away."}
    for status in ("queued", "failed"):
        runs.claim(worker("w"))
        runs.do(leases.retry, worker("w"), run, error, 2)
        assert runs.status(run) == status
    assert runs.row(run).error == error


def test_a_waiting_run_is_cancelled_at_once(runs: Queue) -> None:
    cancelled, other = runs.add(2)
    runs.cancel(cancelled)
    assert runs.status(cancelled) == "cancelled"
    assert runs.row(cancelled).finished_at == START
    assert runs.events(cancelled) == ["created", "cancel_requested", "cancelled"]
    assert runs.claim(worker("w")) == other
    with pytest.raises(Conflict, match=r"has ended \(cancelled\)"):
        runs.cancel(cancelled)


def test_the_worker_of_a_running_run_is_told_to_cancel_it(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    runs.cancel(run)
    assert runs.status(run) == "running"
    assert runs.renew(worker("w", 1), run) is True
    runs.do(leases.end_cancelled, worker("w", 2), run)
    assert runs.row(run).finished_at == START + timedelta(seconds=2)
    assert runs.events(run) == ["created", "started", "cancel_requested", "cancelled"]


def test_a_run_that_is_claimed_while_it_is_cancelled_is_told_to_its_worker(postgres: str) -> None:
    database = Database(create_database(postgres))
    database.migrate()
    runs = TrainingRuns(database)
    (run,) = runs.add()
    with database.session_scope() as session:
        seen = get_run(session, run)
        assert seen.status == "queued"
        assert runs.claim(worker("w")) == run  # in another transaction, which has ended
        assert cancel_run(session, ANA, run).status == "running"
    assert runs.renew(worker("w", 1), run) is True
    assert runs.events(run) == ["created", "started", "cancel_requested"]
    database.dispose()


def test_runs_that_are_claimed_and_cancelled_at_once_are_either_cancelled_or_told(runs: Queue) -> None:
    added = runs.add(12)
    with ThreadPoolExecutor(4) as pool:
        claims = [pool.submit(runs.claim, worker("w")) for _ in added]
        cancels = [pool.submit(runs.cancel, run) for run in added]
        claimed = {claim.result() for claim in claims} - {None}
        for cancel in cancels:
            cancel.result()
    for run in added:
        assert runs.row(run).cancel_requested
        assert runs.status(run) == ("running" if run in claimed else "cancelled")
        assert ("cancelled" in runs.events(run)) == (run not in claimed)


@pytest.mark.parametrize(
    "giving_up",
    [
        lambda runs, run: runs.recover(worker("other", 31)),
        lambda runs, run: runs.do(leases.give_back, worker("w"), run),
        lambda runs, run: runs.do(leases.retry, worker("w"), run, {"code": "c", "detail": "d"}, 3),
    ],
    ids=["lost", "returned", "retried"],
)
def test_a_cancelled_run_never_waits_again(runs: Queue, giving_up: Callable[[Queue, int], None]) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    runs.cancel(run)
    giving_up(runs, run)
    assert runs.status(run) == "cancelled"
    assert runs.claim(worker("other", 40)) is None


def test_an_ended_run_is_nobodys(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    runs.do(leases.fail, worker("w"), run, {"code": "fit_failed", "detail": "It broke."})
    assert runs.row(run).error == {"code": "fit_failed", "detail": "It broke."}
    runs.recover(worker("w", 1000))
    assert runs.status(run) == Status.FAILED
    with pytest.raises(LeaseLost):
        runs.renew(worker("w"), run)


def test_work_that_succeeded_is_done(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    runs.do(runs.succeed, worker("w", 9), run)
    ended = runs.row(run)
    assert (ended.status, ended.fraction, ended.step) == ("succeeded", 1.0, "done")
    assert (ended.lease_owner, ended.finished_at) == (None, START + timedelta(seconds=9))
    assert runs.events(run) == ["created", "started", "succeeded"]
    with pytest.raises(Conflict, match=r"has ended \(succeeded\) and cannot be cancelled"):
        runs.cancel(run)


def test_a_succeeded_training_run_names_the_version_that_it_made(database: Database) -> None:
    runs = TrainingRuns(database)
    (run,) = runs.add()
    runs.claim(worker("w"))
    runs.do(runs.succeed, worker("w"), run)
    ended = runs.row(run)
    assert isinstance(ended, TrainingRun)
    assert (ended.model_version, ended.model_version_id) == (2, runs.version.id + 1)


def test_a_higher_priority_goes_before_age_and_may_be_changed_while_the_run_waits(database: Database) -> None:
    runs = TrainingRuns(database)
    low, first, second, high = (runs.add_with(priority=priority) for priority in (-1, 0, 0, 7))
    assert runs.places() == {high: 1, first: 2, second: 3, low: 4}
    runs.do(lambda session, by, row: change_run(session, by, row.id, priority=8, tags={}), ANA, second)
    assert runs.places() == {second: 1, high: 2, first: 3, low: 4}
    assert [runs.claim(worker("w")) for _ in range(5)] == [second, high, first, low, None]
    assert runs.places() == {}
    with pytest.raises(Conflict, match="is running"):
        runs.do(lambda session, by, row: change_run(session, by, row.id, priority=8, tags={}), ANA, second)


def test_no_more_runs_of_a_model_run_at_a_time_than_may_however_many_claim_at_once(
    database: Database,
) -> None:
    runs = TrainingRuns(database, per_model=2)
    many = [runs.add_with(priority=5) for _ in range(6)]
    other = runs.add_with(model="other")
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(runs.claim, [worker(f"w{number}") for number in range(8)]))
    assert sorted(run for run in claimed if run) == [*many[:2], other]
    by = worker(f"w{claimed.index(many[0])}")
    runs.do(leases.fail, by, many[0], {"code": "fit_failed", "detail": "It broke."})
    assert [runs.claim(worker("w")) for _ in range(2)] == [many[2], None]


def test_a_run_is_found_by_its_tags_and_when_it_succeeds_by_its_metrics_and_parameters(
    database: Database,
) -> None:
    runs = TrainingRuns(database)
    run = runs.add_with(tags={"team": "ops", "draft": "yes"})
    changes = {"draft": None, "note": "x" * 256}
    runs.do(lambda session, by, row: change_run(session, by, row.id, priority=None, tags=changes), ANA, run)
    runs.claim(worker("w"))
    with database.session_scope() as session:
        version = runs.register(session, worker("w"))
        version.metrics = {"roc_auc": 0.75}
        version.params = {"max_depth": 3, "kernel": {"name": "rbf"}, "fast": True, "sizes": [5, 2]}
        succeed_run(session, worker("w"), get_run(session, run), version)
    with database.session_scope(write=False) as session:
        facts = {fact.name: fact.text or fact.number for fact in session.scalars(select(Fact))}
    assert facts == {
        "tags.team": "ops",
        "tags.note": "x" * 256,
        "metrics.roc_auc": 0.75,
        "params.max_depth": 3.0,
        "params.kernel.name": "rbf",
        "params.fast": "true",
        "params.sizes": "[5, 2]",
        "algorithm": "dummy",
    }


def test_a_search_begins_from_the_configuration_of_the_models_newest_version(database: Database) -> None:
    runs = TrainingRuns(database)
    assert runs.do(lambda _, __, row: row.warm_start, ANA, runs.add_with()) is None
    configuration = {"algorithm": "ridge", "params": {"alpha": 3.0}, "preparation": {}}
    with database.session_scope() as session:
        runs.register(session, ANA).evaluation = {"configuration": configuration}
    assert runs.do(lambda _, __, row: row.warm_start, ANA, runs.add_with()) == configuration


def test_a_batch_prediction_goes_on_behind_its_last_part_and_attempts_since_then_count(
    database: Database,
) -> None:
    batches = BatchPredictions(database)
    (batch,) = batches.add()
    for attempt in range(4):  # each loses its worker, and each came further
        at = 100 * attempt
        assert batches.claim(worker("w", at)) == batch
        kept = range(20 * attempt, 20 * (attempt + 1))
        batches.do(add_part, worker("w", at), batch, kept, StoredObject(f"sha256:{attempt}", 1))
        batches.recover(worker("other", at + 31), max_attempts=2)
        waiting = batches.row(batch)
        assert isinstance(waiting, BatchPrediction)
        assert (waiting.status, waiting.rows_scored, waiting.fraction) == (
            "queued", kept.stop, kept.stop / ROWS,
        )  # fmt: skip
    for _ in range(2):
        batches.claim(worker("w", 500))
        batches.recover(worker("other", 531), max_attempts=2)
    assert batches.status(batch) == "failed"


def test_a_part_is_kept_once_and_only_by_the_worker_that_holds_the_batch(database: Database) -> None:
    batches = BatchPredictions(database)
    (batch,) = batches.add()
    batches.claim(worker("first"))
    batches.recover(worker("second", 31))
    batches.claim(worker("second", 31))
    stored = StoredObject("sha256:d", 1)
    with pytest.raises(LeaseLost):
        batches.do(add_part, worker("first", 32), batch, range(50), stored)
    batches.do(add_part, worker("second", 32), batch, range(50), stored)
    with pytest.raises(IntegrityError):
        batches.do(add_part, worker("second", 32), batch, range(50), stored)
    with pytest.raises(IntegrityError):
        batches.do(succeed_batch, worker("second", 32), batch)  # half of it
