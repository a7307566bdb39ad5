from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.diagnostics.phases import Phase
from verl_llds.report.verdict import judge
from verl_llds.report.words import headline, paragraph, source

LOGS = Path(__file__).parents[1] / "diagnostics" / "data"
Metrics = dict[int, dict[str, float]]


def log(name: str) -> Metrics:
    rows = [json.loads(line) for line in (LOGS / f"{name}.jsonl").read_text().splitlines()]
    return {row["step"]: row["data"] for row in rows if "step" in row}


def steps(phases: list[int], **data: float) -> Metrics:
    return {step: {"critic/score/mean": 0.5, "llds/phase": phase, **data} for step, phase in enumerate(phases, start=1)}


def test_a_collapse_is_dated_and_explained() -> None:
    metrics = log("collapses")
    verdict = judge(metrics)
    assert not verdict.is_logged
    assert [(span.phase, span.first) for span in verdict.spans] == [
        (Phase.HEALTHY, 1),
        (Phase.STAGNATION, 25),
        (Phase.DECAY, 27),
        (Phase.COLLAPSED, 32),
    ]
    assert headline(verdict) == "Collapsed since step 32"
    said = paragraph(verdict, metrics)
    assert said.startswith(
        "Not healthy since step 25 (the last step is 80): stagnation from step 25, decay from step 27"
    )
    assert "It began with this: the log-probability per token of the probe set is" in said
    assert "roll back to the last checkpoint not after step" in verdict.advice
    assert "did not log llds/phase" in source(verdict)


def test_logged_phases_count_and_are_explained() -> None:
    metrics = log("laptop_grpo")
    verdict = judge(metrics)
    assert verdict.is_logged
    assert verdict.phase is Phase.ACCELERATION
    assert verdict.spans[-1].first == next(step for step, data in metrics.items() if data["llds/phase"] == 3)
    assert any("entropy" in one for one in verdict.moved)
    assert "lower the learning rate" in verdict.advice


def test_a_recovery_is_told() -> None:
    metrics = steps([0] * 30 + [1] * 3 + [2] + [0] * 20)
    verdict = judge(metrics)
    assert headline(verdict) == "Healthy"
    assert "It recovered from stagnation in steps 31 to 33 and decay at step 34." in paragraph(verdict, metrics)
    assert verdict.trouble == ()
    assert verdict.advice == ""


def test_short_and_empty_runs_get_no_verdict() -> None:
    short = judge(steps([0] * 5))
    assert headline(short) == "Too early for a verdict"
    assert "waits for 20 steps" in paragraph(short, steps([0] * 5))
    empty = judge({0: {"val-core/em": 0.5}})
    assert headline(empty) == "No training step is logged"
    assert "nothing to judge" in paragraph(empty, {})
    assert source(empty) == ""


def test_an_alarm_that_the_metrics_do_not_explain_says_so() -> None:
    metrics = steps([0] * 25 + [2] * 5)
    assert "cannot be told" in paragraph(judge(metrics), metrics)


def test_what_was_not_logged_is_named() -> None:
    assert "without the log-probability per token of the probe set" in source(judge(steps([0] * 30)))


def test_a_value_that_is_not_finite_is_a_collapse() -> None:
    metrics = {step: {"critic/score/mean": 0.5, "actor/entropy": 0.3} for step in range(1, 40)}
    metrics[39]["actor/entropy"] = math.nan
    verdict = judge(metrics)
    assert verdict.phase is Phase.COLLAPSED
    assert "not finite" in paragraph(verdict, metrics)


def test_a_phase_that_is_none_is_passed_over() -> None:
    metrics = steps([0] * 30)
    metrics[4]["llds/phase"], metrics[5]["llds/phase"] = math.nan, 7
    verdict = judge(metrics)
    assert verdict.phase is Phase.HEALTHY
    assert verdict.num_steps == 28


def test_displaced_shares_of_two_kinds_are_not_mixed() -> None:
    whole, within = "llds/displaced_action_frac/correct", "actor/llds/displaced_action_frac/correct"
    metrics: Metrics = {step: {within: 0.2 + 0.01 * (step % 3)} for step in range(1, 80)}
    for step in range(40, 80, 2):
        metrics[step][whole] = 0.6
    assert judge(metrics).phase is Phase.HEALTHY


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_spans_cover_every_step_once(phases: list[int]) -> None:
    metrics = steps(phases)
    verdict = judge(metrics)
    covered = [step for span in verdict.spans for step in range(span.first, span.last + 1)]
    assert covered == list(metrics)
    assert verdict.phase.number == phases[-1]
    assert all(span.phase is not Phase.HEALTHY for span in verdict.trouble)
    assert paragraph(verdict, metrics).endswith(".")


@pytest.mark.parametrize("name", ["holds", "laptop_grpo_llds"])
def test_every_log_gives_whole_sentences(name: str) -> None:
    metrics = log(name)
    said = paragraph(judge(metrics), metrics)
    assert "  " not in said
    assert "step" in said
