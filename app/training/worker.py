"""Training runs in the worker: each is a fit in a child process, and then a model version."""

import json
from pathlib import Path
from typing import Any

from app.datasets.models import DatasetVersion
from app.leaseholder import FINISHED, Leaseholder, Verdict
from app.registry.service import register_version
from app.store import Store
from app.training.handover import MODEL, RESULT, SCORER
from app.training.models import TrainingRun
from app.training.service import succeed_run


class TrainingWorker(Leaseholder[TrainingRun]):
    kind = TrainingRun
    name = "fit"

    def carry_out(self, work: TrainingRun, folder: Path) -> Verdict:
        with self._database.session_scope(write=False) as session:
            data = session.get_one(DatasetVersion, work.dataset_version_id)
        with self._store.open_files(data.parts) as parts:
            verdict = self.run_child(
                work,
                "app.training.child",
                folder,
                {"parts": [str(part.resolve()) for part in parts], "spec": work.spec},
                time_limit=self._settings.run_time_limit_seconds,
            )
        if verdict is FINISHED:
            self._register(work, data, folder)
        return verdict

    def _register(self, run: TrainingRun, data: DatasetVersion, folder: Path) -> None:
        result = json.loads((folder / RESULT).read_text())
        artifacts = store_artifacts(self._store, folder)
        with self._database.session_scope() as session:
            caller = self._caller()
            version = register_version(
                session,
                caller,
                run.model,
                **result,
                **artifacts,
                spec=run.spec,
                data={
                    "dataset": data.dataset,
                    "version": data.number,
                    "digest": data.digest,
                    "rows": data.rows,
                },
                created_by=run.created_by,
            )
            succeed_run(session, caller, run, version)


def store_artifacts(store: Store, folder: Path) -> dict[str, Any]:
    """Keep a fit's model, and its scorer if there is one: the columns of ``ModelVersion`` that name them."""
    artifact = store.write_file(folder / MODEL)
    scorer = store.write_file(folder / SCORER) if (folder / SCORER).exists() else None
    return {
        "artifact_digest": artifact.digest,
        "artifact_size": artifact.size,
        "scorer_digest": scorer.digest if scorer else None,
        "scorer_size": scorer.size if scorer else None,
    }
