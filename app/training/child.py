"""The child process of one fit: ``python -m app.training.child FOLDER``."""

import sys
from pathlib import Path

from app.child import die_with_the_worker

if __name__ == "__main__":
    die_with_the_worker()
    from app.training.fit import carry_out  # after the watch: to load scikit-learn takes seconds

    sys.exit(carry_out(Path(sys.argv[1])))
