"""Opportunistic batching: what comes while the scorer is busy is scored together, next."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

MAX_ROWS = 1000

Matrix = NDArray[np.float64]


class Waiting(NamedTuple):
    matrix: Matrix
    scores: asyncio.Future[Matrix]


class Batches:
    """Scores the requests of one event loop in a thread, one batch at a time.

    Nobody waits for company: an idle scorer begins at once. ``score`` takes a matrix of shape
    (n, features), gives n rows of scores, and must answer a row alike in every batch.
    """

    def __init__(self, score: Callable[[Matrix], Matrix]) -> None:
        self._score = score
        self._waiting: list[Waiting] = []
        self._draining: asyncio.Task[None] | None = None

    async def score(self, matrix: Matrix) -> Matrix:
        """The rows' scores; raises what the scorer raises for these rows."""
        mine = Waiting(matrix, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await mine.scores

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._score_batch(self._take())
        finally:
            self._draining = None

    def _take(self) -> list[Waiting]:
        """The longest-waiting requests: one at least, and more while they are at most MAX_ROWS together."""
        rows, count = 0, 0
        for waiting in self._waiting:
            rows += len(waiting.matrix)
            if count and rows > MAX_ROWS:
                break
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return [waiting for waiting in taken if not waiting.scores.cancelled()]

    async def _score_batch(self, batch: list[Waiting]) -> None:
        if not batch:
            return
        try:
            together = np.concatenate([waiting.matrix for waiting in batch])
            scores = await run_in_threadpool(self._score, together)
        except Exception as error:
            if len(batch) > 1:  # one request's rows must not fail another's
                for waiting in batch:
                    await self._score_batch([waiting])
            elif not batch[0].scores.cancelled():
                batch[0].scores.set_exception(error)
            return
        start = 0
        for waiting in batch:
            end = start + len(waiting.matrix)
            if not waiting.scores.cancelled():
                waiting.scores.set_result(scores[start:end])
            start = end
