"""Folders that belong to a living process."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.owned import OwnedFolder, Scratch, abandoned_folders

OWNER = """
import sys, time
from pathlib import Path
from app.owned import OwnedFolder
folder = OwnedFolder(Path(sys.argv[1]))
(folder.path / "work").write_text("half done")
print(folder.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that owns a folder."""
    return subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)


def test_a_folder_is_abandoned_only_when_its_process_has_died(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        assert list(abandoned_folders(tmp_path)) == []
        other.kill()
    assert list(abandoned_folders(tmp_path)) == [path]
    assert (path / "work").read_text() == "half done"


def test_scratch_sweeps_what_dead_processes_left_and_nothing_else(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    living = OwnedFolder(tmp_path)
    with other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        other.kill()
    scratch = Scratch(tmp_path)
    assert not path.exists()
    assert living.path.exists()
    living.remove()
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_half_removed_is_removed_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "work").write_text("without the lock, which went first")
    Scratch(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_is_gone_after_its_use_even_after_an_error(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    with pytest.raises(LookupError), scratch.folder() as folder:
        (folder / "half").write_text("done")
        raise LookupError
    assert not folder.exists()
    scratch.close()
