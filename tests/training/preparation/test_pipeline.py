"""The preparation of columns: the plan that a spec asks for, and what its pipeline makes of the data."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.pipeline import Pipeline

from app.columns import ColumnType
from app.errors import InvalidInput
from app.registry.runtime import Runtime
from app.registry.signature import OTHER_CATEGORY, Feature, Role, Signature, Task
from app.serving.compile import feature_names
from app.training.fit import fit_model
from app.training.handover import REPORT
from app.training.preparation.pipeline import build_pipeline, preparation_space
from app.training.preparation.steps import DatetimeSteps, NumericSteps, Plan, Preparation, resolve_plan
from app.training.preparation.summary import describe_preparation
from app.training.preparation.transformers import datetime_parts
from app.training.roles import check_spec, own_preparation, resolve_spec
from app.training.spec import TrainingSpec

COLUMNS = {
    "y": ColumnType.BOOLEAN,
    "age": ColumnType.INTEGER,
    "fare": ColumnType.NUMBER,
    "port": ColumnType.STRING,
    "sailed": ColumnType.DATETIME,
}
TYPES = {
    Role.NUMERIC: ColumnType.NUMBER,
    Role.BOOLEAN: ColumnType.BOOLEAN,
    Role.CATEGORICAL: ColumnType.STRING,
    Role.DATETIME: ColumnType.DATETIME,
}


def spec(**fields: Any) -> TrainingSpec:
    return TrainingSpec.model_validate({"target": "y"} | fields)


def signature_of(*roles: Role, task: Task = Task.BINARY, categories: int = 4) -> Signature:
    """A nullable feature of each role; classifiers have as many classes as there are categories, or two."""
    names = tuple("abcdefghijkl"[:categories])
    classes = {Task.BINARY: ("no", "yes"), Task.MULTICLASS: names, Task.REGRESSION: None}
    return Signature(
        features=tuple(
            Feature(
                name=f"{role} {place}",
                type=TYPES[role],
                role=role,
                nullable=True,
                categories=names if role is Role.CATEGORICAL else None,
            )
            for place, role in enumerate(roles)
        ),
        target="y",
        target_type=ColumnType.STRING,
        task=task,
        classes=classes[task],
    )


def plan_of(signature: Signature, seed: int = 0, **preparation: Any) -> Plan:
    return resolve_plan(signature.features, Preparation.model_validate(preparation), {}, seed)


def fitted(signature: Signature, plan: Plan, matrix: Any, target: Any) -> Pipeline:
    model = DummyRegressor() if signature.task is Task.REGRESSION else DummyClassifier()
    return build_pipeline(signature, plan, model).fit(np.array(matrix, np.float64), np.array(target))


def prepared(pipeline: Pipeline, matrix: Any) -> NDArray[np.float64]:
    made: NDArray[np.float64] = pipeline[:-1].transform(np.array(matrix, np.float64))
    return made


def write_table(path: Path, query: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")


def test_texts_stand_beside_other_columns() -> None:
    numeric, text, other = signature_of(Role.NUMERIC, Role.CATEGORICAL, Role.NUMERIC).features
    text = text.model_copy(update={"role": Role.TEXT, "categories": None, "tokens": ("cold", "warm")})
    signature = signature_of().model_copy(update={"features": (numeric, text, other)})
    plan = plan_of(signature, interactions={"columns": [numeric.name, other.name]}, select={"keep": 1})
    rows = [[1, 2, 0, 3], [2, 0, 0, 1], [3, np.nan, np.nan, 2], [4, 1, 1, 5]]
    pipeline = fitted(signature, plan, rows, [0, 1, 0, 1])
    made = prepared(pipeline, rows)
    names = feature_names(pipeline, signature)
    cold, warm = (names.index(f'{text.name} has "{word}"') for word in ("cold", "warm"))
    assert made[:3, [cold, warm]].tolist() == [[1, 0], [0, 0], [0, 0]]
    assert 0 < made[3, cold] < made[3, warm]  # warm is the rarer
    assert made[:, -1].tolist() == (made[:, 0] * made[:, 1]).tolist()
    described = describe_preparation(pipeline, signature)
    assert [(entry["column"], len(entry["features"])) for entry in described[:3]] == [
        (numeric.name, 1), (text.name, 2), (other.name, 1)
    ]  # fmt: skip


def test_a_columns_own_steps_override_those_of_its_role(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_table(
        path, "SELECT i % 2 = 0 AS y, sin(i) AS a, cos(i) AS b, tan(i) AS c FROM range(50) AS rows(i)"
    )
    asked = spec(
        features={"b": {"prepare": {"scale": None}}, "c": {"prepare": {"clip": [0.1, 0.9]}}},
        preparation={
            "numeric": {"transform": "yeo_johnson"},
            "interactions": {"columns": ["c", "a"]},
            "select": {"keep": 0.3},
        },
        seed=7,
    )
    features = resolve_spec(path, asked).signature.features
    plan = resolve_plan(features, asked.preparation, own_preparation(asked), asked.seed)
    usual = NumericSteps(transform="yeo_johnson")
    assert plan.steps == (
        usual,
        usual.model_copy(update={"scale": None}),
        usual.model_copy(update={"clip": (0.1, 0.9)}),
    )
    assert plan.interactions == (2, 0)
    assert (plan.select, plan.seed) == (asked.preparation.select, 7)


@pytest.mark.parametrize(
    ("features", "pointer", "detail"),
    [
        (
            {"fare": {"prepare": {"encode": "target"}}},
            "/features/fare/prepare/encode",
            "its fields are impute",
        ),
        ({"port": {"prepare": {"clip": [0, 1]}}}, "/features/port/prepare/clip", "its fields are encode"),
        ({"fare": {"prepare": {"scale": "log"}}}, "/features/fare/prepare/scale", "'standard'"),
        ({"fare": {"prepare": {"clip": [0.9, 0.1]}}}, "/features/fare/prepare/clip", "less than the second"),
        (
            {"fare": {"prepare": {"clip": [0.9, 2]}}},
            "/features/fare/prepare/clip/1",
            "less than or equal to 1",
        ),
        ({"sailed": {"prepare": {"parts": ["hour"] * 2}}}, "/features/sailed/prepare/parts", "named once"),
        ({"fare": {"role": "drop", "prepare": {"scale": None}}}, "/features/fare/prepare", "is dropped"),
        (
            {"age": {"role": "categorical", "prepare": {"scale": None}}},
            "/features/age/prepare/scale",
            "'age' is categorical",
        ),
    ],
)
def test_steps_that_do_not_fit_a_column_are_refused_with_those_that_do(
    features: Any, pointer: str, detail: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_spec(COLUMNS, spec(features=features))
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    ("columns", "features", "place", "detail"),
    [
        (["age", "weight"], {}, 1, "'weight' is not a numeric feature; such are: age, fare."),
        (["port", "fare"], {}, 0, "'port' is not a numeric feature"),
        (["age", "fare"], {"fare": {"role": "drop"}}, 1, "'fare' is not a numeric feature"),
        (["age", "fare"], {"age": {"role": "categorical"}}, 0, "'age' is not a numeric feature"),
        (["age", "fare", "age"], {}, 2, "'age' is named twice"),
    ],
)
def test_interactions_are_of_numeric_features(columns: Any, features: Any, place: int, detail: str) -> None:
    asked = spec(features=features, preparation={"interactions": {"columns": columns}})
    with pytest.raises(InvalidInput) as caught:
        check_spec(COLUMNS, asked)
    assert [error.pointer for error in caught.value.errors] == [f"/preparation/interactions/columns/{place}"]
    assert detail in caught.value.detail


def test_an_interaction_of_a_column_that_the_data_rules_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_table(path, "SELECT i % 2 AS y, sin(i) AS a, 7 AS same FROM range(50) AS rows(i)")
    with pytest.raises(InvalidInput, match="'same' is not a numeric feature; such are: a"):
        resolve_spec(path, spec(preparation={"interactions": {"columns": ["a", "same"]}}))


EVERY_PREPARATION = [
    {},
    {"numeric": {"impute": "mean", "clip": [0.05, 0.95], "scale": "robust"}},
    {"numeric": {"impute": "most_frequent", "transform": "yeo_johnson", "scale": "minmax"}},
    {"numeric": {"impute": "constant", "fill_value": -1, "transform": "quantile_uniform", "scale": None}},
    {"numeric": {"transform": "quantile_normal", "indicator": False}},
    {"boolean": {"impute": "constant", "fill_value": True}, "categorical": {"encode": "ordinal"}},
    {"categorical": {"encode": "ordinal", "min_frequency": 0}, "select": {"method": "importance"}},
    {"categorical": {"encode": "target"}, "select": {"keep": 0.2}},
    {"categorical": {"min_frequency": 0.4, "max_categories": 2}},
    {"datetime": {"parts": ["quarter", "week", "day_of_year", "minute", "elapsed"], "scale": "minmax"}},
    {"datetime": {"impute": "mean", "scale": None}, "interactions": {"columns": ["numeric 0", "numeric 4"]}},
]
ROLES = (Role.NUMERIC, Role.BOOLEAN, Role.CATEGORICAL, Role.DATETIME, Role.NUMERIC, Role.CATEGORICAL)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("preparation", EVERY_PREPARATION)
@pytest.mark.parametrize("fault", ["all null", "one value", "a null that the fold does not have", "none"])
def test_every_preparation_takes_every_row_alone_as_in_a_batch(
    preparation: dict[str, Any], task: Task, fault: str
) -> None:
    signature = signature_of(*ROLES, task=task)
    source = np.random.default_rng(3)
    rows = np.column_stack(
        (
            source.normal(0, 9, 40),
            source.integers(0, 2, 40),
            source.integers(-1, 4, 40),
            source.uniform(-1e9, 4e9, 40),
            np.exp(source.normal(0, 9, 40)),
            source.integers(0, 3, 40),
        )
    )
    target = source.integers(0, 2, 40) * (1.5 if task is Task.REGRESSION else 1)  # two classes of any number
    if fault == "all null":
        rows[:, :4] = np.nan
    elif fault == "one value":
        rows[:, :4] = [7.0, 1.0, 2.0, 1e9]
    elif fault == "none":
        rows[source.random(rows.shape) < 0.2] = np.nan
    pipeline = fitted(signature, plan_of(signature, **preparation), rows, target)

    new = np.vstack((rows[:5], np.full((1, 6), np.nan), [[1e150, 0, 3, 2e11, -1e150, OTHER_CATEGORY]]))
    made = prepared(pipeline, new)
    assert np.isfinite(made).all()
    if "select" not in preparation:
        assert made.shape[1] == len(feature_names(pipeline, signature))
    for row, expected in zip(new, made, strict=True):
        assert prepared(pipeline, [row]).tobytes() == expected.tobytes()
    json.dumps(describe_preparation(pipeline, signature), allow_nan=False)


def test_columns_with_equal_steps_share_a_transformer() -> None:
    signature = signature_of(*[Role.NUMERIC, Role.CATEGORICAL] * 30)
    plan = resolve_plan(signature.features, Preparation(), {"numeric 2": {"scale": None}}, 0)
    prepare = build_pipeline(signature, plan, DummyClassifier()).named_steps["prepare"]
    assert [len(columns) for _, _, columns in prepare.transformers] == [29, 1, 30, 30]


def test_a_fit_leaves_the_rows_as_they_are() -> None:
    signature = signature_of(Role.NUMERIC, Role.DATETIME)
    matrix = np.array([[1.0, 5e8], [np.nan, np.nan], [1e12, 9e8]] * 7)
    before = matrix.copy()
    pipeline = fitted(signature, plan_of(signature, numeric={"clip": [0.1, 0.9]}), matrix, [0, 1, 1] * 7)
    pipeline[:-1].transform(matrix)
    np.testing.assert_array_equal(matrix, before)


def test_no_row_sees_its_own_target_in_a_target_encoding() -> None:
    signature = signature_of(Role.CATEGORICAL, task=Task.REGRESSION, categories=12)
    codes = np.arange(60.0)[:, None] % 12
    leaks, crossed = [], []
    for seed in range(20):
        target = np.random.default_rng(seed).normal(size=60)  # noise: there is nothing to be learnt
        plan = plan_of(signature, seed, categorical={"encode": "target"})
        prepare, again = (build_pipeline(signature, plan, DummyRegressor())[:-1] for _ in range(2))
        learnt = prepare.fit_transform(codes, target)
        crossed.append(np.corrcoef(learnt[:, 0], target)[0, 1])
        leaks.append(np.corrcoef(prepare.transform(codes)[:, 0], target)[0, 1])
        assert again.fit_transform(codes, target).tobytes() == learnt.tobytes()
    assert np.mean(leaks) > 0.3
    assert np.mean(crossed) < 0.05


@pytest.mark.parametrize("method", ["univariate", "importance"])
@pytest.mark.parametrize("task", [Task.BINARY, Task.REGRESSION])
def test_a_selection_keeps_its_share_and_the_telling_column_among_it(method: str, task: Task) -> None:
    signature = signature_of(*[Role.NUMERIC] * 8, task=task)
    matrix = np.random.default_rng(1).normal(size=(200, 8))
    matrix[:, 6] = 4.0  # says nothing at all
    target = matrix[:, 5] if task is Task.REGRESSION else matrix[:, 5] > 0
    for keep, count in ((0.01, 1), (0.5, 4), (1.0, 8)):
        plan = plan_of(signature, select={"method": method, "keep": keep})
        pipeline = fitted(signature, plan, matrix, target)
        kept = pipeline.named_steps["select"].get_support(indices=True)
        assert len(kept) == count
        assert 5 in kept
        *_, described = describe_preparation(pipeline, signature)
        assert described["selection"]["method"] == method
        assert described["selection"]["kept"][0]["feature"] == "numeric 5"
        assert len(described["selection"]["left_out"]) == 8 - count


def test_interactions_are_products_of_prepared_columns() -> None:
    signature = signature_of(Role.BOOLEAN, *[Role.NUMERIC] * 4)
    matrix = np.random.default_rng(2).normal(size=(50, 5))
    matrix[:, 0] = matrix[:, 0] > 0
    matrix[3:9, 1] = np.nan
    plan = resolve_plan(
        signature.features,
        Preparation.model_validate({"interactions": {"columns": ["numeric 4", "numeric 2", "numeric 1"]}}),
        {"numeric 2": {"scale": "minmax"}},
        0,
    )
    pipeline = fitted(signature, plan, matrix, np.arange(50) % 2)
    made = dict(zip(feature_names(pipeline, signature), prepared(pipeline, matrix).T, strict=True))
    for left, right in ((4, 2), (4, 1), (2, 1)):
        product = made[f"numeric {left}"] * made[f"numeric {right}"]
        np.testing.assert_array_equal(made[f"numeric {left} times numeric {right}"], product)
    *_, described = describe_preparation(pipeline, signature)
    assert described == {"interactions": [name for name in made if " times " in name]}


PARTS = ("year", "quarter", "month", "week", "day", "day_of_year", "weekday", "hour", "minute", "elapsed")


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 30)))
def test_parts_of_a_time_are_those_of_its_calendar(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    since = (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
    (made,) = datetime_parts(np.array([[since]]), PARTS)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(np.floor(since)))  # as a float64
    assert made.tolist() == [
        moment.year,
        (moment.month + 2) // 3,
        moment.month,
        moment.isocalendar().week,
        moment.day,
        moment.timetuple().tm_yday,
        moment.weekday(),
        moment.hour,
        moment.minute,
        since / 86_400,
    ]


def test_what_each_step_did_is_told_in_the_terms_of_the_columns() -> None:
    signature = signature_of(Role.NUMERIC, Role.BOOLEAN, Role.CATEGORICAL, Role.DATETIME)
    rows = [[value, value % 2, [0, 0, 0, 0, 1][value % 5], 86_400.0 * value] for value in range(20)]
    rows += [[np.nan] * 4] * 5
    preparation: dict[str, Any] = {
        "numeric": {"clip": [0.25, 1], "scale": "minmax"},
        "categorical": {"min_frequency": 0.2},
        "datetime": {"parts": ["day"], "impute": "mean", "indicator": False, "scale": "robust"},
    }
    pipeline = fitted(signature, plan_of(signature, **preparation), rows, np.arange(25) % 2)
    number, boolean, category, moment = describe_preparation(pipeline, signature)
    assert number == {
        "column": "numeric 0",
        "role": "numeric",
        "fill": {"value": 9.5, "share": pytest.approx(0.2)},
        "clip": {"low": 6.0, "high": 19.0, "share_below": 0.24, "share_above": 0.0},
        "scale": {"method": "minmax", "minimum": 6.0, "maximum": 19.0},
        "features": ["numeric 0", "numeric 0 is null"],
    }
    assert boolean["fill"] == {"value": False, "share": pytest.approx(0.2)}
    assert category["encode"] == {"method": "one_hot", "own": ["a", None], "merged": ["b"]}
    assert category["features"] == [
        'categorical 2 is "a"',
        "categorical 2 is null",
        "categorical 2 is rare or unknown",
    ]
    (day,) = moment["parts"]
    assert day["fill"]["value"] == 10.5
    assert day["scale"]["method"] == "robust"
    assert moment["features"] == ["datetime 3 day"]


def test_the_means_of_a_target_encoding_are_told_for_each_category() -> None:
    signature = signature_of(Role.CATEGORICAL, categories=2)
    codes = [[0]] * 50 + [[1]] * 50
    pipeline = fitted(
        signature, plan_of(signature, categorical={"encode": "target"}), codes, [0] * 49 + [1] * 51
    )
    (described,) = describe_preparation(pipeline, signature)
    assert described["encode"]["own"] == ["a", "b"]
    np.testing.assert_allclose(described["encode"]["means"], [0.02, 1], atol=0.01)


def test_a_search_tries_what_could_matter_to_the_columns() -> None:
    assert preparation_space(signature_of(Role.BOOLEAN)) == {}
    assert set(preparation_space(signature_of(Role.NUMERIC))) == {"numeric.transform", "numeric.clip"}
    assert preparation_space(signature_of(Role.CATEGORICAL, categories=2)) == {}
    many = signature_of(Role.CATEGORICAL, task=Task.MULTICLASS, categories=12)
    assert preparation_space(many) == {"categorical.encode": ["one_hot", "ordinal"]}
    assert "select" in preparation_space(signature_of(*[Role.BOOLEAN] * 20))


def test_every_choice_of_the_search_is_a_preparation_and_the_first_is_the_default() -> None:
    signature = signature_of(*ROLES * 4)
    space = preparation_space(signature)
    usual = Preparation()
    for name, choices in space.items():
        assert usual.with_choices({name: choices[0]}) == usual
        assert len({usual.with_choices({name: choice}).model_dump_json() for choice in choices}) > 1
    last = usual.with_choices({name: choices[-1] for name, choices in space.items()})
    assert last.numeric.transform == "yeo_johnson"
    assert last.numeric.clip == (0.01, 0.99)
    assert last.categorical.encode == "target"
    assert last.datetime != DatetimeSteps()
    assert last.select is not None


def test_what_a_spec_prepares_is_served_compiled_and_reported(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    write_table(
        table,
        "SELECT i % 3 = 0 AS y, exp(9 * cos(i)) AS a, CASE WHEN i % 9 > 0 THEN i % 13 END AS b, "
        "'c' || i % 7 AS c, TIMESTAMP '2013-01-01' + to_hours(i) AS t FROM range(300) AS rows(i)",
    )
    asked = spec(
        algorithm="decision_tree",
        features={"b": {"role": "numeric", "prepare": {"clip": [0.05, 0.95]}}},
        preparation={
            "numeric": {"transform": "yeo_johnson"},
            "categorical": {"encode": "target"},
            "datetime": {"parts": ["week", "elapsed"]},
            "interactions": {"columns": ["a", "b"]},
            "select": {"keep": 0.6},
        },
        evaluation={"seeds": 0},
    )
    result = fit_model([table], asked, tmp_path)
    assert (result["runtime"], result["runtime_reason"]) == (Runtime.COMPILED, None)
    described = json.loads((tmp_path / REPORT).read_text())["preparation"]
    assert [entry.get("column") for entry in described] == ["a", "b", "c", "t", None, None]
    assert "clip" in described[1]
    assert "clip" not in described[0]
