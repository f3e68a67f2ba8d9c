"""The traffic split."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.split import choose


@dataclass(frozen=True)
class Slot:
    name: str
    weight: float


shares = st.floats(0.001, 0.999)
draws = st.floats(0, 1, exclude_max=True)


@settings(deadline=None)
@given(shares)
def test_each_slot_answers_its_share_of_the_requests(share: float) -> None:
    slots = [Slot("champion", 1 - share), Slot("canary", share)]
    count = 1000
    chosen = [choose(slots, number / count).name for number in range(count)]
    assert abs(chosen.count("canary") - share * count) <= 1
    assert abs(chosen.count("champion") - (1 - share) * count) <= 1


@settings(deadline=None)
@given(st.lists(shares, max_size=3), draws)
def test_a_shadow_never_answers(others: list[float], draw: float) -> None:
    total = sum(others) + 1
    answering = [Slot(f"slot {number}", share / total) for number, share in enumerate([1.0, *others])]
    assert choose([*answering, Slot("shadow", 0.0)], draw).name != "shadow"
    assert choose([answering[0], Slot("shadow", 0.0), *answering[1:]], draw).name != "shadow"


@given(draws)
def test_the_champion_answers_alone_where_it_stands_alone(draw: float) -> None:
    champion = Slot("champion", 1.0)
    assert choose([champion], draw) is champion


def test_a_rounding_error_in_the_weights_goes_to_the_champion() -> None:
    slots = [Slot("champion", 0.3), Slot("canary", 0.6)]
    assert choose(slots, 0.95).name == "champion"
