"""The parts of a run: each measures, fills its tables and says which targets were reached."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from data import Row, features, make_rows, write_csv
from floors import FLOORS
from floors import PATH as FLOOR_PATH
from load import Wrk
from measure import BULK_ROWS, Bench, Figures
from peers import Peer
from promotion import promote_under_load
from report import HEADER, Table, Targets, duration, figures_row, number
from rich.console import Console
from roundhouse import ADMIN_KEY, ARROW_DIALECT, JSON_DIALECT, MODEL, Home, prepare_home
from servers import BOTH_CORES, SERVER_CORE, BenchmarkFailed, Dialect, Server, free_port

TRAINING_ROWS = 5_000
REQUEST_ROWS = 256
STARTS = 3
PROMOTION_SECONDS = 15
MEGABYTE = 1024 * 1024

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic_regression": ("logistic regression", {}),
    "hist_gradient_boosting": ("histogram gradient boosting, 300 iterations", {"max_iter": 300}),
    "random_forest": ("random forest, 200 trees", {"n_estimators": 200}),
}
FLOOR_SHARES = {"logistic_regression": 0.65, "hist_gradient_boosting": 0.5, "random_forest": 0.4}
BULK_TIMES = {"logistic_regression": 3.0, "hist_gradient_boosting": 2.0, "random_forest": 2.0}


class Run:
    """One run: what is measured with, and the tables so far."""

    def __init__(self, folder: Path, models: list[str], console: Console) -> None:
        self._console = console
        self.folder = folder
        self.models = models
        self.tables: list[Table] = []
        self.targets = Targets()
        self.ours: dict[str, Figures] = {}
        self.training, self.check = folder / "training.csv", folder / "check.csv"
        write_csv(make_rows(TRAINING_ROWS, seed=1), self.training)
        asked = make_rows(REQUEST_ROWS, seed=2)
        write_csv(asked, self.check)
        self.rows: list[Row] = features(asked)
        self.homes = {model: self._prepare(model) for model in models}

    def _prepare(self, model: str) -> Home:
        title, params = MODELS[model]
        with self._console.status(f"Training: {title}"):
            return prepare_home(
                self.folder / model, self.training, self.rows, algorithm=model, params=params, versions=2
            )

    @property
    def home(self) -> Home:
        return self.homes[self.models[0]]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}-{time.monotonic_ns()}.log"

    def table(self, title: str, header: tuple[str, ...]) -> Table:
        table = Table(title, header)
        self.tables.append(table)
        return table

    def serve_floor(self, name: str) -> Server:
        """A floor that answers with the bytes with which Roundhouse answered one row."""
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", f"floors:{name}", "--port", str(port)]
        options = ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
        return Server(
            [*command, *options, "--loop", "uvloop", "--http", "httptools"],
            Dialect(FLOOR_PATH, JSON_DIALECT.encode, JSON_DIALECT.decode),
            port=port,
            cores=SERVER_CORE,
            log=self.log(name),
            folder=Path(__file__).parent,
            environment={"FLOOR_ANSWER": self.home.answer.decode()},
        )

    # ── Sections ─────────────────────────────────────────────────────────────────────────────────

    def measure_floors(self, bench: Bench) -> None:
        table = self.table("Floors: parse the JSON, answer with fixed bytes", HEADER)
        for name, title in FLOORS.items():
            with self._console.status(title), self.serve_floor(name) as server:
                server.wait_until_answering(self.rows[0])
                table.rows.append(figures_row(title, bench.measure(server, None, bulk=False)))

    def measure_roundhouse(self, bench: Bench) -> None:
        table = self.table("Roundhouse: key check, validation and journal on", HEADER)
        for model, home in self.homes.items():
            title, _ = MODELS[model]
            with self._console.status(f"Roundhouse, {title}"), self._serve(home) as server:
                server.wait_until_answering(self.rows[0])
                figures = self.ours[model] = bench.measure(server, home.expected)
            table.rows.append(figures_row(f"{title} ({home.runtime})", figures))
            self.targets.at_least(f"{title}: requests, of the floor's", figures.ratio, FLOOR_SHARES[model])
            self.targets.at_most(f"{title}: p50 at one connection, of the floor's", figures.alone_ratio, 2.0)
            self.targets.at_most(f"{title}: wrong answers", figures.wrong + figures.wrong_bulk, 0)
            self.targets.at_most(f"{title}: failed requests", figures.failed, 0)

    def measure_arrow(self, bench: Bench) -> None:
        table = self.table(
            f"Roundhouse, {BULK_ROWS} rows a request", ("model", "JSON, rows/s", "Arrow, rows/s", "wrong")
        )
        for model, home in self.homes.items():
            title, _ = MODELS[model]
            ratio = 0.0
            try:
                with self._console.status(f"Arrow, {title}"):
                    pairs, wrong = self._measure_bulk(bench, home)
            except BenchmarkFailed as error:
                table.notes.append(f"{title}: {error}")
            else:
                rates = [number(median(column)) for column in zip(*pairs, strict=True)]
                table.rows.append((title, *rates, f"{wrong} of {len(self.rows)}"))
                self.targets.at_most(f"{title}: wrong answers by Arrow", wrong, 0)
                ratio = median(arrow / json for json, arrow in pairs)
            self.targets.at_least(f"{title}: Arrow, of our own JSON", ratio, 3.0)

    def _measure_bulk(self, bench: Bench, home: Home) -> tuple[list[tuple[float, float]], int]:
        """Rows a second by JSON and by Arrow in each round, and how many answers by Arrow are wrong."""
        with self._serve(home) as json, self._serve(home, dialect=ARROW_DIALECT) as arrow:
            json.wait_until_answering(self.rows[0])
            arrow.wait_until_answering(self.rows[0])
            wrong = arrow.count_wrong(self.rows, home.expected, together=len(self.rows))
            return [(bench.bulk_rate(json), bench.bulk_rate(arrow)) for _ in range(bench.rounds)], wrong

    def measure_peers(self, bench: Bench, peers: list[Peer], environments: Path) -> None:
        for model in self.models:
            title, _ = MODELS[model]
            table = self.table(f"Peers: {title}", HEADER)
            measured: dict[str, Figures] = {}
            for peer in peers:
                name = f"{peer.title} ({peer.version})"
                try:
                    with self._console.status(f"{name}, {title}"):
                        figures = self._measure_peer(bench, peer, environments, model)
                except BenchmarkFailed as error:
                    table.notes.append(f"{name} could not be measured: {error}")
                else:
                    measured[peer.name] = figures
                    table.rows.append(figures_row(name, figures))
            self._compare(model, measured)

    def _measure_peer(self, bench: Bench, peer: Peer, environments: Path, model: str) -> Figures:
        folder = self.folder / "peers" / peer.name / model
        python = peer.install(environments)
        expected = peer.fit(python, self.training, self.check, model, folder)
        with peer.serve(python, folder) as server:
            server.wait_until_answering(self.rows[0])
            return bench.measure(server, expected)

    def _compare(self, model: str, measured: dict[str, Figures]) -> None:
        title, _ = MODELS[model]
        ours = self.ours.get(model)
        if ours is None or not measured:
            return
        if "mlflow_scoring" in measured:
            rate = measured["mlflow_scoring"].rate
            self.targets.at_least(f"{title}: requests, of MLflow's", ours.rate / rate, 150)
        best = max(figures.rate for figures in measured.values())
        self.targets.at_least(f"{title}: requests, of the best peer's", ours.rate / best, 20)
        bulk = max(figures.bulk or 0 for figures in measured.values())
        if ours.bulk and bulk:
            self.targets.at_least(
                f"{title}: {BULK_ROWS}-row JSON, of the best peer's", ours.bulk / bulk, BULK_TIMES[model]
            )

    def measure_processes(self, bench: Bench) -> None:
        header = (
            "model",
            "1 worker, req/s",
            "2 workers, req/s",
            "times",
            "MB an extra worker",
            "first answer",
        )
        table = self.table("Roundhouse: processes (workers and wrk on both cores)", header)
        for model, home in self.homes.items():
            title, _ = MODELS[model]
            with self._console.status(f"Processes, {title}"):
                start = median(self._start_seconds(home) for _ in range(STARTS))
                rates, extra = self._measure_workers(bench, home)
            times = median(two / one for one, two, _ in rates)
            one, two, _ = (number(median(column)) for column in zip(*rates, strict=True))
            table.rows.append((title, one, two, f"{times:.2f}", f"{extra / MEGABYTE:.0f}", f"{start:.2f} s"))
            self.targets.at_least(f"{title}: two workers, of one", times, 1.7)
            self.targets.at_most(f"{title}: MB an extra worker", extra / MEGABYTE, 120)
            self.targets.at_most(f"{title}: seconds to the first answer", start, 1.5)

    def _measure_workers(self, bench: Bench, home: Home) -> tuple[list[list[float]], int]:
        """The rates of one, two and three workers in each round, and the bytes that the third one adds."""
        wrk = Wrk(BOTH_CORES, self.folder)
        with ExitStack() as stack:
            servers = [
                stack.enter_context(self._serve(home, cores=BOTH_CORES, workers=count)) for count in (1, 2, 3)
            ]
            for server in servers:
                server.wait_until_answering(self.rows[0])
            rates = [
                [bench.load(server, bench.connections, wrk).rate for server in servers]
                for _ in range(bench.rounds)
            ]
            return rates, servers[2].resident_bytes - servers[1].resident_bytes

    def _start_seconds(self, home: Home) -> float:
        before = time.perf_counter()
        with self._serve(home) as server:
            server.wait_until_answering(self.rows[0])
            return time.perf_counter() - before

    def measure_promotion(self, bench: Bench) -> None:
        title, _ = MODELS[self.models[0]]
        with self._console.status("Promotion under load"), self._serve(self.home) as server:
            server.wait_until_answering(self.rows[0])
            seen = promote_under_load(
                server,
                self.rows,
                bench.wrk,
                path=f"/v1/models/{MODEL}:promote",
                admin_key=ADMIN_KEY,
                connections=bench.connections,
                seconds=max(PROMOTION_SECONDS, bench.seconds * bench.rounds),
            )
        header = ("model", "req/s", "promotions", "failed", "p99, swap seconds", "p99, other seconds")
        self.table("Roundhouse: promotion under full load", header).rows.append(
            (
                *(title, number(seen.rate), str(seen.promotions)),
                *(f"{seen.failed:,}", duration(seen.swap_p99), duration(seen.usual_p99)),
            )
        )
        self.targets.at_most("Promotion: failed requests and promotions", seen.failed + seen.refused, 0)
        self.targets.at_most(
            "Promotion: p99 of swap seconds, of the usual", seen.swap_p99 / seen.usual_p99, 2.0
        )

    def _serve(
        self,
        home: Home,
        *,
        cores: Sequence[int] = SERVER_CORE,
        workers: int = 1,
        dialect: Dialect = JSON_DIALECT,
    ) -> Server:
        return home.serve(self.log("roundhouse"), cores=cores, workers=workers, dialect=dialect)
