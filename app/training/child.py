"""The child process of one fit: ``python -m app.training.child FOLDER``.

Its standard input is a pipe from the worker: when that closes, the worker is gone, and the fit ends with
it, before another worker begins it anew.
"""

import os
import sys
import threading
from pathlib import Path


def main(folder: Path) -> int:
    threading.Thread(target=_die_with_the_worker, daemon=True).start()
    from app.training.fit import carry_out  # after the watch: to load scikit-learn takes seconds

    return carry_out(folder)


def _die_with_the_worker() -> None:
    while os.read(0, 1024):
        pass
    os._exit(2)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
