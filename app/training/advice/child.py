"""The child process of one piece of advice: ``python -m app.training.advice.child``."""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from app import child
from app.loading import without_collector
from app.training.handover import ADVICE


def _advise(request: dict[str, Any], folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (request["memory_bytes"],) * 2)
    with without_collector():
        from app.training.advice.advice import Hints, advise
        from app.training.spec import TrainingSpec

    advice = advise(
        [Path(part) for part in request["parts"]],
        TrainingSpec.model_validate(request["spec"]),
        Hints(**request["hints"]),
        folder,
    )
    (folder / ADVICE).write_text(json.dumps(advice, allow_nan=False))


if __name__ == "__main__":
    wait_for_folder = child.follow_the_worker()
    # Its libraries make their threads when they load: a sum over several depends on how many there are.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

    remedy = "Ask about fewer columns, or a version with fewer rows."
    sys.exit(child.carry_out(wait_for_folder(), _advise, name="advice", remedy=remedy))
