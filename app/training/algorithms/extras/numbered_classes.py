"""Classifiers that know classes only as 0, 1, 2, …"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone


class NumberedClasses(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn is not typed
    """A classifier that gets its classes numbered without gaps, which the rows of a fit may leave.

    It is one that looks at each row by itself.
    """

    answers_rows_apart = True

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator

    def fit(self, rows: NDArray[np.float64], target: ArrayLike, sample_weight: Any = None) -> Self:
        self.classes_, numbers = np.unique(target, return_inverse=True)
        self.estimator_ = clone(self.estimator).fit(rows, numbers, sample_weight=sample_weight)
        return self

    def predict(self, rows: NDArray[np.float64]) -> NDArray[Any]:
        return np.asarray(self.classes_[self.predict_proba(rows).argmax(axis=1)])

    def predict_proba(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shape (n, len(classes_))."""
        return np.asarray(self.estimator_.predict_proba(rows), dtype=np.float64)
