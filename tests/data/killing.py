"""``kill -9`` at a chosen line: a child process that runs a function and dies there.

Forks are dear in a process with torch in it, so the loops over lines run in a fresh one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOM = str(Path(__file__).parents[2] / "verl_llds" / "data")


def killed(function: Callable[[], object], line: int) -> bool:
    """Run it in a child that is killed before its n-th line in verl_llds/data; False if it came to its end."""
    child = os.fork()
    if child == 0:
        _run(function, line)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the child failed; its traceback is above"
    return False


def in_a_small_process(module: str, call: str) -> None:
    """Run ``call``, which may use Path, in a process that has imported one test module."""
    code = f"from pathlib import Path, PosixPath; import {module}; {module}.{call}"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr


def _run(function: Callable[[], object], line: int) -> None:
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    try:
        sys.settrace(trace)
        function()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
