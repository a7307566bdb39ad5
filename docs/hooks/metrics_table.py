"""The table of metrics, and the name of each as it is logged."""

from __future__ import annotations

from verl_llds.trackers.catalogue import METRICS
from verl_llds.trackers.table import metrics_markdown as table


def metrics_markdown() -> str:
    """Return the sections of the page."""
    names = "\n".join(name for metric in METRICS for name in metric.names)
    return f"{table()}\n## All names\n\n```text\n{names}\n```\n"
