"""A child and the processes that it starts: measured as one, ended as one."""

import json
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.child import ERROR, REQUEST, carry_out
from app.child_process import Group, hand_over, kill_group, start_child
from tests.client import wait_until
from tests.processes import is_alive

MEGABYTES = 50


@pytest.fixture
def family(tmp_path: Path) -> Iterator[list[psutil.Process]]:
    """A child that has started another process, which holds as many megabytes."""
    with start_child("tests.two_processes") as child:
        hand_over(child, tmp_path)
        told = tmp_path / "other"
        wait_until(told.exists)
        yield [psutil.Process(child.pid), psutil.Process(int(told.read_text()))]
        kill_group(child)


def alive(family: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in family if is_alive(one)]


def test_the_memory_of_a_child_is_that_of_all_its_processes(family: list[psutil.Process]) -> None:
    group = Group(family[0].pid)
    alone = group.measure_memory()
    group.find_members()
    assert group.measure_memory() > alone + MEGABYTES * 2**20
    for one in family:
        one.kill()
        one.wait()
    assert group.measure_memory() == 0


def test_a_child_whose_worker_is_gone_ends_with_all_its_processes(tmp_path: Path) -> None:
    with start_child("tests.two_processes") as child:
        hand_over(child, tmp_path)
        wait_until((tmp_path / "other").exists)
        family = [psutil.Process(child.pid), psutil.Process(int((tmp_path / "other").read_text()))]
        assert child.stdin is not None
        child.stdin.close()
        wait_until(lambda: not alive(family))


def test_a_killed_process_of_a_fit_is_told_as_a_lack_of_memory(tmp_path: Path) -> None:
    (tmp_path / REQUEST).write_text("{}")

    def search(_: dict[str, Any], __: Path) -> None:
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    assert carry_out(tmp_path, search, name="fit", remedy="Train on fewer rows.") == 1
    error = json.loads((tmp_path / ERROR).read_text())
    assert error["code"] == "out_of_memory"
    assert error["detail"].startswith("A process of the fit was killed")
    assert error["detail"].endswith("Train on fewer rows.")
