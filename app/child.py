"""The child process in which a worker has a piece of leased work done, in a folder of its own.

It reads ``request.json`` there, writes a line of JSON to standard output for every step, and leaves
``error.json`` where it fails. Its standard input is a pipe from the worker, which tells it the folder, maybe
long after the start: a child that has loaded all it needs begins at once. When the pipe closes, the worker is
gone, and the child ends with it, before another worker begins the work anew.
"""

import json
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from app.errors import AppError

REQUEST, ERROR = "request.json", "error.json"
HERE = "/proc/self/cwd"
"""The working folder, by a name that leaves room for the address of a socket in it: 108 characters."""


def follow_the_worker() -> Callable[[], Path]:
    """Die with the worker from now on. What is returned waits for the folder, and goes into it.

    To be called before anything that takes time to load.
    """
    folders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(folders,), daemon=True).start()

    def wait_for_folder() -> Path:
        folder = folders.get()
        os.chdir(folder)
        # What libraries leave behind is swept with the folder, however this process ends.
        os.environ["TMPDIR"] = tempfile.tempdir = HERE if Path(HERE).exists() else folder
        return Path(folder)

    return wait_for_folder


def _listen(folders: SimpleQueue[str]) -> None:
    told = b""
    while read := os.read(0, 4096):
        told += read
        while b"\n" in told:
            line, _, told = told.partition(b"\n")
            folders.put(os.fsdecode(line))
    if os.getpgrp() == os.getpid():  # the processes that it started die too
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(2)


def report(fraction: float, step: str) -> None:
    tell({"fraction": fraction, "step": step})


def tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - the worker reads it


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
    except BrokenExecutor:
        detail = (
            f"A process of the {name} was killed, most likely because the machine ran out of memory. {remedy}"
        )
        _leave(folder, "out_of_memory", detail)
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
