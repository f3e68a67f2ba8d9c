"""Figures as tables, and the resources that a measured process took."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # what all benchmarks share

from table import Table

__all__ = ["Measured", "Table", "measure"]


class Measured(NamedTuple):
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """The most memory that the process held at once (resident set)."""
    output: str


def measure(module: str, *arguments: str) -> Measured:
    """Run ``python MODULE.py ARGUMENTS`` to its end: a process of its own, so that its peak is its own.

    The seconds are those from start to end, the interpreter's start included; what is to be measured finer
    is printed by the module, and comes back as ``output``. Raises CalledProcessError if the process fails.
    """
    began = time.perf_counter()
    command = [sys.executable, module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        if process.stdout is None:
            raise RuntimeError("the process has no output")
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)
