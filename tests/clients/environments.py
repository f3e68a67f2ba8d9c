"""Other servers' clients, each in an environment of its own: their pins clash with ours, and with each other.

``tests/clients/<name>.txt`` pins what an environment holds. It is made with uv when it is first asked for,
and kept in the user's cache for as long as that file stays the same.
"""

import fcntl
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "roundhouse-tests"
PYTHON = ">=3.11,<3.13"  # the newest that MLServer runs on is 3.12


def run_client(environment: str, script: str, request: dict[str, Any]) -> Any:
    """Run ``tests/clients/<script>.py``; it reads ``request`` as JSON and prints JSON, which is returned."""
    finished = subprocess.run(
        [python_of(environment), HERE / f"{script}.py"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def python_of(environment: str) -> Path:
    """The environment's interpreter; of several processes that ask at once, one makes it."""
    requirements = HERE / f"{environment}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + PYTHON.encode()).hexdigest()[:16]
    folder = CACHE / f"{environment}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python, complete = folder / "bin" / "python", folder / "complete"
        if not complete.exists():
            _uv("venv", "--clear", "--python", PYTHON, folder)
            _uv("pip", "install", "--no-deps", "--python", python, "-r", requirements)
            complete.touch()
    return python


def _uv(*arguments: str | Path) -> None:
    finished = subprocess.run(["uv", *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
