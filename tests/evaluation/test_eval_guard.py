"""Children do not outlive a parent that is killed, and are left alone by one that ends."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

PARENT = """
import subprocess, sys, time
from verl_llds.evaluation.guard import guarded_children
with guarded_children():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    print(child.pid, flush=True)
    time.sleep({seconds})
"""


def parent(seconds: float) -> tuple[subprocess.Popen[str], psutil.Process]:
    code = PARENT.format(seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


@pytest.mark.parametrize("signal", ["kill", "terminate"])
def test_a_killed_parent_takes_its_children_along(signal: str) -> None:
    process, child = parent(600)
    # The guard looks twice a second.
    time.sleep(3)
    guards = [other for other in psutil.Process(process.pid).children() if other.pid != child.pid]
    assert child.is_running()
    getattr(process, signal)()
    process.wait(10)
    gone, alive = psutil.wait_procs([child, *guards], timeout=20)
    assert (len(gone), alive) == (2, [])


def test_a_parent_that_leaves_the_block_leaves_its_children() -> None:
    process, child = parent(2)
    try:
        assert process.wait(20) == 0
        time.sleep(1)
        assert child.is_running()
    finally:
        child.kill()
