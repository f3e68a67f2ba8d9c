"""Models of texts: the same answer for the same words, in whatever form they are sent."""

import json
import random
from typing import Any

import pytest
from arro3.core import Array, DataType

from tests.client import Client
from tests.serving.protocols.test_bulk import ARROW, CSV, NDJSON, as_csv, as_ndjson, ask, read, stream
from tests.serving.protocols.test_oip_router import infer
from tests.versions import register, train_here

pytestmark = pytest.mark.sqlite_alone

GOOD, BAD = ["great", "lovely", "perfect", "Überraschend"], ["awful", "broken", "late", "rude"]
FILLING = ["the", "parcel", "was", "driver", "really", "and", "so", "very", "on", "door"]
COLUMNS = ["comment", "stars"]


def reviews(*, rows: int, seed: int) -> list[dict[str, Any]]:
    source = random.Random(seed)
    made = []
    for _ in range(rows):
        happy = source.random() < 0.5
        words = source.choices(FILLING, k=source.randrange(4, 9)) + source.choices(
            GOOD if happy else BAD, k=2
        )
        source.shuffle(words)
        comment = " ".join(words) + source.choice([".", "!", " ...", ' "quoted", and a\nline'])
        made.append(
            {
                "comment": comment if source.random() > 0.1 else None,
                "stars": source.randrange(1, 6),
                "happy": happy,
            }
        )
    return made


ROWS = [{name: row[name] for name in COLUMNS} for row in reviews(rows=40, seed=2)] + [
    {"comment": "", "stars": 3},
    {"comment": "GREAT, great\tgreat: lovely!", "stars": 3},
    {"comment": "never heard of any of it", "stars": 3},
]


@pytest.fixture(scope="module")
def reviewed(shared: Client) -> str:
    """Version 1 knows words, version 2 buckets, and version 3, of boosted trees, pairs of words too."""
    content = "".join(json.dumps(row) + "\n" for row in reviews(rows=300, seed=1)).encode()
    shared.add_dataset("reviews", content, NDJSON)
    specs: list[dict[str, Any]] = [
        {"algorithm": "logistic_regression"},
        {"algorithm": "logistic_regression",
         "preparation": {"text": {"vectorize": "hashing", "max_features": 64}}},
        {"algorithm": "hist_gradient_boosting", "params": {"max_iter": 10},
         "features": {"comment": {"role": "text", "prepare": {"ngrams": 2, "max_features": 30}}}},
    ]  # fmt: skip
    register(shared, "reviewed", *(train_here(shared, "reviews", target="happy", **spec) for spec in specs))
    return "reviewed"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_form_of_a_text_is_answered_alike(shared: Client, reviewed: str, version: int) -> None:
    at = f"/versions/{version}"
    together = shared.predict(reviewed, ROWS, at)
    for place in (0, 7, 40, 41, 42):  # a row alone gets the same bits
        assert shared.predict(reviewed, [ROWS[place]], at)["probabilities"] == [
            together["probabilities"][place]
        ]
    columns = {name: [row[name] for row in ROWS] for name in COLUMNS}
    types = {"comment": DataType.utf8(), "stars": DataType.int64()}
    table = stream({name: Array(columns[name], type_) for name, type_ in types.items()})
    for media_type, body in ((ARROW, table), (CSV, as_csv(ROWS)), (NDJSON, as_ndjson(ROWS))):
        found = read(ask(shared, reviewed, body, media_type, at=at))
        assert found["prediction"] == together["predictions"], media_type
        assert found["probability_true"] == [shares[1] for shares in together["probabilities"]], media_type


def test_the_protocols_of_others_take_texts(shared: Client, reviewed: str) -> None:
    assert shared.post(f"/v1/models/{reviewed}:promote", json={"version": 1}).status_code == 201
    expected = shared.predict(reviewed, ROWS)["predictions"]
    tensors = [
        {"name": name, "datatype": datatype, "shape": [len(ROWS), 1], "data": [row[name] for row in ROWS]}
        for name, datatype in (("comment", "BYTES"), ("stars", "INT64"))
    ]
    assert infer(shared, reviewed, {"inputs": tensors}).json()["outputs"][0]["data"] == expected
    invoked = shared.post(
        f"/v1/models/{reviewed}/invocations",
        content=json.dumps({"dataframe_records": ROWS}),
        headers={"content-type": "application/json"},
    )
    assert invoked.json()["predictions"] == expected


def test_a_replay_tells_the_words_that_counted(shared: Client, reviewed: str) -> None:
    answer = shared.predict(
        reviewed, [{"comment": "GREAT, great\tgreat: lovely!", "stars": 3}], "/versions/1"
    )
    assert answer["predictions"] == [True]
    replay = shared.post(f"/v1/predictions/{answer['prediction_ids'][0]}:replay").json()
    assert replay["same"]
    assert replay["encoded"]['comment has "great"'] == 3
    assert replay["encoded"]['comment has "awful"'] == 0
    assert replay["features"]['comment has "great"'] > replay["features"]['comment has "lovely"'] > 0


def test_a_wrong_text_is_named(shared: Client, reviewed: str) -> None:
    for rows, at in (
        ([{"comment": 7, "stars": 1}], "0/comment"),
        ([{"comment": "x", "stars": "y"}], "0/stars"),
    ):
        answer = shared.post(f"/v1/models/{reviewed}/versions/1:predict", json={"instances": rows})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"/instances/{at}"]


def test_a_version_says_what_it_made_of_a_text(shared: Client, reviewed: str) -> None:
    words, hashed, pairs = (
        shared.get(f"/v1/models/{reviewed}/versions/{number}").json() for number in (1, 2, 3)
    )
    comment = words["signature"]["features"][0]
    assert (comment["role"], comment["nullable"]) == ("text", True)
    assert {"great", "überraschend", "really"} <= set(comment["tokens"])
    assert hashed["signature"]["features"][0]["buckets"] == 64
    assert len(pairs["signature"]["features"][0]["tokens"]) == 30
    assert words["metrics"]["roc_auc"] > 0.9
    assert (words["runtime"], "comment" in words["runtime_reason"]) == ("native", True)
    assert shared.predict(reviewed, [words["example"]], "/versions/1")["predictions"]
    column, _ = words["reference"]["columns"]
    assert (column["name"], column["role"]) == ("comment", "text")
    assert column["nulls"] > 0
    assert column["mean"] > 4


def test_drift_of_a_text_is_seen_in_its_known_words(shared: Client, reviewed: str) -> None:
    assert shared.post(f"/v1/models/{reviewed}:promote", json={"version": 1}).status_code == 201
    strange = [
        {"comment": f"wholly unheard words {number}", "stars": 1 + number % 5} for number in range(100)
    ]
    shared.predict(reviewed, strange)
    report = shared.get(f"/v1/models/{reviewed}/drift").json()
    verdicts = {column["name"]: column["status"] for column in report["columns"]}
    assert verdicts["comment"] == "drift"
