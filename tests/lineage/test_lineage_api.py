"""Lineage over HTTP: from data to predictions, and from one prediction back to its rows, spec and code."""

import platform
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from sqlalchemy import event

from app.access.caller import Caller
from app.access.policy import Role
from app.db import Database
from app.lineage.router import get_data_lineage
from tests.client import Client, wait_until
from tests.versions import opened


class Life(NamedTuple):
    """A model whose first version was trained on data, promoted, replaced by the second, and asked."""

    dataset: str
    model: str
    first: dict[str, Any]
    """The run of version 1."""
    deployments: list[int]
    by_champion: list[str]
    by_number: list[str]
    batch: int


@pytest.fixture(scope="module")
def life(shared: Client) -> Life:
    name = f"life-{uuid4().hex[:8]}"
    shared.add_dataset(name, shared.table(rows=200, seed=5))
    first = shared.train(name, name, algorithm="logistic_regression", seed=3)
    shared.train(name, name, algorithm="dummy")
    deployments = [
        shared.post(f"/v1/models/{name}:promote", json={"version": version}).json()["id"]
        for version in (1, 2, 1)
    ]
    example = shared.get(f"/v1/models/{name}").json()["example"]
    by_champion = shared.predict(name, [example] * 3)["prediction_ids"]
    by_number = shared.predict(name, [example] * 2, at="/versions/1")["prediction_ids"]
    asked = shared.post(f"/v1/models/{name}/batch-predictions", json={"dataset": name, "version": 1})
    wait_until(lambda: shared.get(asked.headers["location"]).json()["status"] == "succeeded")
    wait_until(lambda: shared.get(f"/v1/models/{name}/versions/1/lineage").json()["predictions"] == 5)
    return Life(name, name, first, deployments, by_champion, by_number, asked.json()["id"])


def lineage(client: Client, path: str, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/{path}/lineage", params=params)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def hrefs(told: Any) -> set[str]:
    if isinstance(told, dict):
        own = {value for key, value in told.items() if key in ("href", "content", "run") and _is_path(value)}
        return own.union(*map(hrefs, told.values()))
    return set().union(*map(hrefs, told)) if isinstance(told, list) else set()


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/v1/")


# ── Model versions ───────────────────────────────────────────────────────────────────────────────


def test_a_model_version_tells_what_made_it(shared: Client, life: Life) -> None:
    told = lineage(shared, f"models/{life.model}/versions/1")
    data = shared.get(f"/v1/datasets/{life.dataset}/versions/1").json()
    version = shared.get(f"/v1/models/{life.model}/versions/1").json()
    assert told["run"]["id"] == life.first["id"]
    assert (told["run"]["status"], told["run"]["model_version"]) == ("succeeded", 1)
    assert told["spec"] == life.first["spec"]
    assert told["seed"] == 3
    assert told["algorithm"] == "logistic_regression"
    assert (told["data"]["digest"], told["data"]["rows"]) == (data["digest"], 200)
    assert told["data"]["content_digest"].startswith("sha256:")
    assert told["split"]["method"] == "stratified"
    assert told["split"]["rows"] == version["evaluation"]["rows"]
    assert sum(told["split"]["rows"].values()) == 200
    assert told["environment"]["python"] == platform.python_version()
    assert told["environment"]["source"].startswith("sha256:")
    assert [(one["kind"], one["size"] > 0) for one in told["artifacts"]] == [
        ("pipeline", True),
        ("scorer", True),
    ]
    assert told["artifacts"][0]["digest"] == version["artifact_digest"]


def test_a_model_version_tells_where_it_served_and_what_it_replaced(shared: Client, life: Life) -> None:
    told = lineage(shared, f"models/{life.model}/versions/1")
    later, earlier = told["deployments"]
    assert [later["id"], earlier["id"]] == [life.deployments[2], life.deployments[0]]
    assert later["until"] is None
    second = shared.get(f"/v1/models/{life.model}/deployments/{life.deployments[1]}").json()
    assert earlier["until"] == second["created_at"]
    assert told["replaced"] is None
    assert (later["predictions"], earlier["predictions"], told["predictions"]) == (3, 0, 5)
    (batch,) = told["batch_predictions"]["items"]
    assert (batch["id"], batch["rows"]) == (life.batch, 200)
    replacing = lineage(shared, f"models/{life.model}/versions/2")
    assert replacing["replaced"]["version"] == 1
    assert [one["id"] for one in replacing["deployments"]] == [life.deployments[1]]
    assert replacing["predictions"] == 0


def test_a_canary_counts_apart_from_its_champion(shared: Client, model: str) -> None:
    shared.post(f"/v1/models/{model}:promote", json={"version": 1})
    canary = shared.post(f"/v1/models/{model}:promote", json={"version": 2, "canary": 0.5}).json()["id"]
    example = shared.get(f"/v1/models/{model}").json()["example"]
    answered = [shared.predict(model, [example])["version"] for _ in range(30)]

    def counted() -> dict[int, tuple[str, int]]:
        found = {}
        for version in (1, 2):
            for one in lineage(shared, f"models/{model}/versions/{version}")["deployments"]:
                if one["id"] == canary:
                    found[version] = (one["variant"], one["predictions"])
        return found

    wait_until(lambda: sum(rows for _, rows in counted().values()) == 30)
    assert counted() == {
        1: ("champion", answered.count(1)),
        2: ("canary", answered.count(2)),
    }


# ── Data versions ────────────────────────────────────────────────────────────────────────────────


def test_a_data_version_tells_what_came_of_it(shared: Client, life: Life) -> None:
    told = lineage(shared, f"datasets/{life.dataset}/versions/1")
    assert told["origin"] == {"kind": "upload"}
    assert (told["bases"], told["feedback"], told["derived"]) == ([], None, {"items": [], "total": 0})
    assert [run["model_version"] for run in told["runs"]["items"]] == [2, 1]
    second, first = told["models"]["items"]
    assert (first["version"], first["run"]) == (1, f"/v1/training-runs/{life.first['id']}")
    assert first["predictions"] == 5
    assert [one["id"] for one in second["deployments"]] == [life.deployments[1]]
    assert [batch["id"] for batch in told["batch_predictions"]["items"]] == [life.batch]


def test_a_derived_version_tells_its_bases_and_they_tell_of_it(shared: Client) -> None:
    name = f"grown-{uuid4().hex[:8]}"
    shared.add_dataset(name, b"a,b\n1,2\n")
    for base, row in ((1, b"3,4"), (2, b"5,6")):
        grown = shared.post(
            f"/v1/datasets/{name}/versions/{base}:append",
            content=b"a,b\n" + row + b"\n",
            headers={"content-type": "text/csv"},
        )
        assert grown.status_code == 201, grown.text
    told = lineage(shared, f"datasets/{name}/versions/3")
    assert [base["version"] for base in told["bases"]] == [2, 1]
    assert told["origin"]["kind"] == "append"
    middle = lineage(shared, f"datasets/{name}/versions/2")
    assert [one["version"] for one in middle["derived"]["items"]] == [3]
    assert [base["version"] for base in middle["bases"]] == [1]


def test_a_version_made_of_feedback_names_the_model_to_those_who_may_know_it(
    shared: Client, life: Life
) -> None:
    asked: dict[str, Any] = {"model": life.model, "since": "2026-01-01T00:00:00Z"}
    outcomes = [{"prediction_id": one, "actual": True} for one in life.by_champion]
    assert shared.post("/v1/feedback", json={"items": outcomes}).json()["accepted"] == 3
    path = f"datasets/{life.dataset}-labelled"
    shared.post("/v1/datasets", json={"name": f"{life.dataset}-labelled"})
    made = shared.post(f"/v1/{path}/versions:from-feedback", json=asked)
    assert made.status_code == 201, made.text
    path += "/versions/1"
    feedback = lineage(shared, path)["feedback"]
    assert (feedback["model"], feedback["href"]) == (life.model, f"/v1/models/{life.model}")
    assert feedback["since"] == "2026-01-01T00:00:00Z"
    stranger = shared.as_role("engineer", models="none")
    limited = lineage(stranger, path)
    assert limited["feedback"] is None
    (listed,) = stranger.get(f"/v1/datasets/{life.dataset}-labelled/versions").json()["items"]
    changed = stranger.patch(f"/v1/{path}", json={"description": "Labelled"}).json()
    for told in (limited, listed, changed, stranger.get(f"/v1/{path}").json()):
        assert (told["origin"]["kind"], told["origin"]["model"]) == ("feedback", None)
    assert shared.get(f"/v1/{path}").json()["origin"]["model"] == life.model


def test_only_the_newest_of_many_are_listed_and_all_are_counted(shared: Client, life: Life) -> None:
    told = lineage(shared, f"datasets/{life.dataset}/versions/1", limit=1)
    assert [made["version"] for made in told["models"]["items"]] == [2]
    assert (told["models"]["total"], told["runs"]["total"]) == (2, 2)


# ── Predictions ──────────────────────────────────────────────────────────────────────────────────


def test_a_prediction_leads_back_to_its_rows_spec_and_code(shared: Client, life: Life) -> None:
    prediction = life.by_champion[1]
    told = lineage(shared, f"predictions/{prediction}")
    assert told["record"] == shared.get(f"/v1/predictions/{prediction}").json()
    assert told["deployment"]["id"] == life.deployments[2]
    assert told["model"] == lineage(shared, f"models/{life.model}/versions/1")
    content = shared.get(told["model"]["data"]["content"], headers={"accept": "text/csv"})
    assert len(content.text.splitlines()) == 1 + told["model"]["data"]["rows"]


def test_a_prediction_of_a_version_by_number_has_no_deployment(shared: Client, life: Life) -> None:
    told = lineage(shared, f"predictions/{life.by_number[0]}")
    assert told["deployment"] is None
    assert told["model"]["version"] == 1


def test_an_unknown_prediction_has_no_lineage(shared: Client) -> None:
    answer = shared.get(f"/v1/predictions/{'a' * 40}/lineage")
    assert (answer.status_code, answer.json()["code"]) == (404, "prediction_not_found")


def test_every_link_leads_to_an_object(shared: Client, life: Life) -> None:
    links = hrefs(lineage(shared, f"predictions/{life.by_champion[0]}"))
    links |= hrefs(lineage(shared, f"datasets/{life.dataset}/versions/1"))
    assert {shared.get(link).status_code for link in links} == {200}
    assert len(links) >= 9


# ── Keys, and cost ───────────────────────────────────────────────────────────────────────────────


def test_a_key_for_some_models_is_told_of_no_other(shared: Client, life: Life) -> None:
    other = f"another-{uuid4().hex[:8]}"
    shared.train(other, life.dataset, algorithm="dummy")
    limited = shared.as_role("viewer", models=f"{other}*")
    told = lineage(limited, f"datasets/{life.dataset}/versions/1")
    assert {run["model"] for run in told["runs"]["items"]} == {other}
    assert told["runs"]["total"] == told["models"]["total"] == 1
    assert told["batch_predictions"] == {"items": [], "total": 0}
    assert limited.get(f"/v1/predictions/{life.by_champion[0]}/lineage").status_code == 404
    assert limited.get(f"/v1/models/{life.model}/versions/1/lineage").status_code == 403


def test_the_number_of_queries_does_not_grow_with_what_is_listed(shared: Client, life: Life) -> None:
    def queries(database: Database, limit: int) -> int:
        asked: list[str] = []

        def note(*arguments: Any) -> None:
            asked.append(arguments[2])

        caller = Caller("tests", Role.VIEWER, datetime.now(UTC))
        with database.session_scope(write=False) as session:
            event.listen(database.engine, "before_cursor_execute", note)
            get_data_lineage(life.dataset, 1, caller, session, limit)
            event.remove(database.engine, "before_cursor_execute", note)
        return len(asked)

    with opened(shared.settings) as (database, _, _):
        assert 0 < queries(database, 100) <= queries(database, 1)
