"""Training runs in the worker: each is a fit in a child process, and then a model version."""

import json
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.datasets.models import DatasetVersion
from app.leaseholder import FINISHED, Leaseholder, Limits, Verdict
from app.registry.models import Model, ModelVersion
from app.registry.service import register_version
from app.serving.service import find_champion
from app.store import ObjectDamaged, ObjectMissing, Store
from app.training.comparison.common_rows import data_of, shared_rows
from app.training.handover import HOLDOUT, MODEL, PROBE, REPORT, RESULT, SCORER
from app.training.models import TrainingRun
from app.training.service import claim_run, succeed_run
from app.training.trials import TrialReport, finished_trials, keep_told
from app.training.verification.service import (
    find_verified,
    open_verified,
    read_found,
    read_record,
    succeed_verification,
)
from app.training.verification.verification import compare

log = structlog.get_logger()

CHILD = "app.training.child"


class TrainingWorker(Leaseholder[TrainingRun]):
    kind = TrainingRun
    name = "fit"
    kept_ready = CHILD

    def claim(self, session: Session) -> TrainingRun | None:
        return claim_run(session, self._caller(), self._lease, per_model=self._settings.runs_per_model)

    def carry_out(self, work: TrainingRun, folder: Path) -> Verdict:
        verdict = self._fit(work, folder)
        if verdict is FINISHED and work.verifies_id is None:
            self._register(work, folder)
        elif verdict is FINISHED:
            self._attest(work, folder)
        return verdict

    def _fit(self, run: TrainingRun, folder: Path) -> Verdict:
        """Have the child leave the model and all that is told of it in the folder."""
        with self._database.session_scope(write=False) as session:
            data = session.get_one(DatasetVersion, run.dataset_version_id)
            trials = finished_trials(session, run)
            champion = (
                find_champion(session, session.get_one(Model, run.model_id))
                if run.verifies_id is None
                else None
            )
            shared = shared_rows(session, champion.data, data_of(data)) if champion else 0
            verified = find_verified(session, run)
        told = Told()
        told.log(f"taken by {self._name}")
        with ExitStack() as opened:
            parts = opened.enter_context(self._store.open_files(data.parts))
            request = {
                "parts": [str(part.resolve()) for part in parts],
                "spec": run.spec,
                "trials": trials,
                "warm_start": run.warm_start,
                "champion": champion and self._open_champion(champion, shared, opened, told),
                "verifies": verified and open_verified(self._store, opened, verified),
            }
            verdict = self.run_child(
                run,
                CHILD,
                folder,
                request,
                limits=self._limits_of(run),
                listen=told.listen,
                meanwhile=lambda: self._keep(run, told),
            )
        self._keep(run, told)
        return verdict

    def _open_champion(
        self, champion: ModelVersion, shared: int, opened: ExitStack, told: "Told"
    ) -> dict[str, Any] | None:
        """What ``rivals.score_champion`` is given; None where its files are not as they were."""
        digest, kept = champion.scorer_digest or champion.artifact_digest, champion.holdout_digest
        try:
            path = opened.enter_context(self._store.open_file(digest))
            holdout = kept and opened.enter_context(self._store.open_file(kept))
        except (ObjectMissing, ObjectDamaged) as fault:  # all the more reason to train another
            told.log(f"no comparison with the champion, version {champion.number}: {fault.detail}")
            return None
        return {
            "model": champion.model,
            "version": champion.number,
            "path": str(path.resolve()),
            "compiled": champion.scorer_digest is not None,
            "signature": champion.signature,
            "data": champion.data,
            "shared": shared,
            "holdout": holdout and str(Path(holdout).resolve()),
        }

    def _limits_of(self, run: TrainingRun) -> Limits:
        server = self._settings
        return Limits(
            min(run.limits.get("seconds", server.run_time_limit_seconds), server.run_time_limit_seconds),
            min(run.limits.get("memory_bytes", server.run_memory_limit_bytes), server.run_memory_limit_bytes),
        )

    def _keep(self, run: TrainingRun, told: "Told") -> None:
        """Store what the child has told by now. Raises LeaseLost."""
        told.gather()
        if not (told.trials or told.lines):
            return
        try:
            with self._database.session_scope() as session:
                keep_told(session, self._caller(), run, told.trials, told.lines)
        except OperationalError as error:  # kept for the next time: the lease outlives a short absence
            log.warning("trials_not_kept", id=run.id, error=str(error.orig))
        else:
            told.forget()

    def _register(self, run: TrainingRun, folder: Path) -> None:
        result = json.loads((folder / RESULT).read_text())
        artifacts = store_artifacts(self._store, folder)
        with self._database.session_scope() as session:
            data = session.get_one(DatasetVersion, run.dataset_version_id)
            caller = self._caller()
            version = register_version(
                session,
                caller,
                run.model,
                **result,
                **artifacts,
                spec=run.spec,
                data=data_of(data),
                created_by=run.created_by,
            )
            succeed_run(session, caller, run, version)

    def _attest(self, run: TrainingRun, folder: Path) -> None:
        """Compare what the child has left with the version that the run verifies."""
        with self._database.session_scope(write=False) as session:
            verified = find_verified(session, run)
        assert verified is not None  # noqa: S101 - that is what makes a run a verification
        recorded, (found, stored) = read_record(self._store, verified), read_found(folder)
        comparison = compare(recorded, found, stored)
        with self._database.session_scope() as session:
            succeed_verification(session, self._caller(), run, recorded, found, comparison, self._settings)


class Told:
    """What a child tells beside its steps: gathered from the thread that reads it, until it is stored."""

    def __init__(self) -> None:
        self.trials: list[TrialReport] = []
        self.lines: list[str] = []
        self._heard: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._step = ""

    def listen(self, line: dict[str, Any]) -> None:
        self._heard.put(line)

    def log(self, text: str) -> None:
        self._heard.put({"log": text})

    def gather(self) -> None:
        while True:
            try:
                line = self._heard.get_nowait()
            except Empty:
                return
            match line:
                case {"trial": dict(trial)}:
                    self.trials.append(TrialReport.model_validate(trial))
                case {"log": str(text)}:
                    self.lines.append(text)
                case {"step": str(step)} if step != self._step:
                    self._step = step
                    self.lines.append(step)

    def forget(self) -> None:
        self.trials, self.lines = [], []


def store_artifacts(store: Store, folder: Path) -> dict[str, Any]:
    """Keep what a fit has left: the columns of ``ModelVersion`` that name its model, scorer, report, ...

    What it has not left is None there.
    """
    stored = {
        name: store.write_file(folder / name) if (folder / name).exists() else None
        for name in (SCORER, REPORT, HOLDOUT, PROBE)
    }
    artifact, scorer = store.write_file(folder / MODEL), stored[SCORER]
    digests = {name: found.digest if found else None for name, found in stored.items()}
    return {
        "artifact_digest": artifact.digest,
        "artifact_size": artifact.size,
        "scorer_digest": digests[SCORER],
        "scorer_size": scorer.size if scorer else None,
        "report_digest": digests[REPORT],
        "holdout_digest": digests[HOLDOUT],
        "probe_digest": digests[PROBE],
    }
