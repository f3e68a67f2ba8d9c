"""Data versions made of predictions and what came true of them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.columns import ColumnType
from app.datasets.reading.ingest import MediaType
from app.monitoring import labelled
from app.monitoring.labelled import cell
from tests.client import Client
from tests.versions import register, train_here

FEATURES = ["scheduled", "carrier", "distance", "wind"]
ROWS = Client.rows(rows=60, seed=9)
LONG_AGO, SOON = "2001-01-01T00:00:00Z", "2200-01-01T00:00:00Z"


def code_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    code: str = answer.json()["code"]
    return code


def inputs_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in FEATURES} for row in rows]


@pytest.fixture(scope="module")
def trained(shared: Client, flights: str) -> dict[str, Any]:
    return train_here(shared, flights, algorithm="dummy", features=FEATURES)


@pytest.fixture
def asked(shared: Client, trained: dict[str, Any]) -> str:
    """A new model with one version, on the shared server."""
    name = f"asked-{uuid4().hex[:8]}"
    register(shared, name, trained)
    return name


@pytest.fixture
def dataset(shared: Client) -> str:
    name = f"learned-{uuid4().hex[:8]}"
    assert shared.post("/v1/datasets", json={"name": name}).status_code == 201
    return name


def predict(client: Client, model: str, rows: list[dict[str, Any]], version: int = 1) -> list[str]:
    ids: list[str] = client.predict(model, inputs_of(rows), at=f"/versions/{version}")["prediction_ids"]
    return ids


def tell(client: Client, outcomes: dict[str, Any]) -> None:
    items = [{"prediction_id": one, "actual": actual} for one, actual in outcomes.items()]
    answer = client.post("/v1/feedback", json={"items": items})
    assert answer.json()["rejected"] == [], answer.text


def learn(client: Client, dataset: str, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "since": LONG_AGO, "until": SOON} | more
    return client.post(f"/v1/datasets/{dataset}/versions:from-feedback", json=body)


def rows_of(client: Client, version: dict[str, Any]) -> list[dict[str, Any]]:
    url = f"/v1/datasets/{version['dataset']}/versions/{version['version']}/content"
    text = client.get(url, headers={"accept": MediaType.NDJSON}).text
    return [json.loads(line) for line in text.splitlines()]


def test_predictions_with_their_outcomes_become_a_version(shared: Client, asked: str, dataset: str) -> None:
    ids = predict(shared, asked, ROWS[:40]) + predict(shared, asked, ROWS[40:])
    tell(shared, {one: row["late"] for one, row in zip(ids, ROWS, strict=True) if row["distance"] > 500})
    answer = learn(shared, dataset, asked)
    assert answer.status_code == 201, answer.text
    known = [row for row in ROWS if row["distance"] > 500]
    counts = {name: answer.json()[name] for name in ("predictions", "labelled", "unfit")}
    assert counts == {"predictions": 60, "labelled": len(known), "unfit": 0}
    version = answer.json()["version"]
    assert answer.headers["location"] == f"/v1/datasets/{dataset}/versions/1"
    assert [(column["name"], column["type"]) for column in version["columns"]] == [
        ("scheduled", "datetime"), ("carrier", "string"), ("distance", "integer"), ("wind", "number"),
        ("late", "boolean"),
    ]  # fmt: skip
    assert version["origin"] == {
        "kind": "feedback", "model": asked,
        "since": "2001-01-01T00:00:00+00:00", "until": "2200-01-01T00:00:00+00:00",
    }  # fmt: skip
    assert rows_of(shared, version) == [
        row | {"late": whole["late"]} for row, whole in zip(inputs_of(known), known, strict=True)
    ]
    again = learn(shared, dataset, asked)
    assert (again.status_code, again.json()) == (200, answer.json())
    shared.train(f"{asked}-next", dataset, algorithm="logistic_regression")


def test_the_last_outcome_told_counts(shared: Client, asked: str, dataset: str) -> None:
    one, other = predict(shared, asked, ROWS[:2])
    tell(shared, {one: True, other: True})
    first = learn(shared, dataset, asked).json()["version"]
    tell(shared, {one: False})
    second = learn(shared, dataset, asked).json()["version"]
    assert [row["late"] for row in rows_of(shared, first)] == [True, True]
    assert [row["late"] for row in rows_of(shared, second)] == [False, True]
    assert second["version"] == 2


def test_a_repeated_request_gets_the_first_answer_whatever_came_true_since(
    shared: Client, asked: str, dataset: str
) -> None:
    one, other = predict(shared, asked, ROWS[:2])
    headers = {"idempotency-key": dataset}
    url, body = f"/v1/datasets/{dataset}/versions:from-feedback", {"model": asked, "since": LONG_AGO}
    tell(shared, {one: True})
    first = shared.post(url, json=body, headers=headers)
    tell(shared, {other: True})
    again = shared.post(url, json=body, headers=headers)
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    reused = shared.post(url, json=body | {"column": "came_true"}, headers=headers)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


def test_only_the_time_and_the_version_asked_for_count(
    shared: Client, asked: str, dataset: str, trained: dict[str, Any]
) -> None:
    register(shared, asked, trained)
    tell(shared, dict.fromkeys(predict(shared, asked, ROWS[:3]), True))
    between = datetime.now(UTC).isoformat()
    tell(shared, dict.fromkeys(predict(shared, asked, ROWS[3:5], version=2), False))

    def rows(**more: Any) -> int:
        count: int = learn(shared, dataset, asked, **more).json()["labelled"]
        return count

    assert rows() == 5
    assert (rows(until=between), rows(since=between)) == (3, 2)
    assert (rows(version=1), rows(version=2)) == (3, 2)
    assert code_of(learn(shared, dataset, asked, version=1, since=between), 409) == "no_labelled_predictions"


def test_pages_of_the_log_change_nothing(
    shared: Client, asked: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Requests of many rows share one time: no page may tear one apart.
    for start, stop in ((0, 1), (1, 20), (20, 22), (22, 45), (45, 60)):
        ids = predict(shared, asked, ROWS[start:stop])
        tell(shared, {one: row["late"] for one, row in zip(ids, ROWS[start:stop], strict=True)})
    whole = learn(shared, dataset, asked).json()
    for size in (1, 7, 20):
        monkeypatch.setattr(labelled, "PAGE_ROWS", size)
        again = learn(shared, dataset, asked)
        assert (again.status_code, again.json()) == (200, whole)
    assert [row["distance"] for row in rows_of(shared, whole["version"])] == [row["distance"] for row in ROWS]


def test_the_outcome_may_have_another_name(shared: Client, asked: str, dataset: str) -> None:
    tell(shared, dict.fromkeys(predict(shared, asked, ROWS[:1]), True))
    version = learn(shared, dataset, asked, column="was_late").json()["version"]
    assert version["columns"][-1] == {"name": "was_late", "type": "boolean", "nullable": False}
    clash = learn(shared, dataset, asked, column="wind")
    assert code_of(clash, 422) == "duplicate_column"
    assert clash.json()["errors"][0]["pointer"] == "/column"


def test_versions_of_other_columns_are_not_mixed(
    shared: Client, flights: str, asked: str, dataset: str
) -> None:
    register(shared, asked, train_here(shared, flights, algorithm="dummy", features=["distance"]))
    tell(shared, dict.fromkeys(predict(shared, asked, ROWS[:2]), True))
    narrow = shared.predict(asked, [{"distance": 300}], at="/versions/2")["prediction_ids"]
    tell(shared, dict.fromkeys(narrow, False))
    answer = learn(shared, dataset, asked)
    assert code_of(answer, 409) == "signatures_differ"
    assert "Versions 2 and 1" in answer.json()["detail"]
    version = learn(shared, dataset, asked, version=2).json()["version"]
    assert rows_of(shared, version) == [{"distance": 300, "late": False}]


def test_values_that_no_table_holds_are_left_out_and_counted(
    shared: Client, asked: str, dataset: str
) -> None:
    rows = [ROWS[0], ROWS[1] | {"distance": 1e300}, ROWS[2] | {"distance": 7.0}]
    tell(shared, dict.fromkeys(predict(shared, asked, rows), True))
    answer = learn(shared, dataset, asked).json()
    assert (answer["predictions"], answer["labelled"], answer["unfit"]) == (3, 2, 1)
    assert [row["distance"] for row in rows_of(shared, answer["version"])] == [ROWS[0]["distance"], 7]


def test_without_outcomes_there_is_no_version(shared: Client, asked: str, dataset: str) -> None:
    predict(shared, asked, ROWS[:3])
    assert code_of(learn(shared, dataset, asked), 409) == "no_labelled_predictions"
    assert shared.get(f"/v1/datasets/{dataset}/versions").json()["items"] == []


def test_what_is_not_there_is_not_found(shared: Client, asked: str, dataset: str) -> None:
    assert code_of(learn(shared, "nowhere", asked), 404) == "dataset_not_found"
    assert code_of(learn(shared, dataset, "nowhere"), 404) == "model_not_found"
    assert code_of(learn(shared, dataset, asked, version=9), 404) == "model_version_not_found"


def test_a_key_learns_from_its_own_models_only(shared: Client, asked: str, dataset: str) -> None:
    stranger = shared.as_role("scientist", models="other-*")
    assert code_of(learn(stranger, dataset, asked), 403) == "model_not_allowed"


def test_its_rows_are_for_keys_that_may_touch_the_model(shared: Client, asked: str, dataset: str) -> None:
    ids = predict(shared, asked, ROWS)
    tell(shared, {one: row["late"] for one, row in zip(ids, ROWS, strict=True)})
    assert learn(shared, dataset, asked).status_code == 201
    url = f"/v1/datasets/{dataset}/versions"
    sample = shared.post(f"{url}/1:sample", json={"rows": 5}).json()
    assert sample["origin"]["base"] == 1
    shared.add_version(dataset, b"a\n1\n")
    stranger, friend = (
        shared.as_role("engineer", models=pattern) for pattern in ("other-*", f"{asked[:-1]}?")
    )
    for path in (
        "1/content", "1/preview", "1/profile", "1/diff/3", "3/diff/1", "2/content", "2/preview", "1/report",
    ):  # fmt: skip
        assert code_of(stranger.get(f"{url}/{path}"), 403) == "model_not_allowed", path
        assert friend.get(f"{url}/{path}").status_code == (404 if path == "1/report" else 200), path
    proposal = stranger.post(f"/v1/datasets/{dataset}/contract:infer", json={"version": 1})
    assert code_of(proposal, 403) == "model_not_allowed"
    assert asked not in proposal.text
    assert stranger.get(f"{url}/3/preview").status_code == 200


NOON = datetime(2013, 5, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        (None, ColumnType.STRING, None),
        (float("nan"), ColumnType.NUMBER, None),
        (3.0, ColumnType.INTEGER, 3),
        (2**63 - 1, ColumnType.INTEGER, 2**63 - 1),
        (2**53 + 1, ColumnType.NUMBER, float(2**53)),
        ("2013-05-31T14:00:00+02:00", ColumnType.DATETIME, NOON.isoformat()),
        ("2013-05-31T12:00:00", ColumnType.DATETIME, NOON.isoformat()),
        ("2013-05-31", ColumnType.DATETIME, (NOON - timedelta(hours=12)).isoformat()),
        ("2013-05-31", ColumnType.DATE, "2013-05-31"),
        ("2013-05-31T02:00:00+02:00", ColumnType.DATE, "2013-05-31"),
        (False, ColumnType.BOOLEAN, False),
    ],
)
def test_inputs_stand_in_a_table_as_the_columns_types_have_them(
    value: Any, type_: ColumnType, expected: Any
) -> None:
    assert cell(value, type_) == expected
    assert type(cell(value, type_)) is type(expected)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (2**63, ColumnType.INTEGER),
        (-1e300, ColumnType.INTEGER),
        ("a\0", ColumnType.STRING),
        ("2013-05-31T12:00:00Z", ColumnType.DATE),
    ],
)
def test_inputs_that_no_column_holds_are_refused(value: Any, type_: ColumnType) -> None:
    with pytest.raises(ValueError, match=r"64 bits|null character|time of day"):
        cell(value, type_)
