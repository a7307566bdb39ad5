"""Numbers of finished runs: what each arm came to, and how it differs from plain GRPO at equal seeds."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from lab.trainer import PHASES
from verl_llds.diagnostics.phases import PhaseDetector, signals_from_metrics
from verl_llds.diagnostics.signals import Phase

WINDOW = 10
"""Steps at a run's beginning and end over which its level is the mean."""

COLLAPSE_SHARE = 0.25
"""A run has collapsed when its reward stays below this share of its level at the beginning."""

COLLAPSE_STEPS = 5
"""Steps over whose mean that is judged."""

BASELINE = "grpo"
"""The arm that the others are compared with."""

_T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 0.975 for 1 to 9 degrees of freedom; the last one serves for more, and errs to the wide side."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to."""

    reward: float
    """Mean exact match over the last `WINDOW` steps."""
    best_reward: float
    """Largest mean exact match over `WINDOW` steps."""
    answers: float
    """Mean share of episodes that answered, over the last `WINDOW` steps."""
    entropy: float
    """Mean entropy over the last `WINDOW` steps, in nats."""
    probe: float
    """Mean log-probability a token of the fixed probe over the last `WINDOW` steps, in nats."""
    collapse_step: float
    """First step of the first `COLLAPSE_STEPS` whose mean reward is below `COLLAPSE_SHARE` of the beginning's.

    Infinite if there are none.
    """
    phases: Mapping[str, int]
    """First step at which the product's detector named each alarming phase."""


def find_runs(directory: Path) -> dict[str, dict[int, Path]]:
    """Return the finished runs of one preset by arm and seed, GRPO first."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(directory.glob("*.jsonl")):
        with path.open() as lines:
            header = json.loads(next(lines))["header"]
        found[header["arm"]][header["seed"]] = path
    return {arm: found[arm] for arm in sorted(found, key=lambda arm: (arm != BASELINE, arm))}


def outcome(path: Path) -> Outcome:
    """Return what a finished run came to."""
    with path.open() as lines:
        rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if "step" in row]
    rewards = _column(rows, "critic/score/mean")
    level = COLLAPSE_SHARE * fmean(rewards[:WINDOW])
    below = [step for step, value in enumerate(_rolling(rewards, COLLAPSE_STEPS), start=1) if value < level]
    return Outcome(
        reward=fmean(rewards[-WINDOW:]),
        best_reward=max(_rolling(rewards, WINDOW)),
        answers=fmean(_column(rows, "search/answer_share")[-WINDOW:]),
        entropy=fmean(_column(rows, "actor/entropy")[-WINDOW:]),
        probe=fmean(_column(rows, "llds/probe/log_prob")[-WINDOW:]),
        collapse_step=below[0] if below else math.inf,
        phases=_phases(rows),
    )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the two-sided 95 % t interval of the mean of at least two values."""
    assert len(values) > 1, "one value says nothing about its spread"
    quantile = _T_QUANTILES[min(len(values) - 1, len(_T_QUANTILES)) - 1]
    reach = quantile * stdev(values) / math.sqrt(len(values))
    return fmean(values) - reach, fmean(values) + reach


def paired(arm: Mapping[int, Outcome], baseline: Mapping[int, Outcome], name: str) -> list[float]:
    """Return the arm's value minus the baseline's for every seed that both have."""
    return [getattr(arm[seed], name) - getattr(baseline[seed], name) for seed in sorted(arm) if seed in baseline]


def table(outcomes: Mapping[str, Mapping[int, Outcome]]) -> str:
    """Return the Markdown table of arms: mean ± standard deviation over seeds, and paired differences to GRPO."""
    head = (
        "| arm | seeds | reward, end | best | answers, end | probe, end | entropy, end | collapsed (steps) "
        "| reward less grpo | answers less grpo | probe less grpo |"
    )
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for arm, by_seed in outcomes.items():
        runs = list(by_seed.values())
        cells = [arm, str(len(runs))]
        for name in ("reward", "best_reward", "answers", "probe", "entropy"):
            cells.append(_spread([getattr(run, name) for run in runs]))
        cells.append(_collapses(runs))
        for name in ("reward", "answers", "probe"):
            cells.append(_difference(paired(by_seed, outcomes.get(BASELINE, {}), name)) if arm != BASELINE else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run_table(outcomes: Mapping[str, Mapping[int, Outcome]]) -> str:
    """Return the Markdown table of every single run."""
    head = "| arm | seed | reward, end | best | answers, end | probe, end | entropy, end | collapsed at |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for arm, by_seed in outcomes.items():
        for seed, run in sorted(by_seed.items()):
            numbers = (run.reward, run.best_reward, run.answers, run.probe, run.entropy)
            at = f"{run.collapse_step:.0f}" if math.isfinite(run.collapse_step) else "never"
            lines.append(f"| {arm} | {seed} | {' | '.join(f'{number:.2f}' for number in numbers)} | {at} |")
    return "\n".join(lines)


def phase_table(outcomes: Mapping[str, Mapping[int, Outcome]]) -> str:
    """Return the Markdown table of the detector's verdicts: in how many runs, and the median first step."""
    alarming = [phase.value for phase in Phase if phase is not Phase.HEALTHY]
    lines = [f"| arm | {' | '.join(alarming)} |", "|---" * (len(alarming) + 1) + "|"]
    for arm, by_seed in outcomes.items():
        cells = [arm]
        for phase in alarming:
            steps = [run.phases[phase] for run in by_seed.values() if phase in run.phases]
            cells.append(f"{len(steps)}/{len(by_seed)}" + (f" ({median(steps):.0f})" if steps else ""))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _column(rows: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    return [float(row["data"][metric]) for row in rows]


def _rolling(values: Sequence[float], width: int) -> list[float]:
    return [fmean(values[start : start + width]) for start in range(max(1, len(values) - width + 1))]


def _phases(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    detector = PhaseDetector(PHASES)
    first: dict[str, int] = {}
    for row in rows:
        phase = detector.update(signals_from_metrics(row["step"], row["data"])).phase
        if phase is not Phase.HEALTHY:
            first.setdefault(phase.value, row["step"])
    return first


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _collapses(runs: Sequence[Outcome]) -> str:
    steps = sorted(run.collapse_step for run in runs if math.isfinite(run.collapse_step))
    listed = f" ({', '.join(f'{step:.0f}' for step in steps)})" if steps else ""
    return f"{len(steps)}/{len(runs)}{listed}"


def _difference(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:+.2f}" if values else ""
    low, high = interval(values)
    return f"{fmean(values):+.2f} [{low:+.2f}, {high:+.2f}]"
