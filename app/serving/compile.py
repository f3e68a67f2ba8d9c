"""Compiling: a fitted pipeline of ``build_pipeline`` becomes a ``CompiledPipeline`` with the same answers.

Operations keep scikit-learn's order, so that features and the sums of trees are equal bit for bit; a
linear model's sum is ``predictor``'s, feature by feature.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from app.registry.signature import OTHER_CATEGORY, Feature, Role, Signature
from app.serving import kernels
from app.serving.compiled import NODE, CompiledPipeline

TIME_PARTS = ("year", "month", "day", "weekday", "hour")
"""What the kernel's TIME makes of a time, in its order."""


class NotCompilable(Exception):
    """The pipeline is for scikit-learn itself to serve; the message is a sentence that says why."""


def compile_pipeline(pipeline: Pipeline, signature: Signature) -> CompiledPipeline:
    """The flat form of a pipeline that ``build_pipeline`` made for the signature, and that is fitted.

    Raises NotCompilable.
    """
    program = _Program(signature.features)
    for name, transformer, columns in pipeline.named_steps["prepare"].transformers_:
        program.add(Role(name), transformer, columns)
    ends = pipeline.named_steps["bound"].transform(np.array([[-np.inf, np.inf]]))
    return CompiledPipeline(
        columns=len(signature.features),
        width=len(signature.classes or ("the value",)),
        names=_distinct(program.names),
        steps=np.array(program.steps, np.int32).reshape(-1, 5),
        numbers=np.array(program.numbers, np.float64),
        places=np.array(program.places, np.int32),
        bound=float(ends.max()),
        **compile_model(pipeline.named_steps["model"]),
    )


class _Program:
    """The steps that prepare a row, as they are added in the order of the features that they make."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features
        self.names: list[str] = []
        self.steps: list[tuple[int, int, int, int, int]] = []
        self.numbers: list[float] = []
        self.places: list[int] = []

    def add(self, role: Role, transformer: Any, columns: Sequence[int]) -> None:
        """The steps of one fitted transformer of ``build_pipeline`` on these columns."""
        match role, list(transformer) if isinstance(transformer, Pipeline) else [transformer]:
            case Role.NUMERIC, [SimpleImputer() as imputer, StandardScaler() as scaler]:
                self._add_imputed(columns, imputer, scaler.mean_, scaler.scale_)
            case Role.BOOLEAN, [SimpleImputer() as imputer]:
                count = len(columns) + len(imputer.indicator_.features_)
                self._add_imputed(columns, imputer, np.zeros(count), np.ones(count))
            case Role.DATETIME, [_, SimpleImputer() as imputer, StandardScaler() as scaler]:
                self._add_imputed(columns, imputer, scaler.mean_, scaler.scale_, TIME_PARTS)
            case Role.CATEGORICAL, [OneHotEncoder() as encoder]:
                rare = encoder.infrequent_categories_
                for column, categories, infrequent in zip(columns, encoder.categories_, rare, strict=True):
                    self._add_one_hot(column, categories, infrequent)
            case _:
                raise NotCompilable(f"The {role} columns are prepared in a way that cannot be compiled.")

    def _add_imputed(
        self,
        columns: Sequence[int],
        imputer: SimpleImputer,
        means: NDArray[np.float64],
        scales: NDArray[np.float64],
        parts: Sequence[str] = (),
    ) -> None:
        """Columns, or their parts, with a statistic for null; then an indicator for each that had null."""
        each = len(parts) or 1
        numbers = np.column_stack(
            (imputer.statistics_, means[: each * len(columns)], scales[: each * len(columns)])
        )
        for place, column in enumerate(columns):
            name = self._features[column].name
            names = [f"{name} {part}" for part in parts] or [name]
            self._add(
                kernels.TIME if parts else kernels.VALUE,
                column,
                names,
                numbers[each * place : each * (place + 1)].ravel().tolist(),
            )
        for place, source in enumerate(imputer.indicator_.features_, start=each * len(columns)):
            column = columns[source // each]
            what = f" {parts[source % each]}" if parts else ""
            name = f"{self._features[column].name}{what} is null"
            self._add(kernels.MISSING, column, [name], [float(means[place]), float(scales[place])])

    def _add(self, kind: int, column: int, names: list[str], numbers: list[float]) -> None:
        self.steps.append((kind, column, len(self.names), len(self.numbers), 0))
        self.numbers += numbers
        self.names += names

    def _add_one_hot(
        self, column: int, categories: NDArray[np.float64], infrequent: NDArray[np.float64] | None
    ) -> None:
        """A feature for each category of the fit, but one together for infrequent and unknown ones."""
        feature = self._features[column]
        few = np.empty(0) if infrequent is None else infrequent
        rare = np.isin(categories, few) | (np.isnan(categories) & np.isnan(few).any())
        own = categories[~rare].tolist()
        others = len(own) if rare.any() else -1
        offsets = {None if np.isnan(code) else code: offset for offset, code in enumerate(own)}
        known = feature.categories or ()
        codes = [None, OTHER_CATEGORY, *map(float, range(len(known)))]
        self.steps.append((kernels.ONE_HOT, column, len(self.names), len(self.places), len(codes)))
        self.places += [offsets.get(code, others) for code in codes]
        words = {code: json.dumps(known[int(code)], ensure_ascii=False) for code in own if code >= 0}
        self.names += [
            f"{feature.name} is {words.get(code, 'another' if code < 0 else 'null')}" for code in own
        ]
        self.names += [f"{feature.name} is rare or unknown"] if rare.any() else []


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
    raise NotCompilable(f"scikit-learn's {type(model).__name__} is not one of the models that are compiled.")


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
    if not isinstance(inner.estimator, LinearSVC):
        raise NotCompilable("Of calibrated classifiers, linear support vector machines are compiled.")
    # Platt's sigmoid is 1 / (1 + exp(a s + b)); the kernel's has the sign of the logistic function.
    sigmoids = [(-calibrator.a_, -calibrator.b_) for calibrator in inner.calibrators]
    return _linear(inner.estimator) | {"link": kernels.SIGMOIDS, "sigmoids": np.array(sigmoids)}


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
