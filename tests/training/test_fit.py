"""The child process's part: what it leaves behind, and the row that a model's description shows."""

import json
from pathlib import Path

import duckdb
import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.child import ERROR, REQUEST
from app.columns import ColumnType
from app.registry.signature import Feature, Role, Signature, Task
from app.serving.compiled import CompiledScorer
from app.training.fit import carry_out, example_row, fit_model
from app.training.handover import HOLDOUT, MODEL, PROBE, REPORT, RESULT, SCORER
from app.training.spec import TrainingSpec

SIGNATURE = Signature(
    features=(
        Feature(name="distance", type=ColumnType.INTEGER, role=Role.NUMERIC, nullable=True),
        Feature(name="wind", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=True),
        Feature(name="night", type=ColumnType.BOOLEAN, role=Role.BOOLEAN, nullable=True),
        Feature(
            name="carrier",
            type=ColumnType.STRING,
            role=Role.CATEGORICAL,
            nullable=True,
            categories=("AA", "B6", "UA"),
        ),
        Feature(name="day", type=ColumnType.DATE, role=Role.DATETIME, nullable=True),
        Feature(name="at", type=ColumnType.DATETIME, role=Role.DATETIME, nullable=True),
    ),
    target="late",
    target_type=ColumnType.BOOLEAN,
    task=Task.BINARY,
)
NAMES = [feature.name for feature in SIGNATURE.features]
ROWS = [
    dict(zip(NAMES, cells, strict=True))
    for cells in (
        (5, 1.5, True, "UA", "2013-01-02", "2013-01-02T08:00:00Z"),
        (9, 2.5, True, "B6", "2013-01-01", "2013-01-02T07:00:00Z"),
        (7, 0.5, False, "UA", "2013-01-03", "2013-01-02T09:00:00Z"),
    )
]


def test_the_example_is_the_first_row_of_the_fewest_nulls() -> None:
    assert example_row(SIGNATURE, SIGNATURE.encode(ROWS)) == ROWS[0]
    some = [row | {name: None} for row, name in zip(ROWS, NAMES, strict=False)]
    assert example_row(SIGNATURE, SIGNATURE.encode([*some, *ROWS])) == ROWS[0]
    assert example_row(SIGNATURE, SIGNATURE.encode(some[1:])) == some[1]
    nothing = dict.fromkeys(NAMES)
    assert example_row(SIGNATURE, SIGNATURE.encode([nothing])) == nothing


def test_the_example_has_known_categories_only() -> None:
    strange = [row | {"carrier": "ZZ"} for row in ROWS]
    assert example_row(SIGNATURE, SIGNATURE.encode([*strange, ROWS[1]])) == ROWS[1]
    assert example_row(SIGNATURE, SIGNATURE.encode(strange)) == ROWS[0] | {"carrier": "AA"}


cells = st.tuples(
    st.integers(-(2**53), 2**53),
    st.floats(-1e300, 1e300),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([-1.0, 0.0, 1.0, 2.0]),
    st.integers(-20_000, 20_000).map(lambda day: day * 86_400),
    st.integers(-(2**31), 2**31),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(cells, min_size=1, max_size=8))
def test_the_example_is_encoded_as_a_row_of_the_data(rows: list[tuple[float, ...]]) -> None:
    matrix = np.array(rows, dtype=np.float64)
    row = example_row(SIGNATURE, matrix)
    json.dumps(row, allow_nan=False)
    known = np.where(np.arange(6) == 3, np.maximum(matrix, 0), matrix)
    assert SIGNATURE.encode([row]).tolist()[0] in known.tolist()


@pytest.fixture
def request_folder(tmp_path: Path) -> Path:
    request = {"parts": [str(tmp_path / "data.parquet")], "spec": {"target": "late", "algorithm": "dummy"}}
    (tmp_path / REQUEST).write_text(json.dumps(request))
    return tmp_path


def test_whatever_goes_wrong_is_left_behind_as_an_error(request_folder: Path) -> None:
    assert carry_out(request_folder) == 1
    assert json.loads((request_folder / ERROR).read_text())["code"] == "fit_failed"
    assert not (request_folder / RESULT).exists()


def test_a_result_that_cannot_be_written_is_an_error_too(request_folder: Path) -> None:
    with duckdb.connect() as connection:
        rows = connection.table_function("range", [40])
        columns = "range % 7 / 2 AS wind, range % 3 = 0 AS late"
        rows.project(columns).to_parquet(str(request_folder / "data.parquet"))
    (request_folder / RESULT).mkdir()
    assert carry_out(request_folder) == 1
    error = json.loads((request_folder / ERROR).read_text())
    assert error["code"] == "fit_failed"
    assert "IsADirectoryError" in error["detail"]


@pytest.mark.parametrize(
    ("algorithm", "runtime", "files"),
    [
        ("ridge", "compiled", {MODEL, SCORER, REPORT, HOLDOUT, PROBE}),
        ("k_neighbors", "native", {MODEL, REPORT, HOLDOUT, PROBE}),
    ],
)
def test_a_model_is_left_with_a_scorer_or_with_the_reason_why_it_has_none(
    tmp_path: Path, algorithm: str, runtime: str, files: set[str]
) -> None:
    with duckdb.connect() as connection:
        rows = connection.table_function("range", [200])
        rows.project("sin(range) AS wind, cos(range) AS delay").to_parquet(str(tmp_path / "data.parquet"))
    folder = tmp_path / "work"
    folder.mkdir()
    spec = TrainingSpec(target="delay", algorithm=algorithm)
    result = fit_model(tmp_path / "data.parquet", spec, folder)
    assert {path.name for path in folder.iterdir()} == files
    assert result["runtime"] == runtime
    assert (result["runtime_reason"] is None) == (runtime == "compiled")
    if SCORER in files:
        scorer = CompiledScorer.from_bytes((folder / SCORER).read_bytes())
        matrix = Signature.model_validate(result["signature"]).encode([result["example"]])
        assert scorer.score(matrix)[0, 0] == pytest.approx(joblib.load(folder / MODEL).predict(matrix)[0])
    served = result["evaluation"]["as_served"]
    assert served["bytes"] == (folder / (SCORER if SCORER in files else MODEL)).stat().st_size
    assert served["row_microseconds"] > 0
    held = duckdb.read_parquet(str(folder / HOLDOUT)).fetchnumpy()
    assert len(held["row"]) == 40
    assert np.array_equal(held["actual"], np.cos(held["row"]))
    rmse = np.sqrt(np.mean((held["actual"] - held["score_0"]) ** 2))
    assert rmse == pytest.approx(result["metrics"]["rmse"])
    with np.load(folder / PROBE) as probe:
        model = joblib.load(folder / MODEL)
        assert len(probe["matrix"]) == 160
        assert probe["scores"][:, 0] == pytest.approx(model.predict(probe["matrix"]))
    assert json.loads((folder / REPORT).read_text())["metric"] == "rmse"
