"""What the preparation did to the data of a fit: for people, in the evaluation report."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_selection import SelectFromModel
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from app.registry.signature import Feature, Role, Signature
from app.serving.compile import feature_names, prepared_features
from app.training.preparation.transformers import FTest, Imputer, QuantileClipper, Ranks, YeoJohnson

MAX_SHOWN = 30
"""Of a column's categories."""

Facts = dict[str, Any]


def describe_preparation(pipeline: Pipeline, signature: Signature) -> list[Facts]:
    """What each step of a fitted pipeline of ``build_pipeline`` did, as JSON: an entry for each column.

    ``column``, ``role`` and ``features``, the names of what it became. Where the steps are there: ``fill``
    (value, share of the rows that were null), ``clip`` (low, high, share_below, share_above), ``transform``
    (method; lambda of a power), ``scale`` (method; center and spread, or minimum and maximum), ``encode``
    (method; see ``_encoding``). Of a time, ``parts`` has ``fill`` and ``scale`` of each. At the end, where
    the plan has them, an entry with ``interactions``, names, and one with ``selection``: method, and
    ``kept`` and ``left_out``, the features with their scores, the best first.
    """
    features: dict[int, list[str]] = {}
    for name, column in prepared_features(pipeline, signature):
        features.setdefault(column, []).append(name)
    facts: dict[int, Facts] = {}
    for _, transformer, columns in pipeline.named_steps["prepare"].transformers_:
        for place, column in enumerate(columns):
            feature = signature.by_cell[column]
            if feature.role is Role.TEXT and place:
                continue  # the first of its columns stands for all
            entry = facts.setdefault(column, {"column": feature.name, "role": feature.role.value})
            entry |= _of_column(transformer, place, feature)
            entry["features"] = features.get(column, [])
    described = [facts[column] for column in sorted(facts)]
    names = feature_names(pipeline, signature)
    if "interact" in pipeline.named_steps:
        described.append({"interactions": names[sum(map(len, features.values())) :]})
    if "select" in pipeline.named_steps:
        described.append({"selection": _selection(pipeline.named_steps["select"], names)})
    return described


def _of_column(transformer: Any, place: int, feature: Feature) -> Facts:
    """The facts of the column at ``place`` among those of a transformer."""
    steps = [step for _, step in transformer.steps] if isinstance(transformer, Pipeline) else [transformer]
    if feature.role is Role.DATETIME and len(steps) > 1:
        parts = steps[0].kw_args["parts"]
        first = place * len(parts)
        return {
            "parts": [
                {"part": part} | _merged(steps[1:], first + offset, feature)
                for offset, part in enumerate(parts)
            ]
        }
    return _merged(steps, place, feature)


def _merged(steps: Sequence[Any], place: int, feature: Feature) -> Facts:
    return {key: fact for step in steps for key, fact in _of_step(step, place, feature)}


def _of_step(step: Any, place: int, feature: Feature) -> Iterator[tuple[str, Any]]:
    match step:
        case Imputer():
            value = float(step.statistics_[place])
            share = float(step.null_shares_[place])
            yield "fill", {"value": bool(value) if feature.role is Role.BOOLEAN else value, "share": share}
        case QuantileClipper():
            bounds, shares = step.bounds_[:, place].tolist(), step.shares_[:, place].tolist()
            yield (
                "clip",
                dict(zip(("low", "high", "share_below", "share_above"), bounds + shares, strict=True)),
            )
        case YeoJohnson():
            yield "transform", {"method": "yeo_johnson", "lambda": float(step.lambdas_[place])}
        case Ranks():
            yield "transform", {"method": f"quantile_{step.output_distribution}"}
        case StandardScaler() if feature.role is not Role.CATEGORICAL:
            yield "scale", _scale("standard", center=step.mean_[place], spread=step.scale_[place])
        case RobustScaler():
            yield "scale", _scale("robust", center=step.center_[place], spread=step.scale_[place])
        case MinMaxScaler():
            ends = {"minimum": step.data_min_[place], "maximum": step.data_max_[place]}
            yield "scale", _scale("minmax", **ends)
        case OneHotEncoder() | OrdinalEncoder() | TargetEncoder():
            yield "encode", _encoding(step, place, feature)


def _scale(method: str, **numbers: float) -> Facts:
    return {"method": method} | {name: float(number) for name, number in numbers.items()}


def _encoding(encoder: Any, place: int, feature: Feature) -> Facts:
    """What the categories became, null among them; at most MAX_SHOWN in a list.

    ``own``: each with a feature, a place or a mean of its own, in order; ``merged``: the rare ones, which
    share one; ``more_own`` and ``more_merged`` count those not shown. ``means`` (of ``target``) go with
    ``own``: a number, or one for each class of the fit.
    """
    methods = {OneHotEncoder: "one_hot", OrdinalEncoder: "ordinal", TargetEncoder: "target"}
    codes = encoder.categories_[place]
    rare = getattr(encoder, "infrequent_categories_", {place: None})[place]
    merged = np.zeros(len(codes), np.bool_) if rare is None else _among(codes, rare)
    # A code below 0 stands for the categories beyond the thousand that a signature knows.
    own = np.flatnonzero(~merged & ~(codes < 0))
    entry = {"method": methods[type(encoder)]} | _listed("own", codes[own], feature)
    entry |= _listed("merged", codes[merged & ~(codes < 0)], feature)
    if isinstance(encoder, TargetEncoder):
        classes = len(encoder.classes_) if encoder.target_type_ == "multiclass" else 1
        means = np.column_stack(encoder.encodings_[place * classes : (place + 1) * classes])[own[:MAX_SHOWN]]
        entry["means"] = (means if classes > 1 else means[:, 0]).tolist()
    return entry


def _among(codes: NDArray[np.float64], some: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which codes are among some of them; NaN, which stands for null, equals itself here."""
    return np.isin(codes, some) | (np.isnan(codes) & np.isnan(some).any())


def _listed(name: str, codes: NDArray[np.float64], feature: Feature) -> Facts:
    known = feature.categories or ()
    shown = [None if np.isnan(code) else known[int(code)] for code in codes[:MAX_SHOWN].tolist()]
    more = len(codes) - len(shown)
    return {name: shown} | ({f"more_{name}": more} if more else {})


def _selection(select: SelectFromModel, names: Sequence[str]) -> Facts:
    scores = select.estimator_.feature_importances_
    kept = set(select.get_support(indices=True).tolist())
    ranked = [
        (place in kept, {"feature": names[place], "score": float(scores[place])})
        for place in np.argsort(-scores, kind="stable").tolist()
    ]
    return {
        "method": "univariate" if isinstance(select.estimator_, FTest) else "importance",
        "kept": [feature for is_kept, feature in ranked if is_kept],
        "left_out": [feature for is_kept, feature in ranked if not is_kept],
    }
