"""The live view as text: a frame for a terminal, and one line a step for a pipe."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from verl_llds.diagnostics.signals import Phase
from verl_llds.watch.frame import Frame, Line
from verl_llds.watch.sparkline import ASCII, BLOCKS, sparkline

_COLOURS = {
    Phase.HEALTHY: "green",
    Phase.STAGNATION: "yellow",
    Phase.DECAY: "dark_orange",
    Phase.ACCELERATION: "red",
    Phase.COLLAPSED: "bold white on red",
}

_COMPARED = 20
"""Steps back that the change is taken to."""

_GAP = 2
"""Spaces between columns."""


def render(name: str, frame: Frame, age_s: float, notes: list[str], console: Console) -> RenderableType:
    """Return the whole view.

    Args:
        name: of the run.
        frame: what to show.
        age_s: seconds since the latest step was logged.
        notes: more lines, such as one that says that the run has started again.
        console: for its width and encoding.
    """
    parts: list[RenderableType] = [_headline(name, frame, age_s), _table(frame, console)]
    if frame.scores:
        scores = "  ".join(f"{score} {value:.3g}" for score, value in sorted(frame.scores.items()))
        parts.append(Text(f"latest evaluation: {scores}"))
    parts += [Text(note, style="dim") for note in notes]
    if frame.is_overdue(age_s):
        parts.append(
            Text(f"no new step for {duration(age_s)}: the run may have ended, or hang; look at its log", style="yellow")
        )
    return Group(*parts)


def _headline(name: str, frame: Frame, age_s: float) -> Text:
    total = f"/{frame.total_steps}" if frame.total_steps is not None else ""
    text = Text.assemble((name, "bold"), f"  step {frame.step}{total}")
    if frame.phase is not None:
        text.append("  phase ")
        text.append(frame.phase.value, style=_COLOURS[frame.phase])
        text.append(f" since step {frame.phase_since}")
    if frame.is_finished():
        text.append("  finished")
    else:
        if not frame.is_overdue(age_s):
            eta = frame.eta_s(age_s)
            text.append(f"  {duration(eta)} left" if eta is not None else "  end unknown (--total-steps)")
        text.append(f"  last step {duration(age_s)} ago", style="dim")
    return text


def _table(frame: Frame, console: Console) -> Table:
    rows = [[Text(line.quantity.title), *_numbers(line, frame.step)] for line in frame.lines]
    header = ["", "now", f"{_COMPARED} steps ago", "lowest", "highest"]
    columns = zip(header, *rows, strict=True)
    taken = sum(_GAP + max(len(cell) for cell in column) for column in columns)
    levels = ASCII if console.options.ascii_only else BLOCKS
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False)
    for name in header:
        table.add_column(
            name, justify="right" if name else "left", no_wrap=True, style="dim" if name not in ("", "now") else ""
        )
    table.add_column("history", no_wrap=True)
    for line, cells in zip(frame.lines, rows, strict=True):
        history = sparkline(line.values, max(1, console.width - taken), levels)
        table.add_row(*cells, Text(history, style="cyan"))
    return table


def _numbers(line: Line, step: int) -> list[Text]:
    finite = [value for value in line.values if math.isfinite(value)]
    digits = line.quantity.digits
    before = [value for at, value in zip(line.steps, line.values, strict=True) if at <= step - _COMPARED]
    is_stale = line.steps[-1] != step
    now = number(line.values[-1], digits)
    style = "bold red" if not math.isfinite(line.values[-1]) else ("dim" if is_stale else "bold")
    return [
        # Measured at some steps only: the latest one is named.
        Text(f"{now} @{line.steps[-1]}" if is_stale else now, style=style),
        Text(number(before[-1], digits) if before else "-"),
        Text(number(min(finite), digits) if finite else "-"),
        Text(number(max(finite), digits) if finite else "-"),
    ]


def plain_line(step: int, values: Mapping[str, float], frame: Frame) -> str:
    """Return one step as one line: ``step=3/20 phase=healthy reward=0.25 ...``, for pipes and log files.

    Args:
        step: which.
        values: by name.
        frame: of the whole run: says which metric a quantity is read from.
    """
    parts = [f"step={step}" + (f"/{frame.total_steps}" if frame.total_steps is not None else "")]
    phase = values.get("llds/phase", math.nan)
    if math.isfinite(phase):
        parts.append(f"phase={next((known.value for known in Phase if known.number == phase), phase)}")
    parts += [
        f"{_key(line.quantity.title)}={number(values[line.name], line.quantity.digits)}"
        for line in frame.lines
        if line.name in values
    ]
    parts += [f"{name}={number(value, 3)}" for name, value in values.items() if name.startswith("val-core/")]
    return " ".join(parts)


def _key(title: str) -> str:
    return title.replace(",", "").replace("-", "_").replace(" ", "_")


def number(value: float, digits: int) -> str:
    """Return a number with so many significant digits, without an exponent where it is short without."""
    if not math.isfinite(value):
        return str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    total = max(0, round(seconds))
    days, hours, minutes = total // 86_400, total // 3600 % 24, total // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if total >= 3600:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {total % 60} s" if minutes else f"{total} s"
