"""Numbers as a report holds them: short, finite, or left out."""

from collections.abc import Iterable
from typing import Any

import numpy as np

DIGITS = 6


def rounded(value: Any) -> float | None:
    """The number in six significant digits; None where it is not finite."""
    number = float(value)
    return float(f"{number:.{DIGITS}g}") + 0.0 if np.isfinite(number) else None


def rounded_all(values: Iterable[Any]) -> list[float | None]:
    return [rounded(value) for value in values]


def rounded_interval(interval: tuple[Any, Any] | None) -> list[float | None] | None:
    return None if interval is None else rounded_all(interval)
