"""The one place that writes HTML: a template, the styles and scripts of this package, and compressed data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.metadata import version
from importlib.resources import files
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs, get_plotlyjs_version  # type: ignore[import-untyped]

from verl_llds.report.embed import content_hash, packed, packed_json
from verl_llds.report.payload import Payload

_STYLES = ("theme", "layout", "report", "viewer", "tokens")
_SCRIPTS = (
    *("core/dom", "core/text", "core/blocks", "core/theme", "core/download", "core/pages"),
    *("plots/series", "plots/traces", "plots/panel", "plots/report", "plots/controls"),
    *("viewer/table", "viewer/filters", "viewer/list", "viewer/colours", "viewer/tokens", "viewer/turns"),
    *("viewer/side", "viewer/detail", "viewer/viewer", "main"),
)
"""Joined into one script, whose functions see each other; a constant comes before what reads it at the start."""


def render(
    *,
    title: str,
    runs: Sequence[Mapping[str, Any]],
    figures: Sequence[Mapping[str, Any]],
    trajectories: Payload | None,
    written: datetime,
) -> str:
    """Return the whole page: one file that needs nothing else.

    Its policy lets two scripts run, its own and plotly's, each by its hash, and lets nothing be loaded or sent. Every
    text of a run is either escaped here or reaches the document as text, never as markup.

    Args:
        title: of the page.
        runs: as `verl_llds.report.run_data.run_data` returns them.
        figures: as `verl_llds.report.run_data.figures_data` returns them.
        trajectories: None for a run without any.
        written: when.
    """
    script = "\n".join(["(() => {", '"use strict";', *(_asset(f"js/{name}.js") for name in _SCRIPTS), "})();"])
    plotly = get_plotlyjs()
    blocks = {"data-report": packed_json({"runs": runs, "figures": figures}), "code-plotly": packed(plotly.encode())}
    if trajectories is not None:
        blocks["data-index"] = trajectories.index
        blocks.update({f"data-chunk-{number}": chunk for number, chunk in enumerate(trajectories.chunks)})
    return Template(_asset("page.html")).substitute(
        policy=_policy(f"\n{script}\n", plotly),
        title=escape(title),
        css="\n".join(_asset(f"css/{name}.css") for name in _STYLES),
        script=script,
        verdicts="\n".join(_verdict(place, run) for place, run in enumerate(runs)),
        num_trajectories=f"{trajectories.num:,}" if trajectories else "",
        version=escape(version("verl-llds")),
        written=written.strftime("%Y-%m-%d %H:%M"),
        plotly_version=escape(get_plotlyjs_version()),
        blocks="\n".join(_block(name, text) for name, text in blocks.items()),
    )


def _policy(*scripts: str) -> str:
    """Return the Content-Security-Policy. Styles may be inline, since plotly sets them; they can load nothing."""
    allowed = " ".join(content_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _verdict(place: int, run: Mapping[str, Any]) -> str:
    """Return a run's verdict as HTML, readable before any script runs."""
    said = run["verdict"]
    advice = "".join(f"<li>{escape(one)}</li>" for one in said["advice"])
    return (
        f'<article class="verdict" data-phase="{escape(said["phase"])}">'
        f'<p class="run">{escape(run["name"])}</p><h2>{escape(said["headline"])}</h2>'
        f'<p class="words">{escape(said["paragraph"])}</p>'
        f"{f'<p>What to try:</p><ul>{advice}</ul>' if advice else ''}"
        f'<div class="ribbon" id="ribbon-{place}"></div><p class="fine">{escape(said["source"])}</p></article>'
    )


def _block(name: str, text: str) -> str:
    return f'<script type="application/octet-stream" id="{name}">{text}</script>'


def _asset(name: str) -> str:
    return (files("verl_llds.report") / "assets" / name).read_text(encoding="utf-8")
