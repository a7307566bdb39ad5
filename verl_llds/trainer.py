"""verl's three trainer modes with the LLDS worker, diagnostics and checks before anything heavy starts.

``algorithm=grpo_llds`` and its siblings select ``trainer.v1.trainer_mode=llds_sync``; ``llds_colocate_async`` and
``llds_separate_async`` are the same over verl's asynchronous trainers.
"""

from __future__ import annotations

import os
import statistics
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import (
    PPOTrainerColocateAsync,
    PPOTrainerSeparateAsync,
    PPOTrainerSync,
    register_trainer,
)
from verl.utils.debug import marked_timer

from verl_llds.checks import check_chat_template, check_config, check_experts, check_retriever
from verl_llds.diagnostics.collect import observation_match_ratio
from verl_llds.diagnostics.phases import PhaseReport
from verl_llds.diagnostics.settings import DiagnosticsConfig, OnPhase
from verl_llds.diagnostics.step import StepDiagnostics
from verl_llds.errors import CollapseError
from verl_llds.loss.micro_batch import TALLY_KEY, VALID_SEARCHES_KEY
from verl_llds.search.agent_loop import TRAJECTORY_KEY, search_settings
from verl_llds.search.metrics import check_failures, search_metrics
from verl_llds.search.trajectory import EpisodeStatus
from verl_llds.worker import LLDSActorRolloutRefWorker, LLDSDetachActorWorker

MODE_PREFIX = "llds_"


class LLDSTrainerMixin:
    """What the plugin adds to a verl trainer; mixed in before one of verl's trainer classes."""

    config: DictConfig
    tokenizer: Any
    global_steps: int
    role_worker_mapping: dict[Any, Any]
    worker_cls: type = LLDSActorRolloutRefWorker

    def __init__(self, config: DictConfig) -> None:
        check_config(config)
        if config.get("search") is not None:
            check_retriever(search_settings(config))
        self.diagnostics = StepDiagnostics(DiagnosticsConfig.from_mapping(config.get("diagnostics")))
        self._valid_searches: float | None = None
        self._rewards: list[float] = []
        self._stop_reason = ""
        # verl compares the mode with its own names to choose its behaviour.
        with open_dict(config):
            config.trainer.v1.trainer_mode = config.trainer.v1.trainer_mode.removeprefix(MODE_PREFIX)
        super().__init__(config)  # type: ignore[call-arg]

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()  # type: ignore[misc]
        check_chat_template(self.tokenizer, self.config.actor_rollout_ref.model.path)
        check_experts(self.config)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()  # type: ignore[misc]
        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(self.worker_cls)

    def on_step_begin(self) -> None:
        """Stop here, with the last step's metrics logged, if the detector's verdict asked for it.

        Raises:
            CollapseError: naming the phase, what moved and what to try.
        """
        if self._stop_reason:
            raise CollapseError(self._stop_reason)
        super().on_step_begin()  # type: ignore[misc]

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """Run one training step, then measure it."""
        self._rewards = []
        batch = super().step(metrics, timing_raw)  # type: ignore[misc]
        if self.diagnostics.settings.enabled:
            reward = statistics.fmean(self._rewards) if self._rewards else None
            with marked_timer("llds_diagnostics", timing_raw):
                report = self.diagnostics.measure(self, batch, metrics, reward)
            self._act_on(report)
        return batch

    def _act_on(self, report: PhaseReport) -> None:
        """Say on the console that the phase has changed, and do what the settings want done then."""
        if not report.changed:
            return
        text = f"step {self.global_steps}: {report}"
        print(f"verl-llds: {text}", flush=True)
        if report.phase.number <= report.previous.number:
            return
        action = self.diagnostics.settings.action(report.phase)
        if action is OnPhase.CHECKPOINT:
            self._save_checkpoint()
        elif action is OnPhase.STOP:
            self._stop_reason = f"stopped by diagnostics.on_phase.{report.phase.value}=stop at {text}"

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self._record_rollout(batch, metrics)
        return super()._compute_advantage(batch, metrics)  # type: ignore[misc]

    def _record_rollout(self, batch: Any, metrics: dict[str, Any]) -> None:
        """Add ``search/*`` and stop the run, before its update, if too many searches failed."""
        fields = ["extra_fields", "uid", "rm_scores"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        rewards = data["rm_scores"].to_padded_tensor(0).sum(dim=1).tolist()
        columns = (data.pop("extra_fields").tolist(), data.pop("uid").tolist(), rewards, batch.tags)
        # Rows that verl adds to fill a batch copy another row's fields.
        real = [row for row in zip(*columns, strict=True) if not row[3].get("is_padding", False)]
        self._rewards += [reward for extra, _, reward, _ in real if not _has_failed(extra.get(TRAJECTORY_KEY))]
        threshold = self.diagnostics.settings.correct_reward
        rows = [
            {**extra[TRAJECTORY_KEY], "uid": uid, "correct": reward >= threshold}
            for extra, uid, reward, _ in real
            if TRAJECTORY_KEY in extra
        ]
        self._valid_searches = None
        if not rows:
            return
        self._valid_searches = statistics.fmean(row["num_searches"] for row in rows)
        metrics.update(search_metrics(rows))
        match = observation_match_ratio([row for row in rows if not _has_failed(row)])
        if match is not None:
            metrics["llds/observation_match_ratio"] = match
        check_failures(rows, search_settings(self.config))

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info[VALID_SEARCHES_KEY] = self._valid_searches
        batch.extra_info[TALLY_KEY] = self.diagnostics.settings.enabled
        return super()._update_actor(batch, metrics)  # type: ignore[misc]

    def _save_checkpoint(self) -> None:
        # First, so that a checkpoint which verl has marked as complete holds it.
        self.diagnostics.save(os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}"))
        super()._save_checkpoint()  # type: ignore[misc]

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()  # type: ignore[misc]
        if self.global_steps == 0:
            return
        trainer = self.config.trainer
        folder = os.path.join(trainer.default_local_dir, f"global_step_{self.global_steps}")
        if trainer.resume_mode == "resume_path":
            folder = trainer.resume_from_path
        if not self.diagnostics.load(folder):
            print(f"verl-llds: {folder} holds no state of the diagnostics; they start anew", flush=True)


def _has_failed(facts: dict[str, Any] | None) -> bool:
    """Return whether the environment failed a trajectory, whose reward then says nothing about the policy."""
    return facts is not None and EpisodeStatus(facts["status"]).is_failure


@register_trainer("llds_sync")
class LLDSTrainerSync(LLDSTrainerMixin, PPOTrainerSync):  # type: ignore[misc]
    """verl's synchronous trainer with LLDS."""


@register_trainer("llds_colocate_async")
class LLDSTrainerColocateAsync(LLDSTrainerMixin, PPOTrainerColocateAsync):  # type: ignore[misc]
    """verl's colocated asynchronous trainer with LLDS."""


@register_trainer("llds_separate_async")
class LLDSTrainerSeparateAsync(LLDSTrainerMixin, PPOTrainerSeparateAsync):  # type: ignore[misc]
    """verl's separated asynchronous trainer with LLDS."""

    worker_cls = LLDSDetachActorWorker
