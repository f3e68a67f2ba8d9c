"""Prediction over HTTP: every form, every algorithm, and every way to ask wrongly."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.training.algorithms.catalogue import ALGORITHMS
from tests.client import Client
from tests.versions import journal_of, register, train_here

pytestmark = pytest.mark.sqlite_alone

ROW: dict[str, Any] = {
    "scheduled": "2013-05-31T14:15:00Z",
    "carrier": "B6",
    "distance": 700,
    "wind": 17.5,
    "international": False,
}
SMALL = {"random_forest": {"n_estimators": 5}, "hist_gradient_boosting": {"max_iter": 5}}


def ask(
    client: Client, path: str, content: str | bytes, media_type: str = "application/json"
) -> httpx.Response:
    return client.post(f"/v1/models/{path}:predict", content=content, headers={"content-type": media_type})


def recorded_inputs(client: Client, answer: dict[str, Any]) -> dict[str, Any]:
    (prediction_id,) = answer["prediction_ids"]
    found = client.get(f"/v1/predictions/{prediction_id}")
    assert found.status_code == 200, found.text
    inputs: dict[str, Any] = found.json()["inputs"]
    return inputs


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


@pytest.fixture(scope="module")
def asked(shared: Client, flights: str) -> str:
    """A model with two different versions, the first in service; the alias `next` names the second."""
    linear = train_here(shared, flights, algorithm="logistic_regression")
    boosted = train_here(shared, flights, algorithm="hist_gradient_boosting", params={"max_iter": 5})
    register(shared, "asked", linear, boosted)
    assert shared.post("/v1/models/asked:promote", json={"version": 1}).status_code == 201
    assert shared.put("/v1/models/asked/aliases/next", json={"version": 2}).status_code == 201
    return "asked"


@pytest.fixture(scope="module")
def outcomes(shared: Client) -> str:
    """A dataset with targets of every kind, each explained by the same columns."""
    rows = []
    for row in Client.rows(rows=200, seed=5):
        grade = min(4, row["distance"] // 600)
        row["grade"], row["size"] = grade, ["tiny", "small", "middle", "large", "huge"][grade]
        row["code"] = 10 if row.pop("late") else 20
        row["minutes"] = row["distance"] / 7 + (row["wind"] or 0)
        rows.append(row)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    shared.add_dataset("outcomes", content, "application/x-ndjson")
    return "outcomes"


# ── The forms ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("at", "version", "variant"), [("", 1, "champion"), ("/versions/2", 2, None), ("/aliases/next", 2, None)]
)
def test_every_form_answers_in_the_order_of_the_rows(
    shared: Client, asked: str, at: str, version: int, variant: str | None
) -> None:
    rows = [ROW, ROW | {"wind": 29.0}, ROW | {"wind": 2.0}]
    answer = shared.predict(asked, rows, at=at)
    assert set(answer) == {
        "predictions", "probabilities", "classes", "prediction_ids", "model", "version", "variant",
    }  # fmt: skip
    assert (answer["model"], answer["version"], answer["variant"]) == (asked, version, variant)
    assert answer["classes"] == [False, True]
    assert len(set(answer["prediction_ids"])) == 3
    for prediction, probabilities in zip(answer["predictions"], answer["probabilities"], strict=True):
        assert sum(probabilities) == pytest.approx(1)
        assert prediction is (probabilities[1] > probabilities[0])
    calm, stormy = answer["probabilities"][2][1], answer["probabilities"][1][1]
    assert calm < answer["probabilities"][0][1] < stormy


@pytest.mark.parametrize(
    ("target", "task", "values"),
    [
        ("international", "binary", {False, True}),
        ("code", "binary", {10, 20}),
        ("grade", "multiclass", {0, 1, 2, 3, 4}),
        ("size", "multiclass", {"tiny", "small", "middle", "large", "huge"}),
    ],
)
def test_labels_keep_the_json_type_of_the_target(
    shared: Client, outcomes: str, target: str, task: str, values: set[Any]
) -> None:
    name = f"labels-{target}"
    targets = {"international", "code", "grade", "size", "minutes"}
    trained = train_here(
        shared,
        outcomes,
        target=target,
        task=task,
        algorithm="random_forest",
        params={"n_estimators": 5},
        features={column: {"role": "drop"} for column in targets - {target}},
    )
    register(shared, name, trained)
    rows = [ROW | {"distance": distance} for distance in (150, 750, 1400, 2000, 2900)]
    if target == "international":
        rows = [{name: value for name, value in row.items() if name != "international"} for row in rows]
    answer = shared.predict(name, rows, at="/versions/1")
    assert set(answer["classes"]) == values
    for label in (*answer["classes"], *answer["predictions"]):
        assert label in values
        assert type(label) is type(next(iter(values)))
    assert [len(shares) for shares in answer["probabilities"]] == [len(values)] * 5
    if task == "multiclass":
        assert len(set(answer["predictions"])) > 2


def test_a_regression_answers_with_numbers_alone(shared: Client, outcomes: str) -> None:
    trained = train_here(
        shared, outcomes, target="minutes", algorithm="ridge", features=["distance", "wind", "carrier"]
    )
    register(shared, "minutes", trained)
    rows = [{"distance": distance, "wind": 10.0, "carrier": "AA"} for distance in (700, 1400)]
    answer = shared.predict("minutes", rows, at="/versions/1")
    assert not {"probabilities", "classes"} & set(answer)
    assert answer["predictions"] == pytest.approx([110, 210], rel=0.1)
    assert [type(value) for value in answer["predictions"]] == [float, float]


# ── A row's answer is its own ────────────────────────────────────────────────────────────────────

NULLS_AND_STRANGERS = [
    ROW,
    ROW | {"carrier": None},
    {name: value for name, value in ROW.items() if name != "carrier"},
    ROW | {"wind": None},
    ROW | {"carrier": None, "wind": None},
    ROW | {"carrier": "never seen"},
    ROW | {"carrier": ""},
    ROW | {"wind": -1e300, "distance": 2**53},
    *[{name: row[name] for name in ROW} for row in Client.rows(rows=8, seed=9)],
]


@pytest.mark.parametrize(
    ("algorithm", "target"),
    [(name, "late" if "binary" in entry.tasks else "distance") for name, entry in ALGORITHMS.items()]
    + [(name, "distance") for name, entry in ALGORITHMS.items() if len(entry.tasks) == 3],
)
def test_a_row_alone_is_answered_as_in_any_batch(
    shared: Client, flights: str, algorithm: str, target: str
) -> None:
    name = f"{algorithm}-{target}"
    regression = {"features": {"late": {"role": "drop"}}} if target == "distance" else {}
    trained = train_here(
        shared, flights, algorithm=algorithm, target=target, params=SMALL.get(algorithm, {}), **regression
    )
    register(shared, name, trained)
    rows = [
        {column: value for column, value in row.items() if column != target} for row in NULLS_AND_STRANGERS
    ]
    together = shared.predict(name, rows, at="/versions/1")
    backwards = shared.predict(name, rows[::-1], at="/versions/1")
    alone = [shared.predict(name, [row], at="/versions/1") for row in rows]
    for field in ("predictions", *(["probabilities"] if target == "late" else [])):
        # JSON writes the shortest digits that give the float back: equal values are equal bits.
        assert together[field] == [answer[field][0] for answer in alone]
        assert together[field] == backwards[field][::-1]


def test_a_nan_token_means_null(shared: Client, asked: str) -> None:
    row = json.dumps(ROW | {"wind": float("nan")})
    assert "NaN" in row
    answer = ask(shared, asked, f'{{"instances": [{row}]}}')
    assert answer.status_code == 200, answer.text
    as_null = shared.predict(asked, [ROW | {"wind": None}])
    assert answer.json()["probabilities"] == as_null["probabilities"]
    assert recorded_inputs(shared, answer.json()) == ROW | {"wind": None}


@pytest.mark.parametrize("ignored", [7, "seven", None, 2.5, True])
def test_a_column_that_training_dropped_may_be_sent(shared: Client, asked: str, ignored: Any) -> None:
    answer = shared.predict(asked, [ROW | {"flight_id": ignored}])
    assert answer["probabilities"] == shared.predict(asked, [ROW])["probabilities"]
    assert recorded_inputs(shared, answer) == ROW | {"flight_id": ignored}


def test_further_fields_of_other_servers_are_ignored(shared: Client, asked: str) -> None:
    body = {"instances": [ROW], "signature_name": "serving_default", "parameters": {}}
    assert ask(shared, asked, json.dumps(body)).status_code == 200


# ── Wrong requests ───────────────────────────────────────────────────────────────────────────────


def rows_of(*rows: Any) -> str:
    return json.dumps({"instances": rows})


WRONG_ROWS: list[tuple[str, list[str]]] = [
    (rows_of(ROW | {"distance": "far"}), ["/instances/0/distance"]),
    (rows_of(ROW, ROW | {"distance": 7.5}), ["/instances/1/distance"]),
    (rows_of(ROW | {"international": 1}), ["/instances/0/international"]),
    (rows_of(ROW | {"carrier": 3}), ["/instances/0/carrier"]),
    (rows_of(ROW | {"scheduled": "yesterday"}), ["/instances/0/scheduled"]),
    (rows_of(ROW | {"scheduled": 0, "wind": []}), ["/instances/0/scheduled", "/instances/0/wind"]),
    (rows_of({k: v for k, v in ROW.items() if k != "distance"}), ["/instances/0/distance"]),
    (rows_of(ROW | {"distance": None}), ["/instances/0/distance"]),
    (rows_of(ROW | {"distance": float("nan")}), ["/instances/0/distance"]),
    (rows_of(ROW | {"wind": float("inf")}), ["/instances/0/wind"]),
    (rows_of(ROW | {"wind": float("-inf")}), ["/instances/0/wind"]),
    (rows_of(ROW | {"wind": 10**400}), ["/instances/0/wind"]),
    (rows_of(ROW | {"late": True}), ["/instances/0/late"]),
    (rows_of(ROW | {"flight_id": [1]}), ["/instances/0/flight_id"]),
    (rows_of(ROW | {"flight_id": {"a": {}}}), ["/instances/0/flight_id"]),
    (rows_of(ROW | {"a/b~c": 1}), ["/instances/0/a~1b~0c"]),
]


@pytest.mark.parametrize(("content", "pointers"), WRONG_ROWS)
def test_rows_that_do_not_fit_are_pointed_to(
    shared: Client, asked: str, content: str, pointers: list[str]
) -> None:
    for at in ("", "/versions/2", "/aliases/next"):
        problem = refused(ask(shared, asked + at, content), 422, "invalid_instances")
        assert [error["pointer"] for error in problem["errors"]] == pointers
        assert pointers[0] in problem["detail"]


WRONG_BODIES: list[tuple[bytes, str, str]] = [
    (b"", "", "is missing"),
    (b"[1]", "", "is not a JSON object"),
    (b"null", "", "is not a JSON object"),
    (b"3", "", "is not a JSON object"),
    (b"{}", "/instances", "is missing"),
    (b'{"instances": []}', "/instances", "must not be empty"),
    (b'{"instances": null}', "/instances", "a valid list"),
    (b'{"instances": {"distance": 1}}', "/instances", "a valid list"),
    (b'{"instances": "rows"}', "/instances", "a valid list"),
    (b'{"instances": [1, 2]}', "/instances/0", "a JSON object"),
    (b'{"instances": [{}, [1]]}', "/instances/1", "a JSON object"),
    (b'{"instances": [', "", "is not JSON: Expecting value (character 15)"),
    (b"{'instances': []}", "", "is not JSON"),
    (b'{"instances": [{"carrier": "\xff"}]}', "", "the text is not Unicode"),
    (b'{"instances": [{"carrier": "\\ud800"}]}', "", "the text is not Unicode"),
    (b'{"instances": [{"\\uDFFF": 1}]}', "", "the text is not Unicode"),
    (b'{"instances":' + b"[" * 100_000, "", "nested too deeply"),
    (b'{"instances": [{"distance": ' + b"1" * 5_000 + b"}]}", "", "too many digits"),
]


@pytest.mark.parametrize(("content", "pointer", "told"), WRONG_BODIES)
def test_bodies_that_are_no_rows_are_refused(
    shared: Client, asked: str, content: bytes, pointer: str, told: str
) -> None:
    (error,) = refused(ask(shared, asked, content), 422, "invalid_input")["errors"]
    assert error["pointer"] == pointer
    assert told in error["detail"]


def test_json_is_read_whatever_a_client_calls_it(shared: Client, asked: str) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        answer = ask(shared, asked, rows_of(ROW), media_type)
        assert answer.json()["predictions"] == shared.predict(asked, [ROW])["predictions"]


def test_a_compressed_body_is_read_or_refused(shared: Client, asked: str) -> None:
    content = json.dumps({"instances": [ROW]}).encode()
    for form, body in (("gzip", gzip.compress(content)), ("deflate", zlib.compress(content))):
        answer = shared.post(f"/v1/models/{asked}:predict", content=body, headers={"content-encoding": form})
        assert answer.json()["predictions"] == shared.predict(asked, [ROW])["predictions"]
    brotli = shared.post(f"/v1/models/{asked}:predict", content=content, headers={"content-encoding": "br"})
    assert "br" in refused(brotli, 415, "unsupported_encoding")["detail"]
    bomb = shared.post(
        f"/v1/models/{asked}:predict",
        content=gzip.compress(b" " * 40_000_000),
        headers={"content-encoding": "gzip"},
    )
    refused(bomb, 413, "body_too_large")


def test_half_an_emoji_is_refused_and_a_whole_one_is_not(shared: Client, asked: str) -> None:
    whole = ask(shared, asked, json.dumps({"instances": [ROW | {"carrier": "✈️🛬"}]}))
    assert whole.status_code == 200, whole.text
    assert recorded_inputs(shared, whole.json())["carrier"] == "✈️🛬"


def test_a_million_wrong_rows_are_told_by_the_first(shared: Client, asked: str) -> None:
    content = b'{"instances": [' + b"1," * 1_000_000 + b"1]}"
    problem = refused(ask(shared, asked, content), 422, "invalid_input")
    assert [error["pointer"] for error in problem["errors"]] == ["/instances/0"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("nobody", 404, "model_not_found"),
        ("nobody/versions/1", 404, "model_not_found"),
        ("nobody/aliases/next", 404, "model_not_found"),
        ("a.b", 404, "model_not_found"),
        ("asked/versions/3", 404, "model_version_not_found"),
        ("asked/versions/0", 422, "invalid_input"),
        ("asked/versions/99999999999999999999", 422, "invalid_input"),
        ("asked/versions/one", 422, "invalid_input"),
        ("asked/aliases/nobody", 404, "alias_not_found"),
        ("asked/aliases/ne.xt", 404, "alias_not_found"),
        ("as%2Fked", 404, "not_found"),
    ],
)
def test_who_cannot_answer_is_named(shared: Client, asked: str, path: str, status: int, code: str) -> None:
    problem = refused(ask(shared, path, rows_of(ROW)), status, code)
    for name in set(path.split("/")) & {"nobody", "asked", "3", "one", "a.b"} if status == 404 else ():
        assert name in problem["detail"]


def test_a_model_without_deployment_tells_how_to_get_one(shared: Client, model: str) -> None:
    problem = refused(ask(shared, model, rows_of(ROW)), 409, "model_not_deployed")
    assert f"POST /v1/models/{model}:promote" in problem["detail"]


def test_a_misspelt_model_is_told_its_likely_name(shared: Client, asked: str) -> None:
    problem = refused(ask(shared, "asket", rows_of(ROW)), 404, "model_not_found")
    assert "Did you mean 'asked'?" in problem["detail"]


def test_nothing_of_a_refused_request_is_recorded(shared: Client, model: str, flights: str) -> None:
    register(shared, model, train_here(shared, flights, algorithm="logistic_regression"))
    shared.post(f"/v1/models/{model}:promote", json={"version": 4})
    for content, _ in WRONG_ROWS:
        assert ask(shared, model, content).status_code == 422
    for body, _, _ in WRONG_BODIES:
        assert ask(shared, model, body).status_code == 422
    # One wrong row among right ones refuses them all.
    assert ask(shared, model, rows_of(ROW, ROW, {})).status_code == 422
    answered = shared.predict(model, [ROW])["prediction_ids"]
    with journal_of(shared.settings) as journal:
        assert [record.prediction_id for record in journal.read(model)] == answered


# ── Limits ───────────────────────────────────────────────────────────────────────────────────────


def test_a_request_has_limits(start: Callable[..., Client]) -> None:
    client = start(max_instances=3, max_request_bytes=2_000)
    client.add_dataset("few", client.table(rows=60, seed=2))
    register(client, "limited", train_here(client, "few", algorithm="dummy"))
    client.post("/v1/models/limited:promote", json={"version": 1})
    assert len(client.predict("limited", [ROW] * 3)["predictions"]) == 3
    for at in ("", "/versions/1"):
        problem = refused(ask(client, f"limited{at}", rows_of(*[ROW] * 4)), 422, "too_many_instances")
        assert "at most 3 instances; this one has 4" in problem["detail"]
        assert [error["pointer"] for error in problem["errors"]] == ["/instances"]
    huge = rows_of(ROW | {"carrier": "x" * 2_000}).encode()
    refused(ask(client, "limited", huge), 413, "body_too_large")
    # Also where no length is announced.
    chunks = (huge[start : start + 100] for start in range(0, len(huge), 100))
    answer = client.post(
        "/v1/models/limited:predict", content=chunks, headers={"content-type": "application/json"}
    )
    refused(answer, 413, "body_too_large")
    with journal_of(client.settings) as journal:
        assert len(journal.read("limited")) == 3
