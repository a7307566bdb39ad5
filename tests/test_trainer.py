"""What the trainer does with the diagnostics' verdict, on a base class that stands in for verl's.

The real trainers run in tests/e2e.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue as tq
import verl  # noqa: F401

from verl_llds import trainer as trainer_module
from verl_llds.compose import compose_run
from verl_llds.diagnostics.phases import PhaseReport
from verl_llds.diagnostics.signals import Phase
from verl_llds.diagnostics.step import STATE_FILE, StepDiagnostics
from verl_llds.errors import CollapseError
from verl_llds.trainer import LLDSTrainerMixin


class Base:
    """The part of verl's trainer that the mixin extends."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.global_steps = 7
        self.calls: list[str] = []

    def on_step_begin(self) -> None:
        self.calls.append("begin")

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> str:
        self.calls.append("step")
        return "batch"

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / "global_step_7"
        self.calls.append("save after state" if (folder / STATE_FILE).exists() else "save")

    def _load_checkpoint(self) -> None:
        self.calls.append("load")


class Trainer(LLDSTrainerMixin, Base):
    """The mixin over it."""


def make(tmp_path: Path, *overrides: str) -> Any:
    fixed = ["algorithm=grpo_llds", f"trainer.default_local_dir={tmp_path}", "actor_rollout_ref.rollout.name=vllm"]
    return Trainer(compose_run([*fixed, "data.train_batch_size=512", *overrides]))


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[PhaseReport]:
    """Verdicts handed out one a step, in order."""
    queue: list[PhaseReport] = []
    monkeypatch.setattr(StepDiagnostics, "measure", lambda *_: queue.pop(0))
    return queue


def report(previous: Phase, phase: Phase) -> PhaseReport:
    return PhaseReport(
        phase=phase, previous=previous, changed=phase is not previous, moved=("entropy doubled",), advice="Look."
    )


def test_a_quiet_step_says_nothing(
    tmp_path: Path, verdicts: list[PhaseReport], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(tmp_path)
    verdicts.append(report(Phase.DECAY, Phase.DECAY))
    timings: dict[str, float] = {}
    assert trainer.step({}, timings) == "batch"
    trainer.on_step_begin()
    assert capsys.readouterr().out == ""
    assert trainer.calls == ["step", "begin"]
    assert "llds_diagnostics" in timings


def test_a_new_phase_is_one_line_that_says_what_moved_and_what_to_try(
    tmp_path: Path, verdicts: list[PhaseReport], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(tmp_path)
    verdicts.append(report(Phase.HEALTHY, Phase.DECAY))
    trainer.step({}, {})
    trainer.on_step_begin()
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "verl-llds: step 7: phase decay (was healthy); entropy doubled; try: Look."
    assert trainer.calls == ["step", "begin"]


def test_checkpoint_saves_with_the_state_written_first(tmp_path: Path, verdicts: list[PhaseReport]) -> None:
    trainer = make(tmp_path, "diagnostics.on_phase.decay=checkpoint")
    verdicts.append(report(Phase.HEALTHY, Phase.DECAY))
    trainer.step({}, {})
    assert trainer.calls == ["step", "save after state"]


def test_stop_ends_the_run_before_the_next_step(tmp_path: Path, verdicts: list[PhaseReport]) -> None:
    trainer = make(tmp_path, "diagnostics.on_phase.collapsed=stop")
    verdicts.append(report(Phase.DECAY, Phase.COLLAPSED))
    trainer.step({}, {})
    with pytest.raises(
        CollapseError, match=r"collapsed=stop at step 7: phase collapsed \(was decay\); entropy doubled"
    ):
        trainer.on_step_begin()
    assert trainer.calls == ["step"]


def test_a_recovery_is_said_but_nothing_follows(
    tmp_path: Path, verdicts: list[PhaseReport], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(tmp_path, "diagnostics.on_phase.decay=stop")
    verdicts.append(report(Phase.COLLAPSED, Phase.DECAY))
    trainer.step({}, {})
    trainer.on_step_begin()
    assert "phase decay (was collapsed)" in capsys.readouterr().out


def test_nothing_is_measured_where_it_is_turned_off(tmp_path: Path, verdicts: list[PhaseReport]) -> None:
    trainer = make(tmp_path, "diagnostics.enabled=false")
    trainer.step({}, {})
    assert trainer.calls == ["step"]


def trajectory(status: str, num_searches: int, *documents: str) -> dict[str, Any]:
    return {
        "search": {
            "status": status,
            "num_searches": num_searches,
            "num_asked": 1,
            "num_invalid": 0,
            "search_s": [],
            "num_tokens": 10,
            "num_policy": 5,
            "first_documents": documents,
        }
    }


def test_a_failed_search_is_no_evidence_of_a_wrong_trajectory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        (trajectory("answered", 1, "a"), 1.0),
        (trajectory("answered", 1, "a"), 0.0),
        (trajectory("retrieval_failed", 0), 0.0),
    ]
    scores = [torch.tensor([0.0, reward]) for _, reward in rows]
    columns = {
        "extra_fields": SimpleNamespace(tolist=lambda: [extra for extra, _ in rows]),
        "uid": SimpleNamespace(tolist=lambda: ["q"] * 3),
        "rm_scores": torch.nested.as_nested_tensor(scores, layout=torch.jagged),
    }
    monkeypatch.setattr(tq, "kv_batch_get", lambda **_: columns)
    monkeypatch.setattr(trainer_module, "check_retriever", lambda _: None)
    trainer = make(tmp_path, "search=search_r1", "search.max_failed_ratio=1.0")
    metrics: dict[str, float] = {}
    trainer._record_rollout(SimpleNamespace(keys=["0", "1", "2"], partition_id="train", tags=[{}] * 3), metrics)
    assert metrics["llds/observation_match_ratio"] == 1.0
    assert metrics["search/status/retrieval_failed"] == pytest.approx(1 / 3)
    assert trainer._rewards == [1.0, 0.0]
    assert trainer._valid_searches == pytest.approx(2 / 3)


@pytest.mark.parametrize("by_path", [False, True])
def test_the_state_comes_back_with_the_checkpoint(tmp_path: Path, by_path: bool) -> None:
    first = make(tmp_path, "diagnostics.probe_size=5")
    first._save_checkpoint()
    overrides = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/global_step_7"]
    second = make(tmp_path / "elsewhere" if by_path else tmp_path, *(overrides if by_path else []))
    second._load_checkpoint()
    assert second.diagnostics.probe.size == 5


def test_a_checkpoint_without_state_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)._load_checkpoint()
    assert "global_step_7 holds no state of the diagnostics" in capsys.readouterr().out
