"""Compiled pipelines: the same answers as scikit-learn's, for every algorithm of the catalogue."""

import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import LinAlgWarning
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.columns import ColumnType
from app.registry.predictor import predict
from app.registry.runtime import Runtime
from app.registry.signature import OTHER_CATEGORY, Feature, Role, Signature, Task
from app.serving import kernels
from app.serving.compile import NotCompilable, compile_model, compile_pipeline, feature_names
from app.serving.compiled import TIME_PARTS, CompiledPipeline, CompiledScorer, UnreadableScorer
from app.serving.parity import check_parity
from app.training.algorithms.catalogue import ALGORITHMS
from app.training.algorithms.estimators import build_estimator
from app.training.preparation.pipeline import build_pipeline
from app.training.preparation.steps import (
    BooleanSteps,
    CategoricalSteps,
    DatetimeSteps,
    NumericSteps,
    Plan,
    Preparation,
    Selection,
    Steps,
    resolve_plan,
)

FEW_TREES = {"n_estimators": 7, "min_samples_leaf": 1}
SMALL: dict[str, dict[str, Any]] = {
    "decision_tree": {"min_samples_leaf": 1},
    "random_forest": FEW_TREES,
    "extra_trees": FEW_TREES,
    "gradient_boosting": FEW_TREES,
    "hist_gradient_boosting": {"max_iter": 7, "min_samples_leaf": 2},
}
TYPES = {
    Role.NUMERIC: ColumnType.NUMBER,
    Role.BOOLEAN: ColumnType.BOOLEAN,
    Role.CATEGORICAL: ColumnType.STRING,
    Role.DATETIME: ColumnType.DATETIME,
}
CLASSES: dict[Task, tuple[str, ...] | None] = {
    Task.BINARY: ("no", "yes"),
    Task.MULTICLASS: ("a", "b", "c", "d"),
    Task.REGRESSION: None,
}
YEARS_1_AND_9999 = (-62_135_596_800.0, 253_402_300_799.0)

cases = pytest.mark.parametrize(
    ("algorithm", "task"),
    [
        pytest.param(entry.id, task, id=f"{entry.id}-{task}")
        for entry in ALGORITHMS.values()
        if entry.served is Runtime.COMPILED
        for task in entry.tasks
    ],
)


@st.composite
def signatures(draw: st.DrawFn, task: Task) -> Signature:
    roles = draw(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=6))
    return Signature(
        features=tuple(
            Feature(
                name=f"column {place}",
                type=TYPES[role],
                role=role,
                nullable=True,
                categories=tuple(f"c{code}" for code in range(draw(st.integers(1, 8))))
                if role is Role.CATEGORICAL
                else None,
            )
            for place, role in enumerate(roles)
        ),
        target="y",
        target_type=ColumnType.STRING,
        task=task,
        classes=CLASSES[task],
    )


scales = st.sampled_from(["standard", "robust", "minmax", None])
STEPS: dict[Role, st.SearchStrategy[Steps]] = {
    Role.NUMERIC: st.builds(
        NumericSteps,
        impute=st.sampled_from(["median", "mean", "most_frequent", "constant"]),
        fill_value=st.sampled_from([0.0, -1e6, 0.1]),
        indicator=st.booleans(),
        clip=st.sampled_from([None, (0.05, 0.9), (0.0, 0.99)]),
        transform=st.sampled_from([None, "yeo_johnson"]),
        scale=scales,
    ),
    Role.BOOLEAN: st.builds(
        BooleanSteps, impute=st.sampled_from(["most_frequent", "constant"]), indicator=st.booleans()
    ),
    Role.CATEGORICAL: st.builds(
        CategoricalSteps,
        encode=st.sampled_from(["one_hot", "ordinal", "target"]),
        min_frequency=st.sampled_from([0.0, 0.01, 0.3]),
        max_categories=st.sampled_from([2, 50]),
    ),
    Role.DATETIME: st.builds(
        DatetimeSteps,
        parts=st.lists(st.sampled_from(TIME_PARTS), min_size=1, max_size=10, unique=True).map(tuple),
        impute=st.sampled_from(["median", "mean"]),
        indicator=st.booleans(),
        scale=scales,
    ),
}


@st.composite
def plans(draw: st.DrawFn, signature: Signature) -> Plan:
    numeric = [place for place, feature in enumerate(signature.features) if feature.role is Role.NUMERIC]
    return Plan(
        steps=tuple(draw(STEPS[feature.role]) for feature in signature.features),
        interactions=tuple(numeric[: draw(st.sampled_from([0, 2, 3]))] if len(numeric) > 1 else ()),
        select=draw(
            st.none()
            | st.builds(
                Selection,
                method=st.sampled_from(["univariate", "importance"]),
                keep=st.sampled_from([0.01, 0.3, 0.7, 1.0]),
            )
        ),
        seed=draw(st.integers(0, 9)),
    )


def cells(feature: Feature) -> st.SearchStrategy[float]:
    """Whatever ``Signature.encode`` can make of a value of this column."""
    match feature.role:
        case Role.NUMERIC:
            usual = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3).map(float)
        case Role.BOOLEAN:
            usual = st.sampled_from([0.0, 1.0])
        case Role.CATEGORICAL:
            usual = st.integers(int(OTHER_CATEGORY), len(feature.categories or ()) - 1).map(float)
        case Role.DATETIME:
            usual = st.floats(*YEARS_1_AND_9999) | st.sampled_from(YEARS_1_AND_9999)
    return usual | st.just(np.nan)


def training_matrix(signature: Signature, rows: int, seed: int) -> NDArray[np.float64]:
    """Random columns, each with its share of nulls, and of rare categories."""
    source = np.random.default_rng(seed)
    columns = []
    for feature in signature.features:
        match feature.role:
            case Role.NUMERIC:
                column = np.round(source.normal(source.normal() * 10, 10 ** source.uniform(-3, 3), rows), 2)
            case Role.BOOLEAN:
                column = source.integers(0, 2, rows).astype(np.float64)
            case Role.CATEGORICAL:
                column = np.floor(len(feature.categories or ()) * source.random(rows) ** 3)
                column[source.random(rows) < 0.02] = OTHER_CATEGORY
            case Role.DATETIME:
                column = source.uniform(0, 2e9, rows)
        column[source.random(rows) < source.choice([0, 0.02, 0.3])] = np.nan
        columns.append(column)
    return np.column_stack(columns)


def fitted(
    signature: Signature,
    algorithm: str,
    matrix: NDArray[np.float64],
    seed: int,
    classes: tuple[int, ...] | None = None,
    plan: Plan | None = None,
) -> Pipeline:
    """Fitted to the rank of the first column, with noise; ``classes`` are those to learn, by default all."""
    plan = plan or resolve_plan(signature.features, Preparation(), {}, seed)
    source = np.random.default_rng(seed)
    signal = np.nan_to_num(matrix[:, 0]).argsort().argsort() / len(matrix) + source.normal(
        0, 0.3, len(matrix)
    )
    target = signal
    if signature.classes:
        labels = np.array(classes or range(len(signature.classes)))
        target = labels[(signal.argsort().argsort() * len(labels)) // len(signal)]
    estimator = build_estimator(algorithm, signature.task, SMALL.get(algorithm, {}), seed)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", LinAlgWarning)
        return build_pipeline(signature, plan, estimator).fit(matrix, target)


@cases
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(0, 2**32 - 1))
def test_a_compiled_pipeline_answers_as_the_pipeline_does(
    algorithm: str, task: Task, data: st.DataObject, seed: int
) -> None:
    signature = data.draw(signatures(task))
    matrix = training_matrix(signature, 120, seed)
    pipeline = fitted(signature, algorithm, matrix, seed, plan=data.draw(plans(signature)))
    drawn = data.draw(st.lists(st.tuples(*map(cells, signature.features)), min_size=1, max_size=9))
    rows = np.vstack((matrix[:40], drawn))

    compiled = compile_pipeline(pipeline, signature)
    scorer = CompiledScorer.from_bytes(compiled.to_bytes())
    answers = scorer.score(rows)
    with np.errstate(over="ignore", invalid="ignore"), threadpool_limits(1):
        values, probabilities = predict(pipeline, signature, rows)
        prepared = pipeline[:-1].transform(rows)
        names = np.array(feature_names(pipeline, signature))
        if "select" in pipeline.named_steps:
            names = names[pipeline.named_steps["select"].get_support()]
        own = pipeline.predict(rows)[:, None] if probabilities is None else pipeline.predict_proba(rows)
    expected = values[:, None] if probabilities is None else probabilities
    np.testing.assert_allclose(answers, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(answers, own, rtol=1e-9, atol=1e-9)
    assert [scorer.row(row.tobytes()) for row in rows] == [tuple(answer) for answer in answers]
    for row, features in zip(rows[-9:], prepared[-9:], strict=True):
        made = scorer.steps(row[None]).features
        assert [made[name] for name in names] == features.astype(
            np.float32 if compiled.single else np.float64
        ).tolist()
    assert check_parity(pipeline, signature, compiled, rows) is None


def test_a_pipeline_is_stored_in_equal_bytes_and_read_back_whole() -> None:
    for task in Task:
        signature, matrix = example(task)
        first, again = (
            compile_pipeline(fitted(signature, "random_forest", matrix, seed=3), signature).to_bytes()
            for _ in range(2)
        )
        assert first == again
        assert CompiledPipeline.from_bytes(first).to_bytes() == first


@pytest.mark.parametrize("damage", [b"", b"not a pipeline", "cut", "flipped"])
def test_bytes_that_are_no_pipeline_are_refused(damage: bytes | str) -> None:
    signature, matrix = example(Task.BINARY)
    stored = compile_pipeline(fitted(signature, "decision_tree", matrix, seed=0), signature).to_bytes()
    broken = damage if isinstance(damage, bytes) else stored[: len(stored) // 2]
    if damage == "flipped":
        middle = stored.index(b"nodes.npy") + 300
        broken = stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :]
    with pytest.raises(UnreadableScorer):
        CompiledScorer.from_bytes(broken)


def test_a_pipeline_of_another_format_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    signature, matrix = example(Task.BINARY)
    compiled = compile_pipeline(fitted(signature, "decision_tree", matrix, seed=0), signature)
    with monkeypatch.context() as later:
        later.setattr("app.serving.compiled.FORMAT", 3)
        stored = compiled.to_bytes()
    with pytest.raises(UnreadableScorer, match="of format 3; this release reads format 2: train again"):
        CompiledScorer.from_bytes(stored)


def test_a_pipeline_of_the_first_format_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    signature, matrix = example(Task.BINARY)
    compiled = compile_pipeline(fitted(signature, "decision_tree", matrix, seed=0), signature)
    (row,) = np.flatnonzero(compiled.steps[:, 0] == kernels.TIME)
    at = int(compiled.steps[row, 3])
    steps, numbers = compiled.steps.copy(), compiled.numbers.copy()
    steps[row, 4] = 0  # its times had the five parts of today's default, each with null, mean and scale
    numbers[at : at + 15] = compiled.numbers[at : at + 30].reshape(5, 6)[:, 1:4].ravel()
    numbers[at + 15 : at + 30] = np.nan
    with monkeypatch.context() as earlier:
        earlier.setattr("app.serving.compiled.FORMAT", 1)
        stored = replace(compiled, steps=steps, numbers=numbers).to_bytes()
    expected = CompiledScorer(compiled).score(matrix)
    assert CompiledScorer.from_bytes(stored).score(matrix).tobytes() == expected.tobytes()


def test_features_that_a_selection_drops_are_not_prepared() -> None:
    signature, matrix = example(Task.BINARY)
    plan = resolve_plan(signature.features, Preparation(select=Selection(keep=0.01)), {}, 0)
    pipeline = fitted(signature, "logistic_regression", matrix, seed=0, plan=plan)
    compiled = compile_pipeline(pipeline, signature)
    assert len(compiled.names) == len(compiled.steps) == 1
    np.testing.assert_allclose(
        CompiledScorer(compiled).score(matrix), pipeline.predict_proba(matrix), rtol=1e-12
    )


def test_columns_transformed_to_quantiles_are_for_scikit_learn_to_serve() -> None:
    signature, matrix = example(Task.BINARY)
    spec = Preparation(numeric=NumericSteps(transform="quantile_normal"))
    plan = resolve_plan(signature.features, spec, {}, 0)
    with pytest.raises(NotCompilable, match=r"quantiles are not compiled\."):
        compile_pipeline(fitted(signature, "decision_tree", matrix, seed=0, plan=plan), signature)


@pytest.mark.parametrize(
    ("preparation", "kind", "place"),
    [
        (Preparation(numeric=NumericSteps(clip=(0.1, 0.9))), kernels.CURVE, 2),  # the greatest value
        (Preparation(numeric=NumericSteps(transform="yeo_johnson")), kernels.CURVE, 3),  # lambda
        (Preparation(numeric=NumericSteps(scale="minmax")), kernels.CURVE, 6),  # the factor
        (Preparation(categorical=CategoricalSteps(encode="target")), kernels.LOOKUP, 1),  # another category
        (Preparation(categorical=CategoricalSteps(encode="ordinal")), kernels.LOOKUP, 3),
        (Preparation(datetime=DatetimeSteps(parts=("week",))), kernels.TIME, 0),  # the part
    ],
)
def test_the_gate_sees_a_step_that_prepares_otherwise(
    preparation: Preparation, kind: int, place: int
) -> None:
    signature, matrix = example(Task.REGRESSION)
    plan = resolve_plan(signature.features, preparation, {}, 0)
    pipeline = fitted(signature, "ridge", matrix, seed=2, plan=plan)
    compiled = compile_pipeline(pipeline, signature)
    assert check_parity(pipeline, signature, compiled, matrix[:1]) is None
    at = next(step[3] for step in compiled.steps.tolist() if step[0] == kind)
    numbers = compiled.numbers.copy()
    numbers[at + place] += 1
    off = replace(compiled, numbers=numbers)
    assert "the compiled pipeline is off by" in (check_parity(pipeline, signature, off, matrix[:1]) or "")


def test_a_scorer_is_loaded_without_scikit_learn() -> None:
    program = "import sys, app.serving.compiled; assert not {'sklearn', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_class_that_the_training_part_does_not_hold_has_the_probability_zero() -> None:
    signature, matrix = example(Task.MULTICLASS)
    for algorithm in ("logistic_regression", "linear_svm", "random_forest", "hist_gradient_boosting"):
        pipeline = fitted(signature, algorithm, matrix, seed=1, classes=(0, 2, 3))
        answers = CompiledScorer(compile_pipeline(pipeline, signature)).score(matrix)
        assert (answers[:, 1] == 0).all()
        np.testing.assert_allclose(answers.sum(axis=1), 1)


def test_the_steps_of_a_row_are_named_after_its_columns() -> None:
    signature, matrix = example(Task.BINARY)
    pipeline = fitted(signature, "logistic_regression", matrix, seed=0)
    features, raw = CompiledScorer(compile_pipeline(pipeline, signature)).steps(matrix[:1])
    assert {
        "column 0",
        "column 0 is null",
        "column 1 is null",
        "column 2 is null",
        "column 3 weekday",
    } <= set(features)
    assert 'column 2 is "c0"' in features
    np.testing.assert_allclose(raw, pipeline.decision_function(matrix[:1]))


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier,
        DecisionTreeRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    ],
)
def test_trees_send_missing_values_where_scikit_learn_does(estimator: Any) -> None:
    source = np.random.default_rng(5)
    matrix = source.normal(size=(400, 3))
    matrix[source.random(matrix.shape) < 0.3] = np.nan
    target = (np.nan_to_num(matrix, nan=2).sum(axis=1) > 2).astype(int) + np.isnan(matrix[:, 0])
    with threadpool_limits(1):
        model = estimator(random_state=0).fit(matrix, target)
        own = model.predict_proba(matrix) if hasattr(model, "classes_") else model.predict(matrix)[:, None]
    compiled = CompiledPipeline(
        columns=3,
        width=own.shape[1],
        names=("a", "b", "c"),
        steps=np.array([(kernels.VALUE, place, place, 0, 0) for place in range(3)], np.int32),
        numbers=np.array([np.nan, 0, 1]),  # null stays missing, the scale stays
        places=np.empty(0, np.int32),
        bound=1e9,
        **compile_model(model),
    )
    np.testing.assert_allclose(CompiledScorer(compiled).score(matrix), own, rtol=1e-14)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        DecisionTreeClassifier(min_samples_leaf=9),
        RandomForestClassifier(n_estimators=5, min_samples_leaf=5),
        GradientBoostingClassifier(n_estimators=5),
        HistGradientBoostingClassifier(max_iter=5),
        DummyClassifier(),
    ],
)
def test_sigmoids_over_a_model_answer_as_scikit_learns_do(estimator: Any, classes: int) -> None:
    source = np.random.default_rng(6)
    matrix = source.normal(size=(300, 2))
    target = ((matrix.sum(axis=1) + source.normal(size=300)).argsort().argsort() * classes) // 300
    with threadpool_limits(1):
        model = CalibratedClassifierCV(estimator, method="sigmoid", ensemble=False).fit(matrix, target)
        own = model.predict_proba(matrix)
    compiled = CompiledPipeline(
        columns=2,
        width=classes,
        names=("a", "b"),
        steps=np.array([(kernels.VALUE, place, place, 0, 0) for place in range(2)], np.int32),
        numbers=np.array([0.0, 0, 1]),
        places=np.empty(0, np.int32),
        bound=1e9,
        **compile_model(model),
    )
    np.testing.assert_allclose(CompiledScorer(compiled).score(matrix), own, rtol=1e-12)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (GaussianNB(), "GaussianNB is not one of the models"),
        (
            CalibratedClassifierCV(LinearSVC(), method="isotonic", ensemble=False),
            "one sigmoid for each class",
        ),
        (CalibratedClassifierCV(LinearSVC()), "one sigmoid for each class"),
        (CalibratedClassifierCV(GaussianNB(), ensemble=False), "GaussianNB is not one of the models"),
        (GradientBoostingClassifier(init="zero"), "begins with another model"),
        (GradientBoostingRegressor(loss="huber"), "the loss huber"),
        (HistGradientBoostingRegressor(loss="poisson"), "the loss poisson"),
        (HistGradientBoostingClassifier(categorical_features=[0]), "splits by category"),
    ],
)
def test_what_is_not_compiled_says_why_in_a_sentence(model: Any, reason: str) -> None:
    source = np.random.default_rng(0)
    with threadpool_limits(1):
        model.fit(source.integers(0, 3, (60, 2)), source.integers(0, 2, 60))
    with pytest.raises(NotCompilable, match=reason) as refused:
        compile_model(model)
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize("algorithm", ["logistic_regression", "ridge", "hist_gradient_boosting"])
def test_the_gate_refuses_a_compiled_pipeline_that_answers_otherwise(algorithm: str) -> None:
    task = Task.REGRESSION if algorithm == "ridge" else Task.BINARY
    signature, matrix = example(task)
    pipeline = fitted(signature, algorithm, matrix, seed=2)
    compiled = compile_pipeline(pipeline, signature)
    assert check_parity(pipeline, signature, compiled, matrix) is None
    off = replace(compiled, initial=compiled.initial + 1e-6)
    assert "the compiled pipeline is off by up to" in (check_parity(pipeline, signature, off, matrix) or "")
    if task is Task.BINARY:
        swapped = replace(compiled, classes=compiled.classes[::-1])
        assert "predicts another class" in (check_parity(pipeline, signature, swapped, matrix) or "")
    numbers = compiled.numbers.copy()
    numbers[0] += 50  # what stands for null in a column that the holdout holds no null of
    whole = matrix[~np.isnan(matrix[:, 0])]
    wrong_null = replace(compiled, numbers=numbers)
    assert "rows made to go wrong" in (check_parity(pipeline, signature, wrong_null, whole) or "")


def example(task: Task) -> tuple[Signature, NDArray[np.float64]]:
    """A column of each role, and 200 rows of them with nulls in each."""
    categories = tuple(f"c{code}" for code in range(5))
    signature = Signature(
        features=tuple(
            Feature(
                name=f"column {place}",
                type=TYPES[role],
                role=role,
                nullable=True,
                categories=categories if role is Role.CATEGORICAL else None,
            )
            for place, role in enumerate(TYPES)
        ),
        target="y",
        target_type=ColumnType.STRING,
        task=task,
        classes=CLASSES[task],
    )
    matrix = training_matrix(signature, 200, seed=4)
    matrix[np.arange(12), np.arange(12) % 4] = np.nan
    return signature, matrix
