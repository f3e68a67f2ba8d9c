from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from app.datasets.models import DatasetVersion, DataStatus
from app.registry.signature import Task
from app.training.comparison import service as comparison_service
from app.training.evaluation import evaluate
from app.training.slots import Slots
from tests.client import Client
from tests.versions import opened, register, train_here


def compare(client: Client, model: str, versions: str = "1,2", **query: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/models/{model}/compare", params={"versions": versions, **query})
    assert answer.status_code == httpx.codes.OK, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(client: Client, model: str, versions: str = "1,2", **query: Any) -> tuple[int, str, str]:
    answer = client.get(f"/v1/models/{model}/compare", params={"versions": versions, **query})
    problem = answer.json()
    return answer.status_code, problem["code"], problem["detail"]


def a_name(kind: str) -> str:
    return f"{kind}-{uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def linear(shared: Client, flights: str) -> dict[str, Any]:
    return train_here(shared, flights, algorithm="logistic_regression")


@pytest.fixture(scope="module")
def distances(shared: Client, flights: str) -> list[dict[str, Any]]:
    """Two regressions."""
    return [
        train_here(shared, flights, target="distance", algorithm=algorithm, metric="neg_max_error")
        for algorithm in ("dummy", "ridge")
    ]


@pytest.fixture(scope="module")
def constant_answer(shared: Client, flights: str) -> dict[str, Any]:
    return train_here(shared, flights, algorithm="dummy")


def registered(client: Client, *trained: dict[str, Any]) -> str:
    name = a_name("compared")
    register(client, name, *trained)
    return name


def without_record(trained: dict[str, Any]) -> dict[str, Any]:
    """As a release registered it that kept no holdouts and measured no times."""
    told = {name: trained["evaluation"][name] for name in ("rows", "notes", "dropped", "choice")}
    return trained | {"holdout_digest": None, "evaluation": told}


# ── Rows in common ───────────────────────────────────────────────────────────────────────────────


def test_versions_of_one_data_version_are_compared_on_the_rows_that_both_held_out(
    shared: Client, delays: str
) -> None:
    found = compare(shared, delays)
    assert found["basis"] == {
        "kind": "holdout",
        "dataset": "flights",
        "version": 1,
        "available": 80,
        "rows": 80,
    }
    assert found["warnings"] == []
    assert [one["scored"] for one in found["versions"]] == ["at_training", "at_training"]
    for one in found["versions"]:
        own = shared.get(f"/v1/models/{delays}/versions/{one['version']}").json()
        assert {name: metric["value"] for name, metric in one["metrics"].items()} == pytest.approx(
            own["metrics"], abs=1e-5
        )
    first, second = (one["metrics"]["roc_auc"] for one in found["versions"])
    (pair,) = found["pairs"]
    difference = pair["differences"]["roc_auc"]
    assert difference["value"] == pytest.approx(second["value"] - first["value"], abs=1e-5)
    assert difference["interval"][0] < difference["value"] < difference["interval"][1]
    assert pair["tests"]["roc_auc"]["difference"] == pytest.approx(difference["value"], abs=1e-5)
    assert 0 <= pair["tests"]["accuracy"]["p_value"] <= 1


@pytest.mark.sqlite_alone
def test_it_tells_who_is_better_and_what_sets_the_versions_apart(
    shared: Client, linear: dict[str, Any], constant_answer: dict[str, Any]
) -> None:
    found = compare(shared, registered(shared, linear, constant_answer), "2,1")
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"]) == (2, 1)
    assert pair["differences"]["log_loss"]["better"] == 1
    assert pair["differences"]["roc_auc"]["better"] == 1
    assert pair["tests"]["roc_auc"]["p_value"] < 0.01
    assert {change["pointer"]: (change["first"], change["second"]) for change in pair["spec"]} == {
        "/algorithm": ("dummy", "logistic_regression")
    }
    assert {"pointer": "/algorithm", "first": "dummy", "second": "logistic_regression"} in pair["fitted"]
    assert pair["same_data"] is True
    assert pair["data_diff"] is None
    assert pair["environment"] == []
    for one in found["versions"]:
        assert one["served"]["runtime"] == "compiled"
        assert one["served"]["bytes"] > 0
        assert one["served"]["row_microseconds"] > 0


@pytest.mark.sqlite_alone
def test_each_version_is_compared_with_the_first_and_the_tests_allow_for_it(
    shared: Client, linear: dict[str, Any], constant_answer: dict[str, Any]
) -> None:
    found = compare(shared, registered(shared, linear, constant_answer, constant_answer), "1,2,3")
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [(1, 2), (1, 3)]
    for pair in found["pairs"]:
        test = pair["tests"]["accuracy"]
        assert test["p_adjusted"] == pytest.approx(min(1.0, 2 * test["p_value"]))


@pytest.mark.sqlite_alone
def test_a_version_of_appended_data_is_compared_on_rows_new_to_the_other_and_held_out_by_both(
    shared: Client,
) -> None:
    dataset = a_name("grown")
    shared.add_dataset(dataset, shared.table(rows=700, seed=3))
    appended = shared.post(
        f"/v1/datasets/{dataset}/versions/1:append",
        content=shared.table(rows=200, seed=4),
        headers={"content-type": "text/csv"},
    )
    assert appended.status_code == httpx.codes.CREATED, appended.text
    older, newer = (
        train_here(shared, dataset, version, algorithm="dummy", seed=version) for version in (1, 2)
    )
    model = registered(shared, older, newer)
    found = compare(shared, model)
    # The newer version held out 180 of 900 rows: about 40 are new to the older one, and 28 it held out too.
    assert (found["basis"]["version"], found["basis"]["kind"]) == (2, "holdout")
    assert 50 < found["basis"]["rows"] < 90
    assert found["warnings"] == []
    assert [one["scored"] for one in found["versions"]] == ["now", "at_training"]
    (pair,) = found["pairs"]
    assert (pair["same_data"], pair["data_diff"]) == (False, f"/v1/datasets/{dataset}/versions/1/diff/2")
    assert shared.get(pair["data_diff"]).json()["rows"]["added"] == 200
    page = shared.get(f"/v1/models/{model}/compare", params={"versions": "1,2", "format": "html"})
    assert f"GET {pair['data_diff']}" in page.text
    # Of the older data's rows there are but those that both have held out.
    on_old = compare(shared, model, dataset=dataset, dataset_version=1)
    assert on_old["basis"]["kind"] == "dataset"
    assert 20 <= on_old["basis"]["rows"] < 50
    assert {one["scored"] for one in on_old["versions"]} == {"at_training"}


@pytest.mark.sqlite_alone
def test_what_a_version_is_scored_anew_is_what_it_answers(
    shared: Client, linear: dict[str, Any], constant_answer: dict[str, Any]
) -> None:
    model, dataset = registered(shared, linear, constant_answer), a_name("fresh")
    rows = shared.rows(rows=150, seed=9)
    shared.add_dataset(dataset, shared.as_csv(rows))
    found = compare(shared, model, dataset=dataset)
    assert found["basis"] == {
        "kind": "dataset",
        "dataset": dataset,
        "version": 1,
        "available": 150,
        "rows": 150,
    }
    assert [one["scored"] for one in found["versions"]] == ["now", "now"]
    assert len(found["warnings"]) == 2
    assert found["warnings"][0].startswith("Version 1 may have seen these rows: it learnt from version 1 of")
    features = [{name: value for name, value in row.items() if name != "late"} for row in rows]
    told = shared.predict(model, features, at="/versions/1")
    actual = np.array([row["late"] for row in rows], dtype=np.intp)
    chances = np.array(told["probabilities"])
    expected = evaluate(Task.BINARY, actual, chances.argmax(axis=1), chances)
    values = {name: metric["value"] for name, metric in found["versions"][0]["metrics"].items()}
    assert values == pytest.approx(expected, abs=1e-5)


@pytest.mark.sqlite_alone
def test_a_version_without_a_record_of_its_holdout_is_compared_with_a_warning(
    shared: Client, linear: dict[str, Any], constant_answer: dict[str, Any]
) -> None:
    found = compare(shared, registered(shared, without_record(linear), constant_answer))
    assert found["basis"]["rows"] == 80
    assert [one["scored"] for one in found["versions"]] == ["now", "at_training"]
    assert found["versions"][0]["served"]["row_microseconds"] is None
    assert found["warnings"] == [
        "Version 1 may have seen these rows: it was trained by a release that kept no record of the rows "
        "held out."
    ]


@pytest.mark.sqlite_alone
def test_classes_that_only_one_version_knows_are_told_apart_by_the_other_never(shared: Client) -> None:
    rows = shared.rows(rows=300, seed=5)
    for row in rows:
        row["kind"] = "far" if row["distance"] > 2000 else "near" if row["distance"] < 900 else "middle"
    more = [row | {"kind": "farthest" if row["distance"] > 2600 else row["kind"]} for row in rows]
    trained = []
    for table in (rows, more):
        dataset = a_name("kinds")
        shared.add_dataset(dataset, shared.as_csv(table))
        features = ["distance", "wind"]
        trained.append(
            train_here(shared, dataset, target="kind", algorithm="decision_tree", features=features)
        )
    found = compare(shared, registered(shared, *trained))
    assert sorted(found["classes"]) == ["far", "farthest", "middle", "near"]
    (pair,) = found["pairs"]
    assert pair["tests"]["roc_auc"] is None
    assert pair["differences"]["accuracy"]["better"] == 2
    assert found["warnings"][0].startswith("Version 1 may have seen these rows")


@pytest.mark.sqlite_alone
def test_regressions_are_compared_by_their_errors(shared: Client, distances: list[dict[str, Any]]) -> None:
    found = compare(shared, registered(shared, *distances))
    assert (found["task"], found["classes"], found["metric"]) == ("regression", None, "neg_max_error")
    assert found["versions"][0]["metrics"]["neg_max_error"]["interval"] is None
    (pair,) = found["pairs"]
    assert pair["tests"] == {"roc_auc": None, "accuracy": None}
    assert pair["differences"]["rmse"]["interval"] is not None


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.sqlite_alone
def test_versions_of_different_targets_or_tasks_are_refused(
    shared: Client, distances: list[dict[str, Any]], linear: dict[str, Any]
) -> None:
    status, code, detail = refused(shared, registered(shared, linear, distances[0]))
    assert (status, code) == (httpx.codes.CONFLICT, "different_questions")
    assert detail.startswith("Version 1 predicts 'late' as binary of false and true, and version 2 predicts")


@pytest.mark.sqlite_alone
def test_too_few_rows_in_common_are_refused_with_the_way_out(
    shared: Client, flights: str, constant_answer: dict[str, Any]
) -> None:
    elsewhere = train_here(shared, flights, algorithm="dummy", seed=1)
    status, code, detail = refused(shared, registered(shared, constant_answer, elsewhere))
    assert (status, code) == (httpx.codes.CONFLICT, "too_few_common_rows")
    assert "?dataset=…&dataset_version=…" in detail
    unknown = without_record(constant_answer)
    assert refused(shared, registered(shared, unknown, unknown))[:2] == (
        httpx.codes.CONFLICT,
        "no_common_rows",
    )


@pytest.mark.sqlite_alone
def test_data_that_the_versions_cannot_answer_is_refused(
    shared: Client, linear: dict[str, Any], constant_answer: dict[str, Any]
) -> None:
    model = registered(shared, linear, constant_answer)
    unlabelled, wordy, narrow = (a_name(kind) for kind in ("plain", "wordy", "narrow"))
    rows = shared.rows(rows=60, seed=2)
    shared.add_dataset(unlabelled, shared.as_csv([{"distance": row["distance"]} for row in rows]))
    shared.add_dataset(
        wordy, shared.as_csv([{"late": "delayed" if row["late"] else "punctual"} for row in rows])
    )
    shared.add_dataset(narrow, shared.as_csv([{"late": row["late"], "x": row["distance"]} for row in rows]))
    for dataset in (unlabelled, wordy):
        status, code, detail = refused(shared, model, dataset=dataset)
        assert (status, code) == (httpx.codes.UNPROCESSABLE_ENTITY, "data_does_not_fit")
        assert "no column 'late' of type boolean" in detail
    status, code, detail = refused(shared, model, dataset=narrow)
    assert (status, code) == (httpx.codes.CONFLICT, "data_does_not_fit")
    assert detail.startswith("Version 1 cannot answer the rows.")
    assert refused(shared, model, dataset="nowhere")[:2] == (httpx.codes.NOT_FOUND, "dataset_not_found")


@pytest.mark.sqlite_alone
@pytest.mark.parametrize("versions", ["", "1", "1,1", "1,x", "1,,2", "0,1", "1,2,3,4,5,6,7,8,9,10,11", "1,²"])
def test_what_is_no_list_of_versions_is_refused(shared: Client, delays: str, versions: str) -> None:
    answer = shared.get(f"/v1/models/{delays}/compare", params={"versions": versions})
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert answer.json()["errors"][0]["pointer"] == "/query/versions"


@pytest.mark.sqlite_alone
def test_unknown_versions_and_stray_parameters_are_refused(shared: Client, delays: str) -> None:
    assert refused(shared, delays, "1,99")[:2] == (httpx.codes.NOT_FOUND, "model_version_not_found")
    assert refused(shared, delays, dataset_version=1)[0] == httpx.codes.UNPROCESSABLE_ENTITY
    assert refused(shared, delays, rows=5)[0] == httpx.codes.UNPROCESSABLE_ENTITY


# ── The page ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.sqlite_alone
def test_a_comparison_is_a_page_for_people(
    shared: Client, linear: dict[str, Any], constant_answer: dict[str, Any]
) -> None:
    model = registered(shared, without_record(linear), constant_answer)
    path = f"/v1/models/{model}/compare"
    page = shared.get(path, params={"versions": "2,1"}, headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["vary"] == "accept"
    assert f"<h1>{model}, versions 2 and 1</h1>" in page.text
    assert "Version 1 may have seen these rows" in page.text
    assert "McNemar" in page.text
    assert shared.get(path, params={"versions": "2,1", "format": "html"}).text == page.text
    picture = shared.get(path, params={"versions": "2,1"}, headers={"accept": "image/png"})
    assert picture.status_code == httpx.codes.NOT_ACCEPTABLE


@pytest.mark.sqlite_alone
def test_nothing_from_the_data_becomes_markup_of_the_page(shared: Client) -> None:
    dataset, ugly = a_name("ugly"), "<script>alert(1)</script>"
    rows = [{"wind": row["wind"], ugly: row["late"]} for row in shared.rows(rows=120, seed=1)]
    shared.add_dataset(dataset, shared.as_csv(rows))
    trained = train_here(shared, dataset, target=ugly, algorithm="dummy")
    model = registered(shared, trained, trained)
    page = shared.get(f"/v1/models/{model}/compare", params={"versions": "1,2", "format": "html"})
    assert page.status_code == httpx.codes.OK, page.text
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text


@pytest.mark.sqlite_alone
def test_more_comparisons_at_once_than_are_allowed_are_put_off(
    shared: Client, delays: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = Slots(1, "comparison_busy", "comparisons are being worked out")
    monkeypatch.setattr(comparison_service, "_slots", slots)
    with slots.take():
        answer = shared.get(f"/v1/models/{delays}/compare", params={"versions": "1,2"})
    assert (answer.status_code, answer.json()["code"]) == (503, "comparison_busy")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.sqlite_alone
def test_rows_that_a_key_may_not_see_are_not_compared_on(shared: Client, delays: str) -> None:
    dataset, other = a_name("labelled"), a_name("other")
    shared.add_dataset(dataset, shared.table(rows=60, seed=8))
    with opened(shared.settings) as (database, _, _), database.session_scope() as session:
        made = session.scalars(select(DatasetVersion).filter_by(dataset=dataset)).one()
        made.origin = {**made.origin, "model": other}
    limited = shared.as_role("scientist", models=f"{delays[:-1]}?")
    assert refused(limited, delays, dataset=dataset)[:2] == (httpx.codes.FORBIDDEN, "model_not_allowed")
    assert compare(limited, delays)["warnings"] == []


@pytest.mark.sqlite_alone
def test_quarantined_rows_are_not_compared_on(shared: Client, delays: str) -> None:
    dataset = a_name("broken")
    shared.add_dataset(dataset, shared.table(rows=60, seed=8))
    with opened(shared.settings) as (database, _, _), database.session_scope() as session:
        made = session.scalars(select(DatasetVersion).filter_by(dataset=dataset)).one()
        made.status, made.contract = DataStatus.QUARANTINED, 1
    assert refused(shared, delays, dataset=dataset)[:2] == (httpx.codes.CONFLICT, "data_quarantined")


@pytest.mark.sqlite_alone
def test_a_client_may_not_compare(shared: Client, delays: str) -> None:
    answer = shared.as_role("client").get(f"/v1/models/{delays}/compare", params={"versions": "1,2"})
    assert answer.status_code == httpx.codes.FORBIDDEN
