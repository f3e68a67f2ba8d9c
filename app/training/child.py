"""The child process of one fit: ``python -m app.training.child``."""

import os
import sys

from app.child import follow_the_worker
from app.loading import without_collector

if __name__ == "__main__":
    wait_for_folder = follow_the_worker()
    # Its libraries make their threads when they load: a sum over several depends on how many there are.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    with without_collector():
        import duckdb  # noqa: F401 - the fit reads its table with it

        from app.training.environment import describe_environment
        from app.training.fit import carry_out  # not before now: to load scikit-learn takes seconds

    describe_environment()  # it reads what is installed, and remembers it for the fit
    sys.exit(carry_out(wait_for_folder()))
