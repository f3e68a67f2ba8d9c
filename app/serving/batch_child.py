"""The child process of one batch prediction: ``python -m app.serving.batch_child``.

It leaves a Parquet file for each part in the folder, named by the part's rows.
"""

import sys
from pathlib import Path
from typing import Any

from app.child import carry_out, follow_the_worker, report


def score(request: dict[str, Any], folder: Path) -> None:
    # After the watch: to load these takes a while, and scikit-learn is for versions that need it.
    from app.registry.signature import Signature
    from app.serving.batch_scoring import part_name, plan_parts, score_part, write_part
    from app.serving.scorers import open_scorer

    parts = [Path(part) for part in request["parts"]]
    signature = Signature.model_validate(request["signature"])
    scorer = open_scorer(Path(request["artifact"]).read_bytes(), signature, compiled=request["compiled"])
    total: int = request["rows"]

    def tell(done: int) -> None:
        report(done / total, f"{done:,} of {total:,} rows scored")

    for rows in plan_parts(signature, total, request["start"]):
        scores = score_part(parts, signature, scorer.score, rows, tell)
        write_part(folder / part_name(rows), signature, request["version"], rows, scores)


if __name__ == "__main__":
    folder = follow_the_worker()()
    sys.exit(carry_out(folder, score, name="scoring", remedy="Run the worker on a larger machine."))
