"""Real worker processes, killed, stopped and limited: no run is lost, and no fit outlives its worker."""

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from app.leaseholder import Progress
from app.worker import WITH_PARENT
from tests.client import Client, wait_until
from tests.processes import worker_process

RUNS = "/v1/training-runs"
SHORT = {"algorithm": "hist_gradient_boosting", "params": {"max_iter": 10}}
LONG = {"algorithm": "hist_gradient_boosting", "params": {"max_iter": 5000}}


def fits(process: psutil.Process) -> list[psutil.Process]:
    """The worker's child processes that are fitting."""
    return [child for child in process.children() if "app.training.child" in child.cmdline()]


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
            assert not child.is_running(), "two fits of one run at the same time"
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


@pytest.mark.parametrize("by", ["sigterm", "parent"])
def test_a_stopping_worker_returns_its_run_at_once(serve: Callable[..., Client], by: str) -> None:
    client = serve()
    run = ask(client, LONG)
    with worker_process(client, *([WITH_PARENT] if by == "parent" else [])) as worker:
        wait_until(lambda: fits(worker))
        (child,) = fits(worker)
        if by == "parent":
            worker.stdin.close()
        else:
            worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert not child.is_running()
    returned = client.get(f"{RUNS}/{run}").json()
    assert (returned["status"], returned["attempts"]) == ("queued", 0)
    assert told(client, run) == [("created", None), ("started", None), ("requeued", "worker_stopped")]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("run_time_limit_seconds", 0.4, "took longer than 0.4 seconds"),
        ("run_memory_limit_bytes", 20 * 2**20, "used more than 20 MB of memory"),
    ],
)
def test_a_limit_ends_the_run_and_not_the_worker(
    serve: Callable[..., Client], setting: str, value: float, message: str
) -> None:
    client = serve(worker=True, **{setting: value})
    for run in (ask(client, LONG), ask(client, LONG)):
        ended = client.wait_for_run(run)
        assert ended["status"] == "failed"
        assert ended["error"]["code"] == setting.removeprefix("run_").rpartition("_")[0]
        assert message in ended["error"]["detail"]
        assert ended["attempts"] == 1
    assert not fits(psutil.Process())


def test_a_fit_that_dies_fails_its_run_and_not_the_worker(serve: Callable[..., Client]) -> None:
    client = serve(worker=True)
    run, next_run = ask(client, LONG), ask(client, {"algorithm": "dummy"})
    wait_until(lambda: fits(psutil.Process()))
    for child in fits(psutil.Process()):
        child.kill()
    ended = client.wait_for_run(run)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "fit_died")
    assert "code -9" in ended["error"]["detail"]
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
        assert worker.is_running()


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
        progress = Progress(child, 0.0)
        progress.join()
    assert (progress.fraction, progress.step) == (0.5, "fitting")
