from __future__ import annotations

import math
from typing import Any

import pytest

from verl_llds.diagnostics.signals import PhaseSignals, signals_from_metrics

METRICS = {
    "critic/score/mean": 0.4,
    "actor/entropy": 0.6,
    "search/answer_share": 0.98,
    "llds/probe/log_prob": -0.2,
    "llds/log_prob/correct/old": -0.3,
    "llds/displaced_action_frac/correct": 0.25,
    "llds/nonfinite_tokens": 0.0,
    "llds/probe/nonfinite_tokens": 0.0,
    "perf/throughput": 10.0,
}


def test_every_signal_has_its_metric() -> None:
    assert signals_from_metrics(7, METRICS) == PhaseSignals(
        step=7,
        reward=0.4,
        probe_log_prob=-0.2,
        correct_log_prob=-0.3,
        entropy=0.6,
        answer_share=0.98,
        displaced_share=0.25,
        nonfinite=False,
    )


def test_absent_and_null_metrics_are_none() -> None:
    assert signals_from_metrics(1, {}) == PhaseSignals(step=1)
    assert signals_from_metrics(1, dict.fromkeys(METRICS)) == PhaseSignals(step=1)


@pytest.mark.parametrize(
    "change",
    [
        {"llds/nonfinite_tokens": 1.0},
        {"llds/probe/nonfinite_tokens": 3},
        {"actor/entropy": math.nan},
        {"llds/probe/log_prob": -math.inf},
    ],
)
def test_what_is_not_finite_breaks_the_step(change: dict[str, Any]) -> None:
    assert signals_from_metrics(1, METRICS | change).broken
    assert not signals_from_metrics(1, METRICS).broken
    assert not signals_from_metrics(1, METRICS | dict.fromkeys(change)).broken
