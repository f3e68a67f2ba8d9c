"""From a model's float64 matrix to numbers that an estimator can use.

Every step is fitted inside the pipeline, so that it sees the rows of the training fold and no others.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from app.registry.signature import Role, Signature

DATETIME_PARTS = ("year", "month", "day", "weekday", "hour")

LARGEST_FEATURE = 1e9
"""A prepared value beyond this many standard deviations is held at it: forests compute in float32."""


def build_pipeline(signature: Signature, estimator: BaseEstimator) -> Pipeline:
    """An unfitted pipeline of the steps ``prepare``, ``bound`` and ``model``.

    It takes matrices of shape (n, len(signature.features)), as ``Signature.encode`` makes them. Numeric
    columns: median and indicator for null, standard scores. Boolean: the more frequent value and
    indicator. Categorical: one-hot, null a category of its own, rare and unknown ones together. Datetime:
    UTC year, month, day, weekday and hour, as standard scores.
    """
    by_role = {
        role: [index for index, feature in enumerate(signature.features) if feature.role is role]
        for role in Role
    }
    prepare = ColumnTransformer(
        [(role.value, _prepare(role), columns) for role, columns in by_role.items() if columns],
        sparse_threshold=0,
    )
    bound = FunctionTransformer(bounded, feature_names_out="one-to-one")
    return Pipeline([("prepare", prepare), ("bound", bound), ("model", estimator)])


def _prepare(role: Role) -> TransformerMixin:
    match role:
        case Role.NUMERIC:
            return make_pipeline(_impute("median"), StandardScaler())
        case Role.BOOLEAN:
            return _impute("most_frequent")
        case Role.CATEGORICAL:
            return OneHotEncoder(
                handle_unknown="infrequent_if_exist",
                min_frequency=0.01,
                max_categories=50,
                sparse_output=False,
            )
        case Role.DATETIME:
            parts = FunctionTransformer(datetime_parts, feature_names_out=datetime_part_names)
            return make_pipeline(parts, _impute("median"), StandardScaler())


def _impute(strategy: str) -> SimpleImputer:
    return SimpleImputer(strategy=strategy, add_indicator=True, keep_empty_features=True)


def bounded(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix with every cell held within ±LARGEST_FEATURE; the shape stays."""
    return np.clip(matrix, -LARGEST_FEATURE, LARGEST_FEATURE)


def datetime_parts(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """UTC calendar parts of seconds since 1970, shape (n, k) → (n, 5 k); NaN stays NaN.

    The parts of a column stand side by side in the order of DATETIME_PARTS; weekday 0 is Monday.
    """
    missing = np.isnan(seconds)
    whole = np.floor(np.where(missing, 0.0, seconds)).astype(np.int64)
    days = whole // 86_400
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    parts = np.stack(
        (
            dates.astype("datetime64[Y]").astype(np.int64) + 1970,
            months.astype(np.int64) % 12 + 1,
            (dates - months.astype("datetime64[D]")).astype(np.int64) + 1,
            (days + 3) % 7,  # 1970-01-01 was a Thursday
            whole // 3_600 % 24,
        ),
        axis=-1,
    ).astype(np.float64)
    parts[missing] = np.nan
    return parts.reshape(len(seconds), -1)


def datetime_part_names(_: FunctionTransformer, columns: list[str]) -> NDArray[np.object_]:
    return np.array([f"{column}_{part}" for column in columns for part in DATETIME_PARTS], dtype=object)
