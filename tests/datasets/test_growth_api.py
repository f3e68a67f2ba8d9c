"""Versions made of versions over HTTP: appended to, split, sampled, described, exported in part."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from operator import eq, ge, gt, le, lt, ne
from typing import Any
from uuid import uuid4

import httpx
import pytest
from arro3.io import read_parquet
from sqlalchemy import select

from app.datasets.growth import MAX_PARTS
from app.datasets.models import DatasetVersion
from app.datasets.reading.ingest import MediaType
from tests.client import Client
from tests.versions import opened

pytestmark = pytest.mark.sqlite_alone

CSV = {"content-type": "text/csv"}
NDJSON = {"content-type": "application/x-ndjson"}
ROWS = Client.rows(rows=400, seed=1)
"""Those of the dataset ``flights``."""


def code_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    code: str = answer.json()["code"]
    return code


def pointers(answer: httpx.Response) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


def rows_of(client: Client, version: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    url = f"/v1/datasets/{version['dataset']}/versions/{version['version']}/content"
    answer = client.get(url, params=query, headers={"accept": MediaType.NDJSON})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def events_at(client: Client, subject: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = client.get("/v1/events", params={"subject": subject}).json()["items"]
    return events


@pytest.fixture
def base(shared: Client) -> dict[str, Any]:
    """A version of a dataset of its own, of 40 rows."""
    return shared.add_dataset(f"grown-{uuid4().hex[:8]}", Client.as_csv(ROWS[:40]))


def url_of(version: dict[str, Any], verb: str = "") -> str:
    return f"/v1/datasets/{version['dataset']}/versions/{version['version']}{verb}"


def append(
    client: Client, version: dict[str, Any], content: bytes, headers: dict[str, str] = CSV, **query: Any
) -> httpx.Response:
    return client.post(url_of(version, ":append"), content=content, headers=headers, params=query)


# ── Append ───────────────────────────────────────────────────────────────────────────────────────


def test_appended_rows_make_the_version_that_all_of_them_would(shared: Client, base: dict[str, Any]) -> None:
    answer = append(shared, base, Client.as_csv(ROWS[40:60]))
    assert answer.status_code == 201, answer.text
    grown = answer.json()
    assert answer.headers["location"] == url_of(grown)
    assert (grown["version"], grown["rows"]) == (2, 60)
    assert grown["origin"] == {"kind": "append", "base": 1}
    assert rows_of(shared, grown) == ROWS[:60]
    whole = shared.post(
        f"/v1/datasets/{base['dataset']}/versions", content=Client.as_csv(ROWS[:60]), headers=CSV
    )
    assert (whole.status_code, whole.json()) == (200, grown)
    assert [event["action"] for event in events_at(shared, f"datasets/{base['dataset']}/versions/2")] == [
        "dataset_version.created"
    ]


def test_the_same_append_again_is_the_same_version(shared: Client, base: dict[str, Any]) -> None:
    more = Client.as_csv(ROWS[40:50])
    first = append(shared, base, more)
    again = append(shared, base, more)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    twice = append(shared, first.json(), more)
    assert (twice.status_code, twice.json()["rows"]) == (201, 60)
    # The appended bytes by themselves are another table.
    alone = shared.post(f"/v1/datasets/{base['dataset']}/versions", content=more, headers=CSV)
    assert (alone.status_code, alone.json()["rows"]) == (201, 10)


def test_an_append_shares_the_files_of_its_base(shared: Client, base: dict[str, Any]) -> None:
    version = base
    parts = [parts_of(shared, base)]
    for number in range(MAX_PARTS + 3):
        version = append(shared, version, Client.as_csv(ROWS[40 + number : 41 + number])).json()
        parts.append(parts_of(shared, version))
    assert rows_of(shared, version) == ROWS[: 40 + MAX_PARTS + 3]
    assert max(map(len, parts)) == MAX_PARTS
    for before, after in pairwise(parts[:MAX_PARTS]):
        assert after[:-1] == before
    assert all(len(after) <= MAX_PARTS for after in parts)
    assert len(parts[-1]) < MAX_PARTS


def parts_of(client: Client, version: dict[str, Any]) -> list[str]:
    with opened(client.settings) as (database, _, _), database.session_scope(write=False) as session:
        query = select(DatasetVersion.parts).filter_by(dataset=version["dataset"], number=version["version"])
        parts: list[str] = session.scalars(query).one()
        return parts


def test_an_append_is_read_with_the_types_of_its_base(shared: Client) -> None:
    name = f"typed-{uuid4().hex[:8]}"
    base = shared.add_dataset(name, b"code,amount,note\n007,1.5,x\n008,2.5,\n")
    assert [column["type"] for column in base["columns"]] == ["string", "number", "string"]
    # By themselves these would be integers, and a column of another order.
    grown = append(shared, base, b"amount,code,note\n3,12,\n").json()
    assert rows_of(shared, grown)[-1] == {"code": "12", "amount": 3.0, "note": None}
    without = append(shared, base, b'{"amount": 3, "code": "12"}\n', NDJSON).json()
    assert without == grown
    assert [column["nullable"] for column in grown["columns"]] == [False, False, True]


def test_all_columns_that_hold_nulls_may_be_left_out(shared: Client) -> None:
    name = f"sparse-{uuid4().hex[:8]}"
    base = shared.add_dataset(name, b"id,a,b,c\n1,x,2.5,2024-01-01\n2,,,\n")
    grown = append(shared, base, b"id\n3\n").json()
    assert rows_of(shared, grown)[-1] == {"id": 3, "a": None, "b": None, "c": None}


@pytest.mark.parametrize(
    ("content", "code", "at"),
    [
        (b"code,amount\n1,2\n", "missing_column", "/columns/note"),
        (b"code,amount,note,more\n1,2,a,b\n", "unknown_column", "/columns/more"),
        (b"other\n1\n", "missing_column", "/columns/"),
        (b"code,amount,note\n1,many,a\n", None, "/rows/1/columns/amount"),
        (b"", "empty_table", ""),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_leave_nothing(
    shared: Client, content: bytes, code: str | None, at: str
) -> None:
    name = f"misfit-{uuid4().hex[:8]}"
    base = shared.add_dataset(name, b"code,amount,note\nx7,1.5,x\nx8,2.5,y\n")
    answer = append(shared, base, content)
    assert answer.status_code == 422, answer.text
    assert code in (None, answer.json()["code"])
    assert pointers(answer)[0].startswith(at)
    assert [
        version["version"] for version in shared.get(f"/v1/datasets/{name}/versions").json()["items"]
    ] == [1]


def test_a_type_that_is_not_the_bases_is_refused(shared: Client, base: dict[str, Any]) -> None:
    answer = append(shared, base, Client.as_csv(ROWS[40:41]), types="distance:string")
    assert code_of(answer, 422) == "invalid_recipe"
    assert pointers(answer) == ["/recipe/types/distance"]


# ── Split and sample ─────────────────────────────────────────────────────────────────────────────


def test_a_split_makes_a_version_of_each_part(shared: Client, base: dict[str, Any]) -> None:
    asked = {"parts": {"train": 0.7, "test": 0.3}, "seed": 3}
    answer = shared.post(url_of(base, ":split"), json=asked)
    assert answer.status_code == 201, answer.text
    parts = answer.json()["parts"]
    assert answer.headers["location"] == f"/v1/datasets/{base['dataset']}/versions"
    assert {part: version["rows"] for part, version in parts.items()} == {"train": 28, "test": 12}
    assert parts["test"]["origin"] == {
        "kind": "split", "base": 1, "part": "test", "share": 0.3, "seed": 3,
    }  # fmt: skip
    train, test = (rows_of(shared, parts[part]) for part in ("train", "test"))
    assert [row for row in ROWS[:40] if row in train] == train
    assert [row for row in ROWS[:40] if row not in train] == test
    again = shared.post(url_of(base, ":split"), json=asked)
    assert (again.status_code, again.json()) == (200, answer.json())
    other = shared.post(url_of(base, ":split"), json=asked | {"seed": 4}).json()["parts"]
    assert other["train"]["content_digest"] != parts["train"]["content_digest"]


def test_parts_that_hold_the_same_table_are_refused(shared: Client) -> None:
    name = f"alike-{uuid4().hex[:8]}"
    base = shared.add_dataset(name, b"a\n1\n1\n1\n1\n")
    answer = shared.post(url_of(base, ":split"), json={"parts": {"train": 0.5, "test": 0.5}})
    assert code_of(answer, 422) == "same_parts"
    assert pointers(answer) == ["/parts/test"]
    assert len(shared.get(f"/v1/datasets/{name}/versions").json()["items"]) == 1
    uneven = shared.post(url_of(base, ":split"), json={"parts": {"train": 0.75, "test": 0.25}})
    assert uneven.status_code == 201, uneven.text


@pytest.mark.parametrize(
    ("verb", "body", "other"),
    [
        (":split", {"parts": {"a": 0.5, "b": 0.5}}, {"parts": {"a": 0.4, "b": 0.6}}),
        (":sample", {"rows": 3}, {"rows": 4}),
    ],
)
def test_a_repeated_request_gets_the_first_answer(
    shared: Client, base: dict[str, Any], verb: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    headers = {"idempotency-key": f"{base['dataset']}{verb}"}
    first, again = (shared.post(url_of(base, verb), json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.json(), again.headers["location"]) == (first.json(), first.headers["location"])
    assert code_of(shared.post(url_of(base, verb), json=other, headers=headers), 422) == (
        "idempotency_key_reused"
    )


def test_an_upload_goes_by_its_content_and_not_by_its_key(shared: Client, base: dict[str, Any]) -> None:
    headers = CSV | {"idempotency-key": base["dataset"]}
    one, other = (append(shared, base, Client.as_csv(ROWS[n : n + 1]), headers) for n in (50, 51))
    assert (one.json()["version"], other.json()["version"]) == (2, 3)


def test_the_newest_data_are_not_a_part_of_others(shared: Client, flights: str) -> None:
    name = f"whole-{uuid4().hex[:8]}"
    base = shared.add_dataset(name, Client.as_csv(ROWS[:60]))
    split = shared.post(url_of(base, ":split"), json={"parts": {"train": 0.8, "test": 0.2}})
    assert split.status_code == 201
    assert shared.post(url_of(base, ":sample"), json={"rows": 5}).status_code == 201
    run = {"model": name, "dataset": name, "target": "late", "algorithm": "dummy"}
    asked = shared.post("/v1/training-runs", json=run).json()
    assert asked["dataset_version"] == 1
    shared.post(f"/v1/training-runs/{asked['id']}:cancel")


def test_a_split_does_not_depend_on_how_the_version_is_stored(shared: Client, base: dict[str, Any]) -> None:
    grown = append(shared, base, Client.as_csv(ROWS[40:90])).json()
    whole = shared.add_dataset(f"whole-{uuid4().hex[:8]}", Client.as_csv(ROWS[:90]))
    asked = {"parts": {"a": 0.5, "b": 0.5}, "seed": 11, "stratify": "carrier"}
    one, other = (
        shared.post(url_of(version, ":split"), json=asked).json()["parts"] for version in (grown, whole)
    )
    for part in ("a", "b"):
        assert one[part]["content_digest"] == other[part]["content_digest"]


def test_groups_are_not_torn_apart(shared: Client, flights: str) -> None:
    answer = shared.post(
        f"/v1/datasets/{flights}/versions/1:split",
        json={"parts": {"a": 0.5, "b": 0.3, "c": 0.2}, "by": "scheduled", "seed": 1},
    )
    assert answer.status_code == 201, answer.text
    times = [{row["scheduled"] for row in rows_of(shared, part)} for part in answer.json()["parts"].values()]
    assert sum(map(len, times)) == len(set.union(*times))
    assert sum(part["rows"] for part in answer.json()["parts"].values()) == len(ROWS)


@pytest.mark.parametrize(
    ("body", "code", "at"),
    [
        ({"parts": {"a": 0.5, "b": 0.4}}, "invalid_input", ""),
        ({"parts": {"a": 0.5, "b": 0.5}, "by": "carrier", "stratify": "late"}, "invalid_input", ""),
        ({"parts": {}}, "invalid_input", "/parts"),
        ({"parts": {"a": 1.5, "b": -0.5}}, "invalid_input", "/parts/a"),
        ({"parts": {"a b": 1}}, "invalid_input", "/parts"),
        ({"parts": {"a": "0.5", "b": 0.5}}, "invalid_input", "/parts/a"),
        ({"parts": {"a": 1}, "seed": -1}, "invalid_input", "/seed"),
        ({"parts": {"a": 1}, "seed": 1.5}, "invalid_input", "/seed"),
        ({"parts": {"a": 1}, "by": "nothing"}, "unknown_column", "/by"),
        ({"parts": {"a": 1}, "by": "wind"}, "unsuitable_column", "/by"),
        ({"parts": {"a": 1}, "stratify": "nothing"}, "unknown_column", "/stratify"),
        ({"parts": {"a": 0.999, "b": 0.001}}, "empty_part", "/parts/b"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(
    shared: Client, flights: str, body: dict[str, Any], code: str, at: str
) -> None:
    answer = shared.post(f"/v1/datasets/{flights}/versions/1:split", json=body)
    assert code_of(answer, 422) == code
    assert pointers(answer)[0].startswith(at)


def test_a_sample_has_the_size_that_is_asked_for(shared: Client, base: dict[str, Any]) -> None:
    answer = shared.post(url_of(base, ":sample"), json={"rows": 10, "seed": 5})
    assert answer.status_code == 201, answer.text
    sample = answer.json()
    assert answer.headers["location"] == url_of(sample)
    assert sample["origin"] == {"kind": "sample", "base": 1, "rows": 10, "seed": 5}
    rows = rows_of(shared, sample)
    assert len(rows) == sample["rows"] == 10
    assert rows == [row for row in ROWS[:40] if row in rows]
    share = shared.post(url_of(base, ":sample"), json={"fraction": 0.25, "seed": 5})
    assert (share.status_code, share.json()) == (200, sample)


def test_a_stratified_sample_keeps_the_shares_of_values(shared: Client, flights: str) -> None:
    sample = shared.post(
        f"/v1/datasets/{flights}/versions/1:sample", json={"fraction": 0.5, "stratify": "carrier", "seed": 5}
    ).json()
    held = Counter(row["carrier"] for row in rows_of(shared, sample))
    for carrier, count in Counter(row["carrier"] for row in ROWS).items():
        assert abs(held[carrier] - count / 2) < 1
    assert sample["rows"] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_input"),
        ({"rows": 1, "fraction": 0.5}, "invalid_input"),
        ({"rows": 0}, "invalid_input"),
        ({"fraction": 0}, "invalid_input"),
        ({"fraction": 1.01}, "invalid_input"),
        ({"rows": 401}, "too_few_rows"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(
    shared: Client, flights: str, body: dict[str, Any], code: str
) -> None:
    assert code_of(shared.post(f"/v1/datasets/{flights}/versions/1:sample", json=body), 422) == code


@pytest.mark.parametrize("verb", [":append", ":split", ":sample"])
def test_what_is_not_there_does_not_grow(shared: Client, flights: str, verb: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        ":append": {"content": b"a\n1\n", "headers": CSV},
        ":split": {"json": {"parts": {"a": 1}}},
        ":sample": {"json": {"rows": 1}},
    }
    body = bodies[verb]
    assert code_of(shared.post(f"/v1/datasets/nowhere/versions/1{verb}", **body), 404) == "dataset_not_found"
    missing = shared.post(f"/v1/datasets/{flights}/versions/99999{verb}", **body)
    assert code_of(missing, 404) == "dataset_version_not_found"


# ── Descriptions and tags ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["", "/versions/1"])
def test_descriptions_and_tags_can_change_and_nothing_else(
    shared: Client, base: dict[str, Any], path: str
) -> None:
    url, subject = f"/v1/datasets/{base['dataset']}{path}", f"datasets/{base['dataset']}{path}"
    before = shared.get(url).json()
    changed = shared.patch(
        url, json={"description": "of 2013", "tags": {"source": "airport", "draft": "yes"}}
    )
    assert changed.status_code == 200, changed.text
    assert changed.json() == before | {
        "description": "of 2013", "tags": {"source": "airport", "draft": "yes"},
    }  # fmt: skip
    again = shared.patch(url, json={"tags": {"draft": None, "year": "2013"}}).json()
    assert again == before | {"description": "of 2013", "tags": {"source": "airport", "year": "2013"}}
    assert shared.get(url).json() == again
    action = "dataset_version.described" if path else "dataset.described"
    newest, older = [event for event in events_at(shared, subject) if event["action"] == action]
    assert newest["detail"] == {"description": None, "tags": {"draft": None, "year": "2013"}}
    assert older["detail"]["description"] == "of 2013"


def test_a_tag_that_is_none_is_refused_in_words(shared: Client) -> None:
    answer = shared.get("/v1/datasets", params={"tag": "env=prod"})
    assert pointers(answer) == ["/query/tag/0"]
    assert "source:airport" in answer.text
    assert "A-Z" not in answer.text


def test_lists_can_be_asked_by_tag(shared: Client, base: dict[str, Any]) -> None:
    url, name = f"/v1/datasets/{base['dataset']}", base["dataset"]
    shared.add_version(name, b"a\n1\n")
    shared.patch(f"{url}/versions/1", json={"tags": {"kind": "a:b", "unique.tag": name}})
    shared.patch(f"{url}/versions/2", json={"tags": {"kind": "c", "unique.tag": name}})
    shared.patch(url, json={"tags": {"unique.tag": name}})

    def versions(*tags: str) -> list[int]:
        items = shared.get(f"{url}/versions", params={"tag": list(tags)}).json()["items"]
        return [item["version"] for item in items]

    assert versions() == [2, 1]
    assert versions(f"unique.tag:{name}") == [2, 1]
    assert versions("kind:a:b") == versions("kind:a:b", f"unique.tag:{name}") == [1]
    assert versions("kind:a:b", "kind:c") == versions("kind:a") == versions("nothing:") == []
    found = shared.get("/v1/datasets", params={"tag": f"unique.tag:{name}"}).json()["items"]
    assert [dataset["name"] for dataset in found] == [name]
    assert code_of(shared.get("/v1/datasets", params={"tag": "no-value"}), 422) == "invalid_input"


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"description": "x" * 2001}, "/description"),
        ({"tags": {"a:b": "c"}}, "/tags"),
        ({"tags": {"": "c"}}, "/tags"),
        ({"tags": {"a": 1}}, "/tags/a"),
        ({"tags": {"a": "x" * 257}}, "/tags/a"),
        ({"tags": {str(number): "" for number in range(51)}}, "/tags"),
        ({"rows": 3}, "/rows"),
    ],
)
def test_a_description_beyond_the_limits_is_refused(
    shared: Client, base: dict[str, Any], body: dict[str, Any], at: str
) -> None:
    answer = shared.patch(url_of(base), json=body)
    assert code_of(answer, 422) == "invalid_input"
    assert pointers(answer)[0].startswith(at)


def test_tags_added_bit_by_bit_have_the_same_limit(shared: Client, base: dict[str, Any]) -> None:
    assert shared.patch(url_of(base), json={"tags": {str(n): "" for n in range(40)}}).status_code == 200
    answer = shared.patch(url_of(base), json={"tags": {f"more-{n}": "" for n in range(20)}})
    assert code_of(answer, 422) == "too_many_tags"
    assert len(shared.get(url_of(base)).json()["tags"]) == 40


# ── Content in part ──────────────────────────────────────────────────────────────────────────────

TESTS: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    *(
        (f"distance{sign}1500", lambda row, compare=compare: compare(row["distance"], 1500))
        for sign, compare in (("=", eq), ("!=", ne), ("<", lt), ("<=", le), (">", gt), (">=", ge))
    ),
    ("wind>15", lambda row: row["wind"] is not None and row["wind"] > 15),
    ("wind<1.5e1", lambda row: row["wind"] is not None and row["wind"] < 15),
    ("wind:null", lambda row: row["wind"] is None),
    ("wind:present", lambda row: row["wind"] is not None),
    ("carrier=UA", lambda row: row["carrier"] == "UA"),
    ("carrier!=UA", lambda row: row["carrier"] not in (None, "UA")),
    ("carrier>=B", lambda row: row["carrier"] in ("B6", "UA")),
    ("late=true", lambda row: row["late"]),
    ("late!=true", lambda row: not row["late"]),
    ("scheduled<2013-03-01T00:00:00Z", lambda row: row["scheduled"] < "2013-03"),
    ("scheduled>=2013-03-01T02:00:00+02:00", lambda row: row["scheduled"] >= "2013-03"),
    ("scheduled>=2013-03-01T00:00", lambda row: row["scheduled"] >= "2013-03"),
]


@pytest.mark.parametrize(("where", "holds"), TESTS, ids=[where for where, _ in TESTS])
def test_rows_are_chosen_by_conditions(
    shared: Client, flights: str, where: str, holds: Callable[[dict[str, Any]], bool]
) -> None:
    expected = [row for row in ROWS if holds(row)]
    assert 0 < len(expected) < len(ROWS) or where == "distance=1500" or where == "distance!=1500"
    assert rows_of(shared, {"dataset": flights, "version": 1}, where=where) == expected


def test_all_conditions_hold_at_once_and_columns_come_as_asked(shared: Client, flights: str) -> None:
    version = {"dataset": flights, "version": 1}
    found = rows_of(
        shared, version, where=["distance>=1000", "late=true"], columns=["late", "distance"], limit=7
    )
    expected = [row for row in ROWS if row["distance"] >= 1000 and row["late"]][:7]
    assert [list(row.items()) for row in found] == [
        [("late", row["late"]), ("distance", row["distance"])] for row in expected
    ]


@pytest.mark.parametrize("media_type", [MediaType.CSV, MediaType.PARQUET, MediaType.ARROW_STREAM])
def test_a_part_of_the_content_comes_in_every_format(
    shared: Client, flights: str, media_type: MediaType
) -> None:
    answer = shared.get(
        f"/v1/datasets/{flights}/versions/1/content",
        params={"columns": ["carrier", "distance"], "where": ["distance>2900"]},
        headers={"accept": media_type},
    )
    again = shared.add_dataset(f"part-{uuid4().hex[:8]}", answer.content, media_type)
    assert rows_of(shared, again) == [
        {"carrier": row["carrier"], "distance": row["distance"]} for row in ROWS if row["distance"] > 2900
    ]


def test_a_table_without_rows_still_has_its_columns(shared: Client, flights: str) -> None:
    url, query = f"/v1/datasets/{flights}/versions/1/content", {"where": "distance>999999"}
    text = shared.get(url, params=query, headers={"accept": "text/csv"}).text
    assert list(csv.reader(io.StringIO(text))) == [list(ROWS[0])]
    parquet = shared.get(url, params=query).content
    assert read_parquet(io.BytesIO(parquet)).schema.names == list(ROWS[0])


def test_names_may_hold_the_signs_of_conditions(shared: Client) -> None:
    rows = [{"a": 1, "a=b": 5, "a>": 7, "x:null": "y"}, {"a": 2, "a=b": 6, "a>": 8, "x:null": None}]
    content = "\n".join(map(json.dumps, rows)).encode()
    version = shared.add_dataset(f"signs-{uuid4().hex[:8]}", content, MediaType.NDJSON)
    for where in ("a=2", "a=b>5", "a>=8", "a>>7", "x:null:null"):
        assert rows_of(shared, version, where=where) == rows[1:], where


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ({"columns": ["late", "nothing"]}, "/query/columns/1"),
        ({"columns": ["late", "late"]}, "/query/columns/1"),
        ({"where": ["late=true", "nothing=1"]}, "/query/where/1"),
        ({"where": "distance"}, "/query/where/0"),
        ({"where": "distance~1"}, "/query/where/0"),
        ({"where": "distance:void"}, "/query/where/0"),
        ({"where": "distance=1.5"}, "/query/where/0"),
        ({"where": "distance=9223372036854775808"}, "/query/where/0"),
        ({"where": "distance=1 OR 1=1"}, "/query/where/0"),
        ({"where": "wind=NaN"}, "/query/where/0"),
        ({"where": "wind=1e999"}, "/query/where/0"),
        ({"where": "late>true"}, "/query/where/0"),
        ({"where": "late=1"}, "/query/where/0"),
        ({"where": "carrier=\0"}, "/query/where/0"),
        ({"where": "scheduled=2013"}, "/query/where/0"),
        ({"where": "scheduled=2013-02-30T00:00:00Z"}, "/query/where/0"),
        ({"limit": 0}, "/query/limit"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(
    shared: Client, flights: str, query: dict[str, Any], at: str
) -> None:
    answer = shared.get(f"/v1/datasets/{flights}/versions/1/content", params=query)
    assert answer.status_code == 422, answer.text
    assert pointers(answer) == [at]


@pytest.mark.parametrize("view", ["content", "preview", "profile", "diff/1"])
def test_a_misspelt_parameter_is_refused(shared: Client, flights: str, view: str) -> None:
    url = f"/v1/datasets/{flights}/versions/1/{view}"
    answer = shared.get(url, params={"column": "late", "limits": 1})
    assert answer.status_code == 422, answer.text
    assert pointers(answer) == ["/query/column", "/query/limits"]
    assert shared.get(url).status_code == 200


def test_every_parameter_of_a_dataset_is_described(shared: Client) -> None:
    paths = shared.get("/openapi.json").json()["paths"]
    untold = [
        f"{path} {parameter['name']}"
        for path, operations in paths.items()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if path.startswith("/v1/datasets") and parameter["in"] == "query" and not parameter.get("description")
    ]
    assert untold == []
    append = paths["/v1/datasets/{dataset}/versions/{version}:append"]["post"]
    assert "409" in append["responses"]


def test_texts_are_values_and_never_sql(shared: Client, flights: str) -> None:
    for text in ("' OR '1'='1", "UA' --", "');DROP TABLE x;--", "\\", "🛫"):
        assert rows_of(shared, {"dataset": flights, "version": 1}, where=f"carrier={text}") == []


def test_a_formula_is_exported_as_the_data_it_is(shared: Client) -> None:
    version = shared.add_dataset(f"formula-{uuid4().hex[:8]}", b'a\n"=1+1"\n@x\n')
    answer = shared.get(url_of(version, "/content"), headers={"accept": "text/csv"})
    assert answer.text == '"a"\n=1+1\n@x\n'
