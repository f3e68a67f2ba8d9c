"""The documents say what the code does."""

import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import duckdb
import pytest
from prometheus_client.registry import REGISTRY

from app.serving.segments import SEGMENT_COLUMNS
from app.settings import Settings
from tests.client import ADMIN_KEY, Client, wait_until
from tests.conftest import Start
from tests.versions import register, train_here

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default_and_meaning(name: str) -> None:
    field = Settings.model_fields[name]
    line = next(
        (
            line
            for line in (ROOT / "docs/settings.md").read_text().splitlines()
            if f"ROUNDHOUSE_{name.upper()}`" in line
        ),
        "",
    )
    assert str(field.description) in line
    assert field.default in (None, "") or f"`{field.default}`" in line


def test_no_setting_is_documented_that_does_not_exist() -> None:
    documented = set(
        re.findall(r"^\| `ROUNDHOUSE_(\w+)`", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    )
    assert documented == {name.upper() for name in Settings.model_fields}


def test_every_metric_is_documented(shared: Client) -> None:
    ours = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("roundhouse_")}
    documented = {
        name.removesuffix("_total")
        for name in re.findall(r"^\| `(roundhouse_\w+)`", OPERATIONS, re.MULTILINE)
    }
    assert documented == ours


def test_every_column_of_the_prediction_log_is_documented() -> None:
    table = OPERATIONS.partition("## The prediction log")[2].partition("Any tool")[0]
    assert set(re.findall(r"`(\w+)`(?=[,\w` ]*\|)", table)) >= set(SEGMENT_COLUMNS)


def test_the_query_of_the_prediction_log_works_as_it_stands(start: Start) -> None:
    client = start()
    client.add_dataset("flights", client.table(rows=60, seed=2))
    register(client, "flight-delays", train_here(client, "flights", algorithm="dummy"))
    assert client.post("/v1/models/flight-delays:promote", json={"version": 1}).status_code == 201
    row = client.get("/v1/models/flight-delays").json()["example"] | {"distance": 700}
    for _ in range(2):
        client.predict("flight-delays", [row] * 3)
    wait_until(lambda: not list(client.settings.journal.glob("spool/*/*.ndjson")))
    query = re.search(r"```sql\n.*?READ_ONLY\);\n(.*?)```", OPERATIONS, re.DOTALL)
    assert query is not None
    with duckdb.connect() as connection, sqlite3.connect(client.settings.sqlite_file) as registry:
        # In place of DuckDB's extension for SQLite, which comes from the internet.
        connection.execute("ATTACH ':memory:' AS registry")
        connection.execute('CREATE TABLE registry.prediction_segments (model TEXT, "day" DATE, digest TEXT)')
        for row in registry.execute("SELECT model, day, digest FROM prediction_segments"):
            connection.execute("INSERT INTO registry.prediction_segments VALUES (?, ?, ?)", row)
        told = connection.execute(query[1].replace("models_store", str(client.settings.home))).fetchall()
    registry.close()
    assert [(version, variant, rows, mean) for _, version, variant, rows, mean, _ in told] == [
        (1, "champion", 6, 700.0)
    ]


def test_every_file_that_the_readme_names_exists() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)", README) + re.findall(
        r"^\| `([\w./]+)` \|", README, re.MULTILINE
    ):
        assert (ROOT / name).exists(), name


@pytest.mark.skipif(
    shutil.which("curl") is None, reason="the tour is told with curl, which is not installed here"
)
def test_the_tour_of_the_readme_works_as_it_stands(start: Start, tmp_path: Path) -> None:
    tour = README.partition("## The loop with curl")[2].partition("```sh\n")[2].partition("```")[0]
    client = start(worker=True)
    tour = re.sub(r"^RH=.*$", f"RH={str(client.base_url).rstrip('/')}", tour, flags=re.MULTILINE)
    tour = re.sub(r"^KEY=.*$", f"KEY={ADMIN_KEY}", tour, flags=re.MULTILINE)
    tour = tour.replace("answer.json", str(tmp_path / "answer.json"))
    told = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", tour], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert '"accepted":1' in told.stdout
    assert '"status":"succeeded"' in told.stdout
