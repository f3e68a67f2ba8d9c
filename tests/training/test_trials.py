"""Trials and log lines: kept while a run runs, handed on to its next worker, and told to who follows."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from app import leases
from app.access.caller import Caller
from app.access.policy import Role
from app.db import Database
from app.leases import LeaseLost
from app.training.models import TrainingRun
from app.training.service import claim_run, get_run
from app.training.trials import FIRST_LINES, LAST_LINES, TrialReport, finished_trials, keep_told
from tests.client import Client
from tests.training.streams import stream

RUNS = "/v1/training-runs"
START = datetime(2026, 11, 23, 8, tzinfo=UTC)
LEASE = timedelta(seconds=30)


def worker(name: str, seconds: float = 0) -> Caller:
    return Caller(name, Role.ADMIN, START + timedelta(seconds=seconds))


def trial(number: int, **changes: Any) -> TrialReport:
    told = {
        "number": number,
        "status": "complete",
        "algorithm": "ridge",
        "configuration": {"algorithm": "ridge", "params": {"alpha": 2.0}, "preparation": {}},
        "scores": {"rmse": [0.5, None]},
        "value": 0.5,
        "reason": None,
        "seconds": 0.1,
    }
    return TrialReport.model_validate(told | changes)


class Searching:
    """A run on a server without a worker, the part of which the test plays."""

    def __init__(self, client: Client) -> None:
        self.client = client
        client.add_dataset("flights", Client.table(rows=30, seed=1))
        asked = client.post(RUNS, json={"model": "m", "dataset": "flights", "target": "late"})
        self.id: int = asked.json()["id"]
        self.database = Database(client.settings.sqlalchemy_url)

    def claim(self, by: Caller) -> TrainingRun:
        with self.database.session_scope() as session:
            leases.recover_lost(session, by, TrainingRun, 3)
            claimed = claim_run(session, by, LEASE, per_model=1)
        assert claimed is not None
        return claimed

    def keep(self, by: Caller, trials: list[TrialReport], lines: list[str]) -> None:
        with self.database.session_scope() as session:
            keep_told(session, by, get_run(session, self.id), trials, lines)

    def end(self, by: Caller) -> None:
        with self.database.session_scope() as session:
            leases.fail(session, by, get_run(session, self.id), {"code": "x", "detail": "It broke."})

    def listed(self, what: str) -> list[dict[str, Any]]:
        """All of a list, which is newest first, oldest first."""
        items: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 500}
        while True:
            page = self.client.get(f"{RUNS}/{self.id}/{what}", params=query).json()
            items += page["items"]
            if page["next"] is None:
                return items[::-1]
            query["cursor"] = page["next"]


@pytest.fixture
def search(start: Callable[..., Client]) -> Iterator[Searching]:
    searching = Searching(start())
    yield searching
    searching.database.dispose()


def test_finished_trials_are_handed_to_the_next_worker_and_kept_once(search: Searching) -> None:
    search.claim(worker("first"))
    search.keep(worker("first", 1), [trial(2), trial(0, status="failed", value=None, reason="It broke.")], [])
    again = search.claim(worker("second", 40))
    assert again.attempts == 2
    with pytest.raises(LeaseLost):
        search.keep(worker("first", 41), [trial(1)], [])
    with search.database.session_scope(write=False) as session:
        handed = finished_trials(session, again)
    assert [TrialReport.model_validate(one) for one in handed] == [
        trial(0, status="failed", value=None, reason="It broke."),
        trial(2),
    ]
    search.keep(worker("second", 41), [trial(0), trial(1)], [])
    listed = search.listed("trials")
    assert [(one["number"], one["status"]) for one in listed] == [
        (0, "failed"),
        (1, "complete"),
        (2, "complete"),
    ]
    assert listed[1] == trial(1).model_dump() | {"finished_at": listed[1]["finished_at"]}
    assert search.client.get(f"{RUNS}/{search.id}").json()["attempts"] == 1


def test_of_a_long_log_the_beginning_and_the_end_are_kept(search: Searching) -> None:
    by = worker("w")
    search.claim(by)
    lines = [f"line {number}" for number in range(FIRST_LINES + LAST_LINES + 700)]
    for start in range(0, len(lines), 1900):
        search.keep(by, [], lines[start : start + 1900])
    kept = [line["text"] for line in search.listed("logs")]
    assert kept == lines[:FIRST_LINES] + lines[-LAST_LINES:]


def test_any_text_can_be_logged(search: Searching) -> None:
    by = worker("w")
    search.claim(by)
    search.keep(by, [trial(0, status="failed", reason="a\0b\ud800")], ["c\0d\udfff", "e" * 10_000])
    assert search.listed("trials")[0]["reason"] == "ab?"
    assert [line["text"] for line in search.listed("logs")] == ["cd?", "e" * 2000]


def test_a_stream_goes_on_behind_the_last_event_that_was_read(search: Searching) -> None:
    by = worker("w")
    search.claim(by)
    search.keep(by, [trial(3), trial(1)], ["reading", "searching"])
    told = list(islice(stream(search.client, search.id), 5))
    assert [one["event"] for one in told] == ["log", "log", "trial", "trial", "run"]
    kept = ["reading", "searching", 3, 1]
    assert [one["data"].get("number", one["data"].get("text")) for one in told[:4]] == kept
    # A worker whose clock is behind tells more, and the run ends.
    search.keep(worker("w", -60), [trial(0)], ["fitting"])
    search.end(worker("w", -60))
    for place, read in enumerate(told[:4]):
        *rest, last = stream(search.client, search.id, read["id"])
        ids = [one["data"].get("number", one["data"].get("text")) for one in rest]
        assert sorted(map(str, ids)) == sorted(map(str, [*kept[place + 1 :], 0, "fitting"]))
        assert (last["event"], last["data"]["status"]) == ("run", "failed")
        assert list(stream(search.client, search.id, last["id"])) == [last]


def test_a_place_in_a_stream_that_it_has_not_told_is_refused(search: Searching) -> None:
    for last in ("", "x", "1", "1-", "-1-1", f"1-{10**18}"):
        answer = search.client.get(f"{RUNS}/{search.id}/events", headers={"last-event-id": last})
        assert answer.status_code == 422, answer.text
        assert answer.json()["code"] == "invalid_input"
        assert "must be the `id` of an event" in answer.json()["detail"]


def test_what_a_run_tells_is_for_who_may_see_its_model(search: Searching) -> None:
    limited = search.client.as_role("viewer", models="other-*")
    for what in ("trials", "logs"):
        assert limited.get(f"{RUNS}/{search.id}/{what}").status_code == 403
        assert search.client.get(f"{RUNS}/{search.id}/{what}").json() == {"items": [], "next": None}
        assert search.client.get(f"{RUNS}/999/{what}").status_code == 404
