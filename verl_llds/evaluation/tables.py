"""What an evaluation prints: its header, its numbers, and published ones beside them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from verl_llds.evaluation.bootstrap import Estimate
from verl_llds.evaluation.published import PublishedRow, Source
from verl_llds.evaluation.questions import Question
from verl_llds.evaluation.summary import METRICS, Summary
from verl_llds.reward.sources import SEVEN_SETS
from verl_llds.search.trajectory import EpisodeStatus

SHORT_NAMES = {
    "nq": "NQ",
    "triviaqa": "TriviaQA",
    "popqa": "PopQA",
    "hotpotqa": "HotpotQA",
    "2wikimultihopqa": "2Wiki",
    "musique": "MuSiQue",
    "bamboogle": "Bamboogle",
}
"""What the papers' tables call the seven sets."""

_FILE_WIDTH = 160
_COMPLETE = {one.name: one.num_questions for one in SEVEN_SETS}


def describe_sets(questions: Iterable[Question]) -> dict[str, str]:
    """Return what is asked of each set: split and number of questions, beside the published number."""
    splits: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for question in questions:
        counts[question.source] += 1
        splits.setdefault(question.source, set()).add(question.split)
    return {source: _set_line(source, count, splits[source]) for source, count in counts.items()}


def _set_line(source: str, count: int, splits: set[str]) -> str:
    complete = _COMPLETE.get(source)
    number = f"{count}" if complete is None or complete == count else f"{count} of the published {complete}"
    named = "+".join(sorted(split for split in splits if split))
    return f"{number} questions" + (f", {named}" if named else "")


def print_header(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what an evaluation is of, a line each."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        lines = [f"{key}: {text}" for key, text in value.items()] if isinstance(value, Mapping) else [str(value)]
        for number, line in enumerate(lines):
            table.add_row("" if number else name, line)
    console.print(table, markup=False, highlight=False)


def open_console() -> Console:
    """Return a console on standard output; one that is no terminal is wide enough for every table."""
    return Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH)


def scores_table(summary: Summary) -> Table:
    """Return the scores of each set, their mean over sets (macro) and over questions (micro)."""
    samples = f", {summary.num_samples} episodes each" if summary.num_samples > 1 else ""
    title = f"{sum(summary.num_questions)} questions{samples}; 95% intervals by bootstrap over questions"
    if summary.num_dropped:
        title += f"; {summary.num_dropped} dropped as Search-R1 does"
    table = Table(title=title, title_justify="left", padding=(0, 0))
    table.add_column("questions")
    for column in ("n", "EM", "F1", "sub-EM"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, source in enumerate(summary.sources):
        cells = [_interval(summary.metrics[name].sets[number]) for name in METRICS]
        is_last = number == len(summary.sources) - 1
        table.add_row(SHORT_NAMES.get(source, source), str(summary.num_questions[number]), *cells, end_section=is_last)
    if len(summary.sources) > 1:
        table.add_row("mean of sets", "", *(_interval(summary.metrics[name].macro) for name in METRICS))
    micro = [_interval(summary.metrics[name].micro) for name in METRICS]
    table.add_row("all questions", str(sum(summary.num_questions)), *micro)
    return table


def episodes_table(summary: Summary) -> Table:
    """Return what episodes were like: means for each set, and over all episodes."""
    table = Table(title="Per episode", title_justify="left")
    table.add_column("questions")
    for column in ("valid searches", "answered", "failed", "policy tokens", "observed tokens", "seconds"):
        table.add_column(column, justify="right")
    names = [*(SHORT_NAMES.get(source, source) for source in summary.sources), "all questions"]
    for number, name in enumerate(names):
        means = {quantity: values[number] for quantity, values in summary.means.items()}
        table.add_row(
            name,
            f"{means['valid_searches']:.2f}",
            f"{means['answered']:.1%}",
            f"{means['failed']:.1%}",
            f"{means['policy_tokens']:.0f}",
            f"{means['observation_tokens']:.0f}",
            f"{means['seconds']:.2f}",
            end_section=number == len(summary.sources) - 1,
        )
    return table


def status_line(summary: Summary) -> str:
    """Return how episodes ended."""
    ended = summary.statuses[-1]
    total = sum(ended.values())
    parts = [f"{ended[one.value]} {one.value}" for one in EpisodeStatus if ended.get(one.value)]
    return f"{total} episodes: " + ", ".join(parts)


def published_table(summary: Summary, name: str, sources: Sequence[Source]) -> Table | None:
    """Return exact match beside published rows; None if no set evaluated here was published, or no row is wanted."""
    if not sources or not set(summary.sources) & _COMPLETE.keys():
        return None
    table = Table(title="Exact match beside published figures", title_justify="left")
    for column in ("source", "model", "method"):
        table.add_column(column)
    for one in SEVEN_SETS:
        table.add_column(SHORT_NAMES[one.name], justify="right", min_width=5)
    table.add_column("mean", justify="right", min_width=5)
    ours = dict(zip(summary.sources, summary.metrics["em"].sets, strict=True))
    figures = {one.name: ours[one.name].mean for one in SEVEN_SETS if one.name in ours}
    row = PublishedRow(source="here", model=name, method="", em=figures)
    _add(table, row, is_last=True, style="bold")
    for source in sources:
        for published in source.rows:
            _add(table, published, is_last=published is source.rows[-1])
    return table


def footnotes(sources: Sequence[Source]) -> list[str]:
    """Return where published figures come from and what to know about them, a line each."""
    return [f"{source.name}: {source.url} ({source.where}); {source.caveat}" for source in sources]


def _add(table: Table, row: PublishedRow, *, is_last: bool, style: str | None = None) -> None:
    figures = [row.em.get(one.name) for one in SEVEN_SETS]
    cells = ["-" if value is None else f"{value:.3f}" for value in (*figures, row.macro)]
    table.add_row(row.source, row.model, row.method, *cells, end_section=is_last, style=style)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
