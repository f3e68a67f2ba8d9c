"""Finding runs: what a query finds is what its words mean, page after page, and no page reads them all."""

import base64
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import event, insert

from app.access.caller import Caller
from app.access.policy import Role
from app.datasets.models import DatasetVersion
from app.datasets.service import create_dataset
from app.db import Database
from app.errors import InvalidInput
from app.leases import Status
from app.registry.service import ensure_model
from app.training.facts import fact_of
from app.training.finding.finding import find_runs
from app.training.finding.query import Query
from app.training.models import Fact, TrainingRun
from tests.client import Client

START = datetime(2026, 11, 23, tzinfo=UTC)
ANA = Caller("ana", Role.ADMIN, START)
MODELS = ("delays", "fraud", "fraud-eu")
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
    "in": lambda one, others: one in others,
    "contains": lambda one, part: part.casefold() in one.casefold(),
}


def made_up(count: int, seed: int) -> list[dict[str, Any]]:
    """Runs as a person would describe them: their columns and facts by field, those they have."""
    source = random.Random(seed)
    runs = []
    for number in range(1, count + 1):
        ended = source.random() < 0.8
        run: dict[str, Any] = {
            "id": number,
            "model": source.choice(MODELS),
            "status": source.choice(["failed", "cancelled"]) if ended else "queued",
            "priority": source.randint(-2, 2),
            "created_by": source.choice(["ana", "ben"]),
            "created_at": START + timedelta(minutes=number),
        }
        if ended:
            run["finished_at"] = START + timedelta(minutes=number + source.randint(1, 9))
            run["algorithm"] = source.choice(["ridge", "random_forest"])
            run["metrics.rmse"] = source.choice([0.25, 0.5, 0.5, 1.0, source.random()])
        if source.random() < 0.7:
            run["params.max_depth"] = source.choice([2, 4, 8, "null"])
        if source.random() < 0.5:
            run["tags.team"] = source.choice(["risk", "growth", "100%_sure"])
        runs.append(run)
    return runs


def insert_runs(database: Database, runs: Sequence[dict[str, Any]]) -> None:
    with database.session_scope() as session:
        models = {name: ensure_model(session, ANA, name).id for name in MODELS}
        owner = create_dataset(session, ANA, name="table", description="")
        data = DatasetVersion(
            dataset_id=owner.id, dataset="table", number=1, origin={}, media_type="text/csv",
            digest="sha256:a", size=1, recipe={}, content_digest="sha256:b", parts=["sha256:c"], rows=1,
            columns=[], status="accepted", description="", tags={}, created_by="ana", created_at=START,
        )  # fmt: skip
        session.add(data)
        session.flush()
        common: dict[str, Any] = {
            "dataset_version_id": data.id, "dataset": "table", "dataset_version": 1, "spec": {}, "limits": {},
            "tags": {}, "fraction": 0.0, "step": "", "attempts": 0, "cancel_requested": False,
        }  # fmt: skip
        columns = {column.key for column in TrainingRun.__table__.columns}
        session.execute(
            insert(TrainingRun),
            [
                common
                | {"finished_at": None, "model_id": models[run["model"]]}
                | {name: value for name, value in run.items() if name in columns}
                for run in runs
            ],
        )
        facts = [
            {
                "run_id": run["id"],
                "name": name,
                "number": None if isinstance(value, str) else float(value),
                "text": value if isinstance(value, str) else None,
            }
            for run in runs
            for name, value in run.items()
            if name not in columns
        ]
        session.execute(insert(Fact), facts)


@pytest.fixture
def runs(database: Database) -> list[dict[str, Any]]:
    made = made_up(120, seed=5)
    insert_runs(database, made)
    return made


def found(database: Database, query: dict[str, Any], caller: Caller = ANA) -> list[int]:
    """The runs of every page, one after another."""
    numbers: list[int] = []
    cursor = None
    for _ in itertools.count():
        with database.session_scope(write=False) as session:
            page, cursor = find_runs(session, caller, Query.model_validate(query | {"cursor": cursor}))
        numbers += [run.id for run in page]
        assert len(page) <= query.get("limit", 50)
        if cursor is None:
            return numbers
    raise AssertionError


def meets(run: dict[str, Any], where: dict[str, Any] | None) -> bool:
    """What a query says, in Python."""
    match where:
        case None:
            return True
        case {"and": parts}:
            return all(meets(run, part) for part in parts)
        case {"or": parts}:
            return any(meets(run, part) for part in parts)
        case {"not": part}:
            return not meets(run, part)
        case {"field": field, "op": op, "value": value}:
            if field not in run:
                return False
            own = run[field]
            if isinstance(own, datetime):
                value = datetime.fromisoformat(value)
            if op == "in":
                return own in value
            return isinstance(own, str) == isinstance(value, str) and COMPARED[op](own, value)
    raise AssertionError(where)


def expected(runs: Sequence[dict[str, Any]], query: dict[str, Any]) -> list[int]:
    wanted = [run for run in runs if meets(run, query.get("where"))]
    sort = query.get("sort", {"field": "id"})
    field, down = sort["field"], sort.get("order", "desc") == "desc"
    kind = str if field.startswith("tags.") else (int, float, datetime)
    having = [run for run in wanted if isinstance(run.get(field), kind)]
    having.sort(key=lambda run: (run[field], run["id"]), reverse=down)
    rest = [run for run in wanted if not isinstance(run.get(field), kind)]
    return [run["id"] for run in [*having, *sorted(rest, key=lambda run: -run["id"])]]


conditions = st.one_of(
    st.builds(
        lambda op, value: {"field": "metrics.rmse", "op": op, "value": value},
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.sampled_from([0.25, 0.5, 0.7, 1]),
    ),
    st.builds(
        lambda op, value: {"field": "params.max_depth", "op": op, "value": value},
        st.sampled_from(["=", "!=", "<"]),
        st.sampled_from([4, 8, "null"]),
    ),
    st.just({"field": "params.max_depth", "op": "in", "value": [2, "null"]}),
    st.builds(
        lambda part: {"field": "tags.team", "op": "contains", "value": part}, st.sampled_from(["r", "%"])
    ),
    st.builds(
        lambda op, name: {"field": "algorithm", "op": op, "value": name},
        st.sampled_from(["=", "!="]),
        st.sampled_from(["ridge", "svm"]),
    ),
    st.builds(lambda names: {"field": "model", "op": "in", "value": names}, st.just(list(MODELS[:2]))),
    st.builds(
        lambda op, minutes: {
            "field": "finished_at",
            "op": op,
            "value": (START + timedelta(minutes=minutes)).isoformat(),
        },
        st.sampled_from(["<", ">="]),
        st.integers(0, 130),
    ),
    st.just({"field": "status", "op": "!=", "value": "queued"}),
)
wheres = st.recursive(
    conditions,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(lambda list_: {"and": list_}),
        st.lists(parts, min_size=1, max_size=3).map(lambda list_: {"or": list_}),
        parts.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)
sorts = st.builds(
    lambda field, order: {"field": field, "order": order},
    st.sampled_from(["id", "finished_at", "metrics.rmse", "params.max_depth", "tags.team", "metrics.none"]),
    st.sampled_from(["asc", "desc"]),
)


def test_a_query_finds_what_its_words_mean_page_after_page(
    database: Database, runs: list[dict[str, Any]]
) -> None:
    @settings(deadline=None, max_examples=25)
    @given(where=wheres, sort=sorts, limit=st.sampled_from([40, 500]))
    def check(where: dict[str, Any], sort: dict[str, Any], limit: int) -> None:
        query = {"where": where, "sort": sort, "limit": limit}
        assert found(database, query) == expected(runs, query)

    check()


@pytest.mark.parametrize(
    "value", ["x" * 600, [0.5] * 200, [16, 8], True, None], ids=["text", "list", "short", "truth", "null"]
)
def test_a_fact_is_found_by_its_value_however_long(database: Database, value: Any) -> None:
    number, text = fact_of(value)
    assert number is None
    insert_runs(database, [{**made_up(1, seed=5)[0], "params.given": text}])
    asked = value if isinstance(value, str | bool) else json.dumps(value)
    for op, operand in (("=", asked), ("in", [asked])):
        assert found(database, {"where": {"field": "params.given", "op": op, "value": operand}}) == [1]


def test_a_key_limited_to_some_models_finds_no_others(database: Database, runs: list[dict[str, Any]]) -> None:
    limited = Caller("eve", Role.VIEWER, START, models="fraud*")
    query = {"sort": {"field": "metrics.rmse"}, "limit": 500}
    seen = [run for run in runs if run["model"].startswith("fraud")]
    assert found(database, query, limited) == expected(seen, query)


@pytest.fixture
def plans(database: Database) -> Iterator[list[str]]:
    """How the database goes about each query for runs that is made."""
    told: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.startswith("SELECT training_runs"):
            return
        cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        told.extend(str(row[-1]) for row in cursor.fetchall())

    event.listen(database.engine, "before_cursor_execute", explain)
    yield told
    event.remove(database.engine, "before_cursor_execute", explain)


@pytest.mark.sqlite_alone
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"sort": {"field": "finished_at"}},
        {"sort": {"field": "metrics.rmse"}},
        {"sort": {"field": "tags.team"}},
        {"where": {"field": "metrics.rmse", "op": "<", "value": 0.3}, "sort": {"field": "metrics.rmse"}},
        {"where": {"field": "tags.team", "op": "=", "value": "risk"}},
    ],
    ids=json.dumps,
)
def test_no_page_reads_or_sorts_all_runs(
    database: Database, runs: list[dict[str, Any]], plans: list[str], query: dict[str, Any]
) -> None:
    found(database, query | {"limit": 20})
    assert plans
    assert not [step for step in plans if "TEMP B-TREE" in step], (
        "a page is sorted that an index holds in order"
    )
    assert not [step for step in plans if step.startswith("SCAN facts")], "every fact is read"


def condition(field: str, op: str, value: Any) -> dict[str, Any]:
    return {"field": field, "op": op, "value": value}


SOUND = condition("metrics.rmse", "<", 0.5)
MISMATCHES: list[tuple[dict[str, Any], dict[str, str]]] = [
    (condition("metric.rmse", "=", 1), {"/field": "there is no such field to look for"}),
    (condition("metrics.rmse", "~", 1), {"/op": "Input should be"}),
    (condition("priority", "=", "high"), {"/value": 'compared with a number, not the string "high"'}),
    (condition("id", "=", True), {"/value": "compared with a number, not the boolean true"}),
    (condition("model", "=", {"a": 1}), {"/value": "compared with a text, not an object"}),
    (condition("metrics.rmse", "=", None), {"/value": "a text, a number, true or false, not null"}),
    (condition("status", "=", "done"), {"/value": "the status is one of queued, running"}),
    (condition("created_at", ">", "yesterday"), {"/value": "compared with a time with its zone"}),
    (condition("created_at", ">", 5), {"/value": "compared with a time with its zone"}),
    (condition("id", "=", 2**63), {"/value": "never as far from 0 as 2^63"}),
    (condition("metrics.rmse", "in", 1), {"/value": "`in` takes a list of 1 to 200 values"}),
    (condition("metrics.rmse", "in", []), {"/value": "`in` takes a list of 1 to 200 values"}),
    (condition("metrics.rmse", "<", [1]), {"/value": "`<` takes a single value"}),
    (
        condition("priority", "in", [1, "x", None]),
        {"/value/1": "compared with a number", "/value/2": "compared with a number"},
    ),
    (condition("priority", "contains", "1"), {"/value": "`contains` is of texts"}),
    (condition("model", "contains", ""), {"/value": "a text that is not empty"}),
    ({"field": "id", "op": "="}, {"/value": "is missing"}),
    ({"and": []}, {"/and": "must not be empty"}),
    ({"and": [SOUND], "or": [SOUND]}, {"/or": "there is no such field"}),
    ({"not": SOUND, "also": 1}, {"/also": "there is no such field"}),
]


@pytest.mark.sqlite_alone
@pytest.mark.parametrize(("wrong", "told"), MISMATCHES, ids=str)
@pytest.mark.parametrize("within", ["", "/and/1", "/not/or/0"])
def test_a_condition_that_means_nothing_is_refused_where_it_goes_wrong_and_in_a_sentence(
    shared: Client, wrong: dict[str, Any], told: dict[str, str], within: str
) -> None:
    where = {"": wrong, "/and/1": {"and": [SOUND, wrong]}, "/not/or/0": {"not": {"or": [wrong]}}}
    answer = shared.post("/v1/training-runs:search", json={"where": where[within]})
    assert answer.status_code == 422, answer.text
    errors = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert len(answer.json()["errors"]) == len(told)
    assert errors.keys() == {f"/where{within}{at}" for at in told}
    for at, words in told.items():
        assert words in errors[f"/where{within}{at}"]


@pytest.mark.parametrize(
    ("query", "at"), [({"sort": {"field": "model"}}, "/sort/field"), ({"limit": 0}, "/limit")], ids=str
)
def test_an_order_or_a_size_that_means_nothing_is_refused(query: dict[str, Any], at: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Query.model_validate(query)
    assert at in ["/" + "/".join(map(str, error["loc"])) for error in refused.value.errors()]


def test_a_query_of_too_many_conditions_is_refused() -> None:
    one = {"field": "status", "op": "=", "value": "queued"}
    deep: dict[str, Any] = one
    for _ in range(9):
        deep = {"not": deep}
    wide = {"and": [{"or": [one] * 60}, {"or": [one] * 60}]}
    for where in (deep, wide):
        with pytest.raises(ValidationError, match="100 conditions at most, on 8 levels") as refused:
            Query.model_validate({"where": where})
        assert refused.value.errors()[0]["loc"] == ("where",)


@pytest.mark.parametrize(
    ("field", "forged"),
    [
        ("metrics.rmse", [1, "a"]),
        ("metrics.rmse", ["a", 1]),
        ("metrics.rmse", [10**400, 1]),
        ("metrics.rmse", [1, 10**30]),
        ("metrics.rmse", [1]),
        ("id", [10**30, 1]),
        ("tags.team", [1, 1]),
        ("tags.team", ["a\0", 1]),
        ("finished_at", ["2026-01-01", 1]),
        ("finished_at", [5, 1]),
    ],
    ids=str,
)
def test_a_forged_cursor_is_refused(
    database: Database, runs: list[dict[str, Any]], field: str, forged: list[Any]
) -> None:
    with database.session_scope(write=False) as session:
        _, cursor = find_runs(session, ANA, Query.model_validate({"sort": {"field": field}, "limit": 1}))
    assert cursor is not None
    digest = json.loads(base64.urlsafe_b64decode(cursor))[0]
    refuse(database, field, base64.urlsafe_b64encode(json.dumps([digest, *forged]).encode()).decode())


def test_the_cursor_of_another_query_and_what_is_none_are_refused(
    database: Database, runs: list[dict[str, Any]]
) -> None:
    with database.session_scope(write=False) as session:
        _, cursor = find_runs(session, ANA, Query(limit=1))
    assert cursor is not None
    for wrong in (cursor, f"{cursor}!", "x", base64.urlsafe_b64encode(b"null").decode()):
        refuse(database, "metrics.rmse", wrong)


def refuse(database: Database, field: str, cursor: str) -> None:
    query = Query.model_validate({"sort": {"field": field}, "cursor": cursor})
    with database.session_scope(write=False) as session, pytest.raises(InvalidInput) as refused:
        find_runs(session, ANA, query)
    assert refused.value.errors[0].pointer == "/cursor"


def test_runs_and_versions_are_found_over_http(shared: Client, delays: str) -> None:
    mine = {
        "and": [
            {"field": "model", "op": "=", "value": delays},
            {"field": "version", "op": "=", "value": 1},
        ]
    }
    good = {"field": "metrics.roc_auc", "op": ">", "value": 0.6}
    query = {"where": {"and": [mine, good]}, "sort": {"field": "metrics.roc_auc", "order": "asc"}}
    runs = shared.post("/v1/training-runs:search", json=query)
    versions = shared.post("/v1/model-versions:search", json=query)
    assert runs.status_code == versions.status_code == 200, runs.text + versions.text
    (version,) = versions.json()["items"]
    (run,) = runs.json()["items"]
    assert (run["model"], run["model_version"]) == (version["model"], version["version"]) == (delays, 1)
    assert version["metrics"]["roc_auc"] > 0.6
    none = {"where": {"and": [mine, {"not": good}]}}
    assert shared.post("/v1/model-versions:search", json=none).json()["items"] == []
    failed = {"where": {"field": "status", "op": "=", "value": Status.FAILED}}
    assert shared.post("/v1/model-versions:search", json=failed).json()["items"] == []
