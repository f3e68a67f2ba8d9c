"""The classes of several classifiers, brought together."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def unite_classes(known: Iterable[Sequence[Any]]) -> list[Any]:
    """Every class that any of the classifiers knows, the first one's first."""
    return [label for _, label in dict.fromkeys(_apart(label) for classes in known for label in classes)]


def places_among(own: Sequence[Any], union: Sequence[Any]) -> NDArray[np.intp]:
    """Where each of a classifier's classes stands in the union, which has them all."""
    places = {_apart(label): place for place, label in enumerate(union)}
    return np.array([places[_apart(label)] for label in own], np.intp)


def lay_out(scores: NDArray[np.float64], places: NDArray[np.intp], classes: int) -> NDArray[np.float64]:
    """Probabilities of a classifier's own classes, shape (n, own), as those of ``classes`` at its ``places``.

    A class that it does not know has the probability 0.
    """
    laid_out = np.zeros((len(scores), classes))
    laid_out[:, places] = scores
    return laid_out


def _apart(label: Any) -> tuple[bool, Any]:
    """1 is 1.0, but not true."""
    return isinstance(label, bool), label
