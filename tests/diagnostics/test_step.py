"""A step's diagnostics on the driver: the workers' sums become facts, the detector reads one source, state is kept.

The forward passes run in tests/e2e.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import verl  # noqa: F401

from verl_llds.diagnostics import step
from verl_llds.diagnostics.phases import PhaseDetector
from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.diagnostics.signals import PhaseSignals
from verl_llds.diagnostics.step import StepDiagnostics
from verl_llds.diagnostics.tally import flatten
from verl_llds.loss.micro_batch import TALLY_PREFIX


def sums() -> dict[str, float]:
    """The sums of one correct action of four tokens, three of which fell."""
    values = torch.zeros(3, 3, 6, dtype=torch.float64)
    values[0, 0] = torch.tensor([4.0, -2.0, -3.0, 3.0, 1.0, 1.0])
    return flatten(values, TALLY_PREFIX)


def trainer(global_steps: int) -> Any:
    return SimpleNamespace(global_steps=global_steps)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[PhaseSignals]:
    """What the detector is shown."""
    shown: list[PhaseSignals] = []
    update = PhaseDetector.update

    def record(self: PhaseDetector, signals: PhaseSignals) -> Any:
        shown.append(signals)
        return update(self, signals)

    monkeypatch.setattr(PhaseDetector, "update", record)
    return shown


def test_sums_become_facts(seen: list[PhaseSignals]) -> None:
    metrics: dict[str, Any] = {"actor/entropy": 0.5, **sums()}
    StepDiagnostics(DiagnosticsConfig()).measure(trainer(1), None, metrics, reward=0.25)
    assert not [name for name in metrics if "tally" in name]
    assert metrics["actor/llds/displacement/correct"] == 0.25
    assert metrics["actor/llds/displaced_token_frac/correct/first_action"] == 0.75
    assert metrics["llds/phase"] == 0
    (signals,) = seen
    assert (signals.reward, signals.entropy, signals.displaced_share) == (0.25, 0.5, 1.0)


def test_a_step_without_sums_is_measured_all_the_same(seen: list[PhaseSignals]) -> None:
    metrics: dict[str, Any] = {}
    StepDiagnostics(DiagnosticsConfig()).measure(trainer(1), None, metrics, reward=None)
    assert metrics == {"llds/phase": 0}
    assert seen[0].reward is None


@pytest.mark.parametrize(("every", "at", "share"), [(1, 3, 0.5), (3, 3, 1.0), (3, 4, 1.0)])
def test_the_detector_never_mixes_shares_of_two_kinds(
    every: int, at: int, share: float, seen: list[PhaseSignals], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "_post_update", lambda *_: {"llds/displaced_action_frac/correct": 0.5})
    diagnostics = StepDiagnostics(DiagnosticsConfig(post_update_every=every))
    metrics: dict[str, Any] = sums()
    diagnostics.measure(trainer(at), None, metrics, reward=None)
    assert ("llds/displaced_action_frac/correct" in metrics) == (at % every == 0)
    assert seen[0].displaced_share == share


def test_state_goes_through_a_file(tmp_path: Path) -> None:
    first = StepDiagnostics(DiagnosticsConfig())
    for number in range(1, 40):
        first.measure(trainer(number), None, {"actor/entropy": 1 + 0.01 * (number % 3)}, reward=0.5)
    first.save(str(tmp_path / "global_step_39"))
    second = StepDiagnostics(DiagnosticsConfig())
    assert second.load(str(tmp_path / "global_step_39"))
    assert second.detector.state_dict() == first.detector.state_dict()
    assert not second.load(str(tmp_path / "elsewhere"))
