"""Which slot of a deployment answers a request."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, TypeVar


class Weighted(Protocol):
    @property
    def weight(self) -> float: ...


Slot = TypeVar("Slot", bound=Weighted)


def choose(slots: Sequence[Slot], draw: float) -> Slot:
    """The slot whose share of [0, 1) holds ``draw``; the weights add up to 1, a shadow's is 0."""
    for slot, upper in zip(slots, accumulate(slot.weight for slot in slots), strict=True):
        if draw < upper:
            return slot
    return slots[0]  # the sum of the weights may fall short of 1 by a rounding error
