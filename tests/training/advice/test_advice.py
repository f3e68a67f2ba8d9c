"""Advice before training: what it finds, what it refuses, and a spec that can be posted."""

# ruff: noqa: S608 - the tables are the tests' own

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import pytest

from app.child_process import Progress
from app.datasets.service import get_version
from app.errors import Conflict
from app.training.advice import advice as advice_module
from app.training.advice import router as advice_router
from app.training.advice import service as advice_service
from app.training.advice.advice import SAMPLED_ROWS, Hints, advise
from app.training.slots import Slots
from app.training.spec import TrainingSpec
from tests.client import Client
from tests.training.test_runs_api import code_of
from tests.versions import opened

NO_HINTS = Hints({}, (), ())


def ask(client: Client, dataset: str, **question: Any) -> httpx.Response:
    return client.post(f"/v1/datasets/{dataset}/versions/1:advise", json={"target": "late", **question})


def advice_of(client: Client, dataset: str, **question: Any) -> dict[str, Any]:
    answer = ask(client, dataset, **question)
    assert answer.status_code == httpx.codes.OK, answer.text
    told: dict[str, Any] = answer.json()
    return told


def without_costs(advice: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in advice.items() if name not in ("cost", "algorithms")}
    return kept | {"algorithms": [one | {"cost": None} for one in advice["algorithms"]]}


@pytest.fixture(scope="module")
def advice(shared: Client, flights: str) -> dict[str, Any]:
    return advice_of(shared, flights)


# ── Over HTTP ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.sqlite_alone
def test_advice_tells_of_task_balance_columns_and_candidates(shared: Client, advice: dict[str, Any]) -> None:
    assert advice["task"] == {"task": "binary", "reason": "`late` is true or false."}
    rows = Client.rows(rows=400, seed=1)
    late = sum(row["late"] for row in rows)
    counts = {one["class"]: one["rows"] for one in advice["balance"]["classes"]}
    assert counts == {True: late, False: 400 - late}
    assert advice["rows"] == {"table": 400, "without_target": 0, "sampled": 400}
    assert {"identifier"} <= {one["code"] for one in advice["warnings"] if one["columns"] == ["flight_id"]}
    assert advice["importance"]["columns"][0]["column"] == "wind"
    assert advice["importance"]["columns"][0]["interval"][0] > 0
    candidates = {one["algorithm"]: one for one in advice["algorithms"]}
    assert {"logistic_regression", "hist_gradient_boosting", "random_forest"} < candidates.keys()
    assert candidates["dummy"]["value"] == 0.5
    assert all(one["reason"] for one in candidates.values())
    costs = [one["cost"] for one in candidates.values() if one["cost"]]
    assert len(costs) == 3
    assert all(cost["seconds"] > 0 and cost["memory_bytes"] > 0 for cost in costs)
    learning = advice["learning"]
    assert learning["enough"] in ("enough", "more_would_help", "uncertain")
    assert len(learning["points"]) >= 3
    low, high = learning["doubled"]["interval"]
    assert low <= learning["doubled"]["gain"] <= high
    assert learning["doubled"]["rows"] == 640


@pytest.mark.sqlite_alone
def test_the_suggested_spec_can_be_posted_as_it_is(shared: Client, advice: dict[str, Any]) -> None:
    spec = advice["spec"]
    assert spec["validation"] == {"method": "time", "time_column": "scheduled"}
    assert spec["features"] == {"flight_id": {"role": "drop"}}
    run = shared.post("/v1/training-runs", json=spec | {"algorithm": "dummy"})
    assert run.status_code == httpx.codes.ACCEPTED, run.text
    assert shared.wait_for_run(run.json()["id"])["status"] == "succeeded"
    as_it_is = shared.post("/v1/training-runs", json=spec)
    assert as_it_is.status_code == httpx.codes.ACCEPTED, as_it_is.text
    shared.post(f"{as_it_is.headers['location']}:cancel")


@pytest.mark.sqlite_alone
def test_the_same_question_has_the_same_answer(shared: Client, flights: str, advice: dict[str, Any]) -> None:
    assert without_costs(advice_of(shared, flights)) == without_costs(advice)


@pytest.mark.sqlite_alone
@pytest.mark.parametrize(
    ("question", "code", "at"),
    [
        ({"target": "lat"}, "unknown_target", "/target"),
        ({"target": "scheduled"}, "unusable_target", "/target"),
        ({"task": "regression"}, "unfit_task", "/task"),
        ({"features": ["wnd"]}, "invalid_features", "/features/0"),
        ({"features": []}, "no_features", "/features"),
        ({"target": "carrier", "task": "regression"}, "unfit_task", "/task"),
        ({"target": "late", "rows": 3}, "invalid_input", "/rows"),
    ],
)
def test_what_a_training_would_refuse_is_refused_in_its_words(
    shared: Client, flights: str, question: dict[str, Any], code: str, at: str
) -> None:
    answer = ask(shared, flights, **question)
    assert code_of(answer, 422) == code
    assert at in [error["pointer"] for error in answer.json()["errors"]]


@pytest.mark.sqlite_alone
def test_targets_that_only_the_data_rule_out_are_refused(shared: Client) -> None:
    lines = [f"{number / 7:.3f},same,{'rare' if number == 5 else 'common'}," for number in range(60)]
    shared.add_dataset("no-targets", "\n".join(["x,constant,lonely,empty", *lines]).encode())
    told = {
        "lonely": 'has classes with a single row, which cannot be both learnt and tested: "rare".',
    }
    for target, message in told.items():
        answer = ask(shared, "no-targets", target=target)
        assert code_of(answer, 422) == "unusable_target"
        assert message in answer.json()["detail"]
    unknown = shared.post("/v1/datasets/no-targets/versions/9:advise", json={"target": "x"})
    assert code_of(unknown, 404) == "dataset_version_not_found"


@pytest.mark.sqlite_alone
def test_a_column_that_gives_the_target_away_is_left_out_and_measured_both_ways(shared: Client) -> None:
    source = random.Random(5)
    lines = ["customer_id,amount,refund,note,bought"]
    for number in range(400):
        amount = source.gauss(50, 20)
        bought = amount + source.gauss(0, 15) > 50
        refund, note = "yes" if bought else "no", f"order {number} by card"
        lines.append(f"{number % 40},{amount:.2f},{refund},{note},{str(bought).lower()}")
    shared.add_dataset("shop", "\n".join(lines).encode())
    told = advice_of(shared, "shop", target="bought", model="buyers")
    assert told["leaks"]["columns"] == ["refund"]
    assert told["leaks"]["with"] > 0.99 > 0.95 > told["leaks"]["without"]
    assert "leak_suspect" in [one["code"] for one in told["warnings"]]
    # Each is there once, and is a text that a model reads.
    assert "note" not in [name for one in told["warnings"] for name in one["columns"]]
    assert "`note` is taken for texts, and read by its words." in told["reasons"]
    assert "refund" not in [one["column"] for one in told["importance"]["columns"]]
    assert told["spec"]["model"] == "buyers"
    assert told["spec"]["features"] == {"refund": {"role": "drop"}}
    assert told["validation"]["method"] == told["spec"]["validation"]["method"] == "grouped"
    assert told["spec"]["validation"]["group_column"] == "customer_id"
    kept = advice_of(shared, "shop", target="bought", features=["amount", "refund"])
    assert kept["leaks"] is None
    assert kept["spec"]["features"] == ["amount", "refund"]


@pytest.mark.sqlite_alone
def test_a_table_of_identifiers_alone_is_refused_in_the_words_of_a_training(shared: Client) -> None:
    rows = "\n".join(["order_id,angry", *(f"{number},{number % 3 == 0}" for number in range(40))])
    shared.add_dataset("only-ids", rows.encode())
    answer = ask(shared, "only-ids", target="angry")
    assert code_of(answer, 422) == "no_features"
    assert "order_id: unique integers under the name of an identifier" in answer.json()["detail"]


@pytest.mark.sqlite_alone
def test_more_advice_at_once_than_is_allowed_is_put_off(
    shared: Client, flights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = Slots(1, "advice_busy", "pieces of advice are being worked out")
    monkeypatch.setattr(advice_service, "_slots", slots)
    with slots.take():
        answer = ask(shared, flights)
    assert code_of(answer, 503) == "advice_busy"
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.sqlite_alone
def test_advice_that_takes_too_long_is_ended(
    shared: Client, flights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice_service, "TIME_LIMIT_SECONDS", 0.01)
    assert code_of(ask(shared, flights), 503) == "advice_took_too_long"


@pytest.mark.sqlite_alone
def test_advice_may_take_as_much_memory_as_a_run(
    shared: Client, flights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_scarcely(*about: Any, memory_bytes: int) -> dict[str, Any]:
        assert memory_bytes == shared.settings.run_memory_limit_bytes
        return advice_service.give_advice(*about, memory_bytes=2**20)

    monkeypatch.setattr(advice_router, "give_advice", give_scarcely)
    assert ask(shared, flights).status_code == httpx.codes.SERVICE_UNAVAILABLE


@pytest.mark.sqlite_alone
def test_a_child_is_over_when_its_advice_cannot_be_given(
    shared: Client, flights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[Progress] = []

    class SlowReader(Progress):
        def run(self) -> None:
            readers.append(self)
            super().run()
            time.sleep(0.3)

    def fail(*_: Any) -> bytes:
        raise Conflict("no_profile", "There is none.")

    monkeypatch.setattr(advice_service, "Progress", SlowReader)
    monkeypatch.setattr(advice_service, "read_profile", fail)
    assert code_of(ask(shared, flights), 409) == "no_profile"
    assert [reader.is_alive() for reader in readers] == [False]


@pytest.mark.sqlite_alone
def test_advice_is_not_given_of_rows_that_the_key_may_not_see(shared: Client) -> None:
    shared.add_dataset("scored", shared.table(rows=60, seed=8))
    with opened(shared.settings) as (database, _, _), database.session_scope() as session:
        made = get_version(session, "scored")
        made.origin = {**made.origin, "model": "delays"}
    limited = shared.as_role("scientist", models="other-*")
    assert code_of(ask(limited, "scored"), 403) == "model_not_allowed"


def test_the_server_gives_advice_without_scikit_learn() -> None:
    program = (
        "import sys, app.training.advice.router, app.training.advice.suggestions_router; "
        "assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# ── On a table ───────────────────────────────────────────────────────────────────────────────────


@contextmanager
def table(folder: Path, query: str) -> Iterator[Path]:
    path = folder / "table.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    yield path


def advise_on(folder: Path, query: str, hints: Hints = NO_HINTS, **spec: Any) -> dict[str, Any]:
    with ExitStack() as stack:
        path = stack.enter_context(table(folder, query))
        told = advise([path], TrainingSpec.model_validate({"target": "y", **spec}), hints, folder)
    return json.loads(json.dumps(told, allow_nan=False))  # type: ignore[no-any-return]


def drawn(number: str) -> str:
    """The SQL of a number from 0 to 999 that nothing but its own number tells."""
    return f"(md5_number_lower(({number})::VARCHAR) % 1000)"


def test_noise_promises_nothing(tmp_path: Path) -> None:
    columns = f"{drawn('i')} / 7 AS a, {drawn('i + 5000')} / 7 AS b, {drawn('-i')} < 500 AS y"
    told = advise_on(tmp_path, f"SELECT {columns} FROM range(300) r(i)")
    assert told["learning"]["enough"] == "nothing_learnt"
    assert "look for other columns" in told["learning"]["text"]


def test_what_follows_a_simple_law_needs_no_more_rows(tmp_path: Path) -> None:
    columns = f"{drawn('i')} / 7.0 AS a, 3 * a + {drawn('-i')} / 100 AS y"
    told = advise_on(tmp_path, f"SELECT {columns} FROM range(2000) r(i)")
    assert told["task"]["task"] == "regression"
    assert told["learning"]["enough"] == "enough"
    assert told["balance"]["classes"] is None
    assert told["algorithms"][0]["algorithm"] in ("ridge", "hist_gradient_boosting", "random_forest")


def test_a_sample_of_a_long_table_keeps_enough_rows_of_a_rare_class(tmp_path: Path) -> None:
    moments = ", ".join(
        f"TIMESTAMP '2020-01-0{day}' + to_minutes(i) AS {name}" for day, name in ((1, "made"), (2, "done"))
    )
    told = advise_on(
        tmp_path, f"SELECT {drawn('i')} / 7.0 AS a, i % 200 = 0 AS y, {moments} FROM range(20000) r(i)"
    )
    assert SAMPLED_ROWS < told["rows"]["sampled"] <= SAMPLED_ROWS + 100
    assert told["rows"]["table"] == 20000
    assert told["spec"]["metric"] == "average_precision"
    assert told["validation"]["time_column"] == "made"
    assert told["later"] == [{"column": "done", "after": "made", "share": 1.0}]


def test_of_many_classes_the_most_frequent_are_measured_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice_module, "MOST_CLASSES", 3)
    columns = (
        "i % 7 + i / 1e4 AS a, CASE WHEN i % 10 < 7 THEN 'c' || i % 7 % 3 ELSE 'rare ' || i % 5 END AS y"
    )
    told = advise_on(tmp_path, f"SELECT {columns} FROM range(600) r(i)")
    assert len(told["balance"]["classes"]) == 6
    assert told["rows"] == {"table": 600, "without_target": 0, "sampled": 420}
    (note,) = told["notes"]
    assert "the 3 most frequent of 6 classes, 420 of 600 rows" in note
    scores = {one["algorithm"]: one["value"] for one in told["algorithms"]}
    assert scores["dummy"] <= np.log(3)
    assert scores["random_forest"] < scores["dummy"]
    assert told["learning"]["doubled"]["rows"] == 2 * 336


def test_too_few_rows_for_a_curve_are_told(tmp_path: Path) -> None:
    told = advise_on(tmp_path, "SELECT i / 3 AS a, i % 3 AS y FROM range(24) r(i)", task="multiclass")
    assert told["learning"]["enough"] == "unknown"
    assert np.isclose(told["balance"]["rarest"], 1 / 3, atol=1e-5)
