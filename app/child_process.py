"""A child (``app.child``) as its parent has it: to be started, heard, measured, and ended as a whole."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


def start_child(module: str) -> subprocess.Popen[str]:
    """``python -m module``, waiting for ``hand_over``."""
    return subprocess.Popen(  # noqa: S603 - our own module, with our own arguments
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        # A group of its own, to be ended as one. And Ctrl-C is for the server, which ends its children.
        start_new_session=True,
    )


def hand_over(child: subprocess.Popen[str], folder: Path) -> None:
    """Have the child do the request in the folder."""
    assert child.stdin is not None  # noqa: S101 - Popen made it a pipe
    with suppress(BrokenPipeError):  # it has died, which the watch finds
        os.write(child.stdin.fileno(), os.fsencode(folder.resolve()) + b"\n")


def kill_group(child: subprocess.Popen[str]) -> None:
    """End the child and all that it has started."""
    with suppress(ProcessLookupError, PermissionError):  # macOS forbids it where all have ended
        os.killpg(child.pid, signal.SIGKILL)


class Progress(threading.Thread):
    """Reads what the child tells, among whatever libraries print there: steps, and more for ``listen``."""

    def __init__(
        self, child: subprocess.Popen[str], fraction: float, listen: Callable[[dict[str, Any]], None]
    ) -> None:
        super().__init__(name="child-progress", daemon=True)
        self.fraction, self.step = fraction, "starting"
        self._child, self._listen = child, listen
        self.start()

    def run(self) -> None:
        assert self._child.stdout is not None  # noqa: S101 - Popen made it a pipe
        with self._child.stdout as lines:
            for line in lines:
                try:
                    told = json.loads(line, parse_constant=lambda _: None)  # NaN is JSON to nobody else
                except ValueError:
                    continue
                match told:
                    case {"fraction": float(fraction), "step": str(step)}:
                        self.fraction, self.step = fraction, step
                if isinstance(told, dict):
                    self._listen(told)


class Group:
    """A child and the processes that it has started."""

    def __init__(self, pid: int) -> None:
        self._leader = psutil.Process(pid)
        self._members: list[psutil.Process] = []

    def find_members(self) -> None:
        """Look for the processes that there are now: it takes milliseconds, so not at every measurement."""
        with suppress(psutil.NoSuchProcess):
            self._members = self._leader.children(recursive=True)

    def measure_memory(self) -> int:
        """The bytes that the child holds, and the others beyond what they share."""
        own = _memory_of(self._leader, shared=True)
        return own + sum(_memory_of(member, shared=False) for member in self._members)


def _memory_of(process: psutil.Process, *, shared: bool) -> int:
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.rss if shared else memory.rss - getattr(memory, "shared", 0))
