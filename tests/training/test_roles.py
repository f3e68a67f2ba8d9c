from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from app.columns import ColumnType
from app.errors import InvalidInput
from app.registry.signature import Feature, Role, Task
from app.training.roles import ResolvedSpec, check_spec, resolve_spec
from app.training.spec import TrainingSpec

Resolve = Callable[..., ResolvedSpec]


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """Resolve a spec against a table of ``rows`` rows with these SQL columns over the row number i."""

    def resolve_over(columns: str, rows: int = 200, **spec: Any) -> ResolvedSpec:
        path = tmp_path / "table.parquet"
        with duckdb.connect() as connection:
            numbers = connection.table_function("range", [rows]).project("range AS i")
            numbers.project(columns).to_parquet(str(path))
        return resolve_spec(path, TrainingSpec.model_validate({"target": "y"} | spec))

    return resolve_over


def refused(resolve: Resolve, *arguments: Any, **spec: Any) -> tuple[str, str]:
    """The pointer and the detail of the one error that the resolution raises."""
    with pytest.raises(InvalidInput) as caught:
        resolve(*arguments, **spec)
    (error,) = caught.value.errors
    return error.pointer, error.detail


def feature(resolved: ResolvedSpec, name: str) -> Feature:
    return next(feature for feature in resolved.signature.features if feature.name == name)


Y = "i % 2 = 0 AS y, "
X = "sin(i) AS x, "


@pytest.mark.parametrize(
    ("column", "role", "minimum", "maximum"),
    [
        ("i * 1.5", Role.NUMERIC, 0.0, 298.5),
        ("(i * 7) % 50", Role.NUMERIC, 0.0, 49.0),
        ("i % 3 = 0", Role.BOOLEAN, None, None),
        ("'c' || i % 7", Role.CATEGORICAL, None, None),
        ("DATE '2013-01-01' + i::INT", Role.DATETIME, "2013-01-01", "2013-07-19"),
        (
            "TIMESTAMP '2013-01-01' + to_hours(i)",
            Role.DATETIME,
            "2013-01-01T00:00:00Z",
            "2013-01-09T07:00:00Z",
        ),
    ],
)
def test_a_column_has_the_role_and_the_range_of_its_values(
    resolve: Resolve, column: str, role: Role, minimum: Any, maximum: Any
) -> None:
    inferred = feature(resolve(f"{Y} {column} AS c"), "c")
    assert (inferred.role, inferred.minimum, inferred.maximum) == (role, minimum, maximum)
    assert not inferred.nullable


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("'u' || i AS c", "identifier"),
        ("i + 1000 AS c", "identifier"),
        ("i * 17 AS user_id", "identifier"),
        ("i * 17 AS userId", "identifier"),
        ("i * 17 AS ID", "identifier"),
        ("7 AS c", "same value"),
        ("'a' AS c", "same value"),
        ("NULL::DOUBLE AS c", "null"),
        ("'NaN'::DOUBLE AS c", "null"),
        ("'words ' || hash(i) % 150 AS c", "free text"),
    ],
)
def test_a_column_without_use_is_dropped_with_the_reason(resolve: Resolve, column: str, reason: str) -> None:
    resolved = resolve(f"{Y} {X} {column}")
    (name,) = resolved.dropped
    assert reason in resolved.dropped[name]
    assert resolved.signature.ignored == (name,)
    assert [feature.name for feature in resolved.signature.features] == ["x"]


TEXT = "'Parcel ' || i || ' came late and wet.' AS c"


@pytest.mark.parametrize("spec", [{}, {"features": ["c"]}, {"features": {"c": {"role": "text"}}}])
def test_a_column_of_different_strings_of_several_words_is_a_text(resolve: Resolve, spec: Any) -> None:
    text = feature(resolve(f"{Y} {X} {TEXT}", preparation={"text": {"max_features": 10}}, **spec), "c")
    # The most frequent words, and of the numbers, each of which is there once, the first in order.
    assert text.tokens == ("10", "100", "101", "102", "103", "and", "came", "late", "parcel", "wet")
    assert (text.role, text.nullable, text.width) == (Role.TEXT, False, 10)


def test_a_text_is_encoded_as_it_is_asked_for(resolve: Resolve) -> None:
    pairs = {"features": {"c": {"role": "text", "prepare": {"ngrams": 2, "max_features": 10}}}}
    assert {"and wet", "came late"} <= set(feature(resolve(f"{Y} {TEXT}", **pairs), "c").tokens or ())
    hashed = feature(resolve(f"{Y} {TEXT}", preparation={"text": {"vectorize": "hashing"}}), "c")
    assert (hashed.tokens, hashed.buckets, hashed.width) == (None, 200, 200)


def test_a_text_without_words_is_refused(resolve: Resolve) -> None:
    column = f"{Y} {X} chr(97 + (i % 26)::INT) || ' - ! ' || i % 10 AS c"
    at, detail = refused(resolve, column, features={"c": {"role": "text"}})
    assert (at, "no words" in detail) == ("/features/c", True)


@pytest.mark.parametrize(
    "column",
    [
        "i * 17 AS c",
        "(i // 2) * 17 AS user_id",
        "i * 17 AS paid",
        "i * 1.0 AS c",
        "CASE WHEN i % 2 = 0 THEN 7 END AS c",
    ],
)
def test_numbers_that_merely_look_like_identifiers_or_constants_stay(resolve: Resolve, column: str) -> None:
    assert not resolve(f"{Y} {column}").dropped


def test_nulls_and_nans_make_a_feature_nullable(resolve: Resolve) -> None:
    null, nan = (f"CASE WHEN i <> 5 THEN i * 1.5 ELSE {gap} END" for gap in ("NULL", "'NaN'::DOUBLE"))
    resolved = resolve(f"{Y} {null} AS a, {nan} AS b, {X}")
    assert [feature.nullable for feature in resolved.signature.features] == [True, True, False]
    assert feature(resolved, "b").maximum == 298.5


def test_categories_are_the_most_frequent_values_sorted_with_ties_by_value(resolve: Resolve) -> None:
    # 1200 values twice each, of which the thousand first in text order are kept, and one value more often.
    column = "CASE WHEN i < 2400 THEN lpad((i % 1200)::VARCHAR, 4, '0') ELSE 'zz' END AS c"
    categories = feature(resolve(f"{Y} {column}", rows=4000), "c").categories
    assert categories == (*(f"{code:04}" for code in range(999)), "zz")


def test_a_boolean_or_integer_column_made_categorical_keeps_its_json_type(
    resolve: Resolve,
) -> None:
    features = {"n": {"role": "categorical"}, "b": {"role": "categorical"}}
    resolved = resolve(f"{Y} i % 3 AS n, i % 5 = 0 AS b", features=features)
    assert feature(resolved, "n").categories == (0, 1, 2)
    assert [type(value) for value in feature(resolved, "b").categories or ()] == [bool, bool]


def test_a_stated_role_keeps_a_column_that_would_be_dropped(resolve: Resolve) -> None:
    resolved = resolve(f"{Y} 'u' || i AS c, 7 AS k", features={"c": {"role": "categorical"}})
    assert len(feature(resolved, "c").categories or ()) == 200
    assert list(resolved.dropped) == ["k"]


def test_a_list_of_features_uses_these_columns_only(resolve: Resolve) -> None:
    resolved = resolve(f"{Y} {X} i AS n, i * 1.5 AS a", features=["n", "x"])
    assert [feature.name for feature in resolved.signature.features] == ["x", "n"]
    assert list(resolved.dropped) == ["a"]


def test_drop_and_nullable_are_obeyed(resolve: Resolve) -> None:
    features = {"a": {"role": "drop"}, "x": {"nullable": True}}
    resolved = resolve(f"{Y} {X} i * 1.5 AS a", features=features)
    assert resolved.signature.ignored == ("a",)
    assert feature(resolved, "x").nullable


def test_every_wrong_feature_is_named_at_once(resolve: Resolve) -> None:
    features = {
        "Xx": {"role": "numeric"},
        "s": {"role": "numeric"},
        "y": {"role": "boolean"},
        "x": {"role": "categorical"},
    }
    with pytest.raises(InvalidInput) as caught:
        resolve(f"{Y} {X} 'c' || i % 7 AS s", features=features)
    pointers = [error.pointer for error in caught.value.errors]
    assert pointers == ["/features/Xx", "/features/s/role", "/features/y", "/features/x/role"]
    assert "did you mean 'x'?" in caught.value.errors[0].detail
    assert "categorical" in caught.value.errors[1].detail


def test_a_listed_feature_is_pointed_at_by_its_position(resolve: Resolve) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve(f"{Y} {X} i AS n", features=["x", "z", "x", "y"])
    assert [error.pointer for error in caught.value.errors] == ["/features/1", "/features/2", "/features/3"]


@pytest.mark.parametrize(
    ("columns", "spec", "pointer", "words"),
    [
        (f"{Y} CASE WHEN i <> 5 THEN i * 1.5 END AS a", {"features": {"a": {"nullable": False}}},
         "/features/a/nullable", "1 of the rows"),
        (f"{Y} CASE WHEN i = 5 THEN 'inf'::DOUBLE ELSE i END AS a", {}, "/features/a", "infinite"),
        (f"{Y} CASE WHEN i = 5 THEN 1e200 ELSE i END AS a", {}, "/features/a", "1e+150"),
        (f"{Y} DATE '9999-12-01' + i::INT AS a", {}, "/features/a", "9999"),
        (f"{Y} 7 AS a", {}, "/features", "a: every row holds the same value"),
        (f"{Y} {X}", {"features": []}, "/features", "list of features is empty"),
        ("i % 2 = 0 AS y", {}, "/features", "the only column"),
        (f"{Y} {X}", {"target": "Yy"}, "/target", "did you mean 'y'?"),
        (f"{X} NULL::INT AS y", {}, "/target", "null in every row"),
        (f"{X} 'same' AS y", {}, "/target", "same value"),
        (f"{X} DATE '2013-01-01' + i::INT AS y", {}, "/target", "is a date"),
        (f"{X} CASE WHEN i < 19 THEN i % 2 = 0 END AS y", {}, "/target", "at least 20"),
        (f"{X} CASE WHEN i = 0 THEN 'rare' ELSE 'c' || i % 2 END AS y", {}, "/target", '"rare"'),
        (f"{X} 'c' || i // 2 AS y", {"rows": 2002}, "/target", "1001 classes"),
        (f"{X} CASE WHEN i = 5 THEN 'inf'::DOUBLE ELSE i END AS y", {}, "/target", "infinite"),
        (f"{X} 'c' || i % 3 AS y", {"task": "regression"}, "/task", "binary, multiclass"),
        (f"{X} 'c' || i % 3 AS y", {"task": "binary"}, "/task", "3 classes"),
        (f"{X} 'c' || i % 2 AS y", {"task": "multiclass"}, "/task", "2 classes"),
        (f"{X} i % 2 = 0 AS y", {"task": "regression"}, "/task", "binary"),
        (f"{Y} {X}", {"algorithm": "ridge"}, "/algorithm", "logistic_regression"),
        (f"{Y} {X}", {"algorithm": "svm"}, "/algorithm", "k_neighbors"),
        (f"{Y} {X}", {"params": {"C": 1}}, "/params", "auto"),
        (f"{Y} {X}", {"algorithm": "k_neighbors", "params": {"n_neighbors": 0}},
         "/params/n_neighbors", "1 to 1000"),
        (f"{Y} {X}", {"metric": "rmse"}, "/metric", "roc_auc"),
        (f"{Y} {X}", {"metric": "gini"}, "/metric", "roc_auc"),
        (f"{Y} {X}", {"validation": {"time_column": "x"}}, "/validation/time_column", "time"),
        (f"{Y} {X}", {"validation": {"method": "time"}}, "/validation/time_column", "no date"),
        (f"{Y} {X}", {"validation": {"method": "time", "time_column": "X1"}},
         "/validation/time_column", "'x'"),
        (f"{Y} 'c' || i % 3 AS s", {"validation": {"method": "time", "time_column": "s"}},
         "/validation/time_column", "string"),
        (f"{Y} CASE WHEN i > 2 THEN i * 1.5 END AS t", {"validation": {"method": "time", "time_column": "t"}},
         "/validation/time_column", "3 of the rows"),
        (f"{Y} {X} 5 AS t", {"validation": {"method": "time", "time_column": "t"}},
         "/validation/time_column", "single value"),
        (f"{Y} DATE '2013-01-01' + i::INT AS a, DATE '2014-01-01' + i::INT AS b",
         {"validation": {"method": "time"}}, "/validation/time_column", "a, b"),
        (f"{Y} {X}", {"validation": {"method": "grouped"}}, "/validation/group_column", "Name the column"),
        (f"{Y} {X}", {"validation": {"group_column": "x"}}, "/validation/group_column", "grouped"),
        (f"{Y} {X}", {"validation": {"method": "grouped", "group_column": "X1"}},
         "/validation/group_column", "'x'"),
        (f"{Y} {X}", {"validation": {"method": "grouped", "group_column": "y"}},
         "/validation/group_column", "is the target"),
        (f"{Y} {X} NULL::INT AS g", {"validation": {"method": "grouped", "group_column": "g"}},
         "/validation/group_column", "single value"),
        (f"{Y} {X}", {"rows": 0}, "/target", "no rows"),
        (f"{Y} {X}", {"metric": "f1_weighte"}, "/metric", "did you mean 'f1_weighted'"),
        (f"{Y} {X}", {"metric": "neg_max_error"}, "/metric", "for binary"),
        (f"{Y} {X}", {"metrics": ["f1", "gini"]}, "/metrics/1", "'gini'"),
        (f"{Y} {X}", {"search": {"algorithms": ["ridge"]}}, "/search/algorithms/0", "for binary"),
        (f"{Y} {X}", {"search": {"algorithms": ["random_forest", "trees"]}},
         "/search/algorithms/1", "'trees'"),
        (f"{Y} {X}", {"algorithm": "random_forest", "search": {"algorithms": ["random_forest"]}},
         "/search/algorithms", '"auto"'),
        (f"{Y} {X}", {"class_weight": [{"class": "yes", "weight": 2}]},
         "/class_weight/0/class", "false, true"),
        (f"{Y} {X}", {"class_weight": [{"class": 1, "weight": 2}]}, "/class_weight/0/class", "the integer 1"),
        (f"{Y} {X}", {"class_weight": [{"class": True, "weight": 2}, {"class": True, "weight": 1}]},
         "/class_weight/1", "twice"),
        (f"{Y} {X}", {"class_weight": [{"class": True, "weight": 0}]}, "/class_weight", "more than 0"),
        (f"{Y} {X}", {"class_weight": "balanced", "algorithm": "k_neighbors"},
         "/class_weight", "k_neighbors"),
        (f"{Y} {X}", {"class_weight": "balanced", "search": {"algorithms": ["k_neighbors"]}},
         "/class_weight", "k_neighbors"),
        (f"{X} sin(i) AS y", {"class_weight": "balanced"}, "/class_weight", "regression"),
        (f"{X} sin(i) AS y", {"calibration": "sigmoid"}, "/calibration", "regression"),
        (f"{X} sin(i) AS y", {"costs": [{"actual": 1, "predicted": 0, "cost": 1}]}, "/costs", "regression"),
        (f"{Y} {X}", {"costs": [{"actual": "no", "predicted": True, "cost": 1}]},
         "/costs/0/actual", "false, true"),
        (f"{Y} {X}", {"costs": [{"actual": True, "predicted": "no", "cost": 1}]},
         "/costs/0/predicted", "string \"no\""),
        (f"{Y} {X}", {"costs": 2 * [{"actual": True, "predicted": False, "cost": 1}]}, "/costs/1", "twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_with_a_pointer_and_a_way_out(
    resolve: Resolve, columns: str, spec: dict[str, Any], pointer: str, words: str
) -> None:
    at, detail = refused(resolve, columns, **spec)
    assert at == pointer
    assert words in detail


@pytest.mark.parametrize(
    ("column", "rows", "task", "classes"),
    [
        ("i % 2 = 0", 200, Task.BINARY, (False, True)),
        ("CASE WHEN i % 3 = 0 THEN 'yes' ELSE 'no' END", 200, Task.BINARY, ("no", "yes")),
        ("'c' || i % 3", 200, Task.MULTICLASS, ("c0", "c1", "c2")),
        ("i % 2 + 1", 20, Task.BINARY, (1, 2)),
        ("i % 10", 200, Task.MULTICLASS, tuple(range(10))),
        ("i % 11", 200, Task.REGRESSION, None),
        ("i % 20", 400, Task.MULTICLASS, tuple(range(20))),
        ("i % 21", 4200, Task.REGRESSION, None),
        ("(i % 2) * 0.5", 200, Task.REGRESSION, None),
    ],
)
def test_the_task_follows_from_the_targets_type_and_values(
    resolve: Resolve, column: str, rows: int, task: Task, classes: tuple[Any, ...] | None
) -> None:
    signature = resolve(f"{X} {column} AS y", rows=rows).signature
    assert signature.task is task
    assert signature.classes == classes
    assert classes is None or [type(label) for label in signature.classes or ()] == list(map(type, classes))


def test_the_stated_task_wins_where_the_target_allows_it(resolve: Resolve) -> None:
    assert resolve(f"{X} i % 2 AS y", task="regression").signature.classes is None
    assert resolve(f"{X} i % 30 AS y", task="multiclass").signature.classes == tuple(range(30))
    assert resolve(f"{X} (i % 2) * 0.5 AS y", task="binary").signature.classes == (0.0, 0.5)


def test_rows_without_a_target_are_counted_and_noted(resolve: Resolve) -> None:
    resolved = resolve(f"{X} CASE WHEN i % 4 > 0 THEN i * 0.5 ELSE 'NaN'::DOUBLE END AS y")
    assert resolved.without_target == 50
    assert "no value of 'y': 50" in resolved.notes[0]


def test_the_only_date_column_orders_the_rows_by_default(resolve: Resolve) -> None:
    resolved = resolve(f"{Y} {X} DATE '2013-01-01' + i::INT AS day", validation={"method": "time"})
    assert resolved.time_column == "day"


def test_time_is_suggested_where_rows_with_a_date_are_split_by_default(resolve: Resolve) -> None:
    dated = f"{Y} {X} DATE '2013-01-01' + i::INT AS day"
    (note,) = resolve(dated).notes
    assert "day could order them" in note
    assert '"time"' in note
    assert resolve(dated, validation={"method": "random"}).notes == ()
    assert resolve(f"{Y} {X}").notes == ()


def test_a_whole_number_names_the_class_of_a_number_target(resolve: Resolve) -> None:
    resolve(f"{X} (i % 2) * 1.0 AS y", task="binary", class_weight=[{"class": 1, "weight": 2}])


def test_further_metrics_are_each_named_once(resolve: Resolve) -> None:
    resolved = resolve(f"{Y} {X}", metric="f1", metrics=["f1", "jaccard", "jaccard"])
    assert (resolved.metric, resolved.metrics) == ("f1", ("jaccard",))


def test_the_target_is_neither_a_feature_nor_ignored(resolve: Resolve) -> None:
    signature = resolve(f"{Y} {X} 7 AS k").signature
    assert signature.known_columns == {"x", "k"}


def test_a_spec_is_checked_against_names_and_types_without_the_data() -> None:
    columns = {"y": ColumnType.STRING, "x": ColumnType.NUMBER}
    check_spec(columns, TrainingSpec(target="y"))
    with pytest.raises(InvalidInput, match="did you mean 'x'"):
        check_spec(columns, TrainingSpec(target="y", features=["xx"]))
    with pytest.raises(InvalidInput, match="list of features is empty"):
        check_spec(columns, TrainingSpec(target="y", features=[]))
    with pytest.raises(InvalidInput, match="regression"):
        check_spec(columns, TrainingSpec(target="y", task=Task.REGRESSION))
