"""From a model's float64 matrix to numbers that an estimator can use.

Every step is fitted inside the pipeline, so that it sees the rows of the training fold and no others.
"""

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.feature_selection import SelectFromModel
from sklearn.impute import MissingIndicator
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from app.registry.signature import Role, Signature, Task
from app.training.preparation.steps import (
    BooleanSteps,
    CategoricalSteps,
    DatetimeSteps,
    NumericSteps,
    Plan,
    Selection,
    Steps,
    TextSteps,
)
from app.training.preparation.transformers import (
    ColumnGroups,
    FTest,
    Imputer,
    QuantileClipper,
    Ranks,
    Standardizer,
    YeoJohnson,
    bounded,
    datetime_parts,
    kept_features,
    with_products,
)

UNKNOWN_PLACE, NULL_PLACE = -1, -2
"""What an ordinal encoding gives to categories that the fold does not hold, and to null."""

CROSS_FITS = 5

MANY_CLASSES, MANY_FEATURES = 10, 20
"""A search leaves target encoding out beyond so many classes, and selects among so many columns."""

_READ_BY_ROW = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
"""Models that make a copy of a matrix that lies in memory column by column."""

_SCALERS = {"standard": Standardizer, "robust": RobustScaler, "minmax": MinMaxScaler}


def build_pipeline(signature: Signature, plan: Plan, estimator: BaseEstimator) -> Pipeline:
    """An unfitted pipeline of the steps ``prepare``, ``bound``, ``interact``?, ``select``? and ``model``.

    It takes matrices of shape (n, signature.width), as ``Signature.encode`` makes them, and target values as
    the estimator does. ``prepare`` has a transformer for all columns that share their steps, numeric ones
    first, then one for each text, and ``null`` at its end, which tells where the columns with an indicator
    held null.
    """
    groups = _groups(signature, plan)
    prepare = [
        (f"{role.value} {number}", _transformer(steps, signature.task, plan.seed), columns)
        for number, (role, steps, columns) in enumerate(groups)
    ]
    indicated = [
        place
        for place, feature, steps in zip(signature.places, signature.features, plan.steps, strict=True)
        if isinstance(place, int) and feature.nullable and getattr(steps, "indicator", False)
    ]
    if indicated:
        prepare.append(("null", MissingIndicator(error_on_new=False), indicated))
    steps: list[tuple[str, BaseEstimator]] = [
        ("prepare", ColumnGroups(prepare, by_row=isinstance(estimator, _READ_BY_ROW))),
        ("bound", FunctionTransformer(bounded)),
    ]
    if plan.interactions:
        # Numeric columns come first, and each is one feature.
        order = [column for _, _, columns in groups for column in columns]
        factors = [signature.places[position] for position in plan.interactions]
        pairs = list(combinations((order.index(place) for place in factors if isinstance(place, int)), 2))
        steps.append(("interact", FunctionTransformer(with_products, kw_args={"pairs": pairs})))
    if plan.select:
        steps.append(("select", _selection(plan.select, signature.task, plan.seed)))
    return Pipeline([*steps, ("model", estimator)])


def _groups(signature: Signature, plan: Plan) -> list[tuple[Role, Steps, list[int]]]:
    """The columns that share role and steps, in the order of the roles; of texts each on its own."""
    groups: dict[tuple[Role, Steps], list[int]] = {}
    texts: list[tuple[Role, Steps, list[int]]] = []
    for place, feature, steps in zip(signature.places, signature.features, plan.steps, strict=True):
        if isinstance(place, slice):
            texts.append((feature.role, steps, [*range(place.start, place.stop)]))
        else:
            groups.setdefault((feature.role, steps), []).append(place)
    order = list(Role)
    alike = ((role, steps, columns) for (role, steps), columns in groups.items())
    return sorted(alike, key=lambda group: order.index(group[0])) + texts


def _transformer(steps: Steps, task: Task, seed: int) -> TransformerMixin:
    match steps:
        case NumericSteps():
            return make_pipeline(
                Imputer(steps.impute, steps.fill_value),
                *([QuantileClipper(*steps.clip)] if steps.clip else []),
                *_curve(steps.transform, seed),
                *_scale(steps.scale),
            )
        case BooleanSteps():
            return make_pipeline(Imputer(steps.impute, float(steps.fill_value)))
        case DatetimeSteps():
            return make_pipeline(
                FunctionTransformer(datetime_parts, kw_args={"parts": steps.parts}),
                Imputer(steps.impute),
                *_scale(steps.scale),
            )
        case CategoricalSteps():
            return _encoder(steps, task, seed)
        case TextSteps():
            return make_pipeline(FunctionTransformer(np.nan_to_num), TfidfTransformer())
    raise TypeError(f"there is no transformer for {type(steps).__name__}")


def _curve(transform: str | None, seed: int) -> list[TransformerMixin]:
    match transform:
        case None:
            return []
        case "yeo_johnson":
            return [YeoJohnson(standardize=False)]
        case _:
            shape = transform.removeprefix("quantile_")
            return [Ranks(output_distribution=shape, random_state=seed, copy=False)]


def _scale(scale: str | None) -> list[TransformerMixin]:
    # ColumnGroups hands each of its parts a copy of the columns: that one may be written over.
    return [_SCALERS[scale](copy=False)] if scale else []


def _encoder(steps: CategoricalSteps, task: Task, seed: int) -> TransformerMixin:
    match steps.encode:
        case "one_hot":
            return OneHotEncoder(
                handle_unknown="infrequent_if_exist",
                min_frequency=steps.min_frequency or None,
                max_categories=steps.max_categories,
                sparse_output=False,
            )
        case "ordinal":
            encoder = OrdinalEncoder(
                handle_unknown="use_encoded_value",
                unknown_value=UNKNOWN_PLACE,
                encoded_missing_value=NULL_PLACE,
                min_frequency=steps.min_frequency or None,
            )
        case "target":
            encoder = TargetEncoder(
                # A fold of a multiclass target may hold two classes only: scikit-learn is to look.
                target_type="continuous" if task is Task.REGRESSION else "auto",
                cv=KFold(CROSS_FITS, shuffle=True, random_state=seed),
            )
    return make_pipeline(encoder, StandardScaler(copy=False))


def _selection(select: Selection, task: Task, seed: int) -> SelectFromModel:
    if select.method == "univariate":
        judge = FTest(task)
    else:
        forest = ExtraTreesRegressor if task is Task.REGRESSION else ExtraTreesClassifier
        judge = forest(n_estimators=50, max_depth=12, min_samples_leaf=3, n_jobs=1, random_state=seed)
    most = partial(kept_features, share=select.keep)
    return SelectFromModel(judge, threshold=-np.inf, max_features=most)


def preparation_space(signature: Signature) -> dict[str, list[Any]]:
    """The choices of preparation worth a search, by the field's name in ``Preparation.with_choices``.

    Only those that could matter to the columns there are; the first of each is the default.
    """
    space: dict[str, list[Any]] = {}
    roles = {feature.role for feature in signature.features}
    if Role.NUMERIC in roles:
        space["numeric.transform"] = [None, "yeo_johnson"]
        space["numeric.clip"] = [None, [0.01, 0.99]]
    if any(len(feature.categories or ()) > 2 for feature in signature.features):
        space["categorical.encode"] = ["one_hot", "ordinal"]
        if len(signature.classes or ()) <= MANY_CLASSES:  # each makes a feature of each column
            space["categorical.encode"].append("target")
    if Role.DATETIME in roles:
        usual = list(DatetimeSteps().parts)
        space["datetime.parts"] = [usual, ["month", "day_of_year", "weekday", "hour", "elapsed"]]
    if len(signature.features) >= MANY_FEATURES:
        space["select"] = [None, {"method": "univariate", "keep": 0.5}]
    return space
