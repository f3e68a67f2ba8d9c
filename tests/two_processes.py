"""A child that starts another process, and waits: ``python -m tests.two_processes``."""

import subprocess
import sys
from pathlib import Path

from app.child import follow_the_worker

HOLD = """
import os, pathlib, time
held = bytes(range(256)) * (50 * 2**20 // 256)
ready = pathlib.Path("ready")
ready.write_text(str(os.getpid()))
ready.rename("other")
time.sleep(600)
"""

if __name__ == "__main__":
    wait_for_folder = follow_the_worker()
    folder: Path = wait_for_folder()
    subprocess.run([sys.executable, "-c", HOLD], cwd=folder, check=True)
