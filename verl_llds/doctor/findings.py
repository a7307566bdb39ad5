"""What a check reports, and for which kind of machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How much a finding matters."""

    OK = "ok"
    """As it should be."""
    WARN = "WARN"
    """Runs may work, but this is not what was tested."""
    FAIL = "FAIL"
    """A run would not work."""


class Platform(str, Enum):
    """What the runs to come compute on."""

    AUTO = "auto"
    """An accelerator if verl finds one, else the CPU."""
    CPU = "cpu"
    """The CPU, as chosen by ``platform=cpu``."""
    GPU = "gpu"
    """An accelerator."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    status: Status
    """How much it matters."""
    subject: str
    """What was looked at."""
    text: str
    """What was found and, for a problem, what to do next."""

    def __str__(self) -> str:
        return f"{self.status.value:<5} {self.subject}: {' '.join(self.text.split())}"
