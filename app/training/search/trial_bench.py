"""Where the candidates of a search are tried: fold by fold, here or in processes beside this one."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.errors import AppError
from app.training.fitting import Configuration, Fitter
from app.training.scoring import score
from app.training.search.footprint import excess, measure
from app.training.validation import Split


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of fitting a configuration on one fold: its scores, or why there are none.

    A metric that the fold does not define is not among the ``scores``.
    """

    scores: dict[str, float]
    seconds: float
    failed: str | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """The rows on which candidates are compared, with ``matrix`` of shape (n, features)."""

    fitter: Fitter
    metrics: tuple[str, ...]
    matrix: NDArray[np.float64]
    target: NDArray[Any]
    folds: Sequence[Split]

    def evaluate(self, configuration: Configuration, fold: int) -> Outcome:
        """Fit on the fold's first part, and measure on its second: never raises for what a fit does."""
        started = time.perf_counter()
        learn, test = self.folds[fold]
        scores: dict[str, float] = {}
        failed = refused = None
        with threadpool_limits(1), np.errstate(over="ignore"):
            try:
                pipeline, _ = self.fitter.fit(configuration, self.matrix[learn], self.target[learn])
                refused = self._refusal(pipeline, fold)
                if refused is None:
                    answers = self.fitter.answer(pipeline, self.matrix[test])
                    task = self.fitter.signature.task
                    scores = score(task, self.metrics, self.target[test], *answers)
            except AppError as error:
                failed = error.detail
            except Exception as error:  # an algorithm that breaks down ends its trial, not the search
                failed = f"{type(error).__name__}: {error}"
        return Outcome(scores, time.perf_counter() - started, failed, refused)

    def _refusal(self, pipeline: Any, fold: int) -> str | None:
        search = self.fitter.spec.search
        if fold or search is None or not (search.max_model_bytes or search.max_row_microseconds):
            return None
        return excess(measure(pipeline, self.fitter.signature, self.matrix[self.folds[fold][1]]), search)


class Evaluate(Protocol):
    def __call__(self, tasks: Sequence[tuple[Configuration, int]]) -> list[Outcome]:
        """The outcome of each configuration on its fold, in the order of the tasks."""


@contextmanager
def open_bench(bench: Bench, processes: int) -> Iterator[Evaluate]:
    """Evaluate in so many processes, which share the matrix; in this one where it is one."""
    if processes == 1:
        yield lambda tasks: [bench.evaluate(*task) for task in tasks]
        return
    with TemporaryDirectory() as folder:
        matrix = Path(folder) / "matrix.npy"
        np.save(matrix, bench.matrix)
        pool = ProcessPoolExecutor(
            processes,
            # The fork of a process with threads may take a lock along that nobody will release; the socket of
            # a fork server is too long a path in a deep folder.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_set_up,
            initargs=(bench.fitter, bench.metrics, matrix, bench.target, bench.folds),
        )
        try:
            yield lambda tasks: _map(pool, tasks)
        finally:
            pool.shutdown(cancel_futures=True)


def _map(pool: Executor, tasks: Sequence[tuple[Configuration, int]]) -> list[Outcome]:
    return [future.result() for future in [pool.submit(_evaluate, *task) for task in tasks]]


_bench: Bench
"""Of a process of the pool."""


def _set_up(fitter: Fitter, metrics: tuple[str, ...], matrix: Path, target: NDArray[Any], folds: Any) -> None:
    global _bench
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    _bench = Bench(fitter, metrics, np.load(matrix, mmap_mode="r"), target, folds)


def _evaluate(configuration: Configuration, fold: int) -> Outcome:
    return _bench.evaluate(configuration, fold)


def _die_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - this is a process of the pool
    wait([parent.sentinel])
    os._exit(2)
