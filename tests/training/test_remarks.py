"""What a run's notes say of what was asked for and could not be had, and of what hardly was meant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from app.errors import InvalidInput
from app.training.remarks import remark
from app.training.spec import TrainingSpec
from app.training.trainer import train

Notes = Callable[..., list[str]]
X = "(hash(i) % 1000) / 100 AS x"


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """The remarks on a run on a table of 200 rows with these SQL columns."""

    def remark_on(columns: str, **asked: Any) -> list[str]:
        path = tmp_path / "table.parquet"
        with duckdb.connect() as connection:
            numbers = connection.table_function("range", [200]).project("range AS i")
            numbers.project(columns).to_parquet(str(path))
        spec = TrainingSpec.model_validate({"target": "y", **asked})
        return remark(train(path, spec, lambda *_: None), spec)

    return remark_on


def test_an_ordinary_run_has_no_remarks(notes: Notes) -> None:
    costs = [{"actual": True, "predicted": False, "cost": 2}]
    validation = {"method": "grouped", "group_column": "g"}
    columns = f"{X}, i % 50 AS g, hash(i) % 1000 > 500 AS y"
    asked = {"algorithm": "logistic_regression", "metrics": ["f1_weighted"], "validation": validation}
    assert notes(columns, costs=costs, **asked) == []


def test_metrics_that_the_holdout_does_not_define_are_told_with_the_reason(notes: Notes) -> None:
    by_time = {"validation": {"method": "time", "time_column": "i"}, "algorithm": "dummy"}
    columns = f"{X}, i, i % 2 = 0 AND i < 150 AS y"
    told = notes(columns, metric="accuracy", metrics=["average_precision", "f1"], **by_time)
    assert told == [
        "average_precision is not defined on the 40 held-out rows, and left out: none of them is of the "
        "class true."
    ]
    told = notes(columns, **by_time)
    assert told[0].startswith("roc_auc is not defined")
    amounts = notes(
        f"{X}, -x AS y", algorithm="ridge", task="regression", metrics=["neg_mean_squared_log_error"]
    )
    assert len(amounts) == 1
    assert "neg_mean_squared_log_error is not defined on the 40 held-out rows" in amounts[0]


def test_a_holdout_of_large_groups_that_is_far_from_what_was_asked_for_is_told(notes: Notes) -> None:
    told = notes(
        f"{X}, i % 2 AS g, x > 5 AS y",
        algorithm="dummy",
        validation={"method": "grouped", "group_column": "g"},
    )
    assert told == [
        "50.0% of the rows were held out, where 20.0% were asked for: whole groups of 'g' are held out, and "
        "these are large."
    ]


@pytest.mark.parametrize(
    ("groups", "cause"),
    [
        ("i % 2", "takes two of them, and the training part has the rows of a single value of 'g'"),
        (
            "(x > 5)::INT * 2 + i % 2",
            "the 3 groups of 'g' that are not held out have hardly more than one class",
        ),
    ],
)
def test_a_search_by_groups_without_a_usable_fold_says_why(notes: Notes, groups: str, cause: str) -> None:
    by_groups = {"method": "grouped", "group_column": "g", "holdout": 0.3, "folds": 2}
    with pytest.raises(InvalidInput) as refused:
        notes(f"{X}, {groups} AS g, x > 5 AS y", search={"trials": 0, "processes": 1}, validation=by_groups)
    assert (refused.value.code, refused.value.errors[0].pointer) == ("no_usable_fold", "/validation")
    assert cause in refused.value.detail


def test_costs_that_leave_a_single_answer_are_told(notes: Notes) -> None:
    costs = [{"actual": True, "predicted": False, "cost": 0}]
    (told,) = notes(f"{X}, x > 5 AS y", algorithm="logistic_regression", costs=costs)
    assert told.startswith("The model answers false for each of the 40 held-out rows")
