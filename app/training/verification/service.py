"""Verifications: runs that fit a version again, from what is recorded of it, and compare."""

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import leases
from app.access.caller import Caller
from app.datasets.contracts.service import require_accepted
from app.datasets.models import DatasetVersion
from app.datasets.service import get_version as get_data
from app.errors import Conflict, InvalidInput
from app.events.service import record_event
from app.registry.models import ModelVersion
from app.registry.service import get_version
from app.registry.signature import Signature
from app.settings import Settings
from app.store import Store
from app.training.handover import MODEL, PROBE, RESULT
from app.training.models import TrainingRun
from app.training.roles import check_spec
from app.training.spec import TrainingSpec
from app.training.verification.receipts import ensure_receipt_key, sign_receipt
from app.training.verification.verification import Fit, FitComparison, digest_json, without_search


def create_verification(
    session: Session, caller: Caller, *, model: str, number: int, search: bool
) -> TrainingRun:
    """Queue a run that fits the version again; a worker takes it.

    A search is made again whole if ``search`` says so and it is one that comes to the same end; else the
    configuration that it chose is fitted.

    Raises NotFound, and Conflict where the data are gone, not those of the record or in quarantine, or where
    this release cannot carry out the recorded spec.
    """
    version = get_version(session, model, number)
    data = get_data(session, version.data["dataset"], version.data["version"])
    if data.digest != version.data["digest"]:
        raise Conflict(
            "data_changed",
            f"Version {number} of model {model!r} was trained on data {version.data['digest']}, and version "
            f"{data.number} of dataset {data.dataset!r} holds {data.digest}: there is nothing to verify by.",
        )
    require_accepted(data)
    try:
        spec = TrainingSpec.model_validate(version.spec)
        if spec.searches and not (search and version.evaluation.get("reproducible")):
            spec = without_search(spec, _configuration(version))
        check_spec(data.column_types, spec)
    except (ValidationError, InvalidInput) as error:
        reason = error.detail if isinstance(error, InvalidInput) else error.errors()[0]["msg"]
        raise Conflict(
            "spec_not_trainable",
            f"This server cannot carry out the spec of version {number} of model {model!r}: {reason} "
            "Verify it where the algorithms and the release are those of its recorded environment.",
        ) from error
    made_by = session.scalar(select(TrainingRun).filter_by(model_version_id=version.id))
    run = TrainingRun(
        model_id=version.model_id,
        model=version.model,
        dataset_version_id=data.id,
        dataset=data.dataset,
        dataset_version=data.number,
        spec=spec.model_dump(mode="json", by_alias=True),
        warm_start=made_by.warm_start if made_by else None,
        limits=made_by.limits if made_by else {},
        priority=0,
        tags={},
        verifies_id=version.id,
    )
    leases.enqueue(session, caller, run, dataset=data.dataset, dataset_version=data.number, verifies=number)
    return run


def find_verified(session: Session, run: TrainingRun) -> ModelVersion | None:
    """The version that a run verifies, if it is a verification."""
    return session.get_one(ModelVersion, run.verifies_id) if run.verifies_id is not None else None


def open_verified(store: Store, opened: ExitStack, version: ModelVersion) -> dict[str, Any]:
    """What the child is told of the version. Raises StoreFault where one of its objects is not there."""
    artifact = scorer = opened.enter_context(store.open_file(version.artifact_digest))
    if version.scorer_digest is not None:
        scorer = opened.enter_context(store.open_file(version.scorer_digest))
    probe = version.probe_digest and opened.enter_context(store.open_file(version.probe_digest))
    return {
        "signature": version.signature,
        "probe": probe and str(probe.resolve()),
        "model": str(scorer.resolve()),
        "compiled": scorer is not artifact,
    }


def read_record(store: Store, version: ModelVersion) -> Fit:
    """The version as it is recorded. Raises StoreFault."""
    scores = None
    if version.probe_digest is not None:
        with store.open_file(version.probe_digest) as probe:
            scores = _read_arrays(probe)["scores"]
    return Fit(
        artifact_digest=version.artifact_digest,
        scores=scores,
        configuration=_configuration(version),
        signature=Signature.model_validate(version.signature),
        runtime=version.runtime,
        environment=version.environment,
    )


def read_found(folder: Path) -> tuple[Fit, NDArray[np.float64] | str | None]:
    """What the child has left in the folder, and the stored model's scores, or why there are none."""
    result, probe = json.loads((folder / RESULT).read_text()), folder / PROBE
    with (folder / MODEL).open("rb") as model:
        digest = hashlib.file_digest(model, "sha256").hexdigest()
    answers = _read_arrays(probe) if probe.exists() else {}
    found = Fit(
        artifact_digest=f"sha256:{digest}",
        scores=answers.get("scores"),
        configuration=result["configuration"],
        signature=Signature.model_validate(result["signature"]),
        runtime=result["runtime"],
        environment=result["environment"],
    )
    return found, answers.get("stored", result["stored_fault"])


def succeed_verification(
    session: Session,
    worker: Caller,
    run: TrainingRun,
    recorded: Fit,
    found: Fit,
    comparison: FitComparison,
    settings: Settings,
) -> None:
    """End the run with the result of the comparison and the signed receipt of it. Raises LeaseLost."""
    held = leases.lock_held(session, worker, run)
    version = session.get_one(ModelVersion, held.verifies_id)
    data = session.get_one(DatasetVersion, held.dataset_version_id)
    search, remark = _search(version, TrainingSpec.model_validate(held.spec))
    facts = {
        "model": version.model,
        "version": version.number,
        "run": held.id,
        "result": comparison.result,
        "verified_at": worker.now.isoformat(),
        "worker": worker.name,
        "data": {**version.data, "content_digest": data.content_digest},
        "spec_digest": digest_json(version.spec),
        "search": search,
        "artifact_digest": _both(recorded.artifact_digest, found.artifact_digest),
        "fingerprint": comparison.fingerprints,
        "largest_difference": comparison.largest_difference,
        "differences": comparison.differences,
        "not_compared": [*remark, *comparison.not_compared],
        "environment": _both(recorded.environment, found.environment),
    }
    held.result = comparison.result
    held.receipt = sign_receipt(facts, ensure_receipt_key(session, worker, settings))
    leases.succeed(session, worker, held, verifies=version.number, result=held.result)
    record_event(
        session, worker, "model_version.verified", f"models/{version.model}/versions/{version.number}",
        model=version.model, run=held.id, result=held.result, artifact=facts["artifact_digest"],
    )  # fmt: skip


def _configuration(version: ModelVersion) -> dict[str, Any]:
    """What was fitted; older releases recorded it in parts."""
    recorded: dict[str, Any] | None = version.evaluation.get("configuration")
    return recorded or {
        "algorithm": version.algorithm,
        "params": version.params,
        "preparation": TrainingSpec.model_validate(version.spec).preparation.model_dump(mode="json"),
    }


def _search(version: ModelVersion, carried_out: TrainingSpec) -> tuple[str, list[str]]:
    """What the verification made of the version's search, and a remark where it has not repeated it."""
    if not TrainingSpec.model_validate(version.spec).searches:
        return "none", []
    if carried_out.searches:
        return "repeated", []
    why = {
        True: "as was asked for",
        False: "as one by time, or by measured speed, need not come to the same end again",
        None: "as an older release made it",
    }[version.evaluation.get("reproducible")]
    return "left out", [f"search: the configuration that it chose was fitted, {why}"]


def _read_arrays(probe: Path) -> dict[str, NDArray[np.float64]]:
    with np.load(probe, allow_pickle=False) as arrays:
        return dict(arrays)


def _both(recorded: Any, found: Any) -> dict[str, Any]:
    return {"recorded": recorded, "found": found}
