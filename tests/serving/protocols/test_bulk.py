"""Predictions in bulk: Arrow streams, CSV and NDJSON are answered as JSON is, and refused where it is."""

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from arro3.core import Array, DataType, Table
from arro3.io import read_ipc_stream, write_ipc_stream

from app.serving.labels import probability_columns
from tests.client import Client, wait_until
from tests.conftest import Start
from tests.versions import register, train_here

pytestmark = pytest.mark.sqlite_alone

ARROW, CSV, NDJSON = "application/vnd.apache.arrow.stream", "text/csv", "application/x-ndjson"
NAMES = ["scheduled", "carrier", "distance", "wind", "international"]
ROWS = [{name: row[name] for name in NAMES} for row in Client.rows(rows=30, seed=3)] + [
    {"scheduled": "2013-05-31", "carrier": carrier, "distance": 700, "wind": None, "international": True}
    for carrier in ("", "never seen", 'with "quotes", and\r\nlines', "é")
]
DECIMAL = DataType.decimal128(10, 2)
TYPES = {
    "scheduled": DataType.utf8(),
    "carrier": DataType.utf8(),
    "distance": DataType.int64(),
    "wind": DataType.float64(),
    "international": DataType.bool(),
}


@pytest.fixture(scope="module")
def bulk(shared: Client, flights: str) -> str:
    """A classifier in service, a second version, and the alias `next` for that."""
    linear = train_here(shared, flights, algorithm="logistic_regression")
    register(shared, "bulk", linear, linear)
    assert shared.post("/v1/models/bulk:promote", json={"version": 1}).status_code == 201
    assert shared.put("/v1/models/bulk/aliases/next", json={"version": 2}).status_code == 201
    return "bulk"


def arrow(rows: list[dict[str, Any]], cast: dict[str, DataType] | None = None, **types: DataType) -> bytes:
    """A stream of the rows; the columns in ``cast`` are made of their usual type first."""
    columns = {name: Array([row[name] for row in rows], type_) for name, type_ in (TYPES | types).items()}
    return stream(columns | {name: columns[name].cast(type_) for name, type_ in (cast or {}).items()})


def stream(columns: Mapping[str, Any]) -> bytes:
    written = io.BytesIO()
    write_ipc_stream(Table.from_pydict(dict(columns)), written, compression=None)
    return written.getvalue()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    lines = [",".join(rows[0])] + [",".join(map(_field, row.values())) for row in rows]
    return "\n".join(lines).encode()


def _field(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return "" if value is None else json.dumps(value)


def as_ndjson(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


BODIES = {ARROW: arrow, CSV: as_csv, NDJSON: as_ndjson}


def ask(
    client: Client, model: str, body: bytes, media_type: str, accept: str = "*/*", at: str = ""
) -> httpx.Response:
    headers = {"content-type": media_type, "accept": accept}
    return client.post(f"/v1/models/{model}{at}:predict", content=body, headers=headers)


def read(answer: httpx.Response) -> dict[str, list[Any]]:
    """The columns of an answer, of probabilities one for each class, whatever its type."""
    assert answer.status_code == 200, answer.text
    match answer.headers["content-type"].partition(";")[0]:
        case "application/vnd.apache.arrow.stream":
            table = read_ipc_stream(io.BytesIO(answer.content)).read_all()
            return {name: list(table.column(name).to_pylist()) for name in table.column_names}
        case "text/csv":
            rows = list(csv.reader(io.StringIO(answer.text, newline="")))
            names, columns = rows[0], zip(*rows[1:], strict=True)
            read = {name: list(column) for name, column in zip(names, columns, strict=True)}
            return read | {
                name: [json.loads(field) for field in column]
                for name, column in read.items()
                if name != "prediction_id"
            }
        case "application/x-ndjson":
            lines = [json.loads(line) for line in answer.content.splitlines()]
        case _:
            body = answer.json()
            columns = zip(body["predictions"], body["probabilities"], body["prediction_ids"], strict=True)
            lines = [
                dict(zip(("prediction", "probabilities", "prediction_id"), row, strict=True))
                for row in columns
            ]
    return {
        "prediction": [line["prediction"] for line in lines],
        "probability_false": [line["probabilities"][0] for line in lines],
        "probability_true": [line["probabilities"][1] for line in lines],
        "prediction_id": [line["prediction_id"] for line in lines],
    }


def outcome(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: column for name, column in columns.items() if name != "prediction_id"}


@pytest.mark.parametrize("accept", [ARROW, CSV, NDJSON, "application/json", "image/png, */*"])
@pytest.mark.parametrize("media_type", [ARROW, CSV, NDJSON, "application/json"])
def test_every_form_is_answered_alike_in_every_form(
    shared: Client, bulk: str, media_type: str, accept: str
) -> None:
    expected = outcome(read(ask(shared, bulk, json.dumps({"instances": ROWS}).encode(), "application/json")))
    body = BODIES[media_type](ROWS) if media_type in BODIES else json.dumps({"instances": ROWS}).encode()
    answer = ask(shared, bulk, body, media_type, accept)
    found = read(answer)
    assert answer.headers["content-type"].partition(";")[0] == (media_type if "image" in accept else accept)
    assert outcome(found) == expected
    assert list(found) == ["prediction", "probability_false", "probability_true", "prediction_id"]
    assert len(set(found["prediction_id"])) == len(ROWS)
    for place in (0, 17, len(ROWS) - 1):
        recorded = shared.get(f"/v1/predictions/{found['prediction_id'][place]}").json()
        assert recorded["prediction"] == expected["prediction"][place]
        inputs = recorded["inputs"]
        assert {name: inputs[name] for name in NAMES} == ROWS[place]


def test_what_came_in_arrows_own_types_can_be_replayed(shared: Client, bulk: str) -> None:
    columns = {
        "scheduled": Array([1_370_009_700_000], DataType.int64()).cast(DataType.timestamp("ms", tz="UTC")),
        "carrier": Array(["B6"], DataType.utf8()).cast(DataType.dictionary(DataType.int8(), DataType.utf8())),
        "distance": Array([700.0], DataType.float32()),
        "wind": Array([float("nan")], DataType.float64()),
        "international": Array([False], DataType.bool()),
        "flight_id": Array([2**63], DataType.uint64()),
    }
    row = {"scheduled": "2013-05-31T14:15:00Z", "carrier": "B6", "distance": 700, "international": False}
    expected = shared.predict(bulk, [row])["probabilities"][0]
    found = read(ask(shared, bulk, stream(columns), ARROW))
    assert [found["probability_false"][0], found["probability_true"][0]] == expected
    replay = shared.post(f"/v1/predictions/{found['prediction_id'][0]}:replay").json()
    assert replay["same"] is True
    inputs = replay["recorded"]["inputs"]
    assert (inputs["carrier"], inputs["wind"], inputs["flight_id"]) == ("B6", None, 2**63)


def test_an_arrow_answer_says_who_gave_it(shared: Client, bulk: str) -> None:
    answer = ask(shared, bulk, arrow(ROWS), ARROW)
    table = read_ipc_stream(io.BytesIO(answer.content)).read_all()
    assert table.schema.metadata_str == {"model": bulk, "version": "1", "variant": "champion"}
    by_alias = ask(shared, bulk, as_csv(ROWS), CSV, at="/aliases/next")
    headers = {name: by_alias.headers.get(name) for name in ("x-model", "x-model-version", "x-variant")}
    assert headers == {"x-model": bulk, "x-model-version": "2", "x-variant": None}


@pytest.mark.parametrize(
    ("target", "algorithm", "type_"),
    [("international", "logistic_regression", "bool"), ("grade", "random_forest", "int64"),
     ("size", "random_forest", "large_utf8"), ("minutes", "ridge", "float64"),
     ("half", "random_forest", "float64")],
)  # fmt: skip
def test_predictions_have_the_type_of_the_target(
    shared: Client, target: str, algorithm: str, type_: str
) -> None:
    def outcomes(distance: int) -> dict[str, Any]:
        place = distance // 1000
        return {
            "grade": [-(2**63), 0, 2**63 - 1][place],
            "size": ["tiny", "größer, viel", "TINY"][place],
            "half": [0.0, 0.5, 1.0][place],
            "minutes": distance / 7,
        }

    rows = [row | outcomes(row["distance"]) for row in ROWS[:30]] * 3
    name = f"bulk-{target}"
    shared.add_dataset(name, as_ndjson(rows), NDJSON)
    trained = train_here(
        shared,
        name,
        target=target,
        algorithm=algorithm,
        features=["distance", "wind", "carrier"],
        **({"task": "multiclass"} if target == "half" else {}),
    )
    register(shared, name, trained)
    sent = [{column: row[column] for column in ("distance", "wind", "carrier")} for row in rows]
    expected = shared.predict(name, sent, at="/versions/1")
    answer = ask(shared, name, as_ndjson(sent), NDJSON, ARROW, at="/versions/1")
    table = read_ipc_stream(io.BytesIO(answer.content)).read_all()
    assert table.column("prediction").to_pylist() == expected["predictions"]
    assert table.column("prediction").type == getattr(DataType, type_)()
    shares = [column for column in table.column_names if column.startswith("probability_")]
    assert shares == probability_columns(expected.get("classes", []))
    assert [table.column(column).to_pylist() for column in shares] == [
        list(column) for column in zip(*expected.get("probabilities", []), strict=True)
    ]
    labels = [
        str(label).lower() if target == "international" else str(label) for label in expected["predictions"]
    ]
    text = ask(shared, name, as_ndjson(sent), NDJSON, CSV, at="/versions/1").text
    assert [row["prediction"] for row in csv.DictReader(io.StringIO(text, newline=""))] == labels
    assert text.splitlines()[0].split(",") == table.column_names


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json;q=0.5, text/csv", CSV),
        ("text/csv;q=0.4, application/x-ndjson;q=0.6, image/png", NDJSON),
        ("application/json;q=0, */*;q=0.1", ARROW),
        ("text/csv;q=0.9, */*", ARROW),
        ("", ARROW),
    ],
)
def test_an_answer_has_the_form_that_is_liked_best(
    shared: Client, bulk: str, accept: str, media_type: str
) -> None:
    answer = ask(shared, bulk, arrow(ROWS), ARROW, accept)
    assert answer.headers["content-type"].partition(";")[0] == media_type


# ── What is refused ──────────────────────────────────────────────────────────────────────────────


def refused(answer: httpx.Response, code: str) -> list[str]:
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["code"]) == (422, code), problem
    return [error["pointer"] for error in problem.get("errors", [])]


def changed(row: int, **values: Any) -> list[dict[str, Any]]:
    return [{**sent, **(values if place == row else {})} for place, sent in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("body", "media_type", "pointer"),
    [
        (as_csv(changed(9, distance=2.9)), CSV, "/rows/10/distance"),
        (as_csv(changed(9, distance=None)), CSV, "/rows/10/distance"),
        (as_csv(changed(9, international=1)), CSV, "/rows/10/international"),
        (as_csv(changed(9, wind=float("inf"))), CSV, "/rows/10/wind"),
        (b"gate," + as_csv(ROWS)[:56], CSV, "/rows/1"),
        (as_ndjson(changed(9, distance=2.9)), NDJSON, "/rows/10/distance"),
        (as_ndjson(changed(9, distance=True)), NDJSON, "/rows/10/distance"),
        (as_ndjson(changed(9, gate=1)), NDJSON, "/rows/10/gate"),
        (as_ndjson(ROWS) + b"\n[1, 2]", NDJSON, f"/rows/{len(ROWS) + 1}"),
        (arrow(changed(9, distance=2.9), distance=DataType.float64()), ARROW, "/columns/distance/9"),
        (arrow(changed(9, distance=None)), ARROW, "/columns/distance/9"),
        (arrow(changed(9, wind=float("-inf"))), ARROW, "/columns/wind/9"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_pointed_to(
    shared: Client, bulk: str, body: bytes, media_type: str, pointer: str
) -> None:
    answer = ask(shared, bulk, body, media_type)
    assert refused(answer, "malformed_csv" if pointer == "/rows/1" else "invalid_instances") == [pointer]


@pytest.mark.parametrize(
    ("body", "media_type", "code", "told"),
    [
        (b"", CSV, "empty_table", "no rows"),
        (b"\n\n", NDJSON, "empty_table", "no rows"),
        (b"carrier,distance\n", CSV, "empty_table", "no rows"),
        (arrow([]), ARROW, "empty_table", "no rows"),
        (b"distance,distance\n1,2\n", CSV, "duplicate_column", "same name"),
        (b"distance\n1\n2,3\n", CSV, "malformed_csv", "Row 2 has 2 fields"),
        (b'distance\n2"3"\n', CSV, "malformed_csv", "Row 1 has a quote"),
        (b'distance,carrier\n1,"AA\n2,BB\n', CSV, "malformed_csv", "out of place"),
        (b"distance,carrier\n1,\xff\n", CSV, "malformed_csv", "not UTF-8"),
        (b"distance,carrier\n1,\x00\n", CSV, "malformed_csv", "null character"),
        (b'{"distance": 1}\n{"distance": \n', NDJSON, "malformed_ndjson", "Row 2 is not JSON"),
        (b'{"wind": Infinity}', NDJSON, "malformed_ndjson", "not finite"),
        (b'{"carrier": "\\u0000"}', NDJSON, "malformed_ndjson", "U+0000"),
        (b"not arrow at all", ARROW, "malformed_arrow", "IPC streaming format"),
        (arrow(ROWS)[:-8], ARROW, "malformed_arrow", "end-of-stream marker"),
        (arrow(ROWS) + b"x", ARROW, "malformed_arrow", "bytes follow"),
        (arrow(ROWS, {"wind": DECIMAL}), ARROW, "unsupported_type", "the Arrow type decimal"),
        (arrow(changed(3, carrier="\0")), ARROW, "value_out_of_range", "row 3: the string holds a null"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_refused_in_words(
    shared: Client, bulk: str, body: bytes, media_type: str, code: str, told: str
) -> None:
    answer = ask(shared, bulk, body, media_type)
    refused(answer, code)
    assert told in answer.json()["detail"]


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_answered_while_the_body_still_arrives(start: Start) -> None:
    """And so the body is not held: its end waits for the answers to its begin."""
    client = start(max_instances=100)
    serve(client)
    line = as_csv(ROWS[:1]).splitlines()[1] + b"\n"

    def body() -> Iterator[bytes]:
        yield as_csv(ROWS[:1]).splitlines()[0] + b"\n" + line * 20_000
        wait_until(lambda: count_answered(client) >= 1000)
        yield line * 4000

    answer = client.post("/v1/models/flights:predict", content=body(), headers={"content-type": CSV})
    found = read(answer)
    assert len(found["prediction"]) == len(set(found["prediction_id"])) == 24_000
    assert len(set(found["probability_true"])) == 1
    assert not list(client.settings.scratch.glob("*/*/answer"))


def test_a_wrong_row_after_many_good_ones_gives_no_answer(start: Start) -> None:
    client = start()
    serve(client)
    rows = (json.dumps(ROWS[0]) + "\n").encode() * 9000 + b'{"distance": "far"}\n'
    answer = ask(client, "flights", rows, NDJSON)
    assert "/rows/9001/distance" in refused(answer, "invalid_instances")
    assert not list(client.settings.scratch.glob("*/*/answer"))


def test_limits_are_those_of_the_form(start: Start) -> None:
    client = start(max_request_bytes=3000, max_instances=20, max_upload_bytes=20_000)
    serve(client)
    small, large = ROWS[:20], ROWS * 2
    for media_type, limited in ((CSV, None), (NDJSON, None), (ARROW, "batch_too_large")):
        assert len(read(ask(client, "flights", BODIES[media_type](small), media_type))["prediction"]) == 20
        answer = ask(client, "flights", BODIES[media_type](large), media_type)
        if limited:
            refused(answer, limited)
        else:
            assert len(read(answer)["prediction"]) == len(large)
    refused(ask(client, "flights", as_csv(large), CSV, "application/json"), "too_many_instances")
    too_long = ask(client, "flights", as_csv(ROWS * 20), CSV)
    assert (too_long.status_code, too_long.json()["code"]) == (413, "body_too_large")
    json_body = json.dumps({"instances": large}).encode()
    assert ask(client, "flights", json_body, "application/json").status_code == 413


DICTIONARY = DataType.dictionary(DataType.int8(), DataType.utf8())


def sharing(rows: int, text: str, type_: DataType) -> bytes:
    """A stream of one batch, in all rows of which the carrier is one text that is sent once."""
    columns = {name: Array([ROWS[0][name]] * rows, kind) for name, kind in TYPES.items()}
    shared = Array([text], DataType.utf8()).cast(type_).take(Array([0] * rows, DataType.int32()))
    return stream(columns | {"carrier": shared})


@pytest.mark.parametrize(
    ("type_", "code", "told"),
    [
        (DataType.string_view(), "malformed_arrow", "show more text than a batch may have"),
        (DICTIONARY, "batch_too_large", "The texts of 20 rows take more than 50000 bytes"),
    ],
)
def test_a_long_text_that_many_rows_share_counts_in_each(
    start: Start, type_: DataType, code: str, told: str
) -> None:
    client = start(max_request_bytes=50_000)
    serve(client)
    assert len(read(ask(client, "flights", sharing(9, "x" * 5000, type_), ARROW))["prediction"]) == 9
    body = sharing(20, "x" * 5000, type_)
    assert len(body) < 20_000
    answer = ask(client, "flights", body, ARROW)
    refused(answer, code)
    assert told in answer.json()["detail"]


@pytest.mark.parametrize(
    ("rows", "part", "most"),
    [(4000, 50, 5_000_000), (10_000, 10_000, 90_000_000)],  # parts of few rows, and of few but long rows
)
def test_of_a_batch_one_part_is_in_memory_at_a_time(start: Start, rows: int, part: int, most: int) -> None:
    client = start(max_instances=part)
    serve(client)
    body = sharing(rows, "x" * 3000, DICTIONARY)  # as JSON or in base64, more than rows * 3000 bytes
    ask(client, "flights", sharing(1, "x", DICTIONARY), ARROW)  # what is loaded once is not counted
    tracemalloc.start()
    try:
        found = read(ask(client, "flights", body, ARROW))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found["prediction"]) == rows
    assert peak < most


def test_a_part_is_recorded_before_the_next_is_read(start: Start) -> None:
    client = start(max_instances=20)
    serve(client)
    before = count_answered(client)
    rows = [ROWS[0]] * 40 + [ROWS[0] | {"wind": float("inf")}] + [ROWS[0]] * 30
    assert refused(ask(client, "flights", arrow(rows), ARROW), "invalid_instances") == ["/columns/wind/40"]
    assert count_answered(client) == before + 40


def serve(client: Client) -> None:
    client.add_dataset("flights", client.table(rows=60, seed=1))
    register(client, "flights", train_here(client, "flights", algorithm="logistic_regression"))
    assert client.post("/v1/models/flights:promote", json={"version": 1}).status_code == 201


def count_answered(client: Client) -> float:
    """Of all the tests of this process, which serves each of them a server of its own."""
    lines = client.get("/metrics").text.splitlines()
    found = [
        line for line in lines if line.startswith("roundhouse_predictions_total{") and '"flights"' in line
    ]
    return sum(float(line.rpartition(" ")[2]) for line in found)
