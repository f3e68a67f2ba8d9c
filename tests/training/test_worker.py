"""Real worker processes, killed, stopped and limited: no run is lost, and no fit outlives its worker."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.child import REQUEST
from app.child_process import Progress
from tests.client import Client, wait_until
from tests.processes import fits, is_alive, trainers, worker_process

RUNS = "/v1/training-runs"
SHORT = {"algorithm": "hist_gradient_boosting", "params": {"max_iter": 10}}
LONG = {"algorithm": "hist_gradient_boosting", "params": {"max_iter": 5000}}


@pytest.fixture
def serve(start: Callable[..., Client]) -> Callable[..., Client]:
    """Starts a server with a dataset to learn from."""

    def begin(**options: Any) -> Client:
        client = start(**options)
        client.add_dataset("flights", Client.table(rows=400, seed=1))
        return client

    return begin


def ask(client: Client, spec: dict[str, Any]) -> int:
    asked = client.post(RUNS, json={"model": "m", "dataset": "flights", "target": "late", **spec})
    assert asked.status_code == 202, asked.text
    run: int = asked.json()["id"]
    return run


def told(client: Client, run: int) -> list[tuple[str, str | None]]:
    """What happened to the run, in order, and why it was queued again."""
    events = client.get("/v1/events", params={"subject": f"training-runs/{run}"}).json()["items"]
    return [
        (event["action"].removeprefix("training_run."), event["detail"].get("reason"))
        for event in reversed(events)
    ]


def test_a_run_whose_worker_is_killed_succeeds_with_another(serve: Callable[..., Client]) -> None:
    client = serve()
    run = ask(client, SHORT)
    with worker_process(client, lease_seconds=2) as first:
        wait_until(lambda: fits(first))
        (child,) = fits(first)
        with worker_process(client, lease_seconds=2):
            first.kill()
            wait_until(lambda: client.get(f"{RUNS}/{run}").json()["attempts"] == 2)
            assert not is_alive(child), "two fits of one run at the same time"
            ended = client.wait_for_run(run)
    assert (ended["status"], ended["model_version"]) == ("succeeded", 1)
    assert told(client, run) == [
        ("created", None),
        ("started", None),
        ("requeued", "worker_lost"),
        ("started", None),
        ("succeeded", None),
    ]
    assert len(client.get("/v1/models/m/versions").json()["items"]) == 1


def test_a_search_whose_worker_is_killed_goes_on_behind_its_finished_trials(
    serve: Callable[..., Client],
) -> None:
    client = serve()
    search = {"trials": 12, "algorithms": ["logistic_regression", "decision_tree"], "processes": 1}
    spec = {"features": ["wind"], "validation": {"folds": 2}, "evaluation": {"seeds": 0}}
    run = ask(client, {"algorithm": "auto", "search": search, **spec})

    def trials() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = client.get(f"{RUNS}/{run}/trials").json()["items"]
        return sorted(items, key=lambda trial: trial["number"])

    with worker_process(client, lease_seconds=2) as first:
        wait_until(lambda: len(trials()) >= 4)
        searching = first.children(recursive=True)
        first.kill()
        wait_until(lambda: not any(is_alive(process) for process in searching))
    before = trials()
    with worker_process(client, lease_seconds=2) as second:
        wait_until(lambda: fits(second))
        (child,) = fits(second)
        handed = json.loads((Path(child.cwd()) / REQUEST).read_text())["trials"]
        ended = client.wait_for_run(run)
    assert (ended["status"], ended["model_version"]) == ("succeeded", 1)
    known = [trial for trial in trials() if trial["number"] <= before[-1]["number"]]
    assert known == before
    assert [trial["number"] for trial in handed] == [trial["number"] for trial in before]
    assert len(trials()) > len(before)
    assert [trial["number"] for trial in trials()] == list(range(len(trials())))


def test_a_cancelled_search_ends_with_all_its_processes(serve: Callable[..., Client]) -> None:
    client = serve()
    spec = {"algorithm": "auto", "search": {"seconds": 600, "patience": None, "processes": 2}}
    run = ask(client, spec)
    with worker_process(client) as worker:
        wait_until(lambda: client.get(f"{RUNS}/{run}/trials").json()["items"])
        (child,) = fits(worker)
        searching = [child, *child.children(recursive=True)]
        assert len(searching) > 2
        client.post(f"{RUNS}/{run}:cancel")
        assert client.wait_for_run(run)["status"] == "cancelled"
        wait_until(lambda: not any(is_alive(process) for process in searching))


@pytest.mark.parametrize("by", ["sigterm", "parent"])
def test_a_stopping_worker_returns_its_run_at_once(serve: Callable[..., Client], by: str) -> None:
    client = serve()
    run = ask(client, LONG)
    with worker_process(client, *(["--with-parent"] if by == "parent" else [])) as worker:
        wait_until(lambda: fits(worker))
        (child,) = fits(worker)
        if by == "parent":
            worker.stdin.close()
        else:
            worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert not is_alive(child)
    returned = client.get(f"{RUNS}/{run}").json()
    assert (returned["status"], returned["attempts"]) == ("queued", 0)
    assert told(client, run) == [("created", None), ("started", None), ("requeued", "worker_stopped")]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("run_time_limit_seconds", 0.2, "took longer than 0.2 s, the limit of this server"),
        (
            "run_memory_limit_bytes",
            20 * 2**20,
            "used more than 20,971,520 bytes of memory, the limit of this server",
        ),
    ],
)
def test_a_limit_ends_the_run_and_not_the_worker(
    serve: Callable[..., Client], setting: str, value: float, message: str
) -> None:
    client = serve(worker=True, **{setting: value})
    for run in (ask(client, LONG), ask(client, LONG | {"seed": 1})):
        ended = client.wait_for_run(run)
        assert ended["status"] == "failed"
        assert ended["error"]["code"] == setting.removeprefix("run_").rpartition("_")[0]
        assert message in ended["error"]["detail"]
        assert ended["attempts"] == 1
    assert not fits(psutil.Process())


def test_a_run_ends_at_limits_of_its_own(serve: Callable[..., Client]) -> None:
    client = serve(worker=True)
    for limits, code in (({"seconds": 0.2}, "time_limit"), ({"memory_bytes": 2**20}, "memory_limit")):
        ended = client.wait_for_run(ask(client, LONG | {"limits": limits}))
        assert (ended["status"], ended["error"]["code"]) == ("failed", code)
        assert "the limit it was given" in ended["error"]["detail"]


def test_a_fit_begins_in_a_process_that_stands_ready_and_another_one_follows_it(
    serve: Callable[..., Client],
) -> None:
    client = serve()
    with worker_process(client, worker_spare=True) as worker:
        for number in range(2):
            wait_until(lambda: len(trainers(worker)) == 1)
            (ready,) = trainers(worker)
            run = ask(client, LONG | {"seed": number})
            wait_until(lambda: fits(worker))
            assert fits(worker) == [ready]
            wait_until(lambda: len(trainers(worker)) == 2)  # the next one loads beside the fit
            client.post(f"{RUNS}/{run}:cancel")
            client.wait_for_run(run)
            assert not is_alive(ready)


def test_a_ready_process_that_died_is_not_missed(serve: Callable[..., Client]) -> None:
    client = serve(worker=True, worker_spare=True)
    wait_until(lambda: trainers(psutil.Process()))
    for ready in trainers(psutil.Process()):
        ready.kill()
    assert client.wait_for_run(ask(client, {"algorithm": "dummy"}))["status"] == "succeeded"


def test_a_worker_carries_out_as_many_runs_at_a_time_as_it_is_told(serve: Callable[..., Client]) -> None:
    client = serve(worker=True, worker_runs=2)
    runs = [ask(client, LONG | {"seed": seed}) for seed in range(3)]
    wait_until(lambda: len(fits(psutil.Process())) == 2)
    statuses = [client.get(f"{RUNS}/{run}").json()["status"] for run in runs]
    assert statuses == ["running", "running", "queued"]


def test_a_fit_that_dies_fails_its_run_and_not_the_worker(serve: Callable[..., Client]) -> None:
    client = serve(worker=True)
    run, next_run = ask(client, LONG), ask(client, {"algorithm": "dummy"})
    wait_until(lambda: fits(psutil.Process()))
    for child in fits(psutil.Process()):
        child.kill()
    ended = client.wait_for_run(run)
    assert (ended["status"], ended["attempts"]) == ("failed", 1)
    assert ended["error"]["code"] == "fit_killed"
    assert re.search("ran out of memory. Its last step: .*Train on fewer rows", ended["error"]["detail"])
    assert client.wait_for_run(next_run)["status"] == "succeeded"


@pytest.mark.parametrize("fault", ["object_missing", "object_damaged"])
def test_a_fault_of_the_store_is_retried_and_in_the_end_named(
    serve: Callable[..., Client], fault: str
) -> None:
    client = serve()
    for path in (client.settings.home / "objects").rglob("*"):
        if path.is_file():
            path.unlink() if fault == "object_missing" else path.write_bytes(b"something else")
    run = ask(client, SHORT)
    with worker_process(client):
        ended = client.wait_for_run(run)
    assert (ended["status"], ended["attempts"]) == ("failed", 3)
    assert ended["error"]["code"] == fault
    assert "sha256:" in ended["error"]["detail"]
    started_again = [("requeued", fault), ("started", None)]
    assert told(client, run) == [("created", None), ("started", None), *started_again * 2, ("failed", None)]


def test_a_fault_of_the_worker_fails_the_run_and_the_next_one_succeeds(serve: Callable[..., Client]) -> None:
    client = serve()
    scratch, aside = client.settings.scratch, client.settings.home / "aside"
    servers = set(scratch.iterdir())
    with worker_process(client) as worker:
        wait_until(lambda: set(scratch.iterdir()) - servers)
        (own,) = set(scratch.iterdir()) - servers
        own.rename(aside)
        ended = client.wait_for_run(ask(client, SHORT))
        assert (ended["status"], ended["error"]["code"]) == ("failed", "worker_fault")
        assert "FileNotFoundError" in ended["error"]["detail"]
        aside.rename(own)
        assert client.wait_for_run(ask(client, {"algorithm": "dummy"}))["status"] == "succeeded"
        assert is_alive(worker)


def test_progress_is_read_among_what_libraries_print() -> None:
    lines = [
        '{"fraction": 0.5, "step": "fitting"}',
        "a library says hello",
        "[1, 2]",
        '"step"',
        '{"step": "no fraction"}',
        '{"fraction": "x", "step": "y"}',
        "",
    ]
    command = [sys.executable, "-c", f"print({chr(10).join(lines)!r})"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        told: list[dict[str, Any]] = []
        progress = Progress(child, 0.0, told.append)
        progress.join()
    assert (progress.fraction, progress.step) == (0.5, "fitting")
    assert told == [json.loads(lines[0]), {"step": "no fraction"}, {"fraction": "x", "step": "y"}]


def test_the_version_that_serves_is_compared_only_on_rows_that_it_has_not_learnt_from(
    serve: Callable[..., Client],
) -> None:
    client = serve(worker=True)
    client.wait_for_run(ask(client, {"algorithm": "dummy"}))
    assert client.post("/v1/models/m:promote", json={"version": 1}).status_code == 201
    for number, seed in ((2, 0), (3, 1)):
        client.wait_for_run(ask(client, {"algorithm": "logistic_regression", "seed": seed}))
        told = client.get(f"/v1/models/m/versions/{number}/evaluation").json()
        rivals = [rival["name"] for rival in told["report"]["rivals"]]
        assert ("champion" in rivals) == (seed == 0)
        assert any("it has learnt from" in note for note in told["notes"]) == (seed == 1)
