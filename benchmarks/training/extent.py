"""How much of the benchmark is run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """``size`` is 1 for the sizes that the targets name; ``seeds`` and ``tables`` are of the comparison."""

    size: float
    seeds: int
    tables: tuple[str, ...]
