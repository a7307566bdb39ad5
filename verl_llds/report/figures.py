"""What a figure of the report is: panels of curves, and which setting logs what a panel needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Shape(str, Enum):
    """How a panel's curves are drawn."""

    LINES = "lines"
    """One line a curve."""
    LOG_LINES = "log_lines"
    """Lines over a logarithmic axis."""
    AREAS = "areas"
    """Areas on top of each other, for shares of a whole; lines where several runs are compared."""
    BARS = "bars"
    """Bars on top of each other, for parts of a sum; lines where several runs are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One quantity of a panel."""

    label: str
    """What the legend calls it."""
    metrics: tuple[str, ...]
    """Names it is logged under; the first that a run has counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One plot."""

    key: str
    """Names the plot in the page; unique."""
    title: str
    """What it shows."""
    unit: str
    """Of the vertical axis."""
    curves: tuple[Curve, ...] = ()
    """What is drawn."""
    prefix: str = ""
    """Instead of ``curves``: one curve for each metric that begins so, labelled by the rest of its name."""
    omit: tuple[str, ...] = ()
    """Rests of names that ``prefix`` passes over."""
    shape: Shape = Shape.LINES
    """How it is drawn."""
    remedy: str
    """Where no run has logged any of it: what would."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Panels that are read together."""

    key: str
    """Names the figure in the page; unique."""
    title: str
    """What it answers."""
    source: str = ""
    """The paper's figure of the same quantities."""
    reading: str
    """How to read it, and what a healthy run looks like."""
    panels: tuple[Panel, ...]
    """In reading order."""


LLDS = "Logged by every run with algorithm=grpo, grpo_guarded, grpo_llds, grpo_llds_ma or gspo_llds."
"""What every run of ours logs."""
SEARCH = "Logged by every run with search=search_r1 or search=tool_call."
"""What the search agent logs."""
VERL = "Logged by verl's trainer."
"""What verl logs."""
POST_UPDATE = "Set diagnostics.post_update_every=1, or choose diagnostics=deep: one forward pass after an update."
"""What a forward pass after the update costs, and gives."""
PROBE = "Set diagnostics.probe_every=1, or choose diagnostics=deep: one small forward pass a step."
"""What the probe set costs, and gives."""


def log_prob(kind: str, place: str = "") -> tuple[str, ...]:
    """Return the names of a mean log-probability before the update: the loss measures it at no cost."""
    name = "/".join(part for part in ("log_prob", kind, place, "old") if part)
    return (f"actor/llds/{name}", f"llds/{name}")


def moved(name: str, kind: str) -> tuple[str, ...]:
    """Return the names of a fact about the update: over the whole of it, else within it."""
    return (f"llds/{name}/{kind}", f"actor/llds/{name}/{kind}")
