"""Other servers' clients, as they are published, get from this server what ``/v1`` answers."""

from typing import Any

import pytest

from tests.client import ADMIN_KEY, Client
from tests.clients.environments import run_client
from tests.serving.protocols.flights import COLUMNS, flight_rows

pytestmark = pytest.mark.sqlite_alone
ROWS = flight_rows(rows=60, seed=9)
# Neither Triton's tensors nor pandas' in MLServer's codec can say that a text is missing.
COMPLETE = [row for row in ROWS if row["carrier"] is not None]
NUMBERS = [{name: row[name] for name in ("distance", "wind")} for row in ROWS]


def asking(client: Client, models: dict[str, str], **rows: Any) -> dict[str, Any]:
    return {"url": str(client.base_url).rstrip("/"), "key": ADMIN_KEY, **models, **rows}


def check(outcome: dict[str, Any], expected: dict[str, Any]) -> None:
    assert outcome["predictions"] == expected["predictions"]
    assert outcome["probabilities"] == expected["probabilities"]
    assert len(set(outcome["prediction_ids"])) == len(expected["predictions"])


def test_triton(shared: Client, spoken: dict[str, str]) -> None:
    request = asking(shared, spoken, rows=COMPLETE) | {"url": shared.base_url.netloc.decode()}
    told = run_client("mlserver", "triton_http", request)
    expected = shared.predict("spoken", COMPLETE)
    for client in (told["sync"], told["asyncio"]):
        assert client["live"] is client["ready"] is client["model_ready"] is True
        assert [one["name"] for one in client["metadata"]["inputs"]] == list(COLUMNS)
        assert {"name": "spoken", "version": "1", "state": "READY", "reason": ""} in client["index"]
        assert len(client["answers"]) == 12
        for outcome in client["answers"]:
            check(outcome, expected)
            assert outcome["classes"] == expected["classes"]
            assert (outcome["version"], outcome["id"]) == ("1", "order-17")
    sync = told["sync"]
    check(sync["async_answer"], expected)
    check(sync["version_answer"], shared.predict("spoken", COMPLETE, at="/versions/2"))
    assert sync["server"]["name"] == "roundhouse"
    assert sync["version_ready"] is True
    assert sync["nobody_ready"] is False
    assert sync["version_metadata"]["versions"] == ["2"]
    assert [one["name"] for one in sync["config"]["input"]] == list(COLUMNS)
    assert {one["name"] for one in sync["statistics"]["model_stats"]} == {"spoken"}
    assert "spoken" in {one["name"] for one in sync["all_statistics"]["model_stats"]}
    assert [sync[name][0] for name in ("unload", "missing", "unknown", "keyless")] == [
        "409",
        "422",
        "404",
        "401",
    ]
    assert "stays in service" in sync["unload"][1]
    assert "the column is missing" in sync["missing"][1]
    assert "no model 'nobody'" in sync["unknown"][1]


def test_kserve(shared: Client, spoken: dict[str, str]) -> None:
    told = run_client("kserve", "kserve_rest", asking(shared, spoken, rows=COMPLETE))
    expected = shared.predict("spoken", COMPLETE)
    assert told["v1"]["model_ready"] is True
    check(told["v1"]["answer"], expected)
    assert told["v1"]["answer"]["classes"] == expected["classes"]
    version_2 = told["v2"]
    assert version_2["live"] is version_2["ready"] is version_2["model_ready"] is True
    assert version_2["nobody_ready"] is False
    for form in ("json", "binary"):
        check(version_2[form], expected)
        assert version_2[form]["id"] == "order-17"
    assert "The request has no inputs." in version_2["refused"]


def test_mlserver(shared: Client, spoken: dict[str, str]) -> None:
    rows = {"rows": COMPLETE, "complete_rows": COMPLETE, "numeric_rows": NUMBERS}
    told = run_client("mlserver", "mlserver_codecs", asking(shared, spoken, **rows))
    expected = shared.predict("spoken", COMPLETE)
    shares = [list(column) for column in zip(*expected["probabilities"], strict=True)]
    assert told["metadata"] == list(COLUMNS)
    for frame in told["frames"]:
        assert frame["prediction"] == expected["predictions"]
        assert [frame["probability_false"], frame["probability_true"]] == shares
        assert len(set(frame["prediction_id"])) == len(COMPLETE)
    check(told["columns"]["plain"], expected)
    check(told["columns"]["base64"], expected)
    numeric = shared.predict("measured", NUMBERS)
    check(told["matrix"], numeric)
    assert told["matrix"]["only_probabilities"] == numeric["probabilities"]
