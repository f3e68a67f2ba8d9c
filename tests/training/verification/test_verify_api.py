"""Verifications over HTTP: a version is fitted again in another process, compared, and a receipt signed."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import numpy as np
import pytest
from sqlalchemy import update

from app.registry.models import ModelVersion
from tests.client import ADMIN_KEY, Client
from tests.conftest import Start
from tests.versions import opened, register, train_here

QUICK: dict[str, Any] = {"evaluation": {"seeds": 0}, "validation": {"folds": 2}}


def verify(client: Client, model: str, version: int = 1, **body: Any) -> dict[str, Any]:
    """The run of a verification, which has succeeded."""
    asked = client.post(f"/v1/models/{model}/versions/{version}:verify", json=body)
    assert asked.status_code == httpx.codes.ACCEPTED, asked.text
    assert asked.headers["location"] == f"/v1/training-runs/{asked.json()['id']}"
    assert (asked.json()["verifies"], asked.json()["result"]) == (version, None)
    run = client.wait_for_run(asked.json()["id"])
    assert run["status"] == "succeeded", run
    return run


def registered(client: Client, facts: dict[str, Any]) -> str:
    """A new model with one version, of these facts."""
    name = f"verified-{uuid4().hex[:8]}"
    register(client, name, facts)
    return name


def named(run: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    differences = run["verification"]["differences"]
    return {one["pointer"]: (one["recorded"], one["found"]) for one in differences}


def code_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    code: str = answer.json()["code"]
    return code


@pytest.fixture(scope="module")
def trained(shared: Client, flights: str) -> dict[str, Any]:
    """A version served compiled, to be registered as it is and with changes."""
    return train_here(shared, flights, algorithm="logistic_regression", **QUICK)


@pytest.fixture(scope="module")
def verified(shared: Client, delays: str) -> dict[str, Any]:
    """A run that verified version 2 of the model ``delays``."""
    return verify(shared, delays, 2)


def test_a_version_is_identical_to_what_its_record_makes_again(
    shared: Client, delays: str, verified: dict[str, Any]
) -> None:
    run = verified
    assert (run["result"], run["model_version"], run["verifies"]) == ("identical", None, 2)
    version = shared.get(f"/v1/models/{delays}/versions/2").json()
    data = shared.get("/v1/datasets/flights/versions/1").json()
    told = run["verification"]
    assert (told["model"], told["version"], told["run"]) == (delays, 2, run["id"])
    assert told["artifact_digest"] == dict.fromkeys(("recorded", "found"), version["artifact_digest"])
    assert told["data"] == version["data"] | {"content_digest": data["content_digest"]}
    assert told["environment"]["recorded"] == version["environment"]
    assert len(set(told["fingerprint"].values())) == 1
    assert (told["search"], told["largest_difference"]) == ("none", 0.0)
    assert (told["differences"], told["not_compared"]) == ([], [])
    assert told["worker"].startswith("worker:")
    events = shared.get("/v1/events", params={"subject": f"models/{delays}/versions/2"}).json()["items"]
    assert events[0]["action"] == "model_version.verified"
    assert (events[0]["detail"]["run"], events[0]["detail"]["result"]) == (run["id"], "identical")
    conditions = [{"field": name, "op": "=", "value": run[name]} for name in ("model", "result")]
    found = shared.post("/v1/training-runs:search", json={"where": {"and": conditions}}).json()["items"]
    assert run["id"] in [one["id"] for one in found]
    assert {one["result"] for one in found} == {"identical"}


def test_anybody_can_check_a_receipt_with_the_published_keys(
    shared: Client, verified: dict[str, Any]
) -> None:
    run = verified
    keys = jwt.PyJWKSet.from_dict(httpx.get(f"{shared.base_url}/v1/signing-keys").json())
    header = jwt.get_unverified_header(run["receipt"])
    assert (header["alg"], header["typ"]) == ("EdDSA", "verification-receipt+jwt")
    key = keys[header["kid"]]
    assert jwt.decode(run["receipt"], key, ["EdDSA"]) == run["verification"]
    assert run["verification"]["key_id"] == header["kid"]
    head, payload, signature = run["receipt"].split(".")
    forged = jwt.encode(run["verification"] | {"result": "different"}, "x" * 32).split(".")[1]
    other = ("B" if signature[0] == "A" else "A") + signature[1:]
    for altered in (f"{head}.{forged}.{signature}", f"{head}.{payload}.{other}"):
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(altered, key, ["EdDSA"])


@pytest.mark.sqlite_alone
@pytest.mark.skipif(shutil.which("curl") is None, reason="the example fetches with curl")
def test_the_example_of_the_documentation_works(
    shared: Client, verified: dict[str, Any], tmp_path: Path
) -> None:
    text = (Path(__file__).parents[3] / "docs/reproduce.md").read_text()
    fetch, check = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0] for kind in ("sh", "python"))
    names = {"RH": str(shared.base_url).rstrip("/"), "KEY": ADMIN_KEY, "RUN": str(verified["id"])}
    for command in (["bash", "-euo", "pipefail", "-c", fetch], [sys.executable, "-c", check]):
        told = subprocess.run(
            command, cwd=tmp_path, env=os.environ | names, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
    assert told.stdout == f"delays 2 is identical on data {verified['verification']['data']['digest']}\n"


@pytest.mark.sqlite_alone
@pytest.mark.parametrize(
    ("target", "spec"),
    [
        ("late", {"algorithm": "mlp", "params": {"max_iter": 20}}),
        ("late", {"algorithm": "random_forest", "params": {"n_estimators": 10}, "calibration": "isotonic"}),
        ("carrier", {"algorithm": "svm_rbf", "class_weight": "balanced"}),
        ("distance", {"algorithm": "elastic_net", "preparation": {"select": {"keep": 0.5}}}),
    ],
)
def test_the_algorithms_are_identical_in_another_process(
    shared: Client, flights: str, target: str, spec: dict[str, Any]
) -> None:
    model = registered(shared, train_here(shared, flights, target=target, **spec, **QUICK))
    run = verify(shared, model)
    assert (run["result"], run["verification"]["not_compared"]) == ("identical", []), run["verification"]


@pytest.mark.sqlite_alone
def test_a_search_by_trials_is_repeated_or_left_out_as_asked(
    shared: Client, flights: str, trained: dict[str, Any]
) -> None:
    name = registered(shared, trained)  # where the search begins
    search = {"trials": 3, "algorithms": ["logistic_regression", "decision_tree"], "processes": 1}
    first = shared.train(name, flights, search=search, **QUICK)
    assert first["warm_start"] is not None
    whole = verify(shared, name, 2)
    assert (whole["result"], whole["verification"]["search"]) == ("identical", "repeated")
    once, again = (trials_of(shared, run) for run in (first, whole))
    assert len(once) > 3
    assert [trial["scores"] for trial in again] == [trial["scores"] for trial in once]
    brief = verify(shared, name, 2, search=False)
    assert (brief["result"], brief["verification"]["search"]) == ("identical", "left out")
    assert brief["verification"]["not_compared"] == [
        "search: the configuration that it chose was fitted, as was asked for"
    ]
    assert trials_of(shared, brief) == []


def trials_of(client: Client, run: dict[str, Any]) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = client.get(f"/v1/training-runs/{run['id']}/trials").json()["items"]
    return trials


@pytest.mark.sqlite_alone
def test_a_search_by_time_is_left_out_whatever_is_asked(shared: Client, flights: str) -> None:
    search = {"seconds": 0.1, "algorithms": ["logistic_regression"], "processes": 1}
    model = registered(shared, train_here(shared, flights, search=search, **QUICK))
    run = verify(shared, model, search=True)
    assert (run["result"], run["verification"]["search"]) == ("identical", "left out")
    assert "as one by time" in run["verification"]["not_compared"][0]
    assert run["spec"]["algorithm"] == "logistic_regression"


@pytest.mark.sqlite_alone
def test_a_version_whose_artifacts_are_of_another_model_is_different(
    shared: Client, flights: str, trained: dict[str, Any]
) -> None:
    other = train_here(shared, flights, algorithm="decision_tree", **QUICK)
    exchanged = {name: other[name] for name in ("artifact_digest", "scorer_digest", "runtime")}
    run = verify(shared, registered(shared, trained | exchanged))
    assert run["result"] == "different"
    assert named(run) == {"/artifact_digest": (other["artifact_digest"], trained["artifact_digest"])}
    told = run["verification"]["fingerprint"]
    assert told["recorded"] == told["found"] != told["stored"]
    assert run["verification"]["largest_difference"] > 0.01


@pytest.mark.sqlite_alone
def test_a_probe_of_other_predictions_is_different_and_what_else_differs_is_named(
    shared: Client, trained: dict[str, Any]
) -> None:
    with opened(shared.settings) as (_, store, _):
        with np.load(io.BytesIO(store.read(trained["probe_digest"]))) as probe:
            arrays = dict(probe)
        arrays["scores"][3] += (1e-3, -1e-3)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        digest = store.write([file.getvalue()]).digest
    now = trained["environment"]
    recorded = now | {"scikit-learn": "1.8.0", "source": "sha256:00"}
    run = verify(shared, registered(shared, trained | {"probe_digest": digest, "environment": recorded}))
    assert run["result"] == "different"
    assert run["verification"]["largest_difference"] == pytest.approx(1e-3)
    assert named(run) == {
        "/environment/scikit-learn": ("1.8.0", now["scikit-learn"]),
        "/environment/source": ("sha256:00", now["source"]),
    }


@pytest.mark.sqlite_alone
def test_a_version_of_an_older_release_is_compared_as_far_as_it_is_recorded(
    shared: Client, trained: dict[str, Any]
) -> None:
    evaluation = {
        name: value
        for name, value in trained["evaluation"].items()
        if name not in ("configuration", "reproducible", "search")
    }
    older = {"probe_digest": None, "evaluation": evaluation, "environment": {"python": "3.11.0"}}
    run = verify(
        shared, registered(shared, trained | older | {"spec": trained["spec"] | {"algorithm": "auto"}})
    )
    assert (run["result"], run["verification"]["search"]) == ("identical", "left out")
    remarks = run["verification"]["not_compared"]
    assert "an older release" in remarks[0]
    assert remarks[1] == "predictions: the version has no probe; it was made by an older release"
    assert "environment: numpy was not recorded" in remarks
    assert list(named(run)) == ["/environment/python"]


@pytest.mark.sqlite_alone
def test_what_cannot_be_verified_is_refused_with_the_reason(
    shared: Client, model: str, trained: dict[str, Any]
) -> None:
    assert code_of(shared.post(f"/v1/models/{model}/versions/9:verify"), 404) == "model_version_not_found"
    assert code_of(shared.post("/v1/models/none/versions/1:verify"), 404) == "model_not_found"
    wrong = shared.post(f"/v1/models/{model}/versions/1:verify", json={"search": "no"})
    assert (code_of(wrong, 422), wrong.json()["errors"][0]["pointer"]) == ("invalid_input", "/search")
    for changes, status, code in (
        ({"data": trained["data"] | {"digest": "sha256:00"}}, 409, "data_changed"),
        ({"data": trained["data"] | {"version": 99}}, 404, "dataset_version_not_found"),
        ({"spec": trained["spec"] | {"algorithm": "gone"}}, 409, "spec_not_trainable"),
        ({"spec": trained["spec"] | {"validation": {"method": "leave"}}}, 409, "spec_not_trainable"),
    ):
        changed = registered(shared, trained | changes)
        assert code_of(shared.post(f"/v1/models/{changed}/versions/1:verify"), status) == code


@pytest.mark.sqlite_alone
def test_data_in_quarantine_are_not_trained_on(shared: Client, trained: dict[str, Any]) -> None:
    name = f"strict-{uuid4().hex[:8]}"
    shared.add_dataset(name, b"a\n1\n")
    shared.put(f"/v1/datasets/{name}/contract", json={"rules": [{"rule": "range", "column": "a", "max": 5}]})
    version = shared.add_version(name, b"a\n9\n")
    data = {"dataset": name, "version": 2, "digest": version["digest"], "rows": 1}
    model = registered(shared, trained | {"data": data})
    assert code_of(shared.post(f"/v1/models/{model}/versions/1:verify"), 409) == "data_quarantined"


@pytest.mark.sqlite_alone
def test_a_verification_is_asked_for_once_with_an_idempotency_key(shared: Client, model: str) -> None:
    headers = {"idempotency-key": uuid4().hex}
    path = f"/v1/models/{model}/versions/1:verify"
    first, second = (shared.post(path, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    another = shared.post(path)
    assert another.json()["id"] != first.json()["id"]
    for answer in (first, another):
        shared.post(f"{answer.headers['location']}:cancel")


def test_an_artifact_that_the_store_has_lost_fails_the_verification(start: Start) -> None:
    client = start(worker=True, run_attempts=1)
    client.add_dataset("flights", client.table(rows=60, seed=2))
    register(client, "lost", train_here(client, "flights", algorithm="dummy"))
    with opened(client.settings) as (database, _, _), database.session_scope() as session:
        session.execute(update(ModelVersion).values(artifact_digest=f"sha256:{'0' * 64}"))
    asked = client.post("/v1/models/lost/versions/1:verify")
    run = client.wait_for_run(asked.json()["id"])
    assert (run["status"], run["error"]["code"], run["result"]) == ("failed", "object_missing", None)
    assert run["receipt"] is None
