"""What the trainer does with the diagnostics' verdict, on a base class that stands in for verl's.

The real trainers run in tests/e2e.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue as tq
import transfer_queue.client
import verl  # noqa: F401
from verl.trainer.ppo.v1 import replay_buffer

from verl_llds import trainer as trainer_module
from verl_llds.compose import compose_run
from verl_llds.diagnostics.phases import PhaseReport
from verl_llds.diagnostics.signals import Phase
from verl_llds.diagnostics.step import STATE_FILE, StepDiagnostics
from verl_llds.errors import CollapseError, RolloutError
from verl_llds.trainer import LLDSTrainerMixin


class Base:
    """The part of verl's trainer that the mixin extends."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.global_steps = 7
        self.total_training_steps = 9
        self.parameter_sync_step = 1
        self.calls: list[str] = []
        self.evaluation: Exception
        self.during_step: Callable[[], None] = lambda: None

    def on_step_begin(self) -> None:
        self.calls.append("begin")

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> str:
        self.calls.append("step")
        self.during_step()
        return "batch"

    def _validate(self) -> dict[str, Any]:
        raise self.evaluation

    def _val_metrics_update(self, sources: Any, uids: Any, facts: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        return {"measured": list(facts)}

    def _dump_generations(self, *, inputs: list[str], reward_extra_infos_dict: dict[str, Any]) -> None:
        self.dumped = reward_extra_infos_dict

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        self.calls.append(f"save {self.global_steps}" if (folder / STATE_FILE).exists() else "save too early")

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
    assert trainer.calls == ["step", "save 7"]


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
    counts = ("num_policy", "num_observation", "num_answer", "num_context", "num_cached")
    return {
        "search": {
            "status": status,
            "error": "no result" if status == "retrieval_failed" else "",
            "num_searches": num_searches,
            "turns": [],
            "first_documents": documents,
            **dict.fromkeys(counts, 5),
        }
    }


ROWS = [
    (trajectory("answered", 1, "a"), 1.0),
    (trajectory("answered", 1, "a"), 0.0),
    (trajectory("retrieval_failed", 0), 0.0),
]
BATCH = SimpleNamespace(keys=["0", "1", "2"], partition_id="train", tags=[{}] * 3)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """One group of three trajectories in verl's queue, and a retriever at the start."""
    scores = [torch.tensor([0.0, reward]) for _, reward in ROWS]

    def get(**_: Any) -> dict[str, Any]:
        return {
            "extra_fields": SimpleNamespace(tolist=lambda: [extra for extra, _ in ROWS]),
            "uid": SimpleNamespace(tolist=lambda: ["q"] * 3),
            "rm_scores": torch.nested.as_nested_tensor(scores, layout=torch.jagged),
        }

    monkeypatch.setattr(tq, "kv_batch_get", get)
    monkeypatch.setattr(tq, "kv_batch_put", lambda **_: None)
    monkeypatch.setattr(trainer_module, "check_retriever", lambda _: None)


def rolling(tmp_path: Path, ratio: float) -> Any:
    group = ["data.train_batch_size=1", "actor_rollout_ref.rollout.n=3", "algorithm.llds.coef=0"]
    return make(tmp_path, "search=search_r1", f"search.max_failure_ratio={ratio}", *group)


def test_a_failed_search_is_no_evidence_of_a_wrong_trajectory(tmp_path: Path, queue: None) -> None:
    trainer = rolling(tmp_path, 1.0)
    metrics: dict[str, float] = {}
    trainer._record_rollout(BATCH, metrics)
    assert metrics["llds/observation_match_ratio"] == 1.0
    assert metrics["search/status/retrieval_failed"] == pytest.approx(1 / 3)
    assert trainer.rollouts.rewards == [1.0, 0.0]
    assert trainer.rollouts.valid_searches == 1.0


@pytest.mark.parametrize("saved", ["", "5", "6"])
def test_too_many_failures_stop_the_run_with_the_last_step_saved(tmp_path: Path, queue: None, saved: str) -> None:
    trainer = rolling(tmp_path, 0.3)
    if saved:
        (tmp_path / "latest_checkpointed_iteration.txt").write_text(saved)
    trainer.during_step = lambda: trainer._record_rollout(BATCH, {})
    with pytest.raises(RolloutError, match=r"1 of 3 .* step 7 failed.*state after step 6 is saved in .*global_step_6"):
        trainer.step({}, {})
    assert trainer.calls == (["step"] if saved == "6" else ["step", "save 6"])
    assert trainer.global_steps == 7


def test_before_the_first_step_there_is_nothing_to_save(tmp_path: Path, queue: None) -> None:
    trainer = rolling(tmp_path, 0.3)
    trainer.global_steps = 1
    trainer.during_step = lambda: trainer._record_rollout(BATCH, {})
    with pytest.raises(RolloutError, match="No step was finished"):
        trainer.step({}, {})
    assert trainer.calls == ["step"]


def test_a_step_all_of_whose_rollouts_raised_is_one_of_them(tmp_path: Path, queue: None) -> None:
    trainer = rolling(tmp_path, 0.3)
    said = "Sync replay buffer selected terminal groups with no materializable trajectories."

    def lose() -> None:
        raise RuntimeError(said)

    trainer.during_step = lose
    with pytest.raises(RolloutError, match=said):
        trainer.step({}, {})
    assert trainer.calls == ["step", "save 6"]


def test_other_errors_of_a_step_are_left_alone(tmp_path: Path, queue: None) -> None:
    trainer = rolling(tmp_path, 0.3)

    def fail() -> None:
        raise RuntimeError("out of memory")

    trainer.during_step = fail
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        trainer.step({}, {})
    assert not isinstance(raised.value, RolloutError)
    assert trainer.calls == ["step"]


def test_verl_still_says_what_is_looked_for_when_every_rollout_raised() -> None:
    assert trainer_module._NOTHING_LEFT in inspect.getsource(replay_buffer)


def test_an_evaluation_all_of_whose_rollouts_raised_is_one_of_them(tmp_path: Path, queue: None) -> None:
    trainer = rolling(tmp_path, 0.3)
    trainer.evaluation = ValueError("Received an empty list as keys.")
    with pytest.raises(RolloutError, match=r"every rollout of an evaluation raised.*after step 7"):
        trainer._validate()
    assert trainer.calls == ["save 7"]
    trainer.evaluation = ValueError("another")
    with pytest.raises(ValueError, match="another"):
        trainer._validate()


def test_the_queue_still_says_what_is_looked_for_when_there_are_no_keys() -> None:
    assert trainer_module._NO_KEYS in inspect.getsource(transfer_queue.client)


def test_an_evaluation_that_failed_stops_the_run_with_its_step_saved(tmp_path: Path, queue: None) -> None:
    trainer = rolling(tmp_path, 0.3)
    facts = {"status": ["answered", "retrieval_failed"], "error": ["", "down"], "turns": [[], []]}
    with pytest.raises(RolloutError, match=r"1 of 2 trajectories of an evaluation.*after step 7"):
        trainer._val_metrics_update([], [], facts, [], expected_acc_counts={("nq", "q"): 2})
    assert trainer.calls == ["save 7"]


def test_an_evaluation_is_measured_without_its_turns(tmp_path: Path, queue: None) -> None:
    trainer = rolling(tmp_path, 0.5)
    facts = {"status": ["answered", "retrieval_failed"], "error": ["", "down"], "turns": [[], []]}
    metrics = trainer._val_metrics_update([], [], facts, [], expected_acc_counts={("nq", "q"): 2})
    assert metrics == {"measured": ["status", "error"], "val-aux/search/failure_ratio": 0.5}


@pytest.mark.parametrize(("estimator", "size"), [("grpo", 3), ("gae", 1)])
def test_only_what_compares_siblings_needs_any(
    tmp_path: Path, queue: None, monkeypatch: pytest.MonkeyPatch, estimator: str, size: int
) -> None:
    trainer = rolling(tmp_path, 1.0)
    trainer.config.algorithm.adv_estimator = estimator
    asked = []
    monkeypatch.setattr(trainer.rollouts, "apart", lambda _, group_size: asked.append(group_size) or nullcontext())
    monkeypatch.setattr(Base, "_compute_advantage", lambda *_: None, raising=False)
    trainer._compute_advantage(BATCH, {})
    assert asked == [size]


def test_dumps_of_rollouts_get_statuses_and_turns(tmp_path: Path, queue: None) -> None:
    trainer = rolling(tmp_path, 1.0)
    trainer._record_rollout(BATCH, {})
    trainer._dump_generations(inputs=[], reward_extra_infos_dict={"uid": ["0", "2"]})
    assert trainer.dumped["status"] == ["answered", "retrieval_failed"]
    assert trainer.dumped["error"] == ["", "no result"]


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
