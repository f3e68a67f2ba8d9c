"""The processes that try candidates."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil

SLOW = """
    import numpy as np
    from app.columns import ColumnType
    from app.registry.signature import Feature, Role, Signature, Task
    from app.training.algorithms.catalogue import algorithm
    from app.training.fitting import Configuration, Fitter
    from app.training.preparation.steps import Preparation
    from app.training.spec import TrainingSpec
    from app.training.search.trial_bench import Bench, open_bench

    if __name__ == "__main__":
        feature = Feature(name="x", type=ColumnType.NUMBER, role=Role.NUMERIC, nullable=False)
        signature = Signature(
            features=(feature,), target="y", target_type=ColumnType.NUMBER, task=Task.REGRESSION
        )
        matrix = np.random.default_rng(0).normal(size=(200_000, 1))
        target = matrix[:, 0] ** 2
        halves = np.arange(100_000), np.arange(100_000, 200_000)
        bench = Bench(Fitter(TrainingSpec(target="y"), signature), ("rmse",), matrix, target, [halves])
        forest = algorithm("random_forest").complete({"n_estimators": 2000, "min_samples_leaf": 1})
        with open_bench(bench, 2) as evaluate:
            print("open", flush=True)
            evaluate([(Configuration("random_forest", forest, Preparation()), 0)] * 2)
"""


def test_the_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW))
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"open\n"
        family = psutil.Process(parent.pid)
        deadline = time.monotonic() + 60
        while len(workers := [one for one in family.children() if one.cpu_times().user > 1]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert len(gone) == 2
    assert alive == []
