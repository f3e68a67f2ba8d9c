"""Contracts over HTTP: proposed, changed and kept; what breaks them is quarantined until it is accepted."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.arrivals import Upload, add_upload
from app.datasets.contracts import service as contract_service
from app.datasets.contracts.check import Findings, check_table
from app.datasets.reading.decode import Limits
from app.datasets.reading.ingest import MediaType
from app.store import digest_of
from tests.client import Client
from tests.datasets.test_datasets_api import code_of, events_at
from tests.versions import opened

pytestmark = pytest.mark.sqlite_alone

Rule = dict[str, Any]


@pytest.fixture
def dataset(shared: Client) -> str:
    """An empty dataset."""
    name = f"contract-{uuid4().hex[:8]}"
    assert shared.post("/v1/datasets", json={"name": name}).status_code == 201
    return name


def put(client: Client, dataset: str, *rules: Rule) -> httpx.Response:
    return client.put(f"/v1/datasets/{dataset}/contract", json={"rules": list(rules)})


def report_of(client: Client, version: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(f"/v1/datasets/{version['dataset']}/versions/{version['version']}/report")
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def hours_ago(hours: float) -> str:
    return f"{datetime.now(UTC) - timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"


# ── Every rule, kept and broken ──────────────────────────────────────────────────────────────────

SAMPLE = {"row": 2, "values": {"a": -1}}
RULES: dict[str, tuple[Rule, str, str, dict[str, Any]]] = {
    # A rule, a file that keeps it, one that breaks it, and what is said of that.
    "required": (
        {"rule": "required", "column": "a"},
        "a,b\n1,2\n",
        "b\n2\n",
        {"columns": ["a"], "count": None, "samples": []},
    ),
    "column_type": (
        {"rule": "column_type", "column": "a", "type": "number"},
        "a\n1\n2\n",
        "a\n1\nx\n",
        {"columns": ["a"], "count": None, "samples": []},
    ),
    "no_other_columns": (
        {"rule": "no_other_columns"},
        "known\n1\n",
        "known,new,c\n1,2,3\n",
        {"columns": ["new", "c"], "count": None, "samples": []},
    ),
    "forbidden_columns": (
        {"rule": "forbidden_columns", "names": ["*password*", "ssn"]},
        "a\n1\n",
        "a,Old_Password_1,SSN\n1,2,3\n",
        {"columns": ["Old_Password_1", "SSN"], "count": None, "samples": []},
    ),
    "nulls": (
        {"rule": "nulls", "column": "a"},
        "a,b\n1,2\n3,\n",
        "a,b\n1,2\n,4\n",
        {"columns": ["a"], "count": 1, "samples": [{"row": 2, "values": {"a": None}}]},
    ),
    "nulls by share": (
        {"rule": "nulls", "column": "a", "max_share": 0.5},
        "a,b\n1,2\n,4\n",
        "a,b\n1,2\n,4\n,6\n",
        {"columns": ["a"], "count": 2},
    ),
    "range": (
        {"rule": "range", "column": "a", "min": 0, "max": 2.5},
        "a\n0\n2\n",
        "a\n0\n-1\n3\n",
        {"columns": ["a"], "count": 2, "samples": [SAMPLE, {"row": 3, "values": {"a": 3}}]},
    ),
    "range of times": (
        {"rule": "range", "column": "t", "min": "2024-01-01T00:00:00+01:00"},
        "t\n2023-12-31T23:00:00Z\n",
        "t\n2023-12-31T22:59:59Z\n",
        {"count": 1, "samples": [{"row": 1, "values": {"t": "2023-12-31T22:59:59Z"}}]},
    ),
    "range of dates": (
        {"rule": "range", "column": "d", "max": "2024-01-01"},
        "d\n2024-01-01\n",
        "d\n2024-01-02\n",
        {"count": 1, "samples": [{"row": 1, "values": {"d": "2024-01-02"}}]},
    ),
    "range of the largest integers": (
        {"rule": "range", "column": "a", "max": 2**53},
        f"a\n{2**53}\n",
        f"a\n{2**53}\n{2**53 + 1}\n",
        {"count": 1, "samples": [{"row": 2, "values": {"a": 2**53 + 1}}]},
    ),
    "allowed": (
        {"rule": "allowed", "column": "s", "values": ["AA", "it's"]},
        "s,b\nAA,1\nit's,2\n,3\n",
        "s,b\nAA,1\naa,2\n,3\n",
        {"columns": ["s"], "count": 1, "samples": [{"row": 2, "values": {"s": "aa"}}]},
    ),
    "allowed of many": (
        {"rule": "allowed", "column": "a", "values": list(range(500))},
        "a\n0\n499\n",
        "a\n500\n0\n",
        {"count": 1, "samples": [{"row": 1, "values": {"a": 500}}]},
    ),
    "matches": (
        {"rule": "matches", "column": "s", "pattern": "[A-Z]{2}"},
        "s\nAA\n",
        "s\nAAA\nAA\n",
        {"columns": ["s"], "count": 1, "samples": [{"row": 1, "values": {"s": "AAA"}}]},
    ),
    "unique": (
        {"rule": "unique", "columns": ["a"]},
        "a,b\n1,1\n2,1\n,1\n,1\n",
        "a,b\n1,1\n2,1\n1,1\n1,1\n,1\n,1\n",
        {
            "columns": ["a"],
            "count": 2,
            "samples": [{"row": 3, "values": {"a": 1}}, {"row": 4, "values": {"a": 1}}],
        },
    ),
    "unique together": (
        {"rule": "unique", "columns": ["a", "b"]},
        "a,b\n1,1\n1,2\n",
        "a,b\n1,1\n1,2\n1,2\n",
        {"columns": ["a", "b"], "count": 1, "samples": [{"row": 3, "values": {"a": 1, "b": 2}}]},
    ),
    "compare": (
        {
            "rule": "compare",
            "that": {
                "any": [
                    {"column": "cancelled", "op": "=", "value": True},
                    {
                        "all": [
                            {"column": "left", "op": "is not null"},
                            {"column": "left", "op": "<=", "other": "came"},
                        ]
                    },
                ]
            },
        },
        "left,came,cancelled\n1,2.5,false\n,,true\n3,,false\n",
        "left,came,cancelled\n1,2.5,false\n3,2.5,false\n,2.5,false\n",
        {
            "columns": ["cancelled", "left", "came"],
            "count": 2,
            "samples": [
                {"row": 2, "values": {"cancelled": False, "left": 3, "came": 2.5}},
                {"row": 3, "values": {"cancelled": False, "left": None, "came": 2.5}},
            ],
        },
    ),
    "row_count": (
        {"rule": "row_count", "min": 2, "max": 3},
        "a\n1\n2\n",
        "a\n1\n2\n3\n4\n",
        {"columns": [], "count": None},
    ),
    "freshness": (
        {"rule": "freshness", "column": "t", "max_age": "2d"},
        f"t\n2001-01-01T00:00:00Z\n{hours_ago(40)}\n",
        f"t\n2001-01-01T00:00:00Z\n{hours_ago(50)}\n",
        {"columns": ["t"], "count": None, "samples": []},
    ),
    "a rule of another type": (
        {"rule": "range", "column": "a", "min": 0},
        "a\n1\n",
        "a\ntext\n",
        {"columns": ["a"], "count": None, "samples": []},
    ),
}


@pytest.mark.parametrize("name", list(RULES))
def test_a_version_that_breaks_a_rule_is_quarantined_and_one_that_keeps_it_accepted(
    shared: Client, dataset: str, name: str
) -> None:
    rule, kept, broken, expected = RULES[name]
    rules = [{"rule": "column_type", "column": "known", "type": "integer", "severity": "warn"}, rule]
    assert put(shared, dataset, *rules).status_code == 200
    good = shared.add_version(dataset, kept.encode())
    assert (good["status"], good["contract"], good["release"]) == ("accepted", 1, None)
    assert report_of(shared, good)["violations"] == []
    bad = shared.add_version(dataset, broken.encode())
    assert (bad["status"], bad["contract"]) == ("quarantined", 1)
    report = report_of(shared, bad)
    assert (report["status"], report["contract"], report["rows"]) == ("quarantined", 1, bad["rows"])
    (violation,) = report["violations"]
    assert (violation["rule"], violation["severity"], violation["pointer"]) == (
        rule["rule"],
        "error",
        "/rules/1",
    )
    assert {key: violation[key] for key in expected} == expected
    assert all(column in violation["detail"] for column in violation["columns"][:1]) or name == "compare"


def test_a_column_that_has_drifted_from_its_reference_is_quarantined(shared: Client, dataset: str) -> None:
    def rows(shift: int, words: str) -> bytes:
        lines = [f"{number * 37 % 1000 + shift},{words[number % len(words)]}" for number in range(2000)]
        return "\n".join(["a,s", *lines, ""]).encode()

    shared.add_version(dataset, rows(0, "xxy"))
    rule = {"rule": "drift", "reference": 1, "max": 0.1}
    rules = [rule | {"column": "a"}, rule | {"column": "s", "measure": "psi"}]
    assert put(shared, dataset, *rules).status_code == 200
    assert shared.add_version(dataset, rows(1, "xyx"))["status"] == "accepted"
    moved = shared.add_version(dataset, rows(400, "xxy"))
    assert [one["columns"] for one in report_of(shared, moved)["violations"]] == [["a"]]
    assert "version 1" in report_of(shared, moved)["violations"][0]["detail"]
    new = shared.add_version(dataset, rows(2, "xzz"))
    assert [one["columns"] for one in report_of(shared, new)["violations"]] == [["s"]]


def test_a_warning_is_reported_and_quarantines_nothing(shared: Client, dataset: str) -> None:
    put(shared, dataset, {"rule": "range", "column": "a", "max": 0, "severity": "warn"})
    version = shared.add_version(dataset, b"a\n1\n")
    assert version["status"] == "accepted"
    assert [one["severity"] for one in report_of(shared, version)["violations"]] == ["warn"]


def test_a_rule_about_an_absent_column_is_left_out_and_said_to_be(shared: Client, dataset: str) -> None:
    compare = {"rule": "compare", "that": {"column": "a", "op": "<", "other": "b"}}
    put(shared, dataset, {"rule": "column_type", "column": "b", "type": "string"}, compare)
    report = report_of(shared, shared.add_version(dataset, b"a\n1\n"))
    assert (report["status"], report["checked"], report["violations"]) == ("accepted", 0, [])
    assert [one["pointer"] for one in report["unchecked"]] == ["/rules/0", "/rules/1"]
    assert all("'b'" in one["reason"] for one in report["unchecked"])


def test_versions_of_before_the_contract_have_no_report(shared: Client, dataset: str) -> None:
    version = shared.add_version(dataset, b"a\n1\n")
    assert (version["status"], version["contract"]) == ("accepted", None)
    url = f"/v1/datasets/{dataset}/versions/1"
    assert code_of(shared.get(f"{url}/report"), 404) == "report_not_found"
    assert code_of(shared.post(f"{url}:check"), 404) == "contract_not_found"
    assert code_of(shared.get(f"/v1/datasets/{dataset}/versions/2/report"), 404)
    put(shared, dataset, {"rule": "range", "column": "a", "max": 0})
    checked = shared.post(f"{url}:check")
    assert checked.status_code == 200
    assert (checked.json()["status"], checked.json()["violations"][0]["count"]) == ("quarantined", 1)
    assert shared.get(url).json() == version
    assert events_at(shared, f"datasets/{dataset}/versions") == ["dataset_version.created"]


def test_a_contract_that_comes_in_force_during_the_check_is_kept_to(
    shared: Client, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_slowly(*args: Any, **options: Any) -> Findings:
        put(shared, dataset, {"rule": "range", "column": "a", "min": 0})
        return check_table(*args, **options)

    monkeypatch.setattr(contract_service, "check_table", check_slowly)
    put(shared, dataset, {"rule": "required", "column": "a"})
    path = tmp_path / "upload"
    path.write_bytes(b"a\n-1\n")
    upload = Upload(path, MediaType.CSV, digest_of(path), Limits(size=1000, ratio=10))
    caller = Caller("tests", Role.ADMIN, datetime.now(UTC))
    with opened(shared.settings) as (database, store, _):
        version, _ = add_upload(database, store, caller, dataset, upload)
    assert (version.contract, version.status) == (2, "quarantined")


def test_a_derived_version_is_checked_like_an_upload(shared: Client, dataset: str) -> None:
    put(shared, dataset, {"rule": "unique", "columns": ["a"]})
    first = shared.add_version(dataset, b"a\n1\n2\n")
    assert first["status"] == "accepted"
    appended = shared.post(
        f"/v1/datasets/{dataset}/versions/1:append",
        content=b"a\n3\n1\n",
        headers={"content-type": "text/csv"},
    )
    assert appended.status_code == 201, appended.text
    assert appended.json()["status"] == "quarantined"
    (violation,) = report_of(shared, appended.json())["violations"]
    assert (violation["count"], violation["samples"]) == (1, [{"row": 4, "values": {"a": 1}}])


def test_parts_and_samples_need_not_be_as_many_and_as_new_as_the_whole(shared: Client, dataset: str) -> None:
    rows = "".join(f"{n},{hours_ago(1 if n == 9 else 99)}\n" for n in range(10))
    put(
        shared,
        dataset,
        {"rule": "row_count", "min": 10},
        {"rule": "freshness", "column": "at", "max_age": "24h"},
        {"rule": "range", "column": "n", "max": 8},
    )
    whole = shared.add_version(dataset, f"n,at\n{rows}".encode())
    assert [found["rule"] for found in report_of(shared, whole)["violations"]] == ["range"]
    url = f"/v1/datasets/{dataset}/versions"
    parts = shared.post(f"{url}/1:split", json={"parts": {"a": 0.5, "b": 0.5}}).json()["parts"].values()
    sample = shared.post(f"{url}/1:sample", json={"rows": 3}).json()
    broken = 0
    for part in [*parts, sample]:
        assert part["status"] == shared.post(f"{url}/{part['version']}:check").json()["status"]
        report = report_of(shared, part)
        assert [left["pointer"] for left in report["unchecked"]] == ["/rules/0", "/rules/1"]
        assert all("some rows of another" in left["reason"] for left in report["unchecked"])
        assert report["checked"] == 1
        broken += part["status"] == "quarantined"
    assert broken >= 1  # the rule about values is kept to: the 9 is in one of the parts


# ── Proposing and changing ───────────────────────────────────────────────────────────────────────


def test_a_proposal_holds_for_its_version_and_changes_nothing(shared: Client, flights: str) -> None:
    answer = shared.post(f"/v1/datasets/{flights}/contract:infer", json={"version": 1})
    assert answer.status_code == 200
    assert answer.json()["version"] == 1
    rules = answer.json()["rules"]
    by_column = {
        rule["column"]: rule
        for rule in rules
        if rule["rule"] in ("range", "allowed") and rule["severity"] == "error"
    }
    assert by_column["carrier"]["values"] == ["AA", "B6", "UA"]
    assert by_column["distance"]["min"] == pytest.approx(-1350, abs=100)
    assert by_column["distance"]["max"] == pytest.approx(4450, abs=100)
    assert {"rule": "range", "severity": "warn", "column": "distance", "min": 0} in rules
    assert {"rule": "unique", "severity": "error", "columns": ["flight_id"]} in rules
    assert {"rule": "row_count", "severity": "error", "min": 200, "max": 4000} in rules
    nulls = {rule["column"]: rule["max_share"] for rule in rules if rule["rule"] == "nulls"}
    assert (nulls["distance"], 0.15 < nulls["wind"] < 0.5) == (0, True)
    assert code_of(shared.get(f"/v1/datasets/{flights}/contract"), 404) == "contract_not_found"
    name = f"copy-{uuid4().hex[:8]}"
    shared.post("/v1/datasets", json={"name": name})
    assert put(shared, name, *rules).status_code == 200
    version = shared.add_version(name, shared.table(rows=400, seed=1))
    assert version["status"] == "accepted"
    assert report_of(shared, version)["checked"] == len(rules)
    assert shared.add_version(name, shared.table(rows=400, seed=2))["status"] == "accepted"


def test_of_an_empty_or_unknown_dataset_nothing_is_proposed(shared: Client, dataset: str) -> None:
    for name in (dataset, "no-such-dataset"):
        assert shared.post(f"/v1/datasets/{name}/contract:infer", json={}).status_code == 404


def test_each_change_has_the_next_number_and_the_same_rules_keep_theirs(shared: Client, dataset: str) -> None:
    url = f"/v1/datasets/{dataset}/contract"
    assert code_of(shared.get(url), 404) == "contract_not_found"
    one, two = {"rule": "row_count", "min": 1}, {"rule": "row_count", "min": 2}
    first = put(shared, dataset, one).json()
    assert (first["number"], first["dataset"], first["created_by"]) == (1, dataset, "admin")
    assert first["rules"] == [{"rule": "row_count", "severity": "error", "min": 1}]
    assert put(shared, dataset, one).json() == first
    assert shared.put(url, json={"rules": first["rules"]}).json() == first
    assert put(shared, dataset, two).json()["number"] == 2
    assert put(shared, dataset, one).json()["number"] == 3
    assert shared.get(url).json()["number"] == 3
    assert shared.get(url, params={"number": 1}).json() == first
    assert code_of(shared.get(url, params={"number": 4}), 404) == "contract_not_found"
    listed = shared.get(f"/v1/datasets/{dataset}/contracts").json()
    assert [item["number"] for item in listed["items"]] == [3, 2, 1]
    assert events_at(shared, f"datasets/{dataset}/contract") == ["dataset_contract.changed"] * 3
    assert put(shared, "no-such-dataset", one).status_code == 404


def test_a_true_is_another_value_than_a_1(shared: Client, dataset: str) -> None:
    for number, value in enumerate([1, True, 1.0], start=1):
        contract = put(shared, dataset, {"rule": "allowed", "column": "a", "values": [value]}).json()
        assert (contract["number"], json.dumps(contract["rules"][0]["values"])) == (
            number,
            json.dumps([value]),
        )


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "range", "column": "name", "min": 1},
        {"rule": "matches", "column": "count", "pattern": "a+"},
        {"rule": "allowed", "column": "count", "values": ["a"]},
        {"rule": "freshness", "column": "name", "max_age": "7d"},
        {"rule": "compare", "that": {"column": "name", "op": "<", "other": "count"}},
    ],
)
def test_a_rule_that_does_not_suit_the_columns_is_refused_with_its_place(
    shared: Client, dataset: str, rule: Rule
) -> None:
    shared.add_version(dataset, b"name,count\na,1\nb,2\n")
    refused = put(shared, dataset, {"rule": "row_count"}, rule)
    assert code_of(refused, 422) == "unsuitable_rule"
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/rules/1"]
    assert shared.get(f"/v1/datasets/{dataset}/contract").status_code == 404


def test_a_contract_may_ask_for_other_types_than_there_are(shared: Client, dataset: str) -> None:
    shared.add_version(dataset, b"a\nx\n")
    number = {"rule": "column_type", "column": "a", "type": "number"}
    answer = put(shared, dataset, number, {"rule": "range", "column": "a", "min": 1})
    assert answer.status_code == 200, answer.text


def test_one_row_is_told_of_as_one(shared: Client, dataset: str) -> None:
    rules: list[Rule] = [
        {"rule": "unique", "columns": ["a"]},
        {"rule": "range", "column": "a", "min": 3},
        {"rule": "row_count", "min": 9},
    ]
    put(shared, dataset, *rules)
    report = report_of(shared, shared.add_version(dataset, b"a,b\n1,1\n4,2\n4,3\n"))
    assert [violation["detail"] for violation in report["violations"]] == [
        "1 row repeats what another holds in 'a'.",
        "1 value of column 'a' lies outside of 3 to ….",
        "The table has 3 rows; it must have at least 9.",
    ]


def test_contracts_put_at_once_are_numbered_without_gaps(shared: Client, dataset: str) -> None:
    rules: list[Rule] = [{"rule": "row_count", "min": number} for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda rule: put(shared, dataset, rule), rules))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["number"] for answer in answers) == list(range(1, 9))


WRONG: dict[str, tuple[Rule, str]] = {
    "a rule of no kind": ({"column": "a"}, "/rules/0"),
    "an unknown kind": ({"rule": "sql", "that": "1 = 1"}, "/rules/0"),
    "an unknown field": ({"rule": "required", "column": "a", "sql": "1"}, "/rules/0/sql"),
    "no column": ({"rule": "range", "min": 1}, "/rules/0/column"),
    "no bound": ({"rule": "range", "column": "a"}, "/rules/0"),
    "a min beyond the max": ({"rule": "range", "column": "a", "min": 2, "max": 1}, "/rules/0"),
    "a first time after the last": (
        {"rule": "range", "column": "a", "min": "2026-01-01T12:00:00+01:00", "max": "2026-01-01T10:00:00"},
        "/rules/0",
    ),
    "a number and a time": ({"rule": "range", "column": "a", "min": 1, "max": "2026-01-01"}, "/rules/0"),
    "more rows than at most": ({"rule": "row_count", "min": 2, "max": 1}, "/rules/0"),
    "more rows than there can be": ({"rule": "row_count", "min": 2**63}, "/rules/0/min"),
    "a column twice": ({"rule": "unique", "columns": ["a", "a"]}, "/rules/0/columns"),
    "no values": ({"rule": "allowed", "column": "a", "values": []}, "/rules/0/values"),
    "a share beyond 1": ({"rule": "nulls", "column": "a", "max_share": 2}, "/rules/0/max_share"),
    "a truth for a number": ({"rule": "row_count", "max": False}, "/rules/0/max"),
    "a text for a number": ({"rule": "nulls", "column": "a", "max_share": "0.5"}, "/rules/0/max_share"),
    "a truth for a distance": (
        {"rule": "drift", "column": "a", "reference": 1, "max": True},
        "/rules/0/max",
    ),
    "an age of no unit": ({"rule": "freshness", "column": "a", "max_age": "12"}, "/rules/0/max_age"),
    "a pattern that is none": ({"rule": "matches", "column": "a", "pattern": "("}, "/rules/0/pattern"),
    "a comparison with SQL": ({"rule": "compare", "that": "a < b"}, "/rules/0/that"),
    "an operator of no kind": (
        {"rule": "compare", "that": {"column": "a", "op": "like", "value": "x"}},
        "/rules/0/that/op",
    ),
    "a comparison with two": (
        {"rule": "compare", "that": {"column": "a", "op": "=", "value": 1, "other": "b"}},
        "/rules/0/that",
    ),
    "a comparison with nothing": (
        {"rule": "compare", "that": {"all": [{"column": "a", "op": "="}]}},
        "/rules/0/that/all/0",
    ),
    "no reference": ({"rule": "drift", "column": "a", "reference": 9, "max": 1}, "/rules/0/reference"),
    "a reference without the column": (
        {"rule": "drift", "column": "b", "reference": 1, "max": 1},
        "/rules/0/column",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_contract_is_refused_with_the_place(shared: Client, dataset: str, name: str) -> None:
    rule, place = WRONG[name]
    shared.add_version(dataset, b"a\n1\n")
    answer = put(shared, dataset, rule)
    code_of(answer, 422)
    assert [error["pointer"] for error in answer.json()["errors"]] == [place]
    assert shared.get(f"/v1/datasets/{dataset}/contract").status_code == 404


@pytest.mark.parametrize("text", ["'; DROP TABLE data; --", '" OR 1=1', "\\", "%s ?", "🛫\n"])
def test_what_looks_like_sql_is_but_a_name_or_a_value(shared: Client, dataset: str, text: str) -> None:
    column = text.replace("\n", "")
    rules: list[Rule] = [
        {"rule": "required", "column": column},
        {"rule": "allowed", "column": column, "values": [text, "x"]},
        {"rule": "matches", "column": column, "pattern": "(?s).*"},
        {"rule": "compare", "that": {"column": column, "op": "!=", "value": "y"}},
        {"rule": "unique", "columns": [column]},
    ]
    assert put(shared, dataset, *rules).status_code == 200
    rows = [{column: text}, {column: "x"}, {column: "y"}]
    ndjson = "".join(json.dumps(row) + "\n" for row in rows).encode()
    report = report_of(shared, shared.add_version(dataset, ndjson, "application/x-ndjson"))
    assert [(one["rule"], one["count"]) for one in report["violations"]] == [("allowed", 1), ("compare", 1)]
    assert report["violations"][0]["samples"] == [{"row": 3, "values": {column: "y"}}]


# ── Quarantine and training ──────────────────────────────────────────────────────────────────────


def train(client: Client, dataset: str, **fields: Any) -> httpx.Response:
    body = {"model": f"of-{dataset}", "dataset": dataset, "target": "late", "algorithm": "dummy", **fields}
    return client.post("/v1/training-runs", json=body)


@pytest.fixture
def quarantined(shared: Client, dataset: str) -> str:
    """A dataset whose first version is accepted and whose second is not."""
    put(shared, dataset, {"rule": "range", "column": "distance", "max": 3000})
    shared.add_version(dataset, shared.table(rows=60, seed=3))
    rows = shared.rows(rows=60, seed=4)
    rows[7]["distance"] = 99_999
    assert shared.add_version(dataset, shared.as_csv(rows))["status"] == "quarantined"
    return dataset


def test_training_takes_the_newest_accepted_version_and_says_which(shared: Client, quarantined: str) -> None:
    run = train(shared, quarantined)
    assert (run.status_code, run.json()["dataset_version"]) == (202, 1)


def test_training_refuses_what_is_quarantined_until_an_engineer_accepts_it(
    shared: Client, quarantined: str
) -> None:
    refused = train(shared, quarantined, dataset_version=2)
    assert code_of(refused, 409) == "data_quarantined"
    assert f"/v1/datasets/{quarantined}/versions/2/report" in refused.json()["detail"]
    assert shared.get(f"/v1/models/of-{quarantined}").status_code == 404
    url = f"/v1/datasets/{quarantined}/versions/2"
    accepted = shared.as_role("engineer").post(f"{url}:accept", json={"reason": "A charter. I asked."})
    assert accepted.status_code == 200
    version = accepted.json()
    assert (version["status"], version["release"]["reason"]) == ("quarantined", "A charter. I asked.")
    assert version["release"]["created_by"].startswith("engineer-")
    assert shared.get(url).json() == version
    assert shared.get(f"/v1/datasets/{quarantined}/versions").json()["items"][0] == version
    again = shared.post(f"{url}:accept", json={"reason": "Another reason."})
    assert (again.status_code, again.json()) == (200, version)
    assert events_at(shared, url.removeprefix("/v1/")) == [
        "dataset_version.accepted",
        "dataset_version.created",
    ]
    for run in (train(shared, quarantined, dataset_version=2), train(shared, quarantined)):
        assert (run.status_code, run.json()["dataset_version"]) == (202, 2)


def test_where_nothing_is_accepted_training_names_the_newest(shared: Client, dataset: str) -> None:
    put(shared, dataset, {"rule": "row_count", "min": 1000})
    shared.add_version(dataset, shared.table(rows=60, seed=3))
    refused = train(shared, dataset)
    assert code_of(refused, 409) == "data_quarantined"
    assert "Version 1 " in refused.json()["detail"]


def test_a_looser_contract_releases_nothing(shared: Client, quarantined: str) -> None:
    put(shared, quarantined)
    assert shared.get(f"/v1/datasets/{quarantined}/versions/2").json()["status"] == "quarantined"
    assert train(shared, quarantined, dataset_version=2).status_code == 409
    assert shared.post(f"/v1/datasets/{quarantined}/versions/2:check").json()["status"] == "accepted"


def test_only_what_is_quarantined_is_accepted_and_only_with_a_reason(
    shared: Client, quarantined: str
) -> None:
    url = f"/v1/datasets/{quarantined}/versions"
    assert code_of(shared.post(f"{url}/1:accept", json={"reason": "why not"}), 409) == "not_quarantined"
    assert shared.post(f"{url}/9:accept", json={"reason": "why not"}).status_code == 404
    for body in ({}, {"reason": ""}, {"reason": " \n"}):
        answer = shared.post(f"{url}/2:accept", json=body)
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/reason"]


def test_who_accepts_at_once_accepts_once(shared: Client, quarantined: str) -> None:
    url = f"/v1/datasets/{quarantined}/versions/2"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: shared.post(f"{url}:accept", json={"reason": f"{n}"}), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["release"]["reason"] for answer in answers}) == 1
    assert events_at(shared, url.removeprefix("/v1/")).count("dataset_version.accepted") == 1


ROLES: dict[str, Callable[[Client, str], httpx.Response]] = {
    "infer": lambda client, name: client.post(f"/v1/datasets/{name}/contract:infer", json={}),
    "put": lambda client, name: put(client, name, {"rule": "row_count", "min": 1}),
    "check": lambda client, name: client.post(f"/v1/datasets/{name}/versions/1:check"),
    "report": lambda client, name: client.get(f"/v1/datasets/{name}/versions/1/report"),
    "accept": lambda client, name: client.post(
        f"/v1/datasets/{name}/versions/2:accept", json={"reason": "I asked."}
    ),
}


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("client", set()),
        ("viewer", {"infer", "check", "report"}),
        ("scientist", {"infer", "check", "report", "put"}),
        ("engineer", set(ROLES)),
    ],
)
def test_roles_reach_what_they_may(shared: Client, quarantined: str, role: str, may: set[str]) -> None:
    client = shared.as_role(role)
    answers = {name: ask(client, quarantined).status_code for name, ask in ROLES.items()}
    assert answers == {name: 200 if name in may else 403 for name in ROLES}
