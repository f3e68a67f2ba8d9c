"""The steps of a model's pipeline that scikit-learn does not have, or not as a served model needs them."""

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.feature_selection import f_classif, f_regression
from sklearn.preprocessing import PowerTransformer, QuantileTransformer, StandardScaler

from app.registry.signature import Task
from app.serving import kernels

LARGEST_FEATURE = 1e9
"""A prepared value beyond this is held at it: forests compute in float32."""

LARGEST_POWER = 1e100
"""The power that fits greater values best is beyond scipy's search."""

MAX_POWER_ROWS = 10_000
"""More, spread over the fit, change a power by less than its own error."""

SCALED_CELLS = 1_000_000
"""About so many are looked at together for their mean and spread."""

Matrix = NDArray[np.float64]


def bounded(matrix: Matrix) -> Matrix:
    """The matrix, every cell of it now held within ±LARGEST_FEATURE."""
    return np.clip(matrix, -LARGEST_FEATURE, LARGEST_FEATURE, out=matrix)


def kept_features(matrix: Matrix, share: float) -> int:
    """How many of the columns a share of them are: at least one."""
    return max(1, round(share * int(matrix.shape[1])))


def with_products(matrix: Matrix, pairs: Sequence[tuple[int, int]]) -> Matrix:
    """The matrix of shape (n, k), and behind it the product of each pair of its columns: (n, k + pairs)."""
    left, right = np.array(pairs).T
    return np.hstack((matrix, matrix[:, left] * matrix[:, right]))


def datetime_parts(seconds: Matrix, parts: Sequence[str]) -> Matrix:
    """UTC calendar parts of seconds since 1970, shape (n, k) → (n, k parts); NaN stays NaN.

    The parts of a column stand side by side. Weekday 0 is Monday, ``week`` that of ISO 8601, and
    ``elapsed`` days since 1970.
    """
    missing = np.isnan(seconds)
    seconds = np.where(missing, 0.0, seconds)
    whole = np.floor(seconds).astype(np.int64)
    days = whole // 86_400
    dates = days.astype("datetime64[D]")
    made = np.empty((*seconds.shape, len(parts)))
    for place, part in enumerate(parts):
        made[..., place] = _datetime_part(part, seconds, whole, days, dates)
    made[missing] = np.nan
    return made.reshape(len(seconds), -1)


def _datetime_part(
    part: str, seconds: Matrix, whole: NDArray[np.int64], days: NDArray[np.int64], dates: NDArray[Any]
) -> NDArray[Any]:
    weekday = (days + 3) % 7  # 1970-01-01 was a Thursday
    match part:
        case "year":
            return dates.astype("datetime64[Y]").astype(np.int64) + 1970
        case "quarter":
            return dates.astype("datetime64[M]").astype(np.int64) % 12 // 3 + 1
        case "month":
            return dates.astype("datetime64[M]").astype(np.int64) % 12 + 1
        case "week":
            return _days_into("Y", dates - weekday + 3) // 7 + 1  # a week belongs to the year of its Thursday
        case "day":
            return _days_into("M", dates) + 1
        case "day_of_year":
            return _days_into("Y", dates) + 1
        case "weekday":
            return weekday
        case "hour":
            return whole // 3_600 % 24
        case "minute":
            return whole // 60 % 60
        case "elapsed":
            return seconds / 86_400
    raise ValueError(f"a time has no part {part!r}")


def _days_into(unit: str, dates: NDArray[Any]) -> NDArray[np.int64]:
    """How many days of its month (``M``) or year (``Y``) lie before each date."""
    days: NDArray[np.int64] = (dates - dates.astype(f"datetime64[{unit}]").astype(dates.dtype)).astype(
        np.int64
    )
    return days


class ColumnGroups(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What several transformers, each of the columns named with it, make of a matrix, side by side.

    ``transformers`` and, fitted, ``transformers_`` hold each one's name, itself and its columns. Each is
    handed a copy of its columns, and may write over it. ``by_row`` has the result lie in memory row by row.
    It stands in for scikit-learn's ``ColumnTransformer``, which takes the result's memory twice, even where
    there is a single transformer; without ``by_row``, the result lies in memory as that would have it.
    """

    def __init__(self, transformers: Sequence[tuple[str, Any, list[int]]], *, by_row: bool = False) -> None:
        self.transformers = transformers
        self.by_row = by_row

    def fit(self, X: Matrix, y: NDArray[Any] | None = None) -> Self:  # noqa: N803 - scikit-learn's name for it
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X: Matrix, y: NDArray[Any] | None = None) -> Matrix:  # noqa: N803 - see fit
        self.transformers_ = [(name, clone(one), columns) for name, one, columns in self.transformers]
        made = [_dense(one.fit_transform(self._of(X, columns), y)) for _, one, columns in self.transformers_]
        return _side_by_side(made, by_row=self.by_row)

    def transform(self, X: Matrix) -> Matrix:  # noqa: N803 - see fit
        made = [_dense(one.transform(self._of(X, columns))) for _, one, columns in self.transformers_]
        return _side_by_side(made, by_row=self.by_row)

    def _of(self, X: Matrix, columns: list[int]) -> Matrix:  # noqa: N803 - see fit
        # Of one part nothing is stacked: its columns are the result's.
        by_row = self.by_row and len(self.transformers) == 1
        return np.take(X, columns, axis=1) if by_row else X[:, columns]


def _dense(part: Any) -> NDArray[Any]:
    return np.asarray(part.toarray() if sparse.issparse(part) else part)


def _side_by_side(parts: list[NDArray[Any]], *, by_row: bool = False) -> Matrix:
    """The parts, of shape (n, k) each, as one matrix; they are given up one by one, as they are copied."""
    if len(parts) == 1:
        return np.asarray(parts.pop(), np.float64, order="C" if by_row else "K")
    # Else the order that numpy's own stacking chooses: a matrix product's last bits depend on it.
    by_row = by_row or any(not part.flags.f_contiguous for part in parts)
    by_row = by_row or all(part.shape[1] == 1 for part in parts)
    matrix = np.empty((len(parts[0]), sum(part.shape[1] for part in parts)), order="C" if by_row else "F")
    start = 0
    for part in (parts.pop(0) for _ in range(len(parts))):
        matrix[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return matrix


class Standardizer(StandardScaler):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's, fitted to a few columns at a time: its own takes the matrix once more.

    Each column is added up by itself, so that its statistics are the same bits in any order of memory.
    """

    def fit(self, X: Matrix, _: Any = None) -> Self:  # noqa: N803 - scikit-learn's name for it
        width = max(1, SCALED_CELLS // len(X))
        parts = [
            StandardScaler().fit(np.asfortranarray(X[:, at : at + width]))
            for at in range(0, X.shape[1], width)
        ]
        self.mean_, self.var_, self.scale_ = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("mean_", "var_", "scale_")
        )
        self.n_samples_seen_, self.n_features_in_ = parts[0].n_samples_seen_, X.shape[1]
        return self

    def fit_transform(self, X: Matrix, _: Any = None) -> Matrix:  # noqa: N803 - see fit
        return np.asarray(self.fit(X).transform(X))


class Imputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Puts a statistic of each column in the place of null (NaN), in place; 0 where all is null.

    It looks at one column after the other: the median of scikit-learn's takes three times the matrix.
    ``statistics_`` has shape (columns,), as has ``null_shares_``, of the rows of the fit.
    """

    def __init__(self, strategy: str, fill_value: float = 0.0) -> None:
        self.strategy = strategy
        self.fill_value = fill_value

    def fit(self, X: Matrix, _: Any = None) -> Self:  # noqa: N803 - scikit-learn's name for it
        # Copied first: a column of a matrix that lies row by row is slow to read, and read twice.
        known = (column[~np.isnan(column)] for column in map(np.ascontiguousarray, X.T))
        self.statistics_, present = np.array([(self._statistic(cells), len(cells)) for cells in known]).T
        self.null_shares_ = (len(X) - present) / len(X)
        return self

    def _statistic(self, cells: Matrix) -> float:
        match self.strategy:
            case "constant":
                return self.fill_value
            case _ if not len(cells):
                return 0.0
            case "most_frequent":  # of equals the least
                values, counts = np.unique(cells, return_counts=True)
                return float(values[counts.argmax()])
            case "mean":
                return float(cells.mean())
            case _:
                return float(np.median(cells, overwrite_input=True))

    def transform(self, X: Matrix) -> Matrix:  # noqa: N803 - scikit-learn's name for it
        missing = np.isnan(X)
        X[missing] = np.broadcast_to(self.statistics_, X.shape)[missing]
        return X


class QuantileClipper(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Holds each column, in place, between two of its quantiles.

    ``bounds_`` has shape (2, columns), and ``shares_`` (2, columns): the shares of the rows of the fit that
    lie below and above.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high

    def fit(self, X: Matrix, _: Any = None) -> Self:  # noqa: N803 - scikit-learn's name for it
        self.bounds_ = np.column_stack([np.quantile(column, (self.low, self.high)) for column in X.T])
        low, high = self.bounds_
        self.shares_ = np.stack(((low > X).mean(axis=0), (high < X).mean(axis=0)))
        return self

    def transform(self, X: Matrix) -> Matrix:  # noqa: N803 - scikit-learn's name for it
        return np.clip(X, *self.bounds_, out=X)


class YeoJohnson(PowerTransformer):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's, but computed by the kernel of serving, so that a model sees the same bits there.

    The logarithms of numpy differ in their last bit from one processor to the next, and from the C library's.
    """

    def fit(self, X: Matrix, _: Any = None) -> Self:  # noqa: N803 - scikit-learn's name for it
        rows = np.linspace(0, len(X) - 1, min(len(X), MAX_POWER_ROWS)).astype(np.intp)
        with np.errstate(all="ignore"):
            super().fit(np.clip(X[rows], -LARGEST_POWER, LARGEST_POWER))
        return self

    def fit_transform(self, X: Matrix, _: Any = None) -> Matrix:  # noqa: N803 - see fit
        return self.fit(X).transform(X)

    def transform(self, X: Matrix) -> Matrix:  # noqa: N803 - see fit
        cells = np.ascontiguousarray(X, np.float64)
        kernels.yeo_johnson(cells, self.lambdas_)
        return cells


class Ranks(QuantileTransformer):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's, without its word that few rows have few quantiles."""

    def fit(self, X: Matrix, _: Any = None) -> Self:  # noqa: N803 - scikit-learn's name for it
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "n_quantiles")
            super().fit(X)
        return self


class FTest(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The F statistic of each feature alone as ``feature_importances_``; 0 for a constant feature."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def fit(self, X: Matrix, y: NDArray[Any]) -> Self:  # noqa: N803 - scikit-learn's name for it
        test = f_regression if self.task is Task.REGRESSION else f_classif
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of constant features
            scores = test(X, y)[0]
        # That of a feature which equals the target is boundless, or by rounding negative.
        self.feature_importances_ = np.abs(np.nan_to_num(scores, nan=0.0))
        return self
