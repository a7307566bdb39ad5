"""What an evaluation prints: its header, its numbers, and published ones beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from verl_llds.evaluation.bootstrap import Estimate
from verl_llds.evaluation.published import PublishedRow, Source
from verl_llds.evaluation.questions import Question
from verl_llds.evaluation.summary import Summary
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


def numbers_table(summary: Summary) -> Table:
    """Return the numbers of each set, their mean over sets (macro) and over questions (micro)."""
    samples = f", {summary.num_samples} episodes each" if summary.num_samples > 1 else ""
    title = f"{sum(summary.num_questions)} questions{samples}; 95% intervals by bootstrap over questions"
    if summary.num_dropped:
        title += f"; {summary.num_dropped} dropped as Search-R1 does"
    table = Table(title=title, title_justify="left")
    table.add_column("questions", no_wrap=True)
    for name in ("n", "EM", "F1", "sub-EM", "searches", "answered", "failed", "policy tokens", "observed tokens"):
        table.add_column(name, justify="right", no_wrap=name in ("n", "EM", "F1", "sub-EM"))
    for number, source in enumerate(summary.sources):
        estimates = [summary.metrics[name].sets[number] for name in ("em", "f1", "sub_em")]
        is_last = number == len(summary.sources) - 1
        table.add_row(
            SHORT_NAMES.get(source, source),
            str(summary.num_questions[number]),
            *map(_interval, estimates),
            *_means(summary, number),
            end_section=is_last,
        )
    if len(summary.sources) > 1:
        table.add_row("mean of sets", "", *(_interval(summary.metrics[name].macro) for name in ("em", "f1", "sub_em")))
    micro = [summary.metrics[name].micro for name in ("em", "f1", "sub_em")]
    table.add_row("all questions", str(sum(summary.num_questions)), *map(_interval, micro), *_means(summary, -1))
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
        table.add_column(SHORT_NAMES[one.name], justify="right")
    table.add_column("mean", justify="right")
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


def _means(summary: Summary, number: int) -> list[str]:
    means = summary.means
    return [
        f"{means['valid_searches'][number]:.2f}",
        f"{means['answered'][number]:.1%}",
        f"{means['failed'][number]:.1%}",
        f"{means['policy_tokens'][number]:.0f}",
        f"{means['observation_tokens'][number]:.0f}",
    ]
