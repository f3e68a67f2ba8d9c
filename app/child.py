"""The child process in which a worker has a piece of leased work done, in a folder of its own.

It reads ``request.json`` there, writes a line of JSON to standard output for every step, and leaves
``error.json`` where it fails. Its standard input is a pipe from the worker: when that closes, the worker
is gone, and the child ends with it, before another worker begins the work anew.
"""

import json
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import AppError

REQUEST, ERROR = "request.json", "error.json"


def die_with_the_worker() -> None:
    """To be called before anything that takes time to load."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1024):
        pass
    os._exit(2)


def report(fraction: float, step: str) -> None:
    print(json.dumps({"fraction": fraction, "step": step}), flush=True)  # noqa: T201 - the worker reads it


def carry_out(folder: Path, do: Callable[[dict[str, Any], Path], None], *, name: str, remedy: str) -> int:
    """Have ``do`` do what the folder's request asks; the exit code of the process.

    ``name`` is what the work is called in codes and sentences, such as ``fit``; ``remedy`` a sentence:
    what helps where it takes more memory than there is.
    """
    try:
        do(json.loads((folder / REQUEST).read_text()), folder)
    except AppError as error:
        errors = [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.errors]
        _leave(folder, error.code, error.detail, errors=errors)
    except MemoryError:
        _leave(folder, "out_of_memory", f"The {name} ran out of memory. {remedy}")
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}. The worker's log has the trace."
        _leave(folder, f"{name}_failed", f"The {name} failed: {reason}")
    else:
        return 0
    return 1


def _leave(folder: Path, code: str, detail: str, **more: Any) -> None:
    (folder / ERROR).write_text(json.dumps({"code": code, "detail": detail, **more}))
