"""Compiling: a fitted pipeline of ``build_pipeline`` becomes a ``CompiledPipeline`` with the same answers.

Operations keep scikit-learn's order, so that features and the sums of trees are equal bit for bit; a
linear model's sum is ``predictor``'s, feature by feature.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier, DummyRegressor
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
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.impute import MissingIndicator
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from app.registry.signature import OTHER_CATEGORY, Feature, Signature
from app.serving import kernels
from app.serving.compiled import NODE, TIME_PARTS, CompiledPipeline


class NotCompilable(Exception):
    """The pipeline is for scikit-learn itself to serve; the message is a sentence that says why."""


def compile_pipeline(pipeline: Pipeline, signature: Signature) -> CompiledPipeline:
    """The flat form of a pipeline that ``build_pipeline`` made for the signature, and that is fitted.

    Raises NotCompilable.
    """
    made = _prepared(pipeline, signature)
    names = feature_names(pipeline, signature)
    model = compile_model(pipeline.named_steps["model"])
    if "select" in pipeline.named_steps:
        kept = pipeline.named_steps["select"].get_support(indices=True).tolist()
        needed = sorted({*kept, *(factor for place in kept for factor in made[place].factors)})
        places = {place: number for number, place in enumerate(needed)}
        model |= _spread([places[place] for place in kept], len(needed), model)
        names = [names[place] for place in needed]
        made = [
            replace(made[place], factors=tuple(places[factor] for factor in made[place].factors))
            for place in needed
        ]
    ends = pipeline.named_steps["bound"].transform(np.array([[-np.inf, np.inf]]))
    return CompiledPipeline(
        columns=signature.width,
        width=len(signature.classes or ("the value",)),
        names=_distinct(names),
        **_laid_in_steps(made),
        bound=float(ends.max()),
        **model,
    )


def feature_names(pipeline: Pipeline, signature: Signature) -> list[str]:
    """What the features that a fitted pipeline prepares stand for, in their order, before any selection."""
    names = [name for name, _ in prepared_features(pipeline, signature)]
    if "interact" in pipeline.named_steps:
        pairs = pipeline.named_steps["interact"].kw_args["pairs"]
        names += [f"{names[left]} times {names[right]}" for left, right in pairs]
    return names


def prepared_features(pipeline: Pipeline, signature: Signature) -> Iterator[tuple[str, int]]:
    """The name of each feature that the fitted step ``prepare`` makes, and the column it is made of.

    Of a text, that is the first of its columns.
    """
    for _, transformer, columns in pipeline.named_steps["prepare"].transformers_:
        match _parts(transformer):
            case [MissingIndicator() as indicator]:
                columns = [columns[place] for place in indicator.features_]
                endings = [[" is null"]] * len(columns)
            case [OneHotEncoder() as encoder]:
                endings = [
                    [f" is {_in_words(code, signature.by_cell[column])}" for code in own]
                    + [" is rare or unknown"] * others
                    for column, (own, others) in zip(columns, _own_categories(encoder), strict=True)
                ]
            case [TargetEncoder() as encoder, _] if encoder.target_type_ == "multiclass":
                classes = [(signature.classes or ())[code] for code in encoder.classes_]
                endings = [[f" by {json.dumps(label, ensure_ascii=False)}" for label in classes]] * len(
                    columns
                )
            case [FunctionTransformer(), TfidfTransformer()]:
                yield from ((signature.cell_names[column], columns[0]) for column in columns)
                continue
            case [FunctionTransformer() as parts, *_]:
                endings = [[f" {part}" for part in parts.kw_args["parts"]]] * len(columns)
            case _:
                endings = [[""]] * len(columns)
        for column, each in zip(columns, endings, strict=True):
            yield from ((f"{signature.by_cell[column].name}{ending}", column) for ending in each)


@dataclass(frozen=True, slots=True)
class _Made:
    """What makes one feature: a step's kind, the column that it reads, and what the kind takes.

    ``codes`` are the places, in a table of ``size`` codes, of those that a one-hot feature is 1 for;
    ``factors`` the features whose product it is.
    """

    kind: int
    column: int = 0
    numbers: tuple[float, ...] = ()
    codes: tuple[int, ...] = ()
    size: int = 0
    factors: tuple[int, ...] = ()


def _prepared(pipeline: Pipeline, signature: Signature) -> list[_Made]:
    """What makes each feature that the fitted pipeline prepares, before any selection."""
    made: list[_Made] = []
    for _, transformer, columns in pipeline.named_steps["prepare"].transformers_:
        features = [signature.by_cell[column] for column in columns]
        match _parts(transformer):
            case [MissingIndicator() as indicator]:
                made += [_Made(kernels.MISSING, columns[place], (0.0, 1.0)) for place in indicator.features_]
            case [OneHotEncoder() as encoder]:
                made += _one_hot(encoder, columns, features)
            case [OrdinalEncoder() | TargetEncoder(), StandardScaler()]:
                made += _looked_up(transformer, columns, features)
            case [FunctionTransformer() as parts, object(statistics_=nulls), *scaler]:
                made += _times(parts.kw_args["parts"], nulls, scaler, columns)
            case [object(statistics_=nulls), *curve]:
                made += _values(nulls, curve, columns)
            case [FunctionTransformer(), TfidfTransformer()]:
                raise NotCompilable(f"A text such as {features[0].name!r} is not compiled.")
            case _:
                raise NotCompilable(f"How {features[0].name!r} is prepared cannot be compiled.")
    if "interact" in pipeline.named_steps:
        pairs = pipeline.named_steps["interact"].kw_args["pairs"]
        made += [_Made(kernels.PRODUCT, factors=pair) for pair in pairs]
    return made


def _parts(transformer: Any) -> list[Any]:
    return [part for _, part in transformer.steps] if isinstance(transformer, Pipeline) else [transformer]


def _values(nulls: NDArray[np.float64], curve: Sequence[Any], columns: Sequence[int]) -> Iterator[_Made]:
    """Columns with a value for null, clipped, transformed and scaled."""
    count = len(columns)
    clip, lambdas, scale = np.tile([[-np.inf], [np.inf]], count), np.full(count, np.nan), _scale(None, count)
    for part in curve:
        match part:
            case PowerTransformer(method="yeo-johnson", standardize=False):
                lambdas = part.lambdas_
            case QuantileTransformer():
                raise NotCompilable("Columns transformed to quantiles are not compiled.")
            case StandardScaler() | RobustScaler() | MinMaxScaler():
                scale = _scale(part, count)
            case object(bounds_=bounds):
                clip = bounds
    numbers = np.column_stack((nulls, clip.T, lambdas, scale))
    plain = np.isinf(clip).all(axis=0) & np.isnan(lambdas) & (scale[:, 2:] == (1, 0)).all(axis=1)
    for column, each, is_plain in zip(columns, numbers.tolist(), plain, strict=True):
        if is_plain:
            yield _Made(kernels.VALUE, column, (each[0], *each[4:6]))
        else:
            yield _Made(kernels.CURVE, column, tuple(each))


def _times(
    parts: Sequence[str], nulls: NDArray[np.float64], scaler: Sequence[Any], columns: Sequence[int]
) -> Iterator[_Made]:
    count = len(columns) * len(parts)
    scale = _scale(scaler[0] if scaler else None, count)
    which = np.tile([float(TIME_PARTS.index(part)) for part in parts], len(columns))
    numbers = np.column_stack((which, nulls, scale))
    for column, each in zip(np.repeat(columns, len(parts)).tolist(), numbers.tolist(), strict=True):
        yield _Made(kernels.TIME, column, tuple(each))


def _scale(scaler: Any, count: int) -> NDArray[np.float64]:
    """Of each column what is subtracted, divided by, multiplied by and added; None leaves it as it is."""
    scale = np.tile([0.0, 1.0, 1.0, 0.0], (count, 1))
    match scaler:
        case StandardScaler():
            scale[:, 0], scale[:, 1] = scaler.mean_, scaler.scale_
        case RobustScaler():
            scale[:, 0], scale[:, 1] = scaler.center_, scaler.scale_
        case MinMaxScaler():
            scale[:, 2], scale[:, 3] = scaler.scale_, scaler.min_
    return scale


def _codes(feature: Feature) -> list[float]:
    """The codes of a column in the order of the kernel's tables: null, any other, the known ones."""
    return [np.nan, OTHER_CATEGORY, *map(float, range(len(feature.categories or ())))]


def _own_categories(encoder: OneHotEncoder) -> Iterator[tuple[list[float | None], bool]]:
    """Of each column the codes with a feature of their own, None for null; and whether others share one."""
    for categories, rare in zip(encoder.categories_, encoder.infrequent_categories_, strict=True):
        few = np.empty(0) if rare is None else rare
        is_rare = np.isin(categories, few) | (np.isnan(categories) & np.isnan(few).any())
        yield [None if np.isnan(code) else code for code in categories[~is_rare].tolist()], len(few) > 0


def _one_hot(encoder: OneHotEncoder, columns: Sequence[int], features: Sequence[Feature]) -> Iterator[_Made]:
    for column, feature, (own, others) in zip(columns, features, _own_categories(encoder), strict=True):
        size = 2 + len(feature.categories or ())
        places = {code: place for place, code in enumerate([None, *_codes(feature)[1:]])}
        groups: list[tuple[int, ...]] = [(places.pop(code),) for code in own]
        groups += [tuple(places.values())] if others else []
        for group in groups:
            yield _Made(kernels.ONE_HOT, column, codes=group, size=size)


def _looked_up(encoder: Any, columns: Sequence[int], features: Sequence[Feature]) -> Iterator[_Made]:
    """A table of what the fitted encoder and scaler answer to each code."""
    codes = [_codes(feature) for feature in features]
    rows = np.full((max(map(len, codes)), len(columns)), OTHER_CATEGORY)
    for place, own in enumerate(codes):
        rows[: len(own), place] = own
    answers = encoder.transform(rows)
    each = answers.shape[1] // len(columns)
    for place, (column, own) in enumerate(zip(columns, codes, strict=True)):
        for answer in answers[: len(own), each * place : each * (place + 1)].T:
            yield _Made(kernels.LOOKUP, column, tuple(answer.tolist()), size=len(own))


def _in_words(code: float | None, feature: Feature) -> str:
    if code is None:
        return "null"
    return json.dumps((feature.categories or ())[int(code)], ensure_ascii=False) if code >= 0 else "another"


def _laid_in_steps(made: Sequence[_Made]) -> dict[str, Any]:
    """The kernel's arrays; the parts of a time share a step, as do the categories of a column."""
    steps: list[tuple[int, int, int, int, int]] = []
    numbers: list[float] = []
    places: list[int] = []
    for (kind, column), run in groupby(enumerate(made), key=lambda each: (each[1].kind, each[1].column)):
        features = list(run)
        first, example = features[0]
        if kind == kernels.ONE_HOT:
            table = np.full(example.size, -1)
            for offset, (_, feature) in enumerate(features):
                table[list(feature.codes)] = offset
            steps.append((kind, column, first, len(places), example.size))
            places += table.tolist()
        elif kind == kernels.TIME:
            steps.append((kind, column, first, len(numbers), len(features)))
            numbers += [number for _, feature in features for number in feature.numbers]
        else:
            for place, feature in features:
                at, size = feature.factors or (len(numbers), feature.size)
                steps.append((kind, column, place, at, size))
                numbers += feature.numbers
    return {
        "steps": np.array(steps, np.int32).reshape(-1, 5),
        "numbers": np.array(numbers, np.float64),
        "places": np.array(places, np.int32),
    }


def _spread(places: Sequence[int], count: int, model: dict[str, Any]) -> dict[str, Any]:
    """The parts of a model that number its features, for ``count`` features of which it takes ``places``."""
    if model.get("weights") is not None:
        weights = np.zeros((count, model["weights"].shape[1]))
        weights[places] = model["weights"]
        return {"weights": weights}
    if model.get("nodes") is not None:
        nodes = model["nodes"].copy()
        bits = nodes["feature"] & ((1 << kernels.FEATURE_SHIFT) - 1)
        wide = np.array(places, np.uint32)[nodes["feature"] >> kernels.FEATURE_SHIFT]
        nodes["feature"] = wide << kernels.FEATURE_SHIFT | bits
        return {"nodes": nodes}
    return {}


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names; one that a column's own name made twice gets its number."""
    seen = Counter(names)
    return tuple(f"{name} #{place}" if seen[name] > 1 else name for place, name in enumerate(names))


def compile_model(model: Any) -> dict[str, Any]:
    """The fields of ``CompiledPipeline`` that a fitted estimator decides. Raises NotCompilable."""
    classes = np.asarray(getattr(model, "classes_", [0]), np.int32)
    return {"classes": classes} | _compile_estimator(model)


def _compile_estimator(model: Any) -> dict[str, Any]:
    match model:
        case LogisticRegression():
            return _linear(model) | _link(model.intercept_)
        case Ridge() | LinearRegression() | ElasticNet() | LinearSVR():
            return _linear(model) | {"link": kernels.IDENTITY}
        case CalibratedClassifierCV():
            return _calibrated(model)
        case DecisionTreeClassifier() | DecisionTreeRegressor():
            return _averaged([model])
        case (
            RandomForestClassifier()
            | RandomForestRegressor()
            | ExtraTreesClassifier()
            | ExtraTreesRegressor()
        ):
            return _averaged(model.estimators_)
        case GradientBoostingClassifier() | GradientBoostingRegressor():
            return _boosted(model)
        case HistGradientBoostingClassifier() | HistGradientBoostingRegressor():
            return _histogram_boosted(model)
        case DummyClassifier(strategy="prior"):
            return {"initial": model.class_prior_, "link": kernels.IDENTITY}
        case DummyRegressor(strategy="mean"):
            return {"initial": model.constant_.ravel(), "link": kernels.IDENTITY}
    raise NotCompilable(f"{type(model).__name__} is not one of the models that are compiled.")


def _link(scores: Sequence[float] | NDArray[np.float64]) -> dict[str, int]:
    """Of a classifier with log loss: one score for two classes, or one for each."""
    return {"link": kernels.LOGISTIC if len(scores) == 1 else kernels.SOFTMAX}


def _linear(model: Any) -> dict[str, Any]:
    weights = np.atleast_2d(model.coef_).T
    return {"weights": weights, "initial": np.broadcast_to(model.intercept_, weights.shape[1])}


def _calibrated(model: CalibratedClassifierCV) -> dict[str, Any]:
    if len(model.calibrated_classifiers_) != 1 or model.method != "sigmoid":
        raise NotCompilable("Of calibrated classifiers, those with one sigmoid for each class are compiled.")
    (inner,) = model.calibrated_classifiers_
    machine = isinstance(inner.estimator, LinearSVC)
    scores = _linear(inner.estimator) if machine else _compile_estimator(inner.estimator)
    if not machine and scores["link"] == kernels.IDENTITY and len(inner.calibrators) == 1:
        # Of two probabilities, the second one is calibrated.
        scores = scores | {"initial": scores["initial"][1:]}
        scores |= {"leaves": scores["leaves"][:, 1:]} if "leaves" in scores else {}
    # Platt's sigmoid is 1 / (1 + exp(a s + b)); the kernel's has the sign of the logistic function.
    sigmoids = [(-calibrator.a_, -calibrator.b_) for calibrator in inner.calibrators]
    return scores | {"link": kernels.SIGMOIDS, "sigmoids": np.array(sigmoids)}


@dataclass(frozen=True, slots=True)
class _Tree:
    """One tree's nodes by number, the root 0; ``left`` and ``right`` are 0 or less in a leaf.

    ``values`` has shape (nodes,), or (nodes, scores) where a leaf adds to every score.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    samples: NDArray[np.int64]
    values: NDArray[np.float64]


def _of_sklearn(tree: Any, values: NDArray[np.float64]) -> _Tree:
    return _Tree(
        tree.children_left.astype(np.int64),
        tree.children_right.astype(np.int64),
        tree.feature.astype(np.int64),
        tree.threshold,
        tree.missing_go_to_left.astype(bool),
        tree.n_node_samples,
        values,
    )


def _averaged(models: Sequence[Any]) -> dict[str, Any]:
    """The mean of trees: of the classes' shares in a leaf, or of a leaf's value."""
    trees = [
        _of_sklearn(
            model.tree_, model.tree_.value[:, 0, :] if is_classifier(model) else model.tree_.value[:, 0, 0]
        )
        for model in models
    ]
    scores = trees[0].values.shape[1] if trees[0].values.ndim == 2 else 1
    return {
        **_laid_out(trees),
        "initial": np.zeros(scores),
        "divisor": float(len(trees)),
        "single": True,
        "link": kernels.IDENTITY,
    }


def _boosted(model: Any) -> dict[str, Any]:
    _check_loss(model)
    if model.init is not None:
        raise NotCompilable("Gradient boosting that begins with another model is not compiled.")
    # The private method is the only one that tells what the sums begin with.
    initial = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0]
    trees = [
        _of_sklearn(each.tree_, model.learning_rate * each.tree_.value[:, 0, 0])
        for each in model.estimators_.ravel()
    ]
    link = _link(initial) if is_classifier(model) else {"link": kernels.IDENTITY}
    return _laid_out(trees) | {"initial": initial, "single": True} | link


def _histogram_boosted(model: Any) -> dict[str, Any]:
    _check_loss(model)
    if model.is_categorical_ is not None:
        raise NotCompilable("Histogram gradient boosting with splits by category is not compiled.")
    # scikit-learn has no public way to these trees.
    nodes = [each.nodes for iteration in model._predictors for each in iteration]
    trees = [
        _Tree(
            each["left"].astype(np.int64),
            each["right"].astype(np.int64),
            each["feature_idx"],
            each["num_threshold"],
            each["missing_go_to_left"].astype(bool),
            each["count"].astype(np.int64),
            each["value"],
        )
        for each in nodes
    ]
    initial = model._baseline_prediction.ravel()
    link = _link(initial) if is_classifier(model) else {"link": kernels.IDENTITY}
    return _laid_out(trees) | {"initial": initial} | link


def _check_loss(model: Any) -> None:
    if model.loss not in ("log_loss", "squared_error"):
        raise NotCompilable(f"Boosting with the loss {model.loss} is not compiled.")


def _laid_out(trees: Sequence[_Tree]) -> dict[str, Any]:
    """The trees one behind the other; in each, siblings side by side behind their parent."""
    blocks = []
    roots = np.cumsum([0] + [len(tree.left) for tree in trees])[:-1]
    orders = [_by_traffic(tree) for tree in trees]
    ends = [tree.values[order[tree.left[order] <= 0]] for tree, order in zip(trees, orders, strict=True)]
    leaves = None
    if ends[0].ndim == 2:
        # Of the leaves of a forest most are alike, such as the pure ones: few rows stay within the cache.
        leaves, rows = np.unique(np.concatenate(ends), axis=0, return_inverse=True)
        ends = np.split(rows.ravel().astype(np.float64), np.cumsum([len(values) for values in ends])[:-1])
    for tree, root, order, values in zip(trees, roots.tolist(), orders, ends, strict=True):
        split = tree.left[order] > 0
        block = np.zeros(len(order), NODE)
        places = np.argsort(order)
        block["left"] = root + np.where(split, places[tree.left[order]], np.arange(len(order)))
        block["threshold"][~split] = values
        block["threshold"][split] = tree.threshold[order[split]]
        block["feature"][split] = (
            tree.feature[order[split]] << kernels.FEATURE_SHIFT
            | tree.missing_left[order[split]] * kernels.MISSING_LEFT
            | kernels.SPLIT
        )
        blocks.append(block)
    return {
        "nodes": np.concatenate(blocks),
        "roots": roots.astype(np.uint32),
        "leaves": leaves,
    }


def _by_traffic(tree: _Tree) -> NDArray[np.int64]:
    """The nodes' numbers, children side by side, and behind them first the children of the busier of the two.

    So the way that most rows take lies together: it costs fewer lines of the cache.
    """
    left, right, samples = tree.left.tolist(), tree.right.tolist(), tree.samples.tolist()
    order, pending = [0], [0]
    while pending:
        node = pending.pop()
        if left[node] > 0:
            children = [left[node], right[node]]
            order += children
            pending += sorted(children, key=samples.__getitem__)
    return np.array(order)
