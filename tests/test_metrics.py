"""The metrics: right over all processes of a server, and named as dashboard and documents name them."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.client import Client, wait_until
from tests.conftest import Start, make_settings
from tests.processes import Serve, connect
from tests.versions import register, train_here

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs/operations.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/serving.json").read_text())

ROW: dict[str, Any] = {
    "scheduled": "2013-05-31T14:15:00Z",
    "carrier": "B6",
    "distance": 700,
    "wind": 17.5,
    "international": False,
}
TENSORS = [
    {"name": "scheduled", "datatype": "BYTES", "shape": [2], "data": ["2013-05-31T14:15:00Z"] * 2},
    {"name": "carrier", "datatype": "BYTES", "shape": [2], "data": ["B6", "AA"]},
    {"name": "distance", "datatype": "INT64", "shape": [2], "data": [700, 800]},
    {"name": "wind", "datatype": "FP64", "shape": [2], "data": [17.5, 3.5]},
    {"name": "international", "datatype": "BOOL", "shape": [2], "data": [False, True]},
]
WRONG_TENSORS = [
    tensor | {"data": [None, 1]} if tensor["name"] == "distance" else tensor for tensor in TENSORS
]
CSV = "scheduled,carrier,distance,wind,international\n" + "2013-05-31T14:15:00Z,B6,700,17.5,false\n" * 2

ROWS, REQUESTS = "roundhouse_predictions_total", "roundhouse_predict_seconds_count"
LABELS = ("model", "version", "variant", "protocol", "code")


class Served:
    """A server of several processes that serves version 1 of the model ``m``; version 2 waits."""

    def __init__(self, server: Serve, home: Path, processes: int) -> None:
        self.client = server.wait_until_ready()
        self.client.settings = make_settings(home / "home")
        self._server = server
        self._processes = processes
        self._started = processes
        self._wait_until_all_started()
        self.client.add_dataset("few", Client.table(rows=100, seed=2))
        linear = train_here(self.client, "few", algorithm="logistic_regression")
        forest = train_here(self.client, "few", algorithm="random_forest", params={"n_estimators": 3})
        register(self.client, "m", linear, forest)
        self.promote(1)

    def promote(self, version: int) -> None:
        answer = self.client.post("/v1/models/m:promote", json={"version": version})
        assert answer.status_code == 201, answer.text
        self.wait_until_all_serve(version)

    def wait_until_all_serve(self, version: int) -> None:
        def all_serve() -> bool:
            answers = self.ask_all(lambda one: one.post("/v1/models/m:predict", json={"instances": [ROW]}))
            return {answer.json()["version"] for answer in answers.values()} == {version}

        wait_until(all_serve)

    def ask_all(self, ask: Callable[[Client], httpx.Response]) -> dict[str, httpx.Response]:
        """Ask on new connections until every process has answered; its last answer, by process."""
        answers = {}

        def have_all() -> bool:
            with connect(self._server.url) as one:  # the kernel gives a connection to either process
                answer = ask(one)
            answers[answer.headers["x-request-id"][:12]] = answer  # an id begins with its process's own
            return len(answers) == self._processes

        wait_until(have_all)
        return answers

    def counted(self, name: str) -> list[dict[tuple[str, ...], float]]:
        """The samples of the name as each process tells them, by the values of ``LABELS``."""
        told = self.ask_all(lambda one: one.get("/metrics")).values()
        return [
            {
                tuple(sample.labels[label] for label in LABELS if label in sample.labels): sample.value
                for sample in samples(answer.text, name)
            }
            for answer in told
        ]

    def shown(self) -> list[set[str]]:
        """The versions that each process shows, in whatever metric."""
        told = self.ask_all(lambda one: one.get("/metrics")).values()
        return [
            {
                sample.labels["version"]
                for sample in samples(answer.text, "roundhouse_")
                if "version" in sample.labels
            }
            for answer in told
        ]

    def wait_until_shown(self, *versions: str) -> None:
        wait_until(lambda: self.shown() == [set(versions)] * self._processes)

    def kill_one_process(self) -> None:
        """SIGKILL to one process; returns when another has taken its place."""
        children = psutil.Process(self._server.process.pid).children()
        next(child for child in children if "spawn_main" in " ".join(child.cmdline())).kill()
        self._started += 1
        self._wait_until_all_started()

    def _wait_until_all_started(self) -> None:
        wait_until(lambda: self._server.output.count("Application startup complete") == self._started)


@contextmanager
def serving(home: Path, processes: int, *, expiry_seconds: int = 900) -> Iterator[Served]:
    arguments = ("--no-worker", "--workers", str(processes))
    with Serve(home, *arguments, ROUNDHOUSE_METRICS_EXPIRY_SECONDS=str(expiry_seconds)) as server:
        yield Served(server, home, processes)


def samples(text: str, name: str) -> list[Sample]:
    """The samples whose names begin so."""
    families = text_string_to_metric_families(text)
    return [sample for family in families for sample in family.samples if sample.name.startswith(name)]


# ── Several processes ────────────────────────────────────────────────────────────────────────────


def test_every_process_tells_what_all_have_counted_also_those_that_were_killed(tmp_path: Path) -> None:
    with serving(tmp_path, 2) as served:
        (rows, *_), (requests, *_) = served.counted(ROWS), served.counted(REQUESTS)
        answered, asked = defaultdict(float, rows), defaultdict(float, requests)
        version_1 = ("m", "1", "champion")

        def ask(path: str, status: int, key: tuple[str, ...], sent: int, **body: Any) -> None:
            """Ask every process, and expect it to be counted."""

            def once(one: Client) -> httpx.Response:
                answer = one.post(path, **body)
                assert answer.status_code == status, answer.text
                asked[key] += 1
                if sent:
                    answered[key[:-1]] += sent
                return answer

            served.ask_all(once)

        def ask_everything() -> None:
            wrong = ROW | {"distance": "far"}
            tensors = {"inputs": TENSORS}
            predict, infer, invoke = "/v1/models/m:predict", "/v2/models/m/infer", "/invocations"
            ask(predict, 200, (*version_1, "v1", "200"), 3, json={"instances": [ROW] * 3})
            ask(predict, 200, (*version_1, "v1", "200"), 70, json={"instances": [ROW] * 70})
            ask(predict, 422, (*version_1, "v1", "422"), 0, json={"instances": [ROW, wrong]})
            ask(infer, 200, (*version_1, "oip", "200"), 2, json=tensors)
            ask(infer, 422, (*version_1, "oip", "422"), 0, json={"inputs": WRONG_TENSORS})
            ask(invoke, 200, (*version_1, "mlflow", "200"), 1, json={"dataframe_records": [ROW]})
            ask(invoke, 400, (*version_1, "mlflow", "400"), 0, json={"dataframe_records": [wrong]})
            ask(
                predict, 200, (*version_1, "csv", "200"), 2, content=CSV, headers={"content-type": "text/csv"}
            )
            by_number = "/v1/models/m/versions/2:predict"
            ask(by_number, 200, ("m", "2", "none", "v1", "200"), 4, json={"instances": [ROW] * 4})

        def all_is_counted() -> bool:
            return served.counted(ROWS) == [answered] * 2 and served.counted(REQUESTS) == [asked] * 2

        ask_everything()
        wait_until(all_is_counted)  # a request's time is counted once its answer is sent
        served.kill_one_process()
        assert all_is_counted()
        ask_everything()
        wait_until(all_is_counted)
        (statistics,) = served.client.get("/v2/models/m/versions/1/stats").json()["model_stats"]
        assert statistics["inference_count"] == sum(answered[key] for key in answered if key[1] == "1")
        assert statistics["inference_stats"]["success"]["count"] == sum(
            asked[key] for key in asked if key[1] == "1" and key[-1] == "200"
        )


@pytest.mark.parametrize("processes", [1, 2])
def test_a_version_is_shown_while_it_serves_or_is_asked_for(tmp_path: Path, processes: int) -> None:
    with serving(tmp_path, processes, expiry_seconds=0) as served:
        served.wait_until_shown("1")
        (before, *_) = served.counted(ROWS)
        served.promote(2)
        served.wait_until_shown("2")
        rolled_back = served.client.post("/v1/models/m:rollback", json={})
        assert rolled_back.status_code == 201, rolled_back.text
        served.wait_until_all_serve(1)
        served.wait_until_shown("1")
        key = ("m", "1", "champion", "v1")
        assert all(now[key] > before[key] for now in served.counted(ROWS))
        served.client.predict("m", [ROW], at="/versions/2")
        served.wait_until_shown("1", "2")


def test_an_expired_version_does_not_return_with_a_new_process(tmp_path: Path) -> None:
    with serving(tmp_path, 2, expiry_seconds=0) as served:
        served.promote(2)
        served.wait_until_shown("2")
        served.kill_one_process()
        assert served.shown() == [{"2"}] * 2


def test_a_version_that_left_service_is_shown_for_the_set_time(tmp_path: Path) -> None:
    with serving(tmp_path, 2, expiry_seconds=3600) as served:
        served.promote(2)
        assert served.shown() == [{"1", "2"}] * 2


# ── The dashboard ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def labels_shown(start: Start) -> dict[str, set[str]]:
    """The labels of every metric of a server that has counted in each of them."""
    client = start()
    client.add_dataset("few", client.table(rows=100, seed=2))
    client.add_dataset("other", b"wind,late\n" + b"1,true\n2,false\n" * 15)
    few, other = (train_here(client, name, algorithm="dummy") for name in ("few", "other"))
    register(client, "m", few, other)
    for version in ({"version": 1}, {"version": 2, "shadow": True}):
        assert client.post("/v1/models/m:promote", json=version).status_code == 201
    client.predict("m", [ROW])  # the shadow cannot score it
    failures = "roundhouse_shadow_failures_total"
    wait_until(lambda: samples(client.get("/metrics").text, failures))
    shown = samples(client.get("/metrics").text, "roundhouse_")
    return {sample.name: set(sample.labels) for sample in shown if not sample.name.endswith("_created")}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_the_dashboard_asks_only_for_metrics_and_labels_that_there_are(
    labels_shown: dict[str, set[str]],
) -> None:
    given_by_prometheus = {"instance"}
    for query in queries():
        names = set(re.findall(r"roundhouse_\w+", query))
        assert names, query
        assert names <= set(labels_shown), query
        labels = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query)
        for listed in re.findall(r"\b(?:by|ignoring) \(([^)]*)\)", query):
            labels += listed.split(", ")
        for name in names:
            assert set(labels) <= labels_shown[name] | given_by_prometheus, query


def test_the_dashboard_shows_every_metric_of_the_predictions() -> None:
    asked = set(re.findall(r"roundhouse_\w+", " ".join(queries())))
    documented = set(re.findall(r"^\| `(roundhouse_\w+)`", OPERATIONS, re.MULTILINE))
    assert {re.sub(r"_(count|bucket)$", "", name) for name in asked} >= {
        name for name in documented if "predict" in name or "shadow" in name
    }


def test_every_label_is_documented(labels_shown: dict[str, set[str]]) -> None:
    documented = re.findall(r"^\| `(roundhouse_\w+)` \| ([\w, ]*) \|", OPERATIONS, re.MULTILINE)
    assert documented
    for name, labels in documented:
        shown = labels_shown[name if name in labels_shown else f"{name}_count"]
        assert set(re.findall(r"\w+", labels)) == shown


def test_grafana_can_place_and_fill_every_panel() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert (variables["model"]["type"], variables["model"]["allValue"]) == ("query", ".*")
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    assert isinstance(DASHBOARD["schemaVersion"], int)
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["model"]["datasource"] == source
    for panel in panels():
        assert panel["datasource"] == source
        assert {"defaults", "overrides"} <= set(panel["fieldConfig"])
        assert all(target["datasource"] == source for target in panel["targets"])
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert max(x for x, _ in cells) < 24, f"{panel['title']} is beyond Grafana's 24 columns"
        taken |= cells


def test_the_dashboard_uses_the_variables_that_it_declares_and_grafanas_own() -> None:
    used = set(re.findall(r"\$(?:\{(\w+)\}|(\w+))", json.dumps(DASHBOARD["panels"])))
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert {one or other for one, other in used} == declared | {"__rate_interval", "__range"}
