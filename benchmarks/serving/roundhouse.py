"""Roundhouse under test: homes prepared through its own API, and its dialects."""

import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arro3.core
import arro3.io
import httpx
import joblib
import msgspec
from data import CATEGORIES, COUNTS, NUMBERS, TARGET, Row
from servers import BOTH_CORES, BenchmarkFailed, Dialect, Server, free_port

from app.registry.signature import Signature

ROOT = Path(__file__).parents[2]
MODEL = "benchmark"
ADMIN_KEY = "the-admin-key-of-the-benchmark"
ARROW = "application/vnd.apache.arrow.stream"
POLL_SECONDS = 0.1


def _encode_json(rows: list[Row]) -> bytes:
    return msgspec.json.encode({"instances": rows})


def _decode_json(body: bytes) -> list[float]:
    return [probabilities[1] for probabilities in json.loads(body)["probabilities"]]


def _encode_arrow(rows: list[Row]) -> bytes:
    types = dict.fromkeys(NUMBERS, arro3.core.DataType.float64())
    types |= dict.fromkeys(COUNTS, arro3.core.DataType.int64())
    types |= dict.fromkeys(CATEGORIES, arro3.core.DataType.string())
    columns = {name: arro3.core.Array([row[name] for row in rows], type_) for name, type_ in types.items()}
    stream = io.BytesIO()
    arro3.io.write_ipc_stream(arro3.core.Table.from_pydict(columns), stream, compression=None)
    return stream.getvalue()


def _decode_arrow(body: bytes) -> list[float]:
    table = arro3.io.read_ipc_stream(io.BytesIO(body)).read_all()
    return [float(value.as_py()) for value in table["probability_1"]]


JSON_DIALECT = Dialect(f"/v1/models/{MODEL}:predict", _encode_json, _decode_json)
ARROW_DIALECT = Dialect(
    JSON_DIALECT.path, _encode_arrow, _decode_arrow, {"Content-Type": ARROW, "Accept": ARROW}
)


@dataclass(frozen=True)
class Home:
    """A prepared installation: one promoted model, a client's key, and the answers that are right.

    ``answer`` is the body that answered one row; ``runtime`` says how the version is served.
    """

    folder: Path
    key: str
    answer: bytes
    runtime: str
    expected: Sequence[float]

    def serve(
        self,
        log: Path,
        *,
        cores: Sequence[int],
        workers: int = 1,
        dialect: Dialect = JSON_DIALECT,
    ) -> Server:
        return _serve(
            self.folder, log, "--no-worker", cores=cores, workers=workers, key=self.key, dialect=dialect
        )


def prepare_home(
    folder: Path, training: Path, rows: list[Row], *, algorithm: str, params: dict[str, Any], versions: int
) -> Home:
    """Upload the CSV, train ``versions`` versions, promote the first and make a client's key."""
    with _serve(folder, folder.with_suffix(".prepare.log"), cores=BOTH_CORES, key=ADMIN_KEY) as server:
        client = _Api(base_url=server.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
        server.wait_until_ready("/readyz")
        client.create("/v1/datasets", json={"name": "rows"})
        client.create(
            "/v1/datasets/rows/versions", content=training.read_bytes(), headers={"Content-Type": "text/csv"}
        )
        for seed in range(versions):
            run = client.create(
                "/v1/training-runs",
                json={
                    "model": MODEL,
                    "dataset": "rows",
                    "target": TARGET,
                    "algorithm": algorithm,
                    "params": params,
                    "seed": seed,
                },
            )
            client.wait_for_run(run["id"])
        client.create(f"/v1/models/{MODEL}:promote", json={"version": 1})
        key = client.create("/v1/keys", json={"name": "load", "role": "client"})["key"]
        server.wait_until_answering(rows[0])
        answer = server.ask(client, rows[:1]).content
        version = client.get(f"/v1/models/{MODEL}/versions/1").json()
        client.close()
    digest = version["artifact_digest"].removeprefix("sha256:")
    pipeline = joblib.load(folder / "objects" / "sha256" / digest[:2] / digest)
    expected = pipeline.predict_proba(Signature.model_validate(version["signature"]).encode(rows))[:, 1]
    return Home(folder, key, answer, version.get("runtime", "native"), expected.tolist())


def _serve(
    home: Path,
    log: Path,
    *options: str,
    cores: Sequence[int],
    key: str,
    workers: int = 1,
    dialect: Dialect = JSON_DIALECT,
) -> Server:
    port = free_port()
    return Server(
        [
            *(sys.executable, "-m", "app", "serve", "--port", str(port), "--workers", str(workers)),
            *options,
        ],
        dialect,
        port=port,
        cores=cores,
        log=log,
        headers={"Authorization": f"Bearer {key}"},
        folder=ROOT,
        environment={"ROUNDHOUSE_HOME": str(home), "ROUNDHOUSE_ADMIN_KEY": ADMIN_KEY},
    )


class _Api(httpx.Client):
    """The admin's client: what fails, ends the benchmark."""

    def create(self, path: str, **content: Any) -> dict[str, Any]:
        response = self.post(path, **content)
        if response.is_error:
            raise BenchmarkFailed(f"POST {path}: {response.text}")
        return response.json()

    def wait_for_run(self, run: int) -> None:
        while (info := self.get(f"/v1/training-runs/{run}").json())["status"] in ("queued", "running"):
            time.sleep(POLL_SECONDS)
        if info["status"] != "succeeded":
            raise BenchmarkFailed(f"training run {run} {info['status']}: {info['error']}")
