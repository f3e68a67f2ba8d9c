"""How good ``auto`` is: beside other automatic searches, on the same training rows and the same holdout."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from extent import Extent
from numpy.typing import NDArray
from report import Table
from rich.console import Console
from roundhouse import BenchmarkFailed, Roundhouse, Run
from scipy.stats import rankdata
from sklearn.metrics import log_loss, roc_auc_score, root_mean_squared_error
from tables import SOURCES, TARGET, Source

from app.training.validation import Splitter, strata_of

PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path("~/.cache/roundhouse-benchmarks/environments").expanduser()
PYTHON = "3.11"
TITLES = {
    "roundhouse": "Roundhouse: `auto`, default budget",
    "flaml_search": "FLAML, five times the CPU time",
    "autogluon_medium": "AutoGluon, medium quality",
    "gradient_boosting": "histogram gradient boosting, defaults",
}
TIMES_THE_CPU = 5
HOLDOUT = 0.2
RESAMPLES = 2000
SAME = 1e-6

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """A system's holdout ``score``, greater being better, on one table and seed."""

    source: str
    seed: int
    system: str
    score: float
    cpu_seconds: float


def run(extent: Extent, folder: Path) -> list[Table]:
    peers = {name: _install(name) for name in TITLES if name != "roundhouse"}
    results: list[Result] = []
    console = Console()
    with Roundhouse(folder) as server:
        for source in SOURCES:
            if source.name in extent.tables:
                for result in _compare(server, source, extent, peers, folder):
                    console.print(f"  {result}")
                    results.append(result)
    return [_scores(results), _ranks(results)]


def _compare(
    server: Roundhouse, source: Source, extent: Extent, peers: dict[str, Path], folder: Path
) -> Iterator[Result]:
    table = folder / f"{source.name}.parquet"
    source.write(table, extent.size)
    server.add_dataset(source.name, table)
    rows, target = _read(table)
    for seed in range(extent.seeds):
        # A model of its own: no search is warm-started from another.
        ran = server.train(f"{source.name}-{seed}", source.name, TARGET, seed=seed)
        version = server.version(ran)
        task = version["task"]
        training, holdout = _split(target, task, seed)
        actual = target[holdout]
        score = _score(source.metric, actual, _ask(server, ran, [rows[place] for place in holdout]))
        _check_same_holdout(source, score, version)
        yield Result(source.name, seed, "roundhouse", score, ran.cpu_seconds)
        request = {
            "table": str(table),
            "training": training.tolist(),
            "holdout": holdout.tolist(),
            "task": task,
            "metric": source.metric,
            "seed": seed,
            "cpu_seconds": TIMES_THE_CPU * ran.cpu_seconds,
        }
        for name, python in peers.items():
            scores, seconds = _carry_out(name, python, request, folder)
            yield Result(source.name, seed, name, _score(source.metric, actual, scores), seconds)


def _split(target: NDArray[Any], task: str, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The training rows and the holdout, as a run with its defaults splits them."""
    classes = task != "regression"
    coded = np.unique(target, return_inverse=True)[1] if classes else target
    splitter = Splitter(len(target), seed, strata_of(coded, classes=classes), None, None)
    return splitter.hold_out(HOLDOUT)


def _check_same_holdout(source: Source, score: float, version: dict[str, Any]) -> None:
    told = abs(version["metrics"][source.metric])
    if abs(abs(score) - told) > SAME * max(1, told):
        raise BenchmarkFailed(f"{source.name}: {score} on the holdout, but the version says {told}")


def _score(metric: str, actual: NDArray[Any], scores: Scores) -> float:
    """Greater is better; ``scores`` has shape (n, classes) or (n, 1)."""
    match metric:
        case "roc_auc":
            return float(roc_auc_score(actual, scores[:, 1]))
        case "log_loss":
            # A peer's float32 does not sum to one closely enough.
            return -float(log_loss(actual, scores / scores.sum(axis=1, keepdims=True)))
        case _:
            return -float(root_mean_squared_error(actual, scores[:, 0]))


def _ask(server: Roundhouse, ran: Run, rows: list[dict[str, Any]]) -> Scores:
    answered: list[Any] = []
    for body in server.predict(ran, rows):
        answered += body.get("probabilities") or [[value] for value in body["predictions"]]
    return np.array(answered, np.float64)


def _read(table: Path) -> tuple[list[dict[str, Any]], NDArray[Any]]:
    """The rows as instances, and their targets."""
    with duckdb.connect() as connection:
        found = connection.read_parquet(str(table))
        times = [
            f"strftime({name}, '%Y-%m-%dT%H:%M:%SZ') AS {name}"
            for name, kind in zip(found.columns, found.types, strict=True)
            if kind == "TIMESTAMP"
        ]
        if times:
            found = found.project(f"* REPLACE ({', '.join(times)})")
        names = found.columns
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return rows, np.array([row.pop(TARGET) for row in rows])


def _install(name: str) -> Path:
    """The interpreter of the peer's environment, which is made once for each text of its requirements."""
    wanted = PEERS / f"{name}.txt"
    environment = ENVIRONMENTS / f"training_{name}"
    python, installed = environment / "bin" / "python", environment / wanted.name
    if not (installed.exists() and installed.read_text() == wanted.read_text()):
        _run("uv", "venv", "--quiet", "--clear", "--python", PYTHON, str(environment))
        _run("uv", "pip", "install", "--quiet", "--python", str(python), "-r", str(wanted))
        installed.write_text(wanted.read_text())
    return python


def _carry_out(name: str, python: Path, request: dict[str, Any], folder: Path) -> tuple[Scores, float]:
    """The scores of a peer's model, and the CPU seconds of its fit."""
    asked, answer = folder / "request.json", folder / "answer.json"
    asked.write_text(json.dumps(request))
    _run(str(python), str(PEERS / f"{name}.py"), str(asked), str(answer), folder=folder)
    told = json.loads(answer.read_text())
    return np.array(told["scores"], np.float64), told["cpu_seconds"]


def _run(*command: str, folder: Path | None = None) -> None:
    finished = subprocess.run(  # noqa: S603 - commands of this file alone
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise BenchmarkFailed(f"{' '.join(command[:2])}: {finished.stderr.strip()[-1000:]}")


def _scores(results: list[Result]) -> Table:
    metrics = {source.name: source.metric for source in SOURCES}
    table = Table("Holdout score: median (range), and CPU seconds", ("", *TITLES.values()))
    for source in dict.fromkeys(result.source for result in results):
        cells = []
        for system in TITLES:
            found = [one for one in results if (one.source, one.system) == (source, system)]
            scores = np.abs([one.score for one in found])
            cpu = np.median([one.cpu_seconds for one in found])
            cells.append(f"{np.median(scores):.4g} ({scores.min():.4g} to {scores.max():.4g}), {cpu:.0f} s")
        table.rows.append((f"{source}, {metrics[source]}", *cells))
    return table


def _ranks(results: list[Result]) -> Table:
    """Ranks within each table and seed, with percentile bootstrap intervals that resample these."""
    by_place: dict[tuple[str, int], dict[str, float]] = {}
    for one in results:
        by_place.setdefault((one.source, one.seed), {})[one.system] = one.score
    scores = np.array([[scores[system] for system in TITLES] for scores in by_place.values()])
    ranks = rankdata(-scores, axis=1)
    drawn = np.random.default_rng(0).integers(len(ranks), size=(RESAMPLES, len(ranks)))
    table = Table(
        "Rank, 1 the best", ("", "median (95 %)", "mean (95 %)", "Roundhouse is at least as good (95 %)")
    )
    reached = scores[:, :1] >= scores
    for place, title in enumerate(TITLES.values()):
        table.rows.append(
            (
                title,
                _interval(np.median, ranks[:, place], drawn, ".2g"),
                _interval(np.mean, ranks[:, place], drawn, ".2f"),
                "" if not place else _interval(np.mean, reached[:, place].astype(float), drawn, ".0%"),
            )
        )
    table.notes.append(f"Of {len(ranks)} pairs of table and seed.")
    return table


def _interval(statistic: Callable[..., Any], values: Scores, drawn: NDArray[np.intp], form: str) -> str:
    low, high = np.percentile(statistic(values[drawn], axis=1), [2.5, 97.5])
    return f"{statistic(values):{form}} ({low:{form}} to {high:{form}})"
