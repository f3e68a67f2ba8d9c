"""Batch predictions in the worker: a child process scores part after part, and each is kept as it is done."""

from contextlib import ExitStack
from pathlib import Path

from app.leaseholder import FINISHED, Leaseholder, Verdict
from app.serving.batch_models import BatchPrediction
from app.serving.batch_scoring import part_rows
from app.serving.batch_service import add_part, get_scored, succeed_batch


class BatchWorker(Leaseholder[BatchPrediction]):
    kind = BatchPrediction
    name = "scoring"

    def carry_out(self, work: BatchPrediction, folder: Path) -> Verdict:
        with self._database.session_scope(write=False) as session:
            version, data = get_scored(session, work)
        with ExitStack() as stack:
            parts = stack.enter_context(self._store.open_files(data.parts))
            # The store checks the digest against the registry's: these are bytes that a worker wrote.
            artifact = stack.enter_context(
                self._store.open_file(version.scorer_digest or version.artifact_digest)
            )
            verdict = self.run_child(
                work,
                "app.serving.batch_child",
                folder,
                {
                    "parts": [str(part.resolve()) for part in parts],
                    "artifact": str(artifact.resolve()),
                    "compiled": version.scorer_digest is not None,
                    "signature": version.signature,
                    "version": version.number,
                    "rows": work.rows,
                    "start": work.rows_scored,
                },
                meanwhile=lambda: self._keep_parts(work, folder),
            )
        if verdict is FINISHED:
            self._keep_parts(work, folder)
            with self._database.session_scope() as session:
                succeed_batch(session, self._caller(), work)
        return verdict

    def _keep_parts(self, work: BatchPrediction, folder: Path) -> None:
        """Store the parts that the child has finished, in order. Raises LeaseLost."""
        for path in sorted(folder.glob("*.parquet")):
            stored = self._store.write_file(path)
            with self._database.session_scope() as session:
                add_part(session, self._caller(), work, part_rows(path), stored)
            path.unlink()
