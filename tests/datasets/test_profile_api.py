"""Profiles over HTTP: made when a version comes, or when one is asked for."""

from typing import Any

from sqlalchemy import select, update

from app.datasets.models import DatasetVersion
from app.db import Database
from tests.client import Client

FLIGHTS = Client.table(rows=300, seed=4)


def stored_profile(client: Client, dataset: str) -> str | None:
    database = Database(client.settings.sqlalchemy_url)
    with database.session_scope(write=False) as session:
        digest = session.scalar(select(DatasetVersion.profile_digest).filter_by(dataset=dataset))
    database.dispose()
    return digest


def forget_profile(client: Client, dataset: str) -> None:
    database = Database(client.settings.sqlalchemy_url)
    with database.session_scope() as session:
        session.execute(update(DatasetVersion).filter_by(dataset=dataset).values(profile_digest=None))
    database.dispose()


def column_of(profile: dict[str, Any], name: str) -> dict[str, Any]:
    return next(column for column in profile["columns"] if column["name"] == name)


def test_a_version_comes_with_its_profile(shared: Client) -> None:
    shared.add_dataset("profiled", FLIGHTS)
    assert stored_profile(shared, "profiled") is not None
    profile = shared.get("/v1/datasets/profiled/versions/1/profile").json()
    assert (profile["rows"], profile["sampled_rows"], profile["target"]) == (300, 300, None)
    assert [column["name"] for column in profile["columns"]] == list(Client.rows(rows=1, seed=4)[0])
    carrier = column_of(profile, "carrier")
    carriers = [row["carrier"] for row in Client.rows(rows=300, seed=4)]
    assert carrier["nulls"] == carriers.count(None)
    assert {one["value"]: one["count"] for one in carrier["top"]} == {
        name: carriers.count(name) for name in ("AA", "B6", "UA")
    }
    assert [finding["columns"] for finding in profile["findings"]] == [["flight_id"]]


def test_a_version_without_a_profile_gets_it_when_it_is_asked_for(shared: Client) -> None:
    shared.add_dataset("unprofiled", FLIGHTS)
    before = stored_profile(shared, "unprofiled")
    forget_profile(shared, "unprofiled")
    profile = shared.get("/v1/datasets/unprofiled/versions/1/profile")
    assert profile.status_code == 200
    assert stored_profile(shared, "unprofiled") == before
    assert shared.get("/v1/datasets/unprofiled/versions/1/profile").content == profile.content


def test_a_target_is_compared_with_every_other_column(shared: Client) -> None:
    rows = [{**row, "outcome": f"was {row['late']}"} for row in Client.rows(rows=300, seed=4)]
    shared.add_dataset("targeted", Client.as_csv(rows))
    asked = shared.get("/v1/datasets/targeted/versions/1/profile", params={"target": "late"})
    target = asked.json()["target"]
    assert (target["column"], target["kind"]) == ("late", "classes")
    assert {one["column"] for one in target["associations"]} == rows[0].keys() - {"late"}
    strongest = target["associations"][0]
    assert (strongest["column"], strongest["measure"]) == ("outcome", "cramers_v")
    assert strongest["value"] > 0.99
    assert [(one["code"], one["columns"]) for one in target["findings"]] == [("leak_suspect", ["outcome"])]


def test_a_target_that_is_no_column_is_refused(shared: Client) -> None:
    shared.add_dataset("untargeted", FLIGHTS)
    answer = shared.get("/v1/datasets/untargeted/versions/1/profile", params={"target": "Late"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_column")
    assert answer.json()["errors"][0]["pointer"] == "/query/target"


def test_there_is_no_profile_of_what_is_not_there(shared: Client) -> None:
    shared.add_dataset("one-version", FLIGHTS)
    for path in ("one-version/versions/2", "no-such-dataset/versions/1"):
        assert shared.get(f"/v1/datasets/{path}/profile").status_code == 404


def test_people_get_a_page_and_programs_json(shared: Client) -> None:
    shared.add_dataset("asked-for", FLIGHTS)
    for accept, format_, media_type in (
        ("*/*", None, "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", None, "text/html; charset=utf-8"),
        ("application/json", "html", "text/html; charset=utf-8"),
        ("text/html", "json", "application/json"),
    ):
        answer = shared.get(
            "/v1/datasets/asked-for/versions/1/profile",
            params={"format": format_} if format_ else {},
            headers={"accept": accept},
        )
        assert answer.status_code == 200
        assert answer.headers["content-type"] == media_type
        assert "accept" in answer.headers["vary"]


def test_other_formats_are_refused(shared: Client) -> None:
    shared.add_dataset("as-image", FLIGHTS)
    answer = shared.get("/v1/datasets/as-image/versions/1/profile", headers={"accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


def test_the_page_may_load_and_run_nothing(shared: Client) -> None:
    shared.add_dataset("guarded-page", FLIGHTS)
    answer = shared.get("/v1/datasets/guarded-page/versions/1/profile", params={"format": "html"})
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"].startswith("'sha256-")
    assert "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
