"""The demo: a model's whole life on real flights, lived over HTTP and told in the terminal.

Only the public HTTP contract is used: whatever happens here, ``curl`` can do as well.
"""

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from app.demo.answers import (
    Metrics,
    StoryFailed,
    drift_columns,
    late_probabilities,
    measure,
    performance_rows,
)
from app.demo.flights import AUGUST, SPRING, SUMMER, UNTIL_AUGUST, WINTER, Period

DATASET = "/v1/datasets/flights"
MODEL = "/v1/models/flight-delays"
TRAINING = {
    "model": "flight-delays",
    "dataset": "flights",
    "target": "late",
    "algorithm": "auto",
    "search": {
        "algorithms": ["logistic_regression", "random_forest", "hist_gradient_boosting"],
        "trials": 4,
    },
    "features": {"scheduled": {"role": "drop"}},
    "validation": {"method": "time", "time_column": "scheduled", "folds": 3},
    "seed": 2013,
}
SERVED_EACH = 3
LARGEST_REQUEST = 200
FEEDBACK_BATCH = 500
TRAINING_SECONDS = 300.0
SWITCH_SECONDS = 10.0
POLL_SECONDS = 0.2

MEANINGS = {
    "roc_auc": "puts late flights before punctual ones: 0.5 is chance, 1 is perfect",
    "log_loss": "how far the stated probabilities are off: less is better",
    "accuracy": "the share of flights judged right",
}


def tell(base_url: str, key: str | None) -> None:
    """Carry the model through its life on the server at ``base_url``, and narrate it.

    Raises httpx.HTTPError where the server cannot be reached, StoryFailed where it answers otherwise than
    the contract says. It can be told again to a server that has heard it: versions are then added.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with (
        httpx.Client(base_url=base_url, headers=headers, timeout=60) as http,
        tempfile.TemporaryDirectory(prefix="roundhouse-demo-") as folder,
    ):
        sizes = random.Random(2013)  # noqa: S311 - no secret
        _Story(http, Path(folder), Console(highlight=False), sizes).tell()


@dataclass(slots=True)
class _Story:
    http: httpx.Client
    folder: Path
    console: Console
    # Live traffic comes in requests of every size; seeded, so that each telling is the same.
    sizes: random.Random
    chapters: int = 0

    def tell(self) -> None:
        self.say(
            "\nSome 330,000 flights left New York in 2013. Which of them would land more than 15 minutes "
            "late? A model shall say so before they leave, from the schedule, the weather and the plane. You "
            "will see it learn, serve, grow old and be followed by a better one. Each arrow is a request."
        )
        self.chapter("The data of a winter")
        self.call("POST", "/v1/datasets", 201, 409, json={"name": "flights", "description": "New York, 2013"})
        data, nullable = self.upload(WINTER, 200, 201)
        self.say(f"Values are missing, as in life: {', '.join(nullable)}.")

        self.chapter("A first training run")
        self.say(
            "We name three algorithms, and auto compares them: as they come, and then in four trials with "
            "other parameters and other ways to prepare the columns. The latest fifth of the flights is held "
            "out, to measure the model on days after those it learned from. The date itself is dropped: no "
            "day comes twice."
        )
        first = self.train(data)

        self.chapter("How good is it?")
        self.show_evaluation(first)

        self.chapter("Into service")
        deployment = self.promote(first, self.call("GET", MODEL)["deployment"] or 0)

        self.chapter("Spring: live traffic")
        spring = self.serve(SPRING)

        self.chapter("The planes have landed")
        self.say("The truth comes later, and finds its prediction by the prediction's id.")
        self.send_feedback(spring)
        self.show_performance(first)

        self.chapter("Summer: the world moves on")
        summer = self.serve(SUMMER)
        self.say("No truth is known yet, but what comes in can be compared with what the model learned from:")
        self.show_drift(newest=len(summer))
        self.say("A model that learned in winter has never seen such heat.\n\nThen the planes land:")
        self.send_feedback(summer)
        self.show_performance(first)

        self.chapter("Learning from newer flights")
        data, _ = self.upload(UNTIL_AUGUST, 200, 201)
        self.say("\nOnce more: the same bytes are the same version, and the answer is 200.")
        if self.upload(UNTIL_AUGUST, 200)[0] != data:
            raise StoryFailed(f"The same bytes became another version than {data}.")
        self.say("\nThe same training as before, on the newer data:")
        second = self.train(data)
        better = self.compare_on_august(first, second)

        self.chapter("The change of guard")
        self.say(
            "A promotion names the deployment that it means to replace. Had somebody else promoted "
            "meanwhile, the answer would be 409. Predictions go on while the versions change."
        )
        self.promote(second, deployment)

        self.chapter("And back, to show it")
        restored = self.call("POST", f"{MODEL}:rollback", 201, json={"comment": "To show it"})
        self.await_version(first)
        if better:
            self.say(f"\nVersion {second} was better on August, so it shall serve:")
            self.promote(second, restored["id"])
        else:
            self.say(f"\nVersion {second} was not better on August, so version {first} stays.")
        self.show_deployments()

        self.chapter("Look around")
        self.show_addresses()

    # ── What is done ─────────────────────────────────────────────────────────────────────────────────

    def upload(self, period: Period, *expected: int) -> tuple[int, list[str]]:
        """Upload a period's flights; the number of their dataset version, and its nullable columns."""
        path = self.folder / "flights.parquet"
        period.write(path)
        headers = {"content-type": "application/vnd.apache.parquet"}
        content = path.read_bytes()
        version = self.call("POST", f"{DATASET}/versions", *expected, content=content, headers=headers)
        number, columns = version["version"], version["columns"]
        self.say(f"Version {number}, {period.name}: {version['rows']:,} flights, {len(columns)} columns.")
        return number, [column["name"] for column in columns if column["nullable"]]

    def train(self, data: int) -> int:
        """Train on a dataset version and wait; the number of the new model version."""
        run = self.call("POST", "/v1/training-runs", 202, json=TRAINING | {"dataset_version": data})
        deadline = time.monotonic() + TRAINING_SECONDS
        with self.progress() as progress:
            bar = progress.add_task("waiting for a worker", total=1.0)
            while run["status"] in ("queued", "running"):
                if time.monotonic() > deadline:
                    raise StoryFailed(f"Training run {run['id']} does not end. Is a worker running?")
                time.sleep(POLL_SECONDS)
                run = self.call("GET", f"/v1/training-runs/{run['id']}", quiet=True)
                fraction, step = run["progress"]["fraction"], run["progress"]["step"]
                progress.update(bar, completed=fraction, description=escape(step or run["status"]))
        if run["status"] != "succeeded":
            raise StoryFailed(f"Training run {run['id']} ended as {run['status']}: {run['error']}")
        self.say(f"The run made version {run['model_version']} of the model.")
        return int(run["model_version"])

    def promote(self, version: int, expected_deployment: int) -> int:
        """Put a version into service and wait until it answers; the id of the new deployment."""
        order = {"version": version, "expected_deployment": expected_deployment}
        deployment = self.call("POST", f"{MODEL}:promote", 201, json=order)
        self.await_version(version)
        return int(deployment["id"])

    def await_version(self, version: int) -> None:
        question = {"instances": AUGUST.read(each=1000)[0][:1]}
        started = time.monotonic()
        while (waited := time.monotonic() - started) < SWITCH_SECONDS:
            # A process that has not loaded the first deployment yet has no model to ask.
            answer = self.call("POST", f"{MODEL}:predict", 200, 404, 409, 503, json=question, quiet=True)
            if answer.get("version") == version:
                self.say(f"Version {version} answers, {waited:.1f} s later.")
                return
            time.sleep(POLL_SECONDS)
        raise StoryFailed(f"Version {version} does not answer after {SWITCH_SECONDS:.0f} s.")

    def serve(self, period: Period) -> list[dict[str, Any]]:
        """Ask about a share of a period's flights, in time order; the feedback to send when they land."""
        flights, outcomes = period.read(each=SERVED_EACH)
        ids: list[str] = []
        chances: list[float] = []
        started = time.monotonic()
        with self.progress() as progress:
            bar = progress.add_task(f"{period.name}, {len(flights):,} flights", total=len(flights))
            while len(ids) < len(flights):
                batch = flights[len(ids) : len(ids) + self.sizes.randint(1, LARGEST_REQUEST)]
                answer = self.call("POST", f"{MODEL}:predict", json={"instances": batch}, quiet=True)
                chances += late_probabilities(answer, len(batch))
                ids += answer["prediction_ids"]
                progress.update(bar, completed=len(ids))
        rate = len(flights) / (time.monotonic() - started)
        self.say(
            f"Asked in requests of 1 to {LARGEST_REQUEST}, it answered {rate:,.0f} flights a second, and "
            f"each answer is on record. It expects [bold]{fmean(chances):.0%}[/] of them to be late."
        )
        # On the calendar of the flights, not on that of this replay.
        return [
            {"prediction_id": id_, "actual": late, "observed_at": flight["scheduled"]}
            for id_, late, flight in zip(ids, outcomes, flights, strict=True)
        ]

    def send_feedback(self, feedback: list[dict[str, Any]]) -> None:
        with self.progress() as progress:
            bar = progress.add_task(f"{len(feedback):,} outcomes", total=len(feedback))
            for start in range(0, len(feedback), FEEDBACK_BATCH):
                items = feedback[start : start + FEEDBACK_BATCH]
                answer = self.call("POST", "/v1/feedback", json={"items": items}, quiet=True)
                if answer["accepted"] != len(items):
                    raise StoryFailed(f"Not all of {len(items)} outcomes were accepted: {answer}")
                progress.advance(bar, len(items))
        self.say(f"[bold]{fmean(one['actual'] for one in feedback):.0%}[/] of them were late.")

    def compare_on_august(self, first: int, second: int) -> bool:
        """Measure both versions, and no model at all, on August; whether the second is better."""
        (flights, outcomes), winter_rate = AUGUST.read(), fmean(WINTER.read()[1])
        results = {"winter's rate": measure(outcomes, [winter_rate] * len(outcomes))}
        for version in (first, second):
            chances: list[float] = []
            for start in range(0, len(flights), LARGEST_REQUEST):
                batch = flights[start : start + LARGEST_REQUEST]
                path = f"{MODEL}/versions/{version}:predict"
                answer = self.call("POST", path, json={"instances": batch}, quiet=True)
                chances += late_probabilities(answer, len(batch))
            results[f"version {version}"] = measure(outcomes, chances)
        self.say(
            f"\nBoth on the {len(flights):,} flights of August, which neither has seen, and beside them what "
            f"takes no model: to expect {winter_rate:.0%} of any flight, as in winter."
        )
        self.show_metrics(results)
        return results[f"version {second}"]["log_loss"] < results[f"version {first}"]["log_loss"]

    # ── What is shown ────────────────────────────────────────────────────────────────────────────────

    def show_evaluation(self, version: int) -> None:
        evaluation = self.call("GET", f"{MODEL}/versions/{version}/evaluation")
        self.say(f"On the {evaluation['rows']['holdout']:,} flights held out:")
        self.show_metrics(
            {f"version {version}": evaluation["metrics"], "baseline": evaluation["baseline_metrics"]}
        )
        for name, meaning in MEANINGS.items():
            self.say(f"[dim]{name}: {meaning}[/]")
        choice = evaluation["choice"]
        self.say(f"\nWhy this algorithm? {escape(choice['reason'])}")
        scores = [[one["algorithm"], f"{one['mean']:.3f} ± {one['std']:.3f}"] for one in choice["candidates"]]
        self.table(["algorithm", f"{choice['metric']} in cross-validation"], scores)
        for column, reason in evaluation["dropped"].items():
            self.say(f"Not used: {escape(column)} ({escape(reason)}).")

    def show_performance(self, version: int) -> None:
        asked = {"version": version, "by": "observed_at", "window": "30d"}
        windows = performance_rows(self.call("GET", f"{MODEL}/performance", params=asked), version)
        if len(windows) < 2:
            raise StoryFailed("Outcomes were accepted, and yet there is no performance to see.")
        self.show_metrics(windows)

    def show_drift(self, newest: int) -> None:
        columns = drift_columns(self.call("GET", f"{MODEL}/drift", params={"limit": newest}))
        drifted = [column for column in columns if column["status"] == "drift"]
        rows = [
            [one["name"], "█" * round(one["effect"] * 30), f"{one['effect']:.2f}"]
            for one in sorted(drifted, key=lambda column: -column["effect"])
        ]
        self.table(["drifted", "", "effect, 0 to 1"], rows)
        self.say(f"{len(drifted)} of {len(columns)} are not what they were (the prediction counts as one).")

    def show_deployments(self) -> None:
        rows = []
        for one in self.call("GET", f"{MODEL}/deployments")["items"]:
            slots = ", ".join(f"version {slot['version']} ({slot['variant']})" for slot in one["slots"])
            rows.append([str(one["id"]), slots, one["reason"], one["created_by"], one["created_at"][:19]])
        self.table(["deployment", "serves", "by way of", "by", "since"], rows)
        self.say("Newest first. Nothing is ever overwritten: a rollback is a deployment too.")

    def show_addresses(self) -> None:
        places = {
            "/docs": "every operation, to try (the rest takes a key)",
            MODEL: "the model",
            f"{MODEL}/versions/1/card?format=html": "its first version, in pictures",
            f"{MODEL}/deployments": "what served, and when",
            f"{MODEL}/drift": "live inputs beside those of training",
            f"{MODEL}/performance": "predictions beside the truth",
            "/v1/events": "all that happened here, and who did it",
        }
        for path, words in places.items():
            self.say(f"{words}: {self.http.base_url.join(path)}")

    def show_metrics(self, results: Mapping[str, Metrics]) -> None:
        rows = []
        for name, metrics in results.items():
            values = (metrics.get(metric) for metric in MEANINGS)
            rows.append([name, *("" if value is None else f"{value:.3f}" for value in values)])
        self.table(["", *MEANINGS], rows)

    # ── How it is told ───────────────────────────────────────────────────────────────────────────────

    def call(self, method: str, path: str, *expected: int, quiet: bool = False, **request: Any) -> Any:
        """The JSON answer of one request. Raises StoryFailed for a status that is not expected (200)."""
        response = self.http.request(method, path, **request)
        if response.status_code not in (expected or (200,)):
            raise StoryFailed(f"{method} {path} answered {response.status_code}: {response.text[:1000]}")
        if not quiet:
            self.say(f"[dim]→ {method} {path}  {response.status_code}[/]")
        return response.json()

    def chapter(self, title: str) -> None:
        self.chapters += 1
        self.say("")
        self.console.rule(f"[bold cyan]{self.chapters}. {title}[/]", align="left")

    def say(self, text: str) -> None:
        self.console.print(text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(*head, box=None)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(table)

    def progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        return Progress(SpinnerColumn(), *columns, console=self.console)
