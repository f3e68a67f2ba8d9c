"""The queue of training runs, on both engines: one worker a run, and no run is lost."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.models import DatasetVersion
from app.datasets.service import create_dataset
from app.db import Database
from app.errors import Conflict
from app.events.service import list_events
from app.http.paging import Paging
from app.registry.models import ModelVersion
from app.registry.service import register_version
from app.training import queue
from app.training.models import RunStatus, TrainingRun
from app.training.queue import LeaseLost
from app.training.service import cancel_run, create_run, get_run
from app.training.spec import TrainingSpec
from tests.servers import create_database

START = datetime(2026, 11, 23, 8, tzinfo=UTC)
LEASE = timedelta(seconds=30)


def worker(name: str, seconds: float = 0) -> Caller:
    """The worker, so many seconds after the start."""
    return Caller(name, Role.ADMIN, START + timedelta(seconds=seconds))


ANA = worker("ana")


class Queue:
    """Runs in a database, each step in a transaction of its own."""

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
                parquet_digest="sha256:b",
                rows=1,
                columns=[
                    {"name": "late", "type": "boolean", "nullable": False},
                    {"name": "wind", "type": "number", "nullable": False},
                ],
                created_by="ana",
                created_at=START,
            )
            session.add(self.data)

    def add(self, count: int = 1) -> list[int]:
        with self.database.session_scope() as session:
            spec = TrainingSpec(target="late")
            return [create_run(session, ANA, model="m", data=self.data, spec=spec).id for _ in range(count)]

    def claim(self, by: Caller) -> int | None:
        with self.database.session_scope() as session:
            run = queue.claim_run(session, by, LEASE)
            return run.id if run else None

    def do(self, action: Callable[..., Any], by: Caller, *arguments: Any, **options: Any) -> Any:
        with self.database.session_scope() as session:
            return action(session, by, *arguments, **options)

    def renew(self, by: Caller, run: int) -> bool:
        told: bool = self.do(queue.renew_lease, by, run, LEASE, fraction=0.5, step="fitting")
        return told

    def recover(self, by: Caller, max_attempts: int = 3) -> None:
        self.do(queue.recover_lost_runs, by, max_attempts)

    def run(self, run: int) -> TrainingRun:
        with self.database.session_scope(write=False) as session:
            return get_run(session, run)

    def status(self, run: int) -> str:
        return self.run(run).status

    def events(self, run: int) -> list[str]:
        """What happened to the run, in order."""
        paging = Paging(limit=100, cursor=None)
        with self.database.session_scope(write=False) as session:
            events, _ = list_events(session, ANA, paging, subject=f"training-runs/{run}")
            return [event.action.removeprefix("training_run.") for event in reversed(events)]


@pytest.fixture
def runs(database: Database) -> Queue:
    return Queue(database)


def test_the_oldest_run_is_claimed_first(runs: Queue) -> None:
    added = runs.add(3)
    assert [runs.claim(worker("w")) for _ in range(4)] == [*added, None]


def test_a_claimed_run_is_running_under_a_lease(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w", 5))
    claimed = runs.run(run)
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
        assert all(runs.run(run).lease_owner == f"w{number}" for run in share)
    assert all(runs.run(run).attempts == 1 for run in added)


def test_a_renewed_lease_keeps_the_run(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    assert runs.renew(worker("w", 20), run) is False
    runs.recover(worker("other", 45))
    kept = runs.run(run)
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
        lambda: runs.do(queue.fail_run, late, run, error),
        lambda: runs.do(queue.retry_run, late, run, error, 3),
        lambda: runs.do(queue.return_run, late, run),
        lambda: runs.do(queue.end_cancelled_run, late, run),
        lambda: runs.do(queue.succeed_run, late, run, ModelVersion(id=1, number=1)),
    ):
        with pytest.raises(LeaseLost):
            attempt()
    held = runs.run(run)
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
    failed = runs.run(run)
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
        runs.do(queue.return_run, worker("w"), run)
    returned = runs.run(run)
    assert (returned.status, returned.attempts, returned.lease_owner) == ("queued", 0, None)
    assert runs.claim(worker("other")) == run


def test_a_retried_run_fails_with_the_fault_after_its_last_attempt(runs: Queue) -> None:
    (run,) = runs.add()
    error = {"code": "store_unavailable", "detail": "The store is away."}
    for status in ("queued", "failed"):
        runs.claim(worker("w"))
        runs.do(queue.retry_run, worker("w"), run, error, 2)
        assert runs.status(run) == status
    assert runs.run(run).error == error


def test_a_waiting_run_is_cancelled_at_once(runs: Queue) -> None:
    cancelled, other = runs.add(2)
    runs.do(cancel_run, ANA, cancelled)
    assert runs.status(cancelled) == "cancelled"
    assert runs.run(cancelled).finished_at == START
    assert runs.events(cancelled) == ["created", "cancel_requested", "cancelled"]
    assert runs.claim(worker("w")) == other
    with pytest.raises(Conflict, match="has cancelled"):
        runs.do(cancel_run, ANA, cancelled)


def test_the_worker_of_a_running_run_is_told_to_cancel_it(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    runs.do(cancel_run, ANA, run)
    assert runs.status(run) == "running"
    assert runs.renew(worker("w", 1), run) is True
    runs.do(queue.end_cancelled_run, worker("w", 2), run)
    assert runs.run(run).finished_at == START + timedelta(seconds=2)
    assert runs.events(run) == ["created", "started", "cancel_requested", "cancelled"]


def test_a_run_that_is_claimed_while_it_is_cancelled_is_told_to_its_worker(postgres: str) -> None:
    database = Database(create_database(postgres))
    database.migrate()
    runs = Queue(database)
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
        cancels = [pool.submit(runs.do, cancel_run, ANA, run) for run in added]
        claimed = {claim.result() for claim in claims} - {None}
        for cancel in cancels:
            cancel.result()
    for run in added:
        assert runs.run(run).cancel_requested
        assert runs.status(run) == ("running" if run in claimed else "cancelled")
        assert ("cancelled" in runs.events(run)) == (run not in claimed)


@pytest.mark.parametrize(
    "giving_up",
    [
        lambda runs, run: runs.recover(worker("other", 31)),
        lambda runs, run: runs.do(queue.return_run, worker("w"), run),
        lambda runs, run: runs.do(queue.retry_run, worker("w"), run, {"code": "c", "detail": "d"}, 3),
    ],
    ids=["lost", "returned", "retried"],
)
def test_a_cancelled_run_never_waits_again(runs: Queue, giving_up: Callable[[Queue, int], None]) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    runs.do(cancel_run, ANA, run)
    giving_up(runs, run)
    assert runs.status(run) == "cancelled"
    assert runs.claim(worker("other", 40)) is None


def test_an_ended_run_is_nobodys(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))
    runs.do(queue.fail_run, worker("w"), run, {"code": "fit_failed", "detail": "It broke."})
    assert runs.run(run).error == {"code": "fit_failed", "detail": "It broke."}
    runs.recover(worker("w", 1000))
    assert runs.status(run) == RunStatus.FAILED
    with pytest.raises(LeaseLost):
        runs.renew(worker("w"), run)


def test_a_succeeded_run_names_the_version_that_it_made(runs: Queue) -> None:
    (run,) = runs.add()
    runs.claim(worker("w"))

    def succeed(session: Any, by: Caller) -> int:
        empty = ("params", "signature", "example", "metrics", "evaluation", "reference", "spec", "data")
        facts: dict[str, Any] = {name: {} for name in (*empty, "environment")}
        version = register_version(
            session, by, "m", algorithm="dummy", task="binary", artifact_digest="sha256:c", artifact_size=1,
            created_by="ana", **facts,
        )  # fmt: skip
        queue.succeed_run(session, by, run, version)
        return version.id

    version_id = runs.do(succeed, worker("w", 9))
    ended = runs.run(run)
    assert (ended.status, ended.model_version, ended.model_version_id) == ("succeeded", 1, version_id)
    assert (ended.fraction, ended.step) == (1.0, "done")
