"""Processes that end with this one, even if it is killed: ``python -m verl_llds.evaluation.guard PID``.

vLLM's processes outlive a parent that had no time to end them, and hold a GPU's memory that the next evaluation needs.
The guard is a small process of its own: it notes which children there are, and when its standard input ends, which
the kernel sees to whatever its parent dies of, it kills them.
"""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_PERIOD_S = 0.5


@contextmanager
def guarded_children() -> Iterator[None]:
    """Kill whatever processes are started in the block, should this one die in it."""
    command = [sys.executable, "-m", "verl_llds.evaluation.guard", str(psutil.Process().pid)]
    # In a session of its own, so that Ctrl-C does not reach it.
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        # First, or it would take the closed pipe for a death.
        guard.kill()
        guard.communicate()


def watch(parent: psutil.Process) -> None:
    """Return when standard input has ended and the parent's children with it."""
    children: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], _PERIOD_S)[0]:
        try:
            children |= set(parent.children(recursive=True))
        except psutil.NoSuchProcess:
            break
    own = psutil.Process()
    for child in children - {own}:
        # Looks at the time a process was started, too: a number may be another's by now.
        if child.is_running():
            child.kill()


if __name__ == "__main__":
    watch(psutil.Process(int(sys.argv[1])))
