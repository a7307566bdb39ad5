"""The detector on the logs of two real runs of verl's trainer: recipes/laptop_collapse.sh, seed 1, 30 steps an arm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verl_llds.compose import compose_run
from verl_llds.diagnostics.phases import PhaseDetector
from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.diagnostics.signals import Phase, signals_from_metrics

DATA = Path(__file__).parent / "data"


def named(arm: str) -> list[tuple[int, Phase]]:
    """Return the phases as they begin, with the recipe's own settings of the detector."""
    settings = DiagnosticsConfig.from_mapping(compose_run(["experiment=laptop_collapse"]).diagnostics)
    detector = PhaseDetector(settings.phases)
    begun = []
    for line in (DATA / f"laptop_{arm}.jsonl").read_text().splitlines():
        row = json.loads(line)
        report = detector.update(signals_from_metrics(row["step"], row["data"]))
        if report.changed:
            begun.append((row["step"], report.phase))
    return begun


def test_grpo_goes_through_the_phases_in_order() -> None:
    begun = named("grpo")
    assert [phase for _, phase in begun] == [Phase.STAGNATION, Phase.DECAY, Phase.ACCELERATION]
    # Entropy passes 2 nats for the first time in step 23, and again from step 29 on; answers fall to 0.55 in step 29.
    assert begun[0][0] < 23
    assert begun[-1][0] < 29


@pytest.mark.parametrize("arm", ["grpo", "grpo_llds"])
def test_neither_arm_is_called_healthy_nor_collapsed_at_the_end(arm: str) -> None:
    # Both rewards hold to the last step, both probes have lost half of what they were.
    assert named(arm)[-1][1] in (Phase.DECAY, Phase.ACCELERATION)
