"""The curves of one run for its card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from verl_llds.report.collapse import PANELS

_COLUMNS = 3
_WIDTH_IN, _HEIGHT_IN, _DPI = 3.3, 2.3, 110


def draw_curves(metrics: Mapping[int, Mapping[str, float]], out: Path) -> bool:
    """Draw what a run logged of the quantities that tell a healthy run from a collapsing one.

    Args:
        metrics: values by name of each step.
        out: where the PNG is written.

    Returns:
        Whether there was anything to draw.
    """
    series = [(panel, _points(metrics, panel.metric)) for panel in PANELS]
    drawn = [(panel, points) for panel, points in series if points]
    if not drawn:
        return False
    num_rows = math.ceil(len(drawn) / _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _WIDTH_IN, num_rows * _HEIGHT_IN), dpi=_DPI, layout="constrained")
    grid = figure.subplots(num_rows, _COLUMNS, squeeze=False).flatten()
    for axes, (panel, points) in zip(grid, drawn, strict=False):
        axes.plot(*zip(*points, strict=True), linewidth=0.9, marker="." if len(points) == 1 else "")
        axes.set_title(panel.title, fontsize=8)
        axes.set_xlabel("step", fontsize=7)
        axes.tick_params(which="both", labelsize=7)
        axes.set_yscale(**panel.scale)
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    figure.savefig(out, format="png")
    return True


def _points(metrics: Mapping[int, Mapping[str, float]], name: str) -> list[tuple[int, float]]:
    found = [(step, values[name]) for step, values in sorted(metrics.items()) if name in values]
    return [(step, value) for step, value in found if math.isfinite(value)]
