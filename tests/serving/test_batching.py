"""Opportunistic batching: nobody waits for company, and nobody gets another's scores."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.serving.batching import MAX_ROWS, Batches

Matrix = NDArray[np.float64]


class Scorer:
    """Scores a row by its cells alone; tells the batches that it was given, and chokes on 13."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.before: Callable[[], object] = lambda: None

    def score(self, matrix: Matrix) -> Matrix:
        self.before()
        self.sizes.append(len(matrix))
        if (matrix == 13).any():
            raise ArithmeticError("13")
        return matrix * [2.0, 3.0]


requests = st.lists(
    st.tuples(
        st.lists(st.integers(0, 20), min_size=1, max_size=4),  # the request's rows
        st.integers(0, 3),  # turns of the event loop before it comes
        st.sampled_from([False, False, False, True]),  # whether its caller gives up
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(requests)
def test_every_request_gets_the_scores_of_its_own_rows(asked: list[tuple[list[int], int, bool]]) -> None:
    async def ask(batches: Batches, cells: list[int], turns: int) -> Matrix:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await batches.score(np.array([[cell, cell] for cell in cells], dtype=float))

    async def run() -> tuple[list[Any], Scorer]:
        scorer = Scorer()
        batches = Batches(scorer.score)
        tasks = [asyncio.create_task(ask(batches, cells, turns)) for cells, turns, _ in asked]
        for _ in range(2):
            await asyncio.sleep(0)
        for task, (_, _, given_up) in zip(tasks, asked, strict=True):
            if given_up:
                task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True), scorer

    answers, scorer = asyncio.run(run())
    for (cells, _, given_up), answer in zip(asked, answers, strict=True):
        if given_up and isinstance(answer, asyncio.CancelledError):
            continue
        if 13 in cells:
            assert isinstance(answer, ArithmeticError), "its own fault is its own, and only its own"
        else:
            assert answer.tolist() == [[2 * cell, 3 * cell] for cell in cells]
    assert sum(scorer.sizes) >= sum(len(cells) for cells, _, given_up in asked if not given_up)


def test_what_comes_while_the_scorer_is_busy_is_scored_together() -> None:
    async def run() -> list[int]:
        scorer, busy, go_on = Scorer(), asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def hold_the_first() -> None:
            if not scorer.sizes:
                loop.call_soon_threadsafe(busy.set)
                go_on.wait(60)

        scorer.before = hold_the_first
        batches = Batches(scorer.score)
        first = asyncio.create_task(batches.score(np.ones((1, 2))))
        await busy.wait()  # it did not wait for company
        others = [asyncio.create_task(batches.score(np.full((2, 2), float(n)))) for n in range(5)]
        large = asyncio.create_task(batches.score(np.ones((MAX_ROWS, 2))))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, *others, large)
        return scorer.sizes

    assert asyncio.run(run()) == [1, 10, MAX_ROWS]


def test_a_scorer_works_again_after_a_fault() -> None:
    async def run() -> Matrix:
        batches = Batches(Scorer().score)
        with pytest.raises(ArithmeticError):
            await batches.score(np.full((1, 2), 13.0))
        return await batches.score(np.ones((1, 2)))

    assert asyncio.run(run()).tolist() == [[2, 3]]
