"""Costs of wrong answers: another class for the same probabilities, whoever asks and however."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.columns import ColumnType
from app.registry.signature import Signature, Task
from app.serving.batch_scoring import write_part
from tests.client import Client
from tests.serving.protocols.flights import flight_rows
from tests.serving.protocols.test_bulk import ARROW, BODIES, ask, read
from tests.serving.protocols.test_oip_router import infer, tensors
from tests.versions import register, train_here

pytestmark = pytest.mark.sqlite_alone

ROWS = flight_rows(rows=60, seed=6)
MISSED = {"actual": True, "predicted": False, "cost": 9}


@pytest.fixture(scope="module")
def careful(shared: Client, flights: str) -> str:
    """A model of two versions that differ in nothing but costs; the one with costs is in service."""
    plain = train_here(shared, flights, algorithm="logistic_regression")
    costly = train_here(shared, flights, algorithm="logistic_regression", costs=[MISSED])
    register(shared, "careful", plain, costly)
    assert shared.post("/v1/models/careful:promote", json={"version": 2}).status_code == 201
    return "careful"


def wanted(answer: dict[str, Any]) -> list[bool]:
    """What an answer of the version without costs becomes with them."""
    return [shares[1] > 0.1 for shares in answer["probabilities"]]


def test_costs_change_the_class_and_not_the_probabilities(shared: Client, careful: str) -> None:
    plain = shared.predict(careful, ROWS, "/versions/1")
    costly = shared.predict(careful, ROWS)
    assert costly["probabilities"] == plain["probabilities"]
    assert costly["predictions"] == wanted(plain) != plain["predictions"]
    assert [shared.predict(careful, [row])["predictions"][0] for row in ROWS] == wanted(plain)


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
@pytest.mark.parametrize("media_type", [*BODIES])
def test_costs_hold_in_every_form(shared: Client, careful: str, media_type: str, accept: str) -> None:
    plain = shared.predict(careful, ROWS, "/versions/1")
    found = read(ask(shared, careful, BODIES[media_type](ROWS), media_type, accept))
    assert found["prediction"] == wanted(plain)
    assert found["probability_true"] == [shares[1] for shares in plain["probabilities"]]


def test_costs_hold_in_the_protocols_of_others(shared: Client, careful: str) -> None:
    plain = shared.predict(careful, ROWS, "/versions/1")
    body = infer(shared, careful, {"inputs": tensors(ROWS)}).json()
    assert body["outputs"][0]["data"] == wanted(plain)
    invoked = shared.post(
        f"/v1/models/{careful}/invocations",
        content=json.dumps({"dataframe_records": ROWS}),
        headers={"content-type": "application/json"},
    )
    assert invoked.json()["predictions"] == wanted(plain)


@pytest.mark.parametrize("media_type", ["application/json", ARROW])
def test_a_replay_finds_the_recorded_class_and_tells_the_rule(
    shared: Client, careful: str, media_type: str
) -> None:
    plain = shared.predict(careful, ROWS, "/versions/1")
    place = next(at for at, one in enumerate(wanted(plain)) if one and not plain["predictions"][at])
    body = BODIES[ARROW](ROWS) if media_type == ARROW else json.dumps({"instances": ROWS}).encode()
    identifier = read(ask(shared, careful, body, media_type))["prediction_id"][place]
    replay = shared.post(f"/v1/predictions/{identifier}:replay").json()
    assert (replay["same"], replay["prediction"]) == (True, True)
    assert replay["recorded"]["prediction"] is True
    assert "true is answered where its probability is above 0.1, else false" in replay["decision"]
    other = shared.post(f"/v1/predictions/{identifier}:replay", json={"version": 1}).json()
    assert (other["same"], other["prediction"], other["decision"]) == (False, False, None)


def test_the_metrics_are_those_of_the_decision(shared: Client, careful: str) -> None:
    plain, costly = (shared.get(f"/v1/models/{careful}/versions/{number}").json() for number in (1, 2))
    assert costly["metrics"]["recall"] > plain["metrics"]["recall"]
    assert costly["metrics"]["roc_auc"] == plain["metrics"]["roc_auc"]
    _, (missed, found) = costly["evaluation"]["confusion_matrix"]
    assert costly["metrics"]["recall"] == found / (found + missed)
    assert costly["signature"]["costs"] == [[0, 1], [9, 0]]
    assert "above 0.1" in json.dumps(shared.get("/openapi.json").json())


def test_costs_hold_in_batch_predictions(shared: Client, careful: str, tmp_path: Path) -> None:
    signature = Signature.model_validate(shared.get(f"/v1/models/{careful}/versions/2").json()["signature"])
    path = tmp_path / "part.parquet"
    write_part(path, signature, 2, range(3), np.array([[0.95, 0.05], [0.85, 0.15], [0.2, 0.8]]))
    with duckdb.connect() as connection:
        found = connection.read_parquet(str(path)).fetchall()
    assert found == [(0, False, 0.95, 0.05, 2), (1, True, 0.85, 0.15, 2), (2, True, 0.2, 0.8, 2)]


@given(
    scores=st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=20),
    costs=st.lists(st.lists(st.floats(0, 1e6), min_size=3, max_size=3), min_size=3, max_size=3),
)
def test_the_class_of_the_least_expected_cost_is_chosen_alike_alone_and_in_a_batch(
    scores: list[list[float]], costs: list[list[float]]
) -> None:
    signature = Signature(
        features=(), target="y", target_type=ColumnType.STRING, task=Task.MULTICLASS,
        classes=("a", "b", "c"), costs=tuple(map(tuple, costs)),
    )  # fmt: skip
    together = signature.decide(np.array(scores))
    for row, chosen in zip(scores, together, strict=True):
        assert signature.decide(np.array([row])) == [chosen]
        expected = [sum(row[i] * costs[i][j] for i in range(3)) for j in range(3)]
        assert expected[chosen] <= min(expected) * (1 + 1e-12)
        assert chosen == expected.index(min(expected))
