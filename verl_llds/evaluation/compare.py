"""Two evaluations of the same questions, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.folder import Row, read_evaluation
from verl_llds.evaluation.paired import Difference, Differences, McNemar, mcnemar, paired_bootstrap
from verl_llds.evaluation.settings import check_seed
from verl_llds.evaluation.summary import METRICS, ordered_sources, question_means
from verl_llds.search.failures import has_failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """B against A on the questions both answered."""

    sources: tuple[str, ...]
    """Question sets, in the papers' order."""
    num_questions: tuple[int, ...]
    """Questions of each set that both have."""
    only_a: int
    """Questions that A alone has."""
    only_b: int
    """Questions that B alone has."""
    means: Mapping[str, tuple[list[float], list[float]]]
    """By metric: the means of A and of B for each set."""
    differences: Mapping[str, Differences]
    """By metric: B minus A."""
    mcnemar: tuple[McNemar, ...] | None
    """Of EM for each set, and then of all questions; None where a question was played more than once."""


def compare_rows(a: Mapping[str, Row], b: Mapping[str, Row], *, seed: int) -> Comparison:
    """Compare two evaluations.

    Args:
        a: lines by episode.
        b: lines by episode.
        seed: of the bootstrap.

    Raises:
        EvaluationError: if they have no question in common, or a question has other answers in one than in the other.
    """
    left, right = _by_question(a), _by_question(b)
    shared = [question for question in left if question in right]
    if not shared:
        raise EvaluationError("the two evaluations have no question in common: compare evaluations of the same data")
    for question in shared:
        if left[question][0]["gts"] != right[question][0]["gts"]:
            raise EvaluationError(
                f"{question} has other accepted answers in one than in the other: they are different data"
            )
    sources = ordered_sources({left[question][0]["data_source"] for question in shared})
    groups = [[question for question in shared if left[question][0]["data_source"] == source] for source in sources]
    values = {
        metric: (
            [_values(left, group, metric) for group in groups],
            [_values(right, group, metric) for group in groups],
        )
        for metric in METRICS
    }
    is_single = all(len(rows[question]) == 1 for rows in (left, right) for question in shared)
    return Comparison(
        sources=tuple(sources),
        num_questions=tuple(map(len, groups)),
        only_a=len(left) - len(shared),
        only_b=len(right) - len(shared),
        means={name: ([_mean(one) for one in old], [_mean(one) for one in new]) for name, (old, new) in values.items()},
        differences={name: paired_bootstrap(old, new, seed=seed) for name, (old, new) in values.items()},
        mcnemar=_mcnemar(*values["em"]) if is_single else None,
    )


def compare(a: Path, b: Path, console: Console, *, seed: int) -> None:
    """Print how two evaluations differ.

    Raises:
        ConfigError: for a seed no generator takes.
        EvaluationError: if one cannot be read, or they share no question.
    """
    check_seed(seed)
    (old_header, old), (new_header, new) = read_evaluation(a), read_evaluation(b)
    found = compare_rows(old, new, seed=seed)
    for name, path, header, rows in (("A", a, old_header, old), ("B", b, new_header, new)):
        failed = sum(map(has_failed, rows.values()))
        note = f", {failed} of its episodes failed and count as wrong" if failed else ""
        console.print(f"{name}: {path}, model {header['facts']['model']}{note}", markup=False, highlight=False)
    for line in other_settings(old_header, new_header):
        console.print(f"also different: {line}", style="yellow", markup=False, highlight=False)
    for metric in METRICS:
        console.print(_table(found, metric))
    if found.mcnemar is None:
        console.print("McNemar's test is of one episode a question; these have several", highlight=False)
    if found.only_a or found.only_b:
        console.print(
            f"left out: {found.only_a} questions that only A has, {found.only_b} that only B has",
            style="yellow",
            highlight=False,
        )


def other_settings(old: Row, new: Row) -> list[str]:
    """Return what, beside the model, differs between two evaluations' settings."""
    names = dict.fromkeys([*old["settings"], *new["settings"]])
    pairs = [(name, old["settings"].get(name), new["settings"].get(name)) for name in names if name != "model"]
    return [f"{name} is {left!r} in A and {right!r} in B" for name, left, right in pairs if left != right]


def _by_question(rows: Mapping[str, Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows.values():
        found.setdefault(row["question"], []).append(row)
    return found


def _values(rows: Mapping[str, list[Row]], questions: list[str], metric: str) -> list[float]:
    return [question_means(rows[question], metric)[question] for question in questions]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _mcnemar(a: list[list[float]], b: list[list[float]]) -> tuple[McNemar, ...]:
    each = [mcnemar(left, right) for left, right in zip(a, b, strict=True)]
    return (*each, mcnemar(list(chain(*a)), list(chain(*b))))


def _table(found: Comparison, metric: str) -> Table:
    tests = found.mcnemar if metric == "em" else None
    table = Table(title=f"{metric}: B minus A, 95% interval of the paired bootstrap", title_justify="left")
    for name in ("questions", "n", "A", "B", "B - A", "p", *(("only A", "only B", "McNemar p") if tests else ())):
        table.add_column(name, justify="left" if name == "questions" else "right", no_wrap=True)
    a, b = found.means[metric]
    differences, total = found.differences[metric], sum(found.num_questions)
    for number, source in enumerate(found.sources):
        cells = _cells(found.num_questions[number], a[number], b[number], differences.sets[number])
        table.add_row(source, *cells, *_test(tests, number), end_section=number == len(found.sources) - 1)
    if len(found.sources) > 1:
        table.add_row("mean of sets", *_cells(None, _mean(a), _mean(b), differences.macro))
    weights = [number / total for number in found.num_questions]
    whole = [sum(w * value for w, value in zip(weights, means, strict=True)) for means in (a, b)]
    table.add_row("all questions", *_cells(total, whole[0], whole[1], differences.micro), *_test(tests, -1))
    return table


def _cells(count: int | None, a: float, b: float, difference: Difference) -> list[Any]:
    gap = difference.estimate
    number = "" if count is None else str(count)
    interval = f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    return [number, f"{a:.3f}", f"{b:.3f}", interval, f"{difference.p_value:.3f}"]


def _test(tests: tuple[McNemar, ...] | None, number: int) -> list[str]:
    if tests is None:
        return []
    return [str(tests[number].only_a), str(tests[number].only_b), f"{tests[number].p_value:.3g}"]
