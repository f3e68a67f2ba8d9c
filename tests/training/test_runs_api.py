"""Training runs over HTTP: from the request to a model version that tells all of itself."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import select

from app.datasets.tags import MAX_TAGS
from app.db import Database
from app.registry.models import ModelVersion
from tests.client import Client
from tests.processes import Serve, fits, is_alive
from tests.training.streams import stream

RUNS = "/v1/training-runs"
LONG = {"algorithm": "hist_gradient_boosting", "params": {"max_iter": 5000}}
"""A fit of minutes."""


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "refused", "dataset": "flights", "target": "late", **changes}


def code_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    code: str = answer.json()["code"]
    return code


def iris_like() -> bytes:
    """Three species, told apart by two of the columns; and a weight that follows from them."""
    source = random.Random(3)
    lines = ["length,width,colour,species,weight"]
    for number in range(240):
        species = number % 3
        length, width = 4 + species + source.gauss(0, 0.4), 2 + species / 2 + source.gauss(0, 0.3)
        colour = source.choice(["red", "blue", ""])
        weight = 3 * length - width + source.gauss(0, 0.2)
        name = ("setosa", "versicolor", "virginica")[species]
        lines.append(f"{length:.2f},{width:.2f},{colour},{name},{weight:.3f}")
    return "\n".join(lines).encode() + b"\n"


@pytest.fixture(scope="module")
def flowers(shared: Client) -> dict[str, Any]:
    return shared.add_dataset("flowers", iris_like())


# ── Success ──────────────────────────────────────────────────────────────────────────────────────


def test_a_binary_run_ends_with_a_version_that_tells_all(shared: Client, delays: str) -> None:
    data = shared.get("/v1/datasets/flights/versions/1").json()
    version = shared.get(f"/v1/models/{delays}/versions/1").json()
    assert (version["algorithm"], version["task"], version["created_by"]) == (
        "logistic_regression",
        "binary",
        "admin",
    )
    assert version["data"] == {
        "dataset": "flights",
        "version": 1,
        "digest": data["digest"],
        "rows": 400,
    }
    assert version["spec"]["target"] == "late"
    assert version["spec"]["seed"] == 0
    assert version["params"] == {"C": 1.0, "class_weight": None, "max_iter": 1000}
    signature = version["signature"]
    features = {feature["name"]: feature for feature in signature["features"]}
    assert list(features) == ["scheduled", "carrier", "distance", "wind", "international"]
    assert signature["ignored"] == ["flight_id"]
    assert (signature["target"], signature["target_type"], signature["classes"]) == (
        "late",
        "boolean",
        [False, True],
    )
    assert features["carrier"]["categories"] == ["AA", "B6", "UA"]
    assert [features[name]["nullable"] for name in ("carrier", "wind", "distance")] == [True, True, False]
    distances = [row["distance"] for row in Client.rows(rows=400, seed=1)]
    assert (features["distance"]["minimum"], features["distance"]["maximum"]) == (
        min(distances),
        max(distances),
    )
    assert set(version["example"]) == set(features)
    assert version["artifact_digest"].startswith("sha256:")
    assert {"python", "scikit-learn", "numpy", "platform"} <= set(version["environment"])
    profiles = version["reference"]["columns"]
    assert [profile["name"] for profile in profiles] == list(features)
    assert {profile["rows"] for profile in profiles} == {320}
    assert version["reference"]["prediction"]["rows"] == 80
    evaluation = shared.get(f"/v1/models/{delays}/versions/1/evaluation").json()
    assert evaluation["rows"] == {"training": 320, "holdout": 80, "without_target": 0}
    assert evaluation["metrics"] == version["metrics"]
    assert evaluation["metrics"]["roc_auc"] > 0.8
    assert evaluation["baseline_metrics"]["roc_auc"] == 0.5
    matrix = evaluation["confusion_matrix"]
    assert sum(map(sum, matrix)) == 80
    assert (matrix[0][0] + matrix[1][1]) / 80 == pytest.approx(evaluation["metrics"]["accuracy"])
    assert "identifier" in evaluation["dropped"]["flight_id"]


@pytest.mark.sqlite_alone
def test_the_same_data_spec_and_seed_give_the_same_model(shared: Client, delays: str) -> None:
    run = shared.train("delays-again", "flights", algorithm="logistic_regression")
    assert run["model_version"] == 1
    first = shared.get(f"/v1/models/{delays}/versions/1").json()
    again = shared.get("/v1/models/delays-again/versions/1").json()
    for version in (first, again):
        del version["evaluation"]["as_served"]["row_microseconds"]  # the one thing that is measured
    for fact in ("metrics", "artifact_digest", "evaluation", "reference", "signature", "params"):
        assert again[fact] == first[fact], fact
    rows = [first["example"], first["example"] | {"carrier": None, "wind": None}]
    one, other = (
        shared.predict(delays, rows, at="/versions/1"),
        shared.predict("delays-again", rows, at="/versions/1"),
    )
    assert one["predictions"] == other["predictions"]
    assert one["probabilities"] == other["probabilities"]


@pytest.mark.sqlite_alone
def test_a_multiclass_run_chooses_its_algorithm_and_says_why(shared: Client, flowers: dict[str, Any]) -> None:
    run = shared.train(
        "species",
        "flowers",
        target="species",
        features=["length", "width"],
        validation={"folds": 2},
        search={
            "trials": 2,
            "algorithms": [
                "logistic_regression",
                "random_forest",
                "hist_gradient_boosting",
                "k_neighbors",
            ],
        },
    )
    version = shared.get(f"/v1/models/species/versions/{run['model_version']}").json()
    assert version["task"] == "multiclass"
    assert version["signature"]["classes"] == ["setosa", "versicolor", "virginica"]
    evaluation = version["evaluation"]
    assert [sum(row) for row in evaluation["confusion_matrix"]] == [16, 16, 16]
    assert version["metrics"]["accuracy"] > evaluation["baseline_metrics"]["accuracy"] + 0.3
    choice = evaluation["choice"]
    assert choice["algorithm"] == version["algorithm"]
    assert {candidate["algorithm"] for candidate in choice["candidates"]} == {
        "logistic_regression",
        "random_forest",
        "hist_gradient_boosting",
        "k_neighbors",
    }
    assert "log_loss" in choice["reason"]
    answer = shared.predict("species", [{"length": 4.0, "width": 2.0}], at="/versions/1")
    assert answer["predictions"] == ["setosa"]
    assert sum(answer["probabilities"][0]) == pytest.approx(1)


@pytest.mark.sqlite_alone
def test_a_regression_run_predicts_numbers(shared: Client, flowers: dict[str, Any]) -> None:
    run = shared.train("weights", "flowers", target="weight", algorithm="ridge", params={"alpha": 0.1})
    version = shared.get(f"/v1/models/weights/versions/{run['model_version']}").json()
    assert (version["task"], version["signature"]["classes"]) == ("regression", None)
    assert version["evaluation"]["confusion_matrix"] is None
    assert version["metrics"]["rmse"] < 0.5 < version["evaluation"]["baseline_metrics"]["rmse"]
    assert version["params"] == {"alpha": 0.1}
    answer = shared.predict("weights", [version["example"]], at="/versions/1")
    assert answer.keys().isdisjoint({"probabilities", "classes"})
    (prediction,) = answer["predictions"]
    assert isinstance(prediction, float)


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.sqlite_alone
@pytest.mark.parametrize(
    ("changes", "code", "at", "told"),
    [
        ({"target": "Late"}, "unknown_target", "/target", "'late'"),
        ({"target": "scheduled"}, "unusable_target", "/target", "datetime"),
        ({"task": "regression"}, "unfit_task", "/task", "binary"),
        ({"task": "clustering"}, "invalid_input", "/task", "regression"),
        ({"algorithm": "xgboost"}, "unknown_algorithm", "/algorithm", "hist_gradient_boosting"),
        ({"algorithm": "ridge", "task": "binary"}, "unfit_algorithm", "/algorithm", "logistic_regression"),
        ({"algorithm": "random_forest", "params": {"trees": 5}}, "invalid_parameter", "/params/trees",
         "n_estimators"),
        ({"algorithm": "random_forest", "params": {"n_estimators": 0}}, "invalid_parameter",
         "/params/n_estimators", "from 1"),
        ({"params": {"C": 1}}, "invalid_parameter", "/params", "auto"),
        ({"features": ["wind", "wnd"]}, "invalid_features", "/features/1", "'wind'"),
        ({"features": {"late": {"role": "boolean"}}}, "invalid_features", "/features/late", "target"),
        ({"features": {"carrier": {"role": "numeric"}}}, "invalid_features", "/features/carrier/role",
         "categorical"),
        ({"features": {"carrier": {"rolle": "drop"}}}, "invalid_input", "/features/carrier/rolle",
         "no such field"),
        ({"validation": {"method": "time", "time_column": "carrier"}}, "invalid_time_column",
         "/validation/time_column", "string"),
        ({"validation": {"method": "time", "time_column": "schedule"}}, "invalid_time_column",
         "/validation/time_column", "'scheduled'"),
        ({"validation": {"holdout": 0.9}}, "invalid_input", "/validation/holdout", "0.5"),
        ({"metric": "auc"}, "unknown_metric", "/metric", "roc_auc"),
        ({"seed": -1}, "invalid_input", "/seed", "0"),
        ({"model": "a/b"}, "invalid_input", "/model", "letters"),
        ({"dataset_version": 0}, "invalid_input", "/dataset_version", "1"),
        ({"tarrget": "late"}, "invalid_input", "/tarrget", "no such field"),
        ({"priority": 101}, "invalid_input", "/priority", "100"),
        ({"priority": True}, "invalid_input", "/priority", "integer"),
        ({"tags": {"team": 1}}, "invalid_input", "/tags/team", "string"),
        ({"limits": {"seconds": 1e9}}, "limit_too_high", "/limits/seconds", "14400"),
        ({"limits": {"memory_bytes": 2**50}}, "limit_too_high", "/limits/memory_bytes", "8589934592"),
        ({"limits": {"memory_bytes": 0}}, "invalid_input", "/limits/memory_bytes", "0"),
        ({"preparation": {"interactions": {"columns": ["wind"]}}}, "invalid_input",
         "/preparation/interactions/columns", "must have at least 2 items"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_is_refused_with_its_place(
    shared: Client, flights: str, changes: dict[str, Any], code: str, at: str, told: str
) -> None:
    answer = shared.post(RUNS, json=body(**changes))
    assert code_of(answer, 422) == code
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert at in pointers
    assert any(told in error["detail"] for error in answer.json()["errors"] if error["pointer"] == at)
    assert code_of(shared.get("/v1/models/refused"), 404) == "model_not_found"
    assert shared.get(RUNS, params={"model": "refused"}).json()["items"] == []


def test_data_that_is_not_there_is_not_found(shared: Client, flights: str) -> None:
    assert code_of(shared.post(RUNS, json=body(dataset="none")), 404) == "dataset_not_found"
    assert code_of(shared.post(RUNS, json=body(dataset_version=9)), 404) == "dataset_version_not_found"
    shared.post("/v1/datasets", json={"name": "no-version-yet"})
    answer = shared.post(RUNS, json=body(dataset="no-version-yet"))
    assert code_of(answer, 404) == "dataset_version_not_found"
    assert "has no version yet" in answer.json()["detail"]


@pytest.mark.parametrize("tail", ["", "/events"])
def test_a_run_that_is_not_there_is_not_found(shared: Client, tail: str) -> None:
    assert code_of(shared.get(f"{RUNS}/999999{tail}"), 404) == "training_run_not_found"
    assert code_of(shared.get(f"{RUNS}/{2**63}{tail}"), 422) == "invalid_input"


def test_a_run_of_a_model_outside_the_keys_pattern_is_forbidden(shared: Client, delays: str) -> None:
    limited = shared.as_role("scientist", models="other-*")
    assert code_of(limited.post(RUNS, json=body(model="delays")), 403) == "model_not_allowed"
    run = shared.get(RUNS, params={"model": "delays"}).json()["items"][0]["id"]
    for answer in (
        limited.get(f"{RUNS}/{run}"),
        limited.get(f"{RUNS}/{run}/events"),
        limited.post(f"{RUNS}/{run}:cancel"),
    ):
        assert code_of(answer, 403) == "model_not_allowed"
    assert limited.get(RUNS).json() == {"items": [], "next": None}
    own = shared.as_role("viewer", models="del?ys")
    page = own.get(RUNS, params={"limit": 2}).json()
    assert [item["model"] for item in page["items"]] == ["delays", "delays"]


# ── Failures ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.sqlite_alone
def test_a_fit_that_cannot_succeed_says_why(shared: Client) -> None:
    lines = [f"{number / 7:.3f},same,{'rare' if number == 5 else 'common'}" for number in range(60)]
    shared.add_dataset("hopeless", "\n".join(["x,constant,lonely", *lines]).encode())
    asked = {
        "constant": "The target 'constant' holds the same value in every row: there is nothing to learn.",
        "lonely": 'has classes with a single row, which cannot be both learnt and tested: "rare".',
    }
    runs = {
        target: shared.post(
            RUNS, json=body(model="hopeless", dataset="hopeless", target=target, algorithm="dummy")
        ).json()["id"]
        for target in asked
    }
    for target, message in asked.items():
        run = shared.wait_for_run(runs[target])
        assert (run["status"], run["model_version"]) == ("failed", None)
        assert run["error"]["code"] == "unusable_target"
        assert message in run["error"]["detail"]
        assert [error["pointer"] for error in run["error"]["errors"]] == ["/target"]
        assert run["finished_at"] > run["started_at"] > run["created_at"]
    assert shared.get("/v1/models/hopeless/versions").json()["items"] == []


# ── Following and cancelling ─────────────────────────────────────────────────────────────────────


def follow(client: Client, run: int) -> Iterator[dict[str, Any]]:
    """What the stream of server-sent events tells of a run's status."""
    return (told["data"] for told in stream(client, run) if told["event"] == "run")


def test_a_running_run_is_followed_and_cancelled_with_its_process(shared: Client, flights: str) -> None:
    asked = shared.post(RUNS, json=body(model="long", **LONG))
    assert asked.status_code == 202
    run = asked.json()
    assert asked.headers["location"] == f"{RUNS}/{run['id']}"
    assert (run["status"], run["progress"]["fraction"], run["model_version"]) == ("queued", 0, None)
    waiting = shared.post(RUNS, json=body(model="long", seed=1, **LONG)).json()["id"]
    told = []
    for info in follow(shared, run["id"]):
        told.append(info)
        if info["progress"]["step"].startswith("fitting"):
            break
    (child,) = fits(psutil.Process())  # the worker runs in this process
    shared.post(f"{RUNS}/{waiting}:cancel")
    assert shared.get(f"{RUNS}/{waiting}").json()["status"] == "cancelled"
    assert shared.post(f"{RUNS}/{run['id']}:cancel").status_code == 202
    told += follow(shared, run["id"])
    statuses = [info["status"] for info in told]
    assert statuses == sorted(statuses, key=["queued", "running", "cancelled"].index)
    assert {"running", "cancelled"} <= set(statuses)
    fractions = [info["progress"]["fraction"] for info in told]
    assert fractions == sorted(fractions)
    assert told[-1] == shared.get(f"{RUNS}/{run['id']}").json()
    assert not is_alive(child)
    for ended in (run["id"], waiting):
        assert code_of(shared.post(f"{RUNS}/{ended}:cancel"), 409) == "training_run_ended"
    assert shared.get("/v1/models/long/versions").json()["items"] == []


def test_an_ended_run_cannot_be_cancelled_and_its_stream_ends_at_once(shared: Client, delays: str) -> None:
    newest = shared.get(RUNS, params={"model": delays, "status": "succeeded"}).json()["items"][0]
    assert code_of(shared.post(f"{RUNS}/{newest['id']}:cancel"), 409) == "training_run_ended"
    assert list(follow(shared, newest["id"])) == [newest]


def test_an_open_stream_does_not_hold_up_a_server_that_stops(tmp_path: Path) -> None:
    # The server would wait for much longer than the test does.
    with Serve(tmp_path, "--no-worker", ROUNDHOUSE_SHUTDOWN_SECONDS="600") as server:
        client = server.wait_until_ready()
        client.add_dataset("flights", Client.table(rows=30, seed=1))
        run = client.post(RUNS, json=body(model="m")).json()["id"]
        told = follow(client, run)
        assert next(told)["status"] == "queued"
        assert server.terminate() == 0, server.output
        assert list(told) == []


# ── Identical requests ───────────────────────────────────────────────────────────────────────────


def test_an_identical_request_is_answered_with_the_run_that_was_made_unless_it_is_forced(
    start: Callable[..., Client],
) -> None:
    client = start()
    rows = Client.rows(rows=60, seed=1)
    client.add_dataset("flights", Client.as_csv(rows))
    asked = body(algorithm="dummy", features=["wind"])
    first = client.post(RUNS, json=asked)
    waiting = client.post(RUNS, json=asked)
    assert (first.status_code, waiting.status_code) == (202, 202)
    assert waiting.json() == first.json()
    assert waiting.headers["location"] == first.headers["location"]
    forced = client.post(RUNS, json=asked | {"force": True})
    others = [
        client.post(RUNS, json=asked | changes)
        for changes in (
            {"seed": 1},
            {"model": "other"},
            {"features": ["wind", "distance"]},
            {"limits": {"seconds": 60}},
        )
    ]
    assert runs_of(client) == [answer.json()["id"] for answer in (*others[::-1], forced, first)]
    for answer in (*others, forced):
        client.post(f"{answer.headers['location']}:cancel")
    assert client.post(RUNS, json=asked | {"seed": 1}).json()["id"] not in runs_of(client)[1:]


def test_a_waiting_run_takes_the_priority_and_the_tags_of_an_identical_request(
    keyed: tuple[Client, dict[str, Any]],
) -> None:
    client, asked = keyed
    asked |= {"force": False}
    first = client.post(RUNS, json=asked | {"tags": {"team": "ops", "draft": "yes"}, "priority": 1}).json()
    again = client.post(RUNS, json=asked | {"tags": {"draft": "no", "for": "ben"}, "priority": 3}).json()
    assert again == first | {"priority": 3, "tags": {"team": "ops", "draft": "no", "for": "ben"}}
    changed = client.get("/v1/events", params={"action": "training_run.changed"}).json()["items"]
    assert [event["detail"]["priority"] for event in changed] == [3]
    found = {"where": {"field": "tags.for", "op": "=", "value": "ben"}}
    assert [run["id"] for run in client.post(f"{RUNS}:search", json=found).json()["items"]] == [first["id"]]
    assert client.post(RUNS, json=asked | {"priority": -5}).json() == again
    too_many = client.post(RUNS, json=asked | {"tags": {f"tag{number}": "x" for number in range(MAX_TAGS)}})
    assert code_of(too_many, 422) == "too_many_tags"
    assert too_many.json()["errors"][0]["pointer"] == "/tags"


def test_a_request_that_states_a_default_is_identical_to_one_that_leaves_it_open(
    keyed: tuple[Client, dict[str, Any]],
) -> None:
    client, asked = keyed
    asked |= {"target": "distance", "force": False}

    def post(**more: Any) -> int:
        answer = client.post(RUNS, json=asked | more)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["id"])

    ridge = post(algorithm="ridge")
    assert post(algorithm="ridge", params={"alpha": 1.0}) == ridge
    assert post(algorithm="ridge", preparation={"numeric": {"scale": "standard"}}) == ridge
    assert post(algorithm="ridge", params={"alpha": 2.0}) != ridge
    searched = post(algorithm="auto")
    assert post(algorithm="auto", search={"trials": 20, "pruning": True}) == searched
    # What a search is told it does not look for.
    assert post(algorithm="auto", preparation={"numeric": {"scale": "standard"}}) != searched
    assert post(algorithm="auto", search={"seconds": 20}) != searched


def test_an_identical_request_for_a_version_that_stands_is_answered_with_it(
    start: Callable[..., Client],
) -> None:
    client = start(worker=True)
    rows = Client.rows(rows=60, seed=1)
    client.add_dataset("flights", Client.as_csv(rows))
    run = client.train("m", "flights", algorithm="dummy")
    # The same content, from a file of another format.
    ndjson = "\n".join(json.dumps(row) for row in rows).encode()
    client.add_dataset("again", ndjson, "application/x-ndjson")
    for dataset in ("flights", "again"):
        found = client.post(RUNS, json=body(model="m", dataset=dataset, algorithm="dummy"))
        assert (found.status_code, found.json()) == (200, run)
        assert found.headers["location"] == f"{RUNS}/{run['id']}"
    forced = client.post(RUNS, json=body(model="m", algorithm="dummy", force=True))
    assert forced.status_code == 202
    client.post(f"{forced.headers['location']}:cancel")
    database = Database(client.settings.sqlalchemy_url)
    with database.session_scope() as session:  # as if it had been fitted before an upgrade
        for version in session.scalars(select(ModelVersion)):
            version.environment = version.environment | {"scikit-learn": "1.8.0"}
    database.dispose()
    assert client.post(RUNS, json=body(model="m", algorithm="dummy")).status_code == 202


def test_identical_requests_at_once_make_one_run(shared: Client, delays: str) -> None:
    asked = body(model=delays, algorithm="dummy", features=["wind"], priority=-100)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: shared.post(RUNS, json=asked), range(6)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.json()["id"] for answer in answers}) == 1


# ── The queue ────────────────────────────────────────────────────────────────────────────────────


def test_a_waiting_run_tells_its_place_and_may_be_moved(keyed: tuple[Client, dict[str, Any]]) -> None:
    client, asked = keyed
    asked |= {"tags": {"team": "ops", "draft": "yes"}, "limits": {"seconds": 60}}
    first, second = (client.post(RUNS, json=asked | {"seed": seed}).json() for seed in (0, 1))
    assert (first["queue_position"], second["queue_position"]) == (1, 2)
    assert (second["priority"], second["limits"]) == (0, {"seconds": 60, "memory_bytes": None})
    moved = client.patch(f"{RUNS}/{second['id']}", json={"priority": 5, "tags": {"draft": None, "x": "1"}})
    assert moved.status_code == 200, moved.text
    assert (moved.json()["queue_position"], moved.json()["tags"]) == (1, {"team": "ops", "x": "1"})
    listed = client.get(RUNS).json()["items"]
    assert [(run["id"], run["queue_position"]) for run in listed] == [(second["id"], 1), (first["id"], 2)]
    client.post(f"{RUNS}/{second['id']}:cancel")
    assert client.get(f"{RUNS}/{second['id']}").json()["queue_position"] is None
    assert client.get(f"{RUNS}/{first['id']}").json()["queue_position"] == 1
    late = client.patch(f"{RUNS}/{second['id']}", json={"priority": 5})
    assert code_of(late, 409) == "training_run_not_queued"
    tagged = client.patch(f"{RUNS}/{second['id']}", json={"tags": {"note": "late"}})
    assert tagged.json()["tags"] == {"team": "ops", "x": "1", "note": "late"}
    crowded = client.patch(f"{RUNS}/{first['id']}", json={"tags": {f"t{number}": "" for number in range(49)}})
    assert code_of(crowded, 422) == "too_many_tags"
    limited = client.as_role("scientist", models="other-*")
    assert code_of(limited.patch(f"{RUNS}/{first['id']}", json={}), 403) == "model_not_allowed"
    changes = client.get("/v1/events", params={"action": "training_run.changed"}).json()["items"]
    assert [event["subject"] for event in changes] == [f"training-runs/{second['id']}"] * 2


# ── Idempotency ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def keyed(start: Callable[..., Client]) -> tuple[Client, dict[str, Any]]:
    """A server without a worker, and what to ask of it."""
    client = start()
    client.add_dataset("flights", Client.table(rows=30, seed=1))
    return client, body(model="keyed", force=True)


def runs_of(client: Client) -> list[int]:
    return [run["id"] for run in client.get(RUNS).json()["items"]]


def test_a_repeated_request_with_a_key_is_answered_again_and_not_done_again(
    keyed: tuple[Client, dict[str, Any]],
) -> None:
    client, asked = keyed
    key = {"idempotency-key": "once"}
    first = client.post(RUNS, json=asked, headers=key)
    again = client.post(RUNS, json=asked, headers=key)
    assert first.status_code == again.status_code == 202
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    other = client.post(RUNS, json=asked | {"seed": 1}, headers=key)
    assert code_of(other, 422) == "idempotency_key_reused"
    assert runs_of(client) == [first.json()["id"]]
    new = client.post(RUNS, json=asked, headers={"idempotency-key": "twice"})
    mine = client.as_role("scientist").post(RUNS, json=asked, headers=key)
    assert runs_of(client) == [mine.json()["id"], new.json()["id"], first.json()["id"]]


def test_a_refused_request_does_not_use_its_key_up(keyed: tuple[Client, dict[str, Any]]) -> None:
    client, asked = keyed
    key = {"idempotency-key": "refused-first"}
    refused = client.post(RUNS, json=asked | {"target": "none"}, headers=key)
    assert code_of(refused, 422) == "unknown_target"
    assert client.post(RUNS, json=asked, headers=key).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_of_no_or_too_many_characters_is_refused(shared: Client, flights: str, key: str) -> None:
    answer = shared.post(RUNS, json=body(), headers={"idempotency-key": key})
    assert code_of(answer, 422) == "invalid_idempotency_key"


def test_simultaneous_requests_with_one_key_make_one_run(shared: Client, flights: str) -> None:
    asked = body(model="at-once", algorithm="dummy", features=["wind"])
    key = {"idempotency-key": "runs-at-once"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: shared.post(RUNS, json=asked, headers=key), range(6)))
    made = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(made) == 1, [answer.text for answer in answers]
    assert {code_of(answer, 409) for answer in answers if answer.status_code != 202} <= {"concurrent_change"}
    runs = shared.get(RUNS, params={"model": "at-once"}).json()["items"]
    assert {run["id"] for run in runs} == made
    shared.post(f"{RUNS}/{made.pop()}:cancel")


@pytest.mark.sqlite_alone
def test_a_run_shows_its_spec_in_the_words_of_the_request(shared: Client) -> None:
    weights = [{"class": True, "weight": 2.0}]
    run = shared.post(RUNS, json=body(model="weighed", class_weight=weights)).json()
    shared.post(f"{RUNS}/{run['id']}:cancel")
    assert run["spec"]["class_weight"] == weights
