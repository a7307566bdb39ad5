"""One entry of the table of metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

PLACES = ("first_action", "middle_action", "last_action")
CHOICES = {
    "class": ("correct", "zero", "incorrect"),
    "place": PLACES,
    "when": ("old", "new"),
    "status": (
        "answered",
        "answered_forced",
        "out_of_turns",
        "invalid_actions",
        "out_of_tokens",
        "retrieval_failed",
        "tool_failed",
        "engine_aborted",
        "errored",
    ),
    "kind": ("policy", "observation", "answer"),
}
"""What the placeholders in names stand for. Classes are by advantage: above 0, 0, below 0."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One quantity that a run logs, and what to make of it."""

    name: str
    """As it is logged; ``{class}`` and the like stand for each of `CHOICES`."""
    title: str
    """For a plot of it."""
    unit: str
    """Of its values."""
    meaning: str
    """What it is."""
    healthy: str
    """What it looks like in a run that is well."""
    remedy: str
    """What to do when it does not."""

    @property
    def names(self) -> list[str]:
        """All names it is logged under."""
        parts = _PLACEHOLDER.split(self.name)
        choices = [CHOICES[part] if number % 2 else (part,) for number, part in enumerate(parts)]
        return ["".join(chosen) for chosen in product(*choices)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Metrics that are looked at together."""

    title: str
    """What they are about."""
    metrics: tuple[Metric, ...]
    """In the order to look at them."""
