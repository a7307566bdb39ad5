"""The cores of this process, and how they are divided."""

import os


def available_cores() -> int:
    """Cores this process may run on: of a job or a container often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(cores: int, parts: int) -> int:
    """How many threads each of ``parts`` that work at the same time should have; at least one.

    Torch's threads wait busily for each other: on two cores, with two threads for each of two batches, a query took
    30 % more CPU than with one.
    """
    return max(1, cores // parts)
