"""Batch predictions: a data version answered row by row as ``:predict`` answers, whatever dies meanwhile."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import httpx
import numpy as np
import psutil
import pytest
from arro3.io import read_ipc_stream
from hypothesis import given
from hypothesis import strategies as st

from app.registry.signature import Signature
from app.serving.batch_scoring import (
    BLOCK_ROWS,
    PART_ROWS,
    plan_parts,
    score_part,
    write_part,
)
from app.serving.labels import probability_columns
from tests.client import Client, wait_until
from tests.processes import is_alive, worker_process
from tests.versions import register, train_here

BATCHES = "/v1/batch-predictions"
ENDED = ("succeeded", "failed", "cancelled")


def ask(client: Client, model: str, **body: Any) -> httpx.Response:
    return client.post(f"/v1/models/{model}/batch-predictions", json=body)


def asked(client: Client, model: str, **body: Any) -> str:
    """The path of a new batch prediction."""
    answer = ask(client, model, **body)
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def ended(client: Client, path: str) -> dict[str, Any]:
    wait_until(lambda: client.get(path).json()["status"] in ENDED)
    info: dict[str, Any] = client.get(path).json()
    return info


def content(client: Client, path: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of its Parquet file."""
    answer = client.get(f"{path}/content")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    file = folder / "predictions.parquet"
    file.write_bytes(answer.content)
    with duckdb.connect() as connection:
        table = connection.read_parquet(str(file))
        return [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]


def predicted(
    client: Client, model: str, version: int, rows: list[dict[str, Any]], target: str, *, first: int = 0
) -> list[dict[str, Any]]:
    """What ``:predict`` answers, in the form of the content; ``first`` is the number of the first row."""
    instances = [{name: value for name, value in row.items() if name != target} for row in rows]
    answer = client.predict(model, instances, f"/versions/{version}")
    names = probability_columns(answer.get("classes", []))
    shares = answer.get("probabilities", [[]] * len(rows))
    return [
        {
            "row": number,
            "prediction": prediction,
            **dict(zip(names, row, strict=True)),
            "model_version": version,
        }
        for number, (prediction, row) in enumerate(
            zip(answer["predictions"], shares, strict=True), start=first
        )
    ]


def told(client: Client, path: str) -> list[str]:
    """What happened to it, in order."""
    events = client.get("/v1/events", params={"subject": path.removeprefix("/v1/")}).json()["items"]
    return [event["action"].removeprefix("batch_prediction.") for event in reversed(events)]


@pytest.mark.parametrize(
    ("algorithm", "target"),
    [
        ("logistic_regression", "late"),
        ("hist_gradient_boosting", "carrier"),
        ("k_neighbors", "late"),
        ("random_forest", "distance"),
    ],
)
def test_every_row_is_answered_as_predict_answers_it(
    shared: Client, flights: str, tmp_path: Path, algorithm: str, target: str
) -> None:
    model = f"batch-{uuid4().hex[:8]}"
    register(shared, model, train_here(shared, flights, target=target, algorithm=algorithm))
    rows = Client.rows(rows=300, seed=8)
    for row in rows[:50]:
        row["carrier"] = "ZZ"  # which nobody has seen
    dataset = f"new-{uuid4().hex[:8]}"
    shared.add_dataset(dataset, Client.as_csv(rows))
    path = asked(shared, model, dataset=dataset, version=1)
    info = ended(shared, path)
    assert (info["status"], info["rows"], info["rows_stored"]) == ("succeeded", 300, 300), info
    assert info["progress"] == {"fraction": 1.0, "step": "done"}
    assert content(shared, path, tmp_path) == predicted(shared, model, 1, rows, target)


def test_the_champion_scores_unless_a_version_is_named(shared: Client, delays: str, flights: str) -> None:
    by_default = ask(shared, delays, dataset=flights).json()
    named = ask(shared, delays, dataset=flights, dataset_version=1, version=2).json()
    assert (by_default["version"], by_default["dataset_version"]) == (1, 1)
    assert (named["version"], named["dataset_version"]) == (2, 1)


def test_every_format_holds_the_same_table(shared: Client, delays: str, flights: str, tmp_path: Path) -> None:
    path = asked(shared, delays, dataset=flights)
    assert ended(shared, path)["status"] == "succeeded"
    rows = content(shared, path, tmp_path)
    assert list(rows[0]) == [
        "row", "prediction", "probability_false", "probability_true", "model_version",
    ]  # fmt: skip

    def read(media_type: str) -> bytes:
        answer = shared.get(f"{path}/content", headers={"accept": media_type})
        assert answer.headers["content-type"].startswith(media_type)
        return answer.content

    (tmp_path / "predictions.csv").write_bytes(read("text/csv"))
    with duckdb.connect() as connection:
        table = connection.read_csv(str(tmp_path / "predictions.csv"), header=True)
        assert [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()] == rows
    stream = read_ipc_stream(io.BytesIO(read("application/vnd.apache.arrow.stream"))).read_all()
    assert stream.to_struct_array().to_pylist() == rows
    assert shared.get(f"{path}/content", headers={"accept": "image/png"}).status_code == 406


def test_a_batch_prediction_tells_what_became_of_it(shared: Client, delays: str, flights: str) -> None:
    path = asked(shared, delays, dataset=flights)
    info = ended(shared, path)
    events = shared.get("/v1/events", params={"subject": path.removeprefix("/v1/")}).json()["items"]
    assert [event["action"] for event in reversed(events)] == [
        "batch_prediction.created", "batch_prediction.started", "batch_prediction.succeeded",
    ]  # fmt: skip
    assert events[-1]["actor"] == info["created_by"]
    assert {event["model"] for event in events} == {delays}
    again = shared.post(f"{path}:cancel")
    assert (again.status_code, again.json()["code"]) == (409, "batch_prediction_ended")


def test_batch_predictions_are_listed_newest_first_by_model_and_status(shared: Client, flights: str) -> None:
    model = f"batch-{uuid4().hex[:8]}"
    register(shared, model, train_here(shared, flights, algorithm="dummy"))
    paths = [asked(shared, model, dataset=flights, version=1) for _ in range(3)]
    for path in paths:
        ended(shared, path)
    query: dict[str, Any] = {"model": model, "status": "succeeded", "limit": 2}
    first = shared.get(BATCHES, params=query).json()
    second = shared.get(BATCHES, params=query | {"cursor": first["next"]}).json()
    assert [f"{BATCHES}/{one['id']}" for one in first["items"] + second["items"]] == paths[::-1]
    assert second["next"] is None
    assert shared.get(BATCHES, params=query | {"status": "failed"}).json()["items"] == []


def test_an_idempotency_key_asks_once(shared: Client, delays: str, flights: str) -> None:
    headers = {"idempotency-key": uuid4().hex}
    url, body = f"/v1/models/{delays}/batch-predictions", {"dataset": flights}
    first, again = (shared.post(url, json=body, headers=headers) for _ in range(2))
    assert first.headers["location"] == again.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"


def test_a_key_that_is_limited_to_other_models_neither_asks_nor_sees(
    shared: Client, delays: str, flights: str
) -> None:
    path = asked(shared, delays, dataset=flights)
    other = shared.as_role("scientist", models="other-*")
    assert ask(other, delays, dataset=flights).status_code == 403
    assert other.get(BATCHES).json()["items"] == []
    for answer in (other.get(path), other.get(f"{path}/content"), other.post(f"{path}:cancel")):
        assert (answer.status_code, answer.json()["code"]) == (403, "model_not_allowed")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"dataset": "nowhere"}, 404, "dataset_not_found"),
        ({"dataset": "flights", "dataset_version": 99}, 404, "dataset_version_not_found"),
        ({"dataset": "flights", "version": 99}, 404, "model_version_not_found"),
        ({"dataset": "flights"}, 409, "model_not_deployed"),
        ({"dataset": "flights", "version": True}, 422, "invalid_input"),
        ({"dataset": "flights", "version": 1, "rows": 5}, 422, "invalid_input"),
    ],
)
def test_what_is_not_there_is_named(
    shared: Client, flights: str, model: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = ask(shared, model, **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("distance"), "column 'distance': the data version has no such column"),
        (lambda row: row.pop("wind"), "column 'wind': the data version has no such column"),
        (lambda row: row.update(distance="far"), "column 'distance': the model takes an integer there"),
        (lambda row: row.update(distance=10.5), "the column's type is number"),
        (lambda row: row.update(carrier=7), "column 'carrier': the model takes a string there"),
        (lambda row: row.update(distance=None if row["flight_id"] == 1000 else 5), "it holds nulls"),
    ],
)
def test_data_that_the_model_cannot_take_is_refused_before_any_work(
    shared: Client, delays: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rows = Client.rows(rows=20, seed=2)
    for row in rows:
        change(row)
    dataset = f"unfit-{uuid4().hex[:8]}"
    shared.add_dataset(dataset, Client.as_csv(rows))
    answer = ask(shared, delays, dataset=dataset)
    assert (answer.status_code, answer.json()["code"]) == (422, "data_does_not_fit"), answer.text
    assert message in answer.json()["errors"][0]["detail"]
    assert answer.json()["errors"][0]["pointer"] == "/dataset"


def test_quarantined_data_are_refused_until_an_engineer_accepts_them(shared: Client, delays: str) -> None:
    dataset = f"barred-{uuid4().hex[:8]}"
    shared.add_dataset(dataset, shared.table(rows=20, seed=1))
    rules = [{"rule": "row_count", "max": 20}]
    assert shared.put(f"/v1/datasets/{dataset}/contract", json={"rules": rules}).status_code == 200
    assert shared.add_version(dataset, shared.table(rows=30, seed=2))["status"] == "quarantined"
    refused = ask(shared, delays, dataset=dataset, dataset_version=2)
    assert (refused.status_code, refused.json()["code"]) == (409, "data_quarantined"), refused.text
    assert ask(shared, delays, dataset=dataset).json()["dataset_version"] == 1
    url = f"/v1/datasets/{dataset}/versions/2:accept"
    assert shared.post(url, json={"reason": "I asked."}).status_code == 200
    assert ask(shared, delays, dataset=dataset, dataset_version=2).status_code == 202


def test_columns_beyond_the_signature_and_narrower_types_do_no_harm(
    shared: Client, delays: str, tmp_path: Path
) -> None:
    rows = Client.rows(rows=20, seed=3)
    for row in rows:
        del row["late"]
        row["wind"] = 12  # a column of integers, where the model takes numbers
        row["remark"] = "windy"
    dataset = f"wider-{uuid4().hex[:8]}"
    shared.add_dataset(dataset, Client.as_csv(rows))
    path = asked(shared, delays, dataset=dataset)
    assert ended(shared, path)["status"] == "succeeded"
    for row in rows:
        del row["remark"]
    assert content(shared, path, tmp_path) == predicted(shared, delays, 1, rows, "late")


# ── Waiting, cancelled, killed ───────────────────────────────────────────────────────────────────

MANY_ROWS = 2 * PART_ROWS + 7


@pytest.fixture
def slow(start: Callable[..., Client]) -> Client:
    """A server without a worker that has a slow model."""
    client = start()
    client.add_dataset("flights", Client.table(rows=400, seed=1))
    register(client, "slow", train_here(client, "flights", algorithm="k_neighbors"))
    return client


def ask_for_many(client: Client) -> tuple[str, list[dict[str, Any]]]:
    """The path of a batch prediction of several parts, and the rows that it is to score."""
    rows = Client.rows(rows=MANY_ROWS, seed=4)
    client.add_dataset("many", Client.as_csv(rows))
    return asked(client, "slow", dataset="many", version=1), rows


def scorings(process: psutil.Process) -> list[psutil.Process]:
    """The worker's child processes that are scoring."""
    return [child for child in process.children() if "app.serving.batch_child" in child.cmdline()]


def test_a_waiting_batch_prediction_has_no_content_and_is_cancelled_at_once(slow: Client) -> None:
    path = asked(slow, "slow", dataset="flights", version=1)
    early = slow.get(f"{path}/content")
    assert (early.status_code, early.json()["code"]) == (409, "batch_prediction_not_succeeded")
    assert slow.post(f"{path}:cancel").json()["status"] == "cancelled"


def test_a_running_one_is_cancelled_and_its_process_ends(slow: Client) -> None:
    path, _ = ask_for_many(slow)
    with worker_process(slow) as worker:
        wait_until(lambda: scorings(worker))
        (child,) = scorings(worker)
        assert slow.post(f"{path}:cancel").status_code == 202
        assert ended(slow, path)["status"] == "cancelled"
        assert not is_alive(child)


def test_after_sigkill_another_worker_goes_on_behind_the_last_part(slow: Client, tmp_path: Path) -> None:
    path, rows = ask_for_many(slow)
    with worker_process(slow, lease_seconds=2) as first:
        wait_until(lambda: slow.get(path).json()["rows_stored"] >= PART_ROWS)
        first.kill()
    kept = slow.get(path).json()
    assert (kept["status"], kept["rows_stored"] < MANY_ROWS) == ("running", True)
    with worker_process(slow, lease_seconds=2):
        wait_until(lambda: told(slow, path).count("started") == 2)
        assert slow.get(path).json()["progress"]["fraction"] >= kept["rows_stored"] / MANY_ROWS
        assert ended(slow, path)["status"] == "succeeded"
    assert told(slow, path) == ["created", "started", "requeued", "started", "succeeded"]
    scored = content(slow, path, tmp_path)
    assert [row["row"] for row in scored] == list(range(MANY_ROWS))
    for border in (500, PART_ROWS, 2 * PART_ROWS):
        near = slice(border - 500, border + 500)
        assert scored[near] == predicted(slow, "slow", 1, rows[near], "late", first=near.start)


def test_it_does_not_wait_for_the_end_of_a_fit(start: Callable[..., Client]) -> None:
    client = start(worker=True)
    client.add_dataset("flights", Client.table(rows=400, seed=1))
    register(client, "m", train_here(client, "flights", algorithm="dummy"))
    spec = {"algorithm": "hist_gradient_boosting", "params": {"max_iter": 5000}}
    fit = client.post(
        "/v1/training-runs", json={"model": "long", "dataset": "flights", "target": "late", **spec}
    ).headers["location"]
    wait_until(lambda: client.get(fit).json()["status"] == "running")
    assert ended(client, asked(client, "m", dataset="flights", version=1))["status"] == "succeeded"
    assert client.get(fit).json()["status"] == "running"


def test_a_fault_of_the_store_is_retried_and_in_the_end_named(start: Callable[..., Client]) -> None:
    client = start()
    client.add_dataset("flights", Client.table(rows=100, seed=1))
    register(client, "m", train_here(client, "flights", algorithm="dummy"))
    for file in (client.settings.home / "objects" / "sha256").glob("*/*"):
        file.unlink()
    path = asked(client, "m", dataset="flights", version=1)
    with worker_process(client):
        info = ended(client, path)
    assert (info["status"], info["error"]["code"], info["attempts"]) == ("failed", "object_missing", 3)


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────


def signature(features: int = 1, **more: Any) -> Signature:
    columns = [
        {"name": f"x{position}", "type": "integer", "role": "numeric", "nullable": False}
        for position in range(features)
    ]
    rest = {"target": "y", "target_type": "number", "task": "regression"} | more
    return Signature.model_validate({"features": columns, **rest})


@given(st.integers(1, 3000), st.integers(1, 10**7), st.data())
def test_parts_follow_each_other_from_the_start_to_the_last_row(
    features: int, rows: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, rows - 1))
    parts = list(plan_parts(signature(features), rows, start))[:50]
    assert parts[0].start == start
    assert all(before.stop == after.start for before, after in pairwise(parts))
    assert all(0 < len(part) <= PART_ROWS for part in parts)
    assert len(parts) == 50 or parts[-1].stop == rows
    assert list(plan_parts(signature(features), rows, rows)) == []


def echo(matrix: np.ndarray) -> np.ndarray:
    """Answers with the row's own value."""
    assert len(matrix) <= BLOCK_ROWS
    return matrix


def test_a_part_is_scored_in_blocks_and_tells_how_far_it_is(tmp_path: Path) -> None:
    parquet = tmp_path / "table.parquet"
    with duckdb.connect() as connection:
        connection.sql("SELECT range AS x0 FROM range(30_000)").write_parquet(str(parquet))
    told: list[int] = []
    scores = score_part(parquet, signature(), echo, range(7_000, 18_000), told.append)
    assert scores[:, 0].tolist() == list(range(7_000, 18_000))
    assert told == [12_000, 17_000, 18_000]


@pytest.mark.parametrize(
    ("type_", "classes"),
    [
        ("integer", [-5, 2**53 + 1]),
        ("number", [-0.5, 0.25]),
        ("boolean", [False, True]),
        ("string", ["", "é"]),
    ],
)
def test_a_prediction_has_the_type_of_the_target(tmp_path: Path, type_: str, classes: list[Any]) -> None:
    labelled = signature(task="binary", target_type=type_, classes=classes)
    scores = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    write_part(tmp_path / "part.parquet", labelled, 3, range(10, 13), scores)
    assert list(tmp_path.iterdir()) == [tmp_path / "part.parquet"]
    with duckdb.connect() as connection:
        rows = connection.read_parquet(str(tmp_path / "part.parquet")).fetchall()
    first, second = classes
    assert rows == [(10, second, 0.25, 0.75, 3), (11, first, 0.5, 0.5, 3), (12, first, 1.0, 0.0, 3)]
    assert {type(row[1]) for row in rows} == {type(first)}
