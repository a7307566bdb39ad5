"""The figure of a collapse: the quantities that give it away, by step, for any number of runs of several arms.

It reads what verl's file logger writes (``trainer.logger='["file"]'``): one JSON object a line with ``step`` and
``data``, the step's metrics by name. Lines without a step, such as a header, are passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from verl_llds.errors import ConfigError

_COLUMNS = 4
_WIDTH_IN, _HEIGHT_IN, _DPI = 3.1, 2.3, 110


_Points: TypeAlias = Sequence[tuple[int, float]]
_Series: TypeAlias = Mapping[str, _Points]
"""The readings of one run by metric, each a step and a value."""


class Panel(NamedTuple):
    """One quantity of the figure."""

    metric: str
    """The metric's name."""
    title: str
    """What it says above the panel."""
    scale: Mapping[str, Any] = {"value": "linear"}
    """Arguments of matplotlib's ``set_yscale``."""


PANELS = (
    Panel("critic/score/mean", "mean reward"),
    Panel("search/answer_share", "share of episodes that answer"),
    Panel("actor/entropy", "entropy [nats per token]"),
    Panel("llds/displaced_action_frac/correct", "displaced actions of correct trajectories"),
    Panel(
        "llds/displacement/correct",
        "displacement of correct trajectories\n[nats per token; above 0: fell]",
        # Small on both sides of 0 for most of a run, then above 1.
        {"value": "asinh", "linear_width": 0.1},
    ),
    Panel("llds/probe/log_prob", "log-likelihood of the fixed probe\n[nats per token]"),
    Panel("actor/grad_norm", "gradient norm", {"value": "log", "nonpositive": "mask"}),
)
"""What is drawn, in order."""


def read_metrics(path: Path) -> _Series:
    """Return the finite values of the drawn metrics by step.

    Args:
        path: a JSONL file in the shape of verl's file logger. Its last line may be cut off, as in a run that goes
            on; a step that was logged twice counts as it was logged last.

    Raises:
        ConfigError: the file is missing, or a line other than the last is no JSON object.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the metrics {path}: {error.strerror}; is it a file logger's JSONL?") from error
    steps: dict[int, Mapping[str, object]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if "step" in row:
                steps[int(row["step"])] = {**steps.get(int(row["step"]), {}), **row["data"]}
        except (ValueError, TypeError, KeyError) as error:
            if number < len(lines):
                raise ConfigError(f"{path}, line {number} is no row of a file logger: {line[:80]!r}") from error
    return {panel.metric: _series(steps, panel.metric) for panel in PANELS}


def draw_collapse(runs: Mapping[str, Sequence[Path]], out: Path, *, smooth: int = 1) -> None:
    """Draw one PNG with a panel a quantity, one colour an arm and one thin line a run.

    A panel that no run has values for says so.

    Args:
        runs: the JSONL files of each arm, by the name the legend gives it.
        out: where the PNG is written.
        smooth: each point is the mean of at most this many readings, its own and those just before it.

    Raises:
        ConfigError: there is no run to draw, or one that cannot be read.
    """
    if not any(runs.values()):
        raise ConfigError("there are no runs to draw: name at least one JSONL file of verl's file logger")
    series = {arm: [read_metrics(path) for path in paths] for arm, paths in runs.items()}
    num_rows = math.ceil((len(PANELS) + 1) / _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _WIDTH_IN, num_rows * _HEIGHT_IN), dpi=_DPI, layout="constrained")
    grid = figure.subplots(num_rows, _COLUMNS, squeeze=False, sharex=True).flatten()
    for axes, panel in zip(grid, PANELS, strict=False):
        _draw_panel(axes, panel, series, smooth)
    _draw_legend(grid[len(PANELS)], list(series))
    for axes in grid[len(PANELS) + 1 :]:
        axes.set_axis_off()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="png")


def _series(steps: Mapping[int, Mapping[str, object]], metric: str) -> _Points:
    values = ((step, data.get(metric)) for step, data in sorted(steps.items()))
    return [(step, float(value)) for step, value in values if isinstance(value, int | float) and math.isfinite(value)]


def _draw_panel(axes: Axes, panel: Panel, series: Mapping[str, Sequence[_Series]], smooth: int) -> None:
    axes.set_title(panel.title, fontsize=8)
    axes.tick_params(which="both", labelsize=7, labelbottom=True)
    axes.set_xlabel("step", fontsize=7)
    is_empty = True
    for number, runs in enumerate(series.values()):
        for run in runs:
            for piece in _pieces(run[panel.metric]):
                is_empty = False
                steps, values = zip(*_smoothed(piece, smooth), strict=True)
                # A lone reading has no line: mark it.
                marker = "." if len(piece) == 1 else ""
                axes.plot(steps, values, marker=marker, markersize=2, linewidth=0.8, alpha=0.8, **_style(number))
    if is_empty:
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", va="center", fontsize=8)
    else:
        axes.set_yscale(**panel.scale)


def _pieces(points: _Points) -> list[list[tuple[int, float]]]:
    """Cut a series where readings are missing, judged by its closest ones, so that no line bridges a gap."""
    spacing = min((after[0] - before[0] for before, after in pairwise(points)), default=1)
    pieces: list[list[tuple[int, float]]] = []
    for point in points:
        if not pieces or point[0] - pieces[-1][-1][0] > 2 * spacing:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


def _smoothed(points: _Points, width: int) -> _Points:
    values = [value for _, value in points]
    return [(step, fmean(values[max(0, end - width) : end])) for end, (step, _) in enumerate(points, start=1)]


def _draw_legend(axes: Axes, arms: Sequence[str]) -> None:
    axes.set_axis_off()
    for number, arm in enumerate(arms):
        axes.plot([], [], label=arm, **_style(number))
    axes.legend(loc="center", fontsize=8, frameon=False, ncols=1 + len(arms) // 10)


def _style(number: int) -> dict[str, Any]:
    """Return the look of an arm: matplotlib's ten colours, then the same ones dashed, then dotted."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}
