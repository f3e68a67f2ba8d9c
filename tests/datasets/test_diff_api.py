"""The difference of two versions over HTTP."""

from typing import Any
from uuid import uuid4

import pytest

from tests.client import Client
from tests.datasets.test_datasets_api import code_of

pytestmark = pytest.mark.sqlite_alone

OLD = b"""id,name,price,day
1,a,1.5,2026-01-01
2,b,2.5,2026-01-02
3,c,,2026-01-03
3000000000,d,4.5,2026-01-04
"""
NEW = b"""id,name,price,day
2,b,2.5,2026-01-02
3,C,3.5,2026-01-03
3000000000,d,4.5,2026-01-05
5,,1e300,2026-01-06
"""


@pytest.fixture
def dataset(shared: Client) -> str:
    """A dataset with two versions."""
    name = f"diffed-{uuid4().hex[:8]}"
    shared.add_dataset(name, OLD)
    shared.add_version(name, NEW)
    return name


def diff(client: Client, dataset: str, a: int = 1, b: int = 2, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/datasets/{dataset}/versions/{a}/diff/{b}", params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_rows_are_added_removed_and_changed_by_key(shared: Client, dataset: str) -> None:
    found = diff(shared, dataset, key="id")
    assert found["old"] == {"dataset": dataset, "version": 1, "rows": 4}
    assert found["new"] == {"dataset": dataset, "version": 2, "rows": 4}
    assert found["rows"] == {
        "key": ["id"],
        "compared": ["id", "name", "price", "day"],
        "added": 1,
        "removed": 1,
        "changed": 2,
        "unchanged": 1,
        "changed_by_column": {"name": 1, "price": 1, "day": 1},
        "samples": {
            "added": [{"id": 5, "name": None, "price": 1e300, "day": "2026-01-06"}],
            "removed": [{"id": 1, "name": "a", "price": 1.5, "day": "2026-01-01"}],
            "changed": [
                {
                    "key": {"id": 3},
                    "changes": {"name": {"old": "c", "new": "C"}, "price": {"old": None, "new": 3.5}},
                },
                {
                    "key": {"id": 3000000000},
                    "changes": {"day": {"old": "2026-01-04", "new": "2026-01-05"}},
                },
            ],
        },
    }


def test_without_a_key_whole_rows_are_counted(shared: Client, dataset: str) -> None:
    rows = diff(shared, dataset, samples=2)["rows"]
    assert (rows["added"], rows["removed"], rows["changed"], rows["unchanged"]) == (3, 3, None, 1)
    assert [row["id"] for row in rows["samples"]["added"]] == [3, 3000000000]
    assert [row["id"] for row in rows["samples"]["removed"]] == [1, 3]
    assert rows["samples"]["changed"] == []


def test_the_way_back_mirrors_the_way_there(shared: Client, dataset: str) -> None:
    there, back = diff(shared, dataset, 1, 2, key="id"), diff(shared, dataset, 2, 1, key="id")
    for kind, mirrored in (("added", "removed"), ("removed", "added")):
        assert there["rows"][kind] == back["rows"][mirrored]
        assert there["rows"]["samples"][kind] == back["rows"]["samples"][mirrored]
    assert there["columns"]["changed"][0]["old"] == back["columns"]["changed"][0]["new"]


def test_columns_that_came_went_changed_or_moved_are_told(shared: Client) -> None:
    shared.add_dataset("reshaped", b"a,b,c,d,gone\n1,1,x,1.5,1\n2,2,y,2.5,2\n")
    shared.add_version("reshaped", b"d,a,b,c,come\n1.5,1,x,x,true\n2.5,3,y,,false\n")
    found = diff(shared, "reshaped")
    columns = found["columns"]
    assert columns["added"] == [{"name": "come", "type": "boolean", "nullable": False}]
    assert columns["removed"] == [{"name": "gone", "type": "integer", "nullable": False}]
    assert columns["changed"] == [
        {
            "old": {"name": "b", "type": "integer", "nullable": False},
            "new": {"name": "b", "type": "string", "nullable": False},
        },
        {
            "old": {"name": "c", "type": "string", "nullable": False},
            "new": {"name": "c", "type": "string", "nullable": True},
        },
    ]
    assert columns["reordered"] == ["d", "a", "b", "c"]
    assert found["rows"]["compared"] == ["a", "c", "d"]
    assert (found["rows"]["added"], found["rows"]["removed"], found["rows"]["unchanged"]) == (1, 1, 1)
    assert found["rows"]["samples"]["added"] == [{"d": 2.5, "a": 3, "b": "y", "c": None, "come": False}]


def test_versions_without_a_common_column_have_no_rows_to_compare(shared: Client) -> None:
    shared.add_dataset("strangers", b"a\n1\n")
    shared.add_version("strangers", b"b\n1\n")
    found = diff(shared, "strangers")
    assert found["rows"] is None
    assert found["shifts"]["columns"] == []


def test_a_version_differs_in_nothing_from_itself(shared: Client, dataset: str) -> None:
    found = diff(shared, dataset, 2, 2, key="name")
    assert found["columns"] == {"added": [], "removed": [], "changed": [], "reordered": []}
    rows = found["rows"]
    assert (rows["added"], rows["removed"], rows["changed"], rows["unchanged"]) == (0, 0, 0, 4)


def test_versions_of_two_datasets_can_be_compared(shared: Client, dataset: str) -> None:
    other = f"{dataset}-other"
    shared.add_dataset(other, NEW)
    assert diff(shared, dataset, 2, 1, of=other)["rows"]["unchanged"] == 4
    found = diff(shared, dataset, 1, 1, of=other, key="id")
    assert found["new"]["dataset"] == other
    assert found["rows"] == diff(shared, dataset, key="id")["rows"]


def test_a_key_that_repeats_is_refused_with_examples(shared: Client) -> None:
    shared.add_dataset("repeating", b"id,at,x\n1,1,1\n2,1,2\n,1,3\n")
    shared.add_version("repeating", b"id,at,x\n1,1,1\n1,2,2\n,1,3\n,2,3\n,3,3\n")
    url = "/v1/datasets/repeating/versions/1/diff/2"
    refused = shared.get(url, params={"key": "id"})
    assert code_of(refused, 422) == "key_not_unique"
    detail = refused.json()["detail"]
    assert "version 2 of 'repeating'" in detail
    assert "id = null (3 rows); id = '1' (2 rows)" in detail
    assert refused.json()["errors"][0]["pointer"] == "/query/key"
    rows = diff(shared, "repeating", key=["id", "at"])["rows"]
    assert rows["key"] == ["id", "at"]
    assert (rows["added"], rows["removed"], rows["changed"], rows["unchanged"]) == (3, 1, 0, 2)


@pytest.mark.parametrize(
    ("params", "code", "pointer"),
    [
        ({"key": "nothing"}, "invalid_key", "/query/key/0"),
        ({"key": ["id", "id"]}, "invalid_key", "/query/key/1"),
        ({"samples": 1001}, "invalid_input", "/query/samples"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_place(
    shared: Client, dataset: str, params: dict[str, Any], code: str, pointer: str
) -> None:
    for other in (1, 2):
        refused = shared.get(f"/v1/datasets/{dataset}/versions/1/diff/{other}", params=params)
        assert code_of(refused, 422) == code
        assert refused.json()["errors"][0]["pointer"] == pointer


def test_a_version_that_is_not_there_is_not_found(shared: Client, dataset: str) -> None:
    url = f"/v1/datasets/{dataset}/versions"
    assert code_of(shared.get(f"{url}/1/diff/3"), 404) == "dataset_version_not_found"
    assert code_of(shared.get(f"{url}/3/diff/1"), 404) == "dataset_version_not_found"
    assert code_of(shared.get(f"{url}/1/diff/2", params={"of": "nowhere"}), 404) == "dataset_not_found"


def test_a_shift_of_a_column_is_told(shared: Client) -> None:
    rows = [f"{number},{number % 7},{number % 3}" for number in range(500)]
    moved = [f"{number},{number % 7 + 3},{number % 3}" for number in range(500)]
    shared.add_dataset("shifted", "\n".join(["id,moved,same", *rows]).encode())
    shared.add_version("shifted", "\n".join(["id,moved,same", *moved]).encode())
    columns = diff(shared, "shifted", key="id")["shifts"]["columns"]
    assert [(column["name"], column["status"]) for column in columns] == [
        ("moved", "shifted"),
        ("same", "ok"),
    ]
    assert columns[0]["effect"] == pytest.approx(3 / 7, abs=0.01)
    assert (columns[1]["effect"], columns[1]["p_adjusted"]) == (0.0, 1.0)
