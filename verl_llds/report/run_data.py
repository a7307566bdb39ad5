"""What the page gets of each run: its metrics by column, its phases, its verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from verl_llds.report.embed import rounded
from verl_llds.report.paper_figures import PAPER_FIGURES
from verl_llds.report.run_figures import RUN_FIGURES
from verl_llds.report.run_folder import Run
from verl_llds.report.verdict import PhaseSpan, Verdict, judge
from verl_llds.report.words import headline, paragraph, source


def run_data(run: Run) -> dict[str, Any]:
    """Return one run for the page.

    Returns:
        ``name``, ``folder``, ``verdict`` (`words`), ``spans`` of phases, ``steps`` and
        ``columns``: by metric, one value a step, None where it was not logged.
    """
    verdict = judge(run.metrics)
    return {
        "name": run.name,
        "folder": str(run.folder),
        "verdict": words(verdict, run.metrics),
        "spans": [_span(span) for span in verdict.spans],
        "steps": list(run.metrics),
        "columns": columns(run.metrics),
    }


def words(verdict: Verdict, metrics: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Return the verdict as the page shows it."""
    return {
        "headline": headline(verdict),
        "paragraph": paragraph(verdict, metrics),
        "advice": [one for one in verdict.advice.split("; ") if one],
        "source": source(verdict),
        "phase": verdict.phase.value if verdict.spans else "unknown",
    }


def columns(metrics: Mapping[int, Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Return every metric as a list with one entry a step; None where a step lacks it."""
    names = sorted({name for data in metrics.values() for name in data})
    return {name: [rounded(float(data[name])) if name in data else None for data in metrics.values()] for name in names}


def figures_data() -> list[dict[str, Any]]:
    """Return the definition of the figures, of JSON types."""
    return [asdict(figure) for figure in PAPER_FIGURES + RUN_FIGURES]


def unique_names(runs: Sequence[Run]) -> list[str]:
    """Return the runs' names, those that occur more than once numbered."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    ]


def _span(span: PhaseSpan) -> dict[str, Any]:
    return {"phase": span.phase.value, "number": span.phase.number, "first": span.first, "last": span.last}
