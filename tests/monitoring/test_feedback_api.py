"""Feedback over HTTP: what came true is recorded once, corrected openly, and refused with the reason."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.monitoring.router import MAX_ITEMS
from tests.client import Client
from tests.versions import register, train_here

TARGETS = {"late": "boolean", "carrier": "string", "distance": "integer", "wind": "number"}
ROWS = Client.rows(rows=8, seed=9)


@pytest.fixture(scope="module")
def models(shared: Client, flights: str) -> dict[str, str]:
    """A model for each target, by its name."""
    for target in TARGETS:
        trained = train_here(shared, flights, target=target, algorithm="dummy", features=["international"])
        register(shared, f"told-{target}", trained)
    return {target: f"told-{target}" for target in TARGETS}


def predict(client: Client, model: str, count: int = 1) -> list[str]:
    instances = [{"international": True}] * count
    ids: list[str] = client.predict(model, instances, at="/versions/1")["prediction_ids"]
    return ids


def item(prediction_id: Any, actual: Any, **more: Any) -> dict[str, Any]:
    return {"prediction_id": prediction_id, "actual": actual, **more}


def send(client: Client, *items: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/feedback", json={"items": items})
    assert answer.status_code == 200, answer.text
    receipt: dict[str, Any] = answer.json()
    return receipt


def counts(receipt: dict[str, Any]) -> tuple[int, int, int, int]:
    return (
        receipt["accepted"],
        receipt["duplicates"],
        receipt["corrected"],
        len(receipt["rejected"]),
    )


def history(client: Client, prediction_id: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/predictions/{prediction_id}/feedback")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_an_outcome_is_accepted_then_recognised_then_corrected(
    shared: Client, models: dict[str, str]
) -> None:
    (one,) = predict(shared, models["late"])
    assert history(shared, one) == []
    assert counts(send(shared, item(one, True, observed_at="2026-01-02T03:04:05Z", source="log"))) == (
        1, 0, 0, 0,
    )  # fmt: skip
    assert counts(send(shared, item(one, True, source="another log"))) == (0, 1, 0, 0)
    reporter = shared.as_role("client")
    assert counts(send(reporter, item(one, False))) == (0, 0, 1, 0)
    newest, oldest = history(shared, one)
    assert (oldest["revision"], oldest["actual"], oldest["source"]) == (1, True, "log")
    assert (oldest["observed_at"], oldest["received_by"]) == ("2026-01-02T03:04:05Z", "admin")
    assert (newest["revision"], newest["actual"], newest["source"]) == (2, False, None)
    assert newest["received_by"].startswith("client-")
    assert newest["observed_at"] == newest["received_at"]


def test_the_items_of_a_batch_count_in_their_order(shared: Client, models: dict[str, str]) -> None:
    one, other = predict(shared, models["late"], 2)
    receipt = send(
        shared, item(one, True), item(other, False), item(one, False), item(one, False), item(one, True)
    )
    assert counts(receipt) == (2, 1, 2, 0)
    assert [said["actual"] for said in history(shared, one)] == [True, False, True]
    assert [said["revision"] for said in history(shared, one)] == [3, 2, 1]
    assert [said["actual"] for said in history(shared, other)] == [False]


def test_an_item_that_cannot_be_recorded_is_rejected_alone(shared: Client, models: dict[str, str]) -> None:
    one, other = predict(shared, models["late"], 2)
    tampered = one[:-1] + ("a" if one[-1] != "a" else "b")
    receipt = send(
        shared,
        item(tampered, True),
        item(one, True),
        item("x", True),
        item(one.upper(), True),
        item("é" * 40, True),
        item(other, "yes"),
        item(other, False),
    )
    assert counts(receipt) == (2, 0, 0, 5)
    assert [(rejected["index"], rejected["code"]) for rejected in receipt["rejected"]] == [
        (0, "unknown_prediction"),
        (2, "unknown_prediction"),
        (3, "unknown_prediction"),
        (4, "unknown_prediction"),
        (5, "invalid_actual"),
    ]
    assert tampered in receipt["rejected"][0]["detail"]
    assert '(false, true), not the string "yes"' in receipt["rejected"][4]["detail"]


@pytest.mark.parametrize(
    ("target", "right", "wrong"),
    [
        ("late", ["true", "false"], ["1", "0", "1.0", '"true"', '""']),
        ("carrier", ['"AA"', '"UA"'], ['"ZZ"', '"aa"', "true", "1", '""']),
        ("distance", ["1", "-7", "2.0", "0"], ["1.5", "true", '"1"', "1e400", "1" + "0" * 400]),
        ("wind", ["1", "1.5", "-1e300"], ["false", '"1.5"', "1e400", "NaN", "1" + "0" * 400]),
    ],
)
def test_an_outcome_must_be_a_value_of_the_target(
    shared: Client, models: dict[str, str], target: str, right: list[str], wrong: list[str]
) -> None:
    for actuals, received in ((right, (len(right), 0, 0, 0)), (wrong, (0, 0, 0, len(wrong)))):
        ids = predict(shared, models[target], len(actuals))
        items = ", ".join(
            f'{{"prediction_id": "{one}", "actual": {actual}}}'
            for one, actual in zip(ids, actuals, strict=True)
        )
        answer = shared.post(
            "/v1/feedback", content=f'{{"items": [{items}]}}', headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200, answer.text
        assert counts(answer.json()) == received
        for rejected in answer.json()["rejected"]:
            assert rejected["code"] == "invalid_actual"
        for one in ids:
            assert len(history(shared, one)) == received[0] / len(ids)


def test_a_rejected_class_is_told_which_there_are(shared: Client, models: dict[str, str]) -> None:
    (one,) = predict(shared, models["carrier"])
    (rejected,) = send(shared, item(one, "ZZ"))["rejected"]
    assert all(known in rejected["detail"] for known in ('"AA"', '"B6"', '"UA"', '"ZZ"'))


def test_the_same_number_written_otherwise_is_no_correction(shared: Client, models: dict[str, str]) -> None:
    (one,) = predict(shared, models["wind"])
    assert counts(send(shared, item(one, 2), item(one, 2.0), item(one, 2.5))) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("target", "number", "other"),
    [
        ("wind", 1e22, 2e22),
        ("wind", 1e23, 1e22),  # 1e23 is not quite 10**23
        ("wind", -1.5e300, 1.5e300),
        ("wind", -0.0, 1e-300),
        ("distance", 1e23, 1e22),
        ("distance", 2**53 + 1, 2**53),
    ],
)
def test_a_very_large_or_small_number_is_told_again_as_itself(
    shared: Client, models: dict[str, str], target: str, number: float, other: float
) -> None:
    (one,) = predict(shared, models[target])
    received = [counts(send(shared, item(one, actual))) for actual in (number, number, other, number, number)]
    assert received == [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 1, 0), (0, 1, 0, 0)]


def test_a_key_tells_only_of_models_that_it_may_touch(shared: Client, models: dict[str, str]) -> None:
    (one,), (other,) = predict(shared, models["late"]), predict(shared, models["wind"])
    limited = shared.as_role("client", models="told-w*")
    receipt = send(limited, item(one, True), item(other, 3.5))
    assert counts(receipt) == (1, 0, 0, 1)
    assert (receipt["rejected"][0]["index"], receipt["rejected"][0]["code"]) == (0, "unknown_prediction")
    assert history(shared, one) == []
    reader = shared.as_role("viewer", models="told-w*")
    assert len(history(reader, other)) == 1
    hidden = reader.get(f"/v1/predictions/{one}/feedback")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "prediction_not_found")


def test_the_history_of_an_id_of_nobody_is_not_found(shared: Client) -> None:
    for one in ("x", "a" * 40):
        answer = shared.get(f"/v1/predictions/{one}/feedback")
        assert (answer.status_code, answer.json()["code"]) == (404, "prediction_not_found")


@pytest.mark.parametrize(
    ("items", "at"),
    [
        ([], "/items"),
        ([item("x", True)] * (MAX_ITEMS + 1), "/items"),
        ([item("x", True), {"prediction_id": "x"}], "/items/1/actual"),
        ([item("x", None)], "/items/0/actual"),
        ([item("x", [True])], "/items/0/actual"),
        ([item(7, True)], "/items/0/prediction_id"),
        ([item("x", True, observed_at="2026-01-02T03:04:05")], "/items/0/observed_at"),
        ([item("x", True, observed_at="yesterday")], "/items/0/observed_at"),
        ([item("x", True, source="x" * 201)], "/items/0/source"),
        ([item("x", True, note="x")], "/items/0/note"),
        ("x", "/items"),
    ],
)
def test_a_batch_that_is_none_is_refused_whole(shared: Client, items: Any, at: str) -> None:
    answer = shared.post("/v1/feedback", json={"items": items})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert at in {error["pointer"] for error in answer.json()["errors"]}


def test_the_largest_batch_is_taken(shared: Client, models: dict[str, str]) -> None:
    (one,) = predict(shared, models["late"])
    assert counts(send(shared, *[item(one, True)] * MAX_ITEMS)) == (1, MAX_ITEMS - 1, 0, 0)


def test_the_same_outcome_told_by_many_at_once_is_recorded_once(
    shared: Client, models: dict[str, str]
) -> None:
    (one,) = predict(shared, models["late"])
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda _: shared.post("/v1/feedback", json={"items": [item(one, True)]}), range(6))
        )
    lost = [answer.json()["code"] for answer in answers if answer.status_code != 200]
    assert set(lost) <= {"concurrent_change"}
    receipts = [answer.json() for answer in answers if answer.status_code == 200]
    assert sum(receipt["accepted"] for receipt in receipts) == 1
    assert sum(receipt["duplicates"] for receipt in receipts) == len(receipts) - 1
    assert [said["revision"] for said in history(shared, one)] == [1]
