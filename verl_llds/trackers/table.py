"""The table of metrics as Markdown."""

from __future__ import annotations

from verl_llds.trackers.catalogue import SECTIONS
from verl_llds.trackers.metric import CHOICES

_HEADER = "| metric | unit | what it is | healthy | if not |\n| --- | --- | --- | --- | --- |"


def metrics_markdown() -> str:
    """Return a heading and a table a section, and what the placeholders in names stand for."""
    parts = []
    for section in SECTIONS:
        rows = "\n".join(
            f"| `{metric.name}` | {_cell(metric.unit)} | {_cell(metric.meaning)} | {_cell(metric.healthy)} "
            f"| {_cell(metric.remedy)} |"
            for metric in section.metrics
        )
        parts.append(f"## {section.title}\n\n{_HEADER}\n{rows}\n")
    choices = "\n".join(
        f"* `{{{name}}}`: {', '.join(f'`{one}`' for one in values)}" for name, values in CHOICES.items()
    )
    return "\n".join(parts) + f"\n## In names\n\n{choices}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
