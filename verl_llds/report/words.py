"""The verdict as a paragraph: what a reader should know before looking at any figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from verl_llds.diagnostics.phases import Phase
from verl_llds.diagnostics.settings import PhaseConfig
from verl_llds.report.verdict import PhaseSpan, Verdict

_REWARD = "critic/score/mean"
_WINDOW = 5
"""Steps that a stated level of the reward is the mean of."""


def headline(verdict: Verdict) -> str:
    """Return the verdict in a few words, with the step it holds from."""
    if not verdict.spans:
        return "No training step is logged"
    if verdict.phase is Phase.HEALTHY:
        return "Too early for a verdict" if verdict.is_early else "Healthy"
    began = f"since step {verdict.spans[-1].first}"
    return f"Collapsed {began}" if verdict.phase is Phase.COLLAPSED else f"{verdict.phase.value.capitalize()} {began}"


def paragraph(verdict: Verdict, metrics: Mapping[int, Mapping[str, float]]) -> str:
    """Return whether the run is healthy and, if it is not, since which step and why."""
    if not verdict.spans:
        return (
            "No step holds a reward, a likelihood or an entropy: there is nothing to judge. "
            "Is this the folder of a run that has finished its first step?"
        )
    return " ".join([_state(verdict), *_past(verdict), *_why(verdict), *_reward(metrics)])


def _state(verdict: Verdict) -> str:
    last = verdict.spans[-1].last
    if verdict.phase is not Phase.HEALTHY:
        path = ", ".join(f"{span.phase.value} from step {span.first}" for span in verdict.trouble)
        first = verdict.trouble[0].first
        return f"Not healthy since step {first} (the last step is {last}): {path}."
    if verdict.is_early:
        return (
            f"No alarm in {verdict.num_steps} steps, but that is early: "
            f"the detector waits for {PhaseConfig().warmup_steps} steps before it judges."
        )
    return f"Healthy at step {last}: no watched quantity is away from its baseline."


def _past(verdict: Verdict) -> list[str]:
    """Return the alarms that went by."""
    past = verdict.spans[: len(verdict.spans) - len(verdict.trouble)]
    alarms = [span for span in past if span.phase is not Phase.HEALTHY]
    return [f"It recovered from {_listed([_span(span) for span in alarms])}."] if alarms else []


def _span(span: PhaseSpan) -> str:
    where = f"at step {span.first}" if span.first == span.last else f"in steps {span.first} to {span.last}"
    return f"{span.phase.value} {where}"


def _why(verdict: Verdict) -> list[str]:
    if verdict.phase is Phase.HEALTHY:
        return []
    if not verdict.moved:
        return ["What moved cannot be told from the metrics that were logged."]
    began, now = "; ".join(verdict.began_with), "; ".join(verdict.moved)
    if not began or began == now:
        return [f"Why: the {now}."]
    return [f"It began with this: the {began}. Then: the {now}."]


def _reward(metrics: Mapping[int, Mapping[str, float]]) -> list[str]:
    rewards = [(step, data[_REWARD]) for step, data in sorted(metrics.items()) if _REWARD in data]
    if not rewards:
        return []
    levels = [
        (step, fmean(value for _, value in rewards[max(0, end - _WINDOW) : end]))
        for end, (step, _) in enumerate(rewards, start=1)
    ]
    # The first levels are means of fewer steps, so a lucky first step would stay the best.
    best_step, best = max(levels[_WINDOW - 1 :] or levels[-1:], key=lambda level: level[1])
    num = min(_WINDOW, len(rewards))
    return [
        f"The reward is {levels[-1][1]:.3g} (mean of the last {num} steps); its best such mean is {best:.3g}, "
        f"at step {best_step}."
    ]


def source(verdict: Verdict) -> str:
    """Return where the phases come from, and what the detector could not see."""
    if not verdict.spans:
        return ""
    known = (
        "The phases are those the run logged as llds/phase"
        if verdict.is_logged
        else "The run did not log llds/phase: its metrics were judged afterwards, with the detector's default settings"
    )
    unseen = f", without the {_listed(verdict.unseen)}, which nobody logged" if verdict.unseen else ""
    return f"{known}{unseen}."


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
