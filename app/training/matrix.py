"""The labelled rows of a data version as numbers: what a model learns from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.datasets.engine import Parquet
from app.registry.matrix import Column, open_table, read_columns, read_features, table_types
from app.registry.signature import Signature


@dataclass(frozen=True, slots=True)
class Examples:
    """The labelled rows of a table, in the table's order.

    ``features`` has shape (n, features of the signature); ``target`` shape (n,): class indices (intp) for
    classifiers, float64 values for regression; ``order`` shape (n,): the values of the column that the
    rows were asked to be ordered by (seconds since 1970 for times), or None.
    """

    features: NDArray[np.float64]
    target: NDArray[np.intp] | NDArray[np.float64]
    order: NDArray[np.float64] | None


def read_examples(parquet: Parquet, signature: Signature, *, order_by: str | None = None) -> Examples:
    """Read the labelled rows of ``parquet`` by the signature, with the values of the column ``order_by``.

    Memory: the matrix, and one batch of columns beside it.
    """
    with open_table(parquet) as connection:
        outcome = Column(signature.target, signature.target_type, signature.classes)
        target = dict(read_columns(connection, [outcome]))[signature.target]
        labelled = ~np.isnan(target)
        features = np.empty((int(labelled.sum()), len(signature.features)))
        for position, cells in read_features(connection, signature):
            features[:, position] = cells[labelled]
        order = None
        if order_by is not None:
            moments = Column(order_by, table_types(connection)[order_by])
            order = dict(read_columns(connection, [moments]))[order_by][labelled]
    target = target[labelled]
    return Examples(features, target.astype(np.intp) if signature.classes else target, order)
