"""The detector's verdict on a run that is over or goes on: the phase of every step, and what it says in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from verl_llds.diagnostics.phases import Phase, PhaseDetector, PhaseReport, signals_from_metrics
from verl_llds.diagnostics.quantities import WATCHED
from verl_llds.diagnostics.settings import PhaseConfig

PHASE_METRIC = "llds/phase"
"""What a run logs of its own detector: `Phase.number`."""

_WHOLE_UPDATE = "llds/displaced_action_frac/correct"
_WITHIN_UPDATE = f"actor/{_WHOLE_UPDATE}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseSpan:
    """Steps in a row of one phase."""

    phase: Phase
    """The phase."""
    first: int
    """Its first logged step."""
    last: int
    """Its last logged step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the detector says of a whole run."""

    spans: tuple[PhaseSpan, ...]
    """The phases in order; empty for a run without a training step."""
    num_steps: int
    """Training steps that were logged."""
    is_logged: bool
    """Whether the phases are those the run logged; otherwise they were computed from its metrics."""
    began_with: tuple[str, ...]
    """What was away from its baseline when the run was last healthy no more."""
    moved: tuple[str, ...]
    """What was away from its baseline when the present phase began, or as soon after as the detector saw it."""
    advice: str
    """What to try; empty while healthy."""
    unseen: tuple[str, ...]
    """Signals of the detector that were never logged."""

    @property
    def phase(self) -> Phase:
        """The phase after the last step."""
        return self.spans[-1].phase if self.spans else Phase.HEALTHY

    @property
    def trouble(self) -> tuple[PhaseSpan, ...]:
        """The spans since the run was last healthy; empty while it is."""
        return trouble_in(self.spans)

    @property
    def is_early(self) -> bool:
        """Whether the run is shorter than the detector waits by default before it says anything."""
        return self.num_steps <= PhaseConfig().warmup_steps


def judge(metrics: Mapping[int, Mapping[str, float]]) -> Verdict:
    """Name the phases of a run.

    Args:
        metrics: by step, in any order, what was logged. Steps without a reading of the detector, such as an
            evaluation before the first update, are passed over.

    Returns:
        The phases the run logged as ``llds/phase``, or, where it logged none, those that the detector finds in its
        metrics with the default settings.
    """
    steps = {step: _as_detector_reads(metrics, step) for step in sorted(metrics)}
    seen = {step: signals for step, signals in steps.items() if _has_reading(signals)}
    detector = PhaseDetector(PhaseConfig())
    reports = {step: detector.update(signals_from_metrics(step, data)) for step, data in seen.items()}
    numbers = {step: data.get(PHASE_METRIC, -1) for step, data in seen.items()}
    logged = {step: list(Phase)[int(number)] for step, number in numbers.items() if number in range(len(Phase))}
    phases = logged or {step: report.phase for step, report in reports.items()}
    spans = _spans(phases)
    trouble = trouble_in(spans)
    first, present = (_reason(reports, trouble[place]) if trouble else None for place in (0, -1))
    return Verdict(
        spans=spans,
        num_steps=len(phases),
        is_logged=bool(logged),
        began_with=first.moved if first else (),
        moved=present.moved if present else (),
        advice=_advice(present) if present else "",
        unseen=_unseen(seen),
    )


def trouble_in(spans: Sequence[PhaseSpan]) -> tuple[PhaseSpan, ...]:
    """Return the spans since the last healthy one; none while the run is healthy."""
    healthy = [place for place, span in enumerate(spans) if span.phase is Phase.HEALTHY]
    return tuple(spans[healthy[-1] + 1 :] if healthy else spans)


def _as_detector_reads(metrics: Mapping[int, Mapping[str, float]], step: int) -> Mapping[str, float]:
    """Return a step's metrics as the trainer hands them to the detector: one kind of displaced share, not both."""
    data = metrics[step]
    is_mixed = any(_WITHIN_UPDATE in one and _WHOLE_UPDATE not in one for one in metrics.values())
    return {name: value for name, value in data.items() if name != _WHOLE_UPDATE} if is_mixed else data


def _has_reading(data: Mapping[str, float]) -> bool:
    signals = signals_from_metrics(0, data)
    return PHASE_METRIC in data or signals.broken or any(_reading(data, quantity.signal) for quantity in WATCHED)


def _reading(data: Mapping[str, float], signal: str) -> bool:
    return getattr(signals_from_metrics(0, data), signal) is not None


def _spans(phases: Mapping[int, Phase]) -> tuple[PhaseSpan, ...]:
    spans = []
    for phase, group in groupby(sorted(phases.items()), key=lambda item: item[1]):
        steps = [step for step, _ in group]
        spans.append(PhaseSpan(phase=phase, first=steps[0], last=steps[-1]))
    return tuple(spans)


def _reason(reports: Mapping[int, PhaseReport], span: PhaseSpan) -> PhaseReport | None:
    """Return the first report of a span that names what moved."""
    during = (report for step, report in sorted(reports.items()) if span.first <= step <= span.last)
    return next((report for report in during if report.moved), None)


def _advice(report: PhaseReport) -> str:
    """Return what to try, also where the run's own detector, with settings of its own, was quicker than ours."""
    said = [quantity.remedy for quantity in WATCHED if any(one.startswith(quantity.label) for one in report.moved)]
    return report.advice or "; ".join(dict.fromkeys(said))


def _unseen(seen: Mapping[int, Mapping[str, float]]) -> tuple[str, ...]:
    return tuple(
        quantity.label for quantity in WATCHED if not any(_reading(data, quantity.signal) for data in seen.values())
    )
