"""The servers that Roundhouse is compared with, each in an environment of its own.

``NAME.py`` serves a fitted pipeline in that environment, which ``NAME.txt`` defines; here stands how each is
asked. All answer with probabilities.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from data import CATEGORIES, Row
from servers import SERVER_CORE, BenchmarkFailed, Dialect, Server, free_port

FOLDER = Path(__file__).parent
PYTHON = "3.11"  # the newest that all of them run on


@dataclass(frozen=True)
class Peer:
    """A server: what to call it, and how it is asked."""

    name: str
    title: str
    dialect: Dialect

    @property
    def requirements(self) -> Path:
        return FOLDER / f"{self.name}.txt"

    @property
    def version(self) -> str:
        """The first package of the requirements, as pinned."""
        return self.requirements.read_text().split()[0].replace("==", " ")

    def install(self, environments: Path) -> Path:
        """The environment's interpreter; the environment is made once for each text of the requirements.

        Raises BenchmarkFailed with the installer's words.
        """
        environment = environments / self.name
        python, installed = environment / "bin" / "python", environment / self.requirements.name
        wanted = self.requirements.read_text()
        if not (installed.exists() and installed.read_text() == wanted):
            _run("uv", "venv", "--quiet", "--clear", "--python", PYTHON, str(environment))
            _run("uv", "pip", "install", "--quiet", "--python", str(python), "-r", str(self.requirements))
            installed.write_text(wanted)
        return python

    def fit(self, python: Path, training: Path, check: Path, algorithm: str, folder: Path) -> list[float]:
        """Leave a fitted pipeline in ``folder``; the right answers to the check rows."""
        folder.mkdir(parents=True)
        _run(str(python), str(FOLDER / "fit.py"), str(training), str(check), algorithm, str(folder))
        expected: list[float] = json.loads((folder / "expected.json").read_text())
        return expected

    def serve(self, python: Path, folder: Path) -> Server:
        port = free_port()
        return Server(
            [str(python), str(FOLDER / f"{self.name}.py"), str(folder), str(port)],
            self.dialect,
            port=port,
            cores=SERVER_CORE,
            log=folder / "serve.log",
            folder=folder,
            environment={"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"},
        )


def _run(*command: str) -> None:
    finished = subprocess.run(  # noqa: S603 - commands of this file alone
        command, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise BenchmarkFailed(f"{command[0]}: {finished.stderr.strip()[-500:]}")


def _json(path: str, name: str, answer: str) -> Dialect:
    """Rows as records under ``name``; probabilities as lists under ``answer``, or bare where it is empty."""

    def decode(body: bytes) -> list[float]:
        told = json.loads(body)
        return [pair[1] for pair in (told[answer] if answer else told)]

    return Dialect(path, lambda rows: msgspec.json.encode({name: rows}), decode)


def _encode_v2(rows: list[Row]) -> bytes:
    def column(name: str) -> dict[str, Any]:
        kind, codec = ("BYTES", "str") if name in CATEGORIES else ("FP64", "np")
        values = [row[name] for row in rows]
        return {
            "name": name,
            "datatype": kind,
            "shape": [len(rows), 1],
            "parameters": {"content_type": codec},
            "data": values,
        }

    return msgspec.json.encode(
        {
            "parameters": {"content_type": "pd"},
            "inputs": [column(name) for name in rows[0]],
            "outputs": [{"name": "predict_proba"}],
        }
    )


def _decode_v2(body: bytes) -> list[float]:
    (output,) = json.loads(body)["outputs"]
    return output["data"][1::2]


PEERS = (
    Peer("by_hand", "FastAPI + joblib + pandas by hand", _json("/predict", "instances", "probabilities")),
    Peer("mlflow_scoring", "MLflow", _json("/invocations", "dataframe_records", "predictions")),
    Peer("mlserver_v2", "MLServer", Dialect("/v2/models/benchmark/infer", _encode_v2, _decode_v2)),
    Peer("bento", "BentoML, adaptive batching", _json("/predict", "rows", "")),
    Peer("lit", "LitServe, batching", _json("/predict", "rows", "probabilities")),
)
