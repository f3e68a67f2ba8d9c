"""How far two samples' distributions are apart: the Jensen-Shannon divergence, and what chance adds to it.

To base 2 it is from 0 (the same) to 1 (disjoint), and its square root is a metric, the Jensen-Shannon
distance (Lin, IEEE Trans. Inf. Theory 37, 1991; Endres and Schindelin, ibid. 49, 2003). Of two samples of one
source, counted in k cells, it is ``sampling_unit`` times a chi-squared variable of k - 1 degrees of freedom
(Taylor's expansion of Lin's divergence).
"""

from math import log

import numpy as np
import scipy  # loads its parts when they are first used
from numpy.typing import NDArray


def divergence_of(shares: NDArray[np.float64]) -> float:
    """Of two distributions over the same cells, as their shares: shape (2, k), each row summing to 1."""
    return max(0.0, float(scipy.special.rel_entr(shares, shares.mean(axis=0)).sum())) / (2 * log(2))


def sampling_unit(n: float, m: float) -> float:
    """What a degree of freedom adds to the divergence of samples of ``n`` and ``m`` rows, on average."""
    return float(1 / n + 1 / m) / (8 * log(2))
