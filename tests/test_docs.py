"""The documents say what the code does."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.registry import REGISTRY

from app.serving.journal import SEGMENT_COLUMNS
from app.settings import Settings
from tests.client import ADMIN_KEY, Client
from tests.conftest import Start

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
