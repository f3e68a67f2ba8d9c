"""Algorithms of other distributions: really installed, each into a folder that a process of its own reads."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from app.training.algorithms.catalogue import ALGORITHMS, PLUGINS, load_plugins
from tests.clients.environments import python_of

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "algorithms.md"

Install = Callable[[dict[str, str]], Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Builds a distribution of these files with uv, and installs it into the folder that it returns."""

    def build(files: dict[str, str]) -> Path:
        source, target = tmp_path / "source", tmp_path / "installed"
        for name, text in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text)
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--no-deps", "--target", target, source], check=True
        )
        return target

    return build


def run(program: str, *folders: Path) -> Any:
    """What the program prints as its last line, in JSON; it finds what is installed in the folders."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment(*folders),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def environment(*folders: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT)))}


def files_of_the_guide() -> dict[str, str]:
    blocks = re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


LIST = """
import json, sys
from app.training.algorithms.router import list_algorithms
items = {entry.id: entry.model_dump(mode="json") for entry in list_algorithms().items}
assert not {"sklearn", "scipy"} & set(sys.modules)
print(json.dumps(items["poisson_regression"]))
"""

TRAIN = """
import json
from pathlib import Path
import duckdb
import numpy as np
from app.training.fit import fit_model
from app.training.spec import TrainingSpec
from app.serving.native import NativeScorer
from app.registry.signature import Signature

folder = Path(FOLDER)
table = folder / "calls.parquet"
columns = "sin(i) AS x, i % 7 AS day, (hash(i) % 5 + i % 7)::DOUBLE AS calls"
duckdb.sql(f"SELECT {columns} FROM range(300) r(i)").write_parquet(str(table))
spec = TrainingSpec(target="calls", algorithm="poisson_regression", params={"alpha": 0.1})
version = fit_model([table], spec, folder)
scorer = NativeScorer((folder / "model.joblib").read_bytes(), Signature.model_validate(version["signature"]))
matrix = np.column_stack((np.linspace(-1, 1, 50), np.arange(50) % 7))
answers = scorer.score(matrix)
alone = np.concatenate([scorer.score(row[None]) for row in matrix])
assert alone.tobytes() == answers.tobytes()
print(json.dumps({"params": version["params"], "runtime": version["runtime"], "least": answers.min()}))
"""


def test_the_plugin_of_the_guide_is_listed_and_its_model_trained_and_served(
    install: Install, tmp_path: Path
) -> None:
    folder = install(files_of_the_guide())
    listed = run(LIST, folder)
    assert listed["provider"] == "roundhouse-poisson"
    assert listed["parameters"]["properties"]["alpha"]["maximum"] == 1e6
    assert listed["search"] == {"alpha": {"minimum": 1e-4, "maximum": 1e3, "log": True}}
    trained = run(f"FOLDER = {str(tmp_path)!r}\n{TRAIN}", folder)
    assert trained["params"] == {"alpha": 0.1, "max_iter": 1000}
    assert trained["runtime"] == "native"
    assert trained["least"] > 0


BROKEN = {
    "pyproject.toml": """
[project]
name = "broken-plugins"
version = "1.0"
[project.entry-points."roundhouse.algorithms"]
ridge = "broken_plugins:RIDGE"
absent = "broken_plugins.absent:ALGORITHM"
number = "broken_plugins:NUMBER"
renamed = "broken_plugins:RIDGE"
contradicting = "broken_plugins.contradicting:ALGORITHM"
mistyped = "broken_plugins.mistyped:ALGORITHM"
optional = "broken_plugins:OPTIONAL"
[build-system]
requires = ["uv_build"]
build-backend = "uv_build"
""",
    "src/broken_plugins/__init__.py": """
from dataclasses import replace
from app.training.algorithms.builtin import BUILTIN
RIDGE = BUILTIN["ridge"]
NUMBER = 3
OPTIONAL = replace(RIDGE, id="optional", requires=("no_such_module",))
""",
    "src/broken_plugins/absent.py": "import no_such_module",
    "src/broken_plugins/contradicting.py": """
from app.training.algorithms.algorithm import Parameter
Parameter("share", "number", 2.0, "Beyond its own range.", 0.0, 1.0)
""",
    "src/broken_plugins/mistyped.py": """
from dataclasses import replace
from app.training.algorithms.builtin import BUILTIN
ALGORITHM = replace(BUILTIN["ridge"], id="mistyped", title=None, cost="cheap")
""",
}

START = """
import json
from app.main import create_app
from app.settings import Settings
from app.training.algorithms.catalogue import ALGORITHMS
create_app(Settings(log_format="json"))
print(json.dumps({entry.id: entry.provider for entry in ALGORITHMS.values()}))
"""


def test_plugins_that_cannot_be_used_are_left_out_and_logged_with_the_reason(install: Install) -> None:
    folder = install(BROKEN)
    finished = subprocess.run(
        [sys.executable, "-c", START], env=environment(folder), capture_output=True, text=True, check=True
    )
    providers = json.loads(finished.stdout.splitlines()[-1])
    assert providers["ridge"] == "roundhouse"
    assert not {"absent", "number", "renamed", "contradicting", "mistyped", "optional"} & set(providers)
    logged = [json.loads(line) for line in finished.stderr.splitlines()]
    reasons = {line["entry"]: line["reason"] for line in logged if line["event"] == "algorithm_left_out"}
    assert reasons == {
        "ridge of broken-plugins": "there is another algorithm 'ridge'",
        "absent of broken-plugins": "broken_plugins.absent:ALGORITHM could not be imported: "
        "ModuleNotFoundError: No module named 'no_such_module'",
        "number of broken-plugins": "broken_plugins:NUMBER is not an Algorithm but a int",
        "renamed of broken-plugins": "the algorithm's id is 'ridge': the entry must have that name",
        "contradicting of broken-plugins": "broken_plugins.contradicting:ALGORITHM is not sound: "
        "Value error, share: 2.0 is not a number from 0 to 1",
        "mistyped of broken-plugins": "broken_plugins.mistyped:ALGORITHM is not sound: "
        "title Input should be a valid string; cost Input should be 'low', 'medium' or 'high'",
    }


DOUBLED = replace(ALGORITHMS["ridge"], id="doubled")
DOUBLED_TOO = DOUBLED


def test_of_two_plugins_with_one_id_one_is_taken_and_the_other_named() -> None:
    points = [EntryPoint("doubled", f"{__name__}:{name}", PLUGINS) for name in ("DOUBLED_TOO", "DOUBLED")]
    found, left_out = load_plugins(points, taken=())
    assert set(found) == {"doubled"}
    assert left_out == {"doubled of an unknown distribution": "there is another algorithm 'doubled'"}


# ── Our extras ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def extras(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """LightGBM and XGBoost, and this project's own entries as ``pyproject.toml`` has them."""
    (libraries,) = python_of("boosting").parent.parent.glob("lib/python*/site-packages")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path_factory.mktemp("own")
    metadata = folder / f"roundhouse-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: roundhouse\nVersion: {project['version']}\n"
    )
    entries = [f"{name} = {value}" for name, value in project["entry-points"][PLUGINS].items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{PLUGINS}]", *entries]))
    return [folder, libraries]


PROMISES = (
    "tests/registry/test_predictor.py",
    "tests/training/algorithms/test_catalogue.py",
    "tests/training/algorithms/test_estimators.py",
)


def test_our_extras_keep_what_the_catalogue_promises(extras: list[Path]) -> None:
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-k", "lightgbm or xgboost"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *PROMISES],
        cwd=ROOT,
        env=environment(*extras),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    counted = re.search(r"(\d+) passed", finished.stdout)
    assert counted is not None
    assert int(counted[1]) > 50


def test_our_extras_are_offered_where_they_are_installed(extras: list[Path]) -> None:
    program = """
import json, sys
from app.training.algorithms.catalogue import ALGORITHMS, LEFT_OUT
assert not {"lightgbm", "xgboost", "sklearn"} & set(sys.modules)
print(json.dumps([sorted(ALGORITHMS), LEFT_OUT]))
"""
    offered, left_out = run(program, *extras)
    assert {"lightgbm", "xgboost"} <= set(offered)
    assert left_out == {}
