"""verl's three trainer modes with the LLDS worker, diagnostics and checks before anything heavy starts.

``algorithm=grpo_llds`` and its siblings select ``trainer.v1.trainer_mode=llds_sync``; ``llds_colocate_async`` and
``llds_separate_async`` are the same over verl's asynchronous trainers.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig, open_dict
from verl.trainer.ppo.core_algos import AdvantageEstimator
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import (
    PPOTrainerColocateAsync,
    PPOTrainerSeparateAsync,
    PPOTrainerSync,
    register_trainer,
)
from verl.utils.debug import marked_timer

from verl_llds.checks import check_chat_template, check_config, check_experts, check_retriever, check_search
from verl_llds.diagnostics.collect import observation_match_ratio
from verl_llds.diagnostics.history import keep_earlier_metrics
from verl_llds.diagnostics.phases import PhaseReport
from verl_llds.diagnostics.settings import DiagnosticsConfig, OnPhase
from verl_llds.diagnostics.step import StepDiagnostics
from verl_llds.errors import CollapseError, RolloutError
from verl_llds.loss.micro_batch import TALLY_KEY, VALID_SEARCHES_KEY
from verl_llds.search.failures import has_failed
from verl_llds.search.step import StepRollouts, check_evaluation
from verl_llds.trajectories.step import StepTrajectories
from verl_llds.worker import LLDSActorRolloutRefWorker, LLDSDetachActorWorker

MODE_PREFIX = "llds_"

_NOTHING_LEFT = "no materializable trajectories"
"""What verl says when every rollout of a step raised."""


_NO_KEYS = "empty list as keys"
"""What the queue says when every rollout of an evaluation raised."""


class LLDSTrainerMixin:
    """What the plugin adds to a verl trainer; mixed in before one of verl's trainer classes."""

    config: DictConfig
    tokenizer: Any
    global_steps: int
    total_training_steps: int
    parameter_sync_step: int
    role_worker_mapping: dict[Any, Any]
    worker_cls: type = LLDSActorRolloutRefWorker

    def __init__(self, config: DictConfig) -> None:
        check_config(config)
        self.search = check_search(config)
        if config.get("search") is not None:
            check_retriever(self.search)
        self.rollouts = StepRollouts(self.search)
        settings = DiagnosticsConfig.from_mapping(config.get("diagnostics"))
        self.diagnostics = StepDiagnostics(settings)
        self.trajectories = StepTrajectories(settings.trajectories, settings.correct_reward)
        self._stop_reason = ""
        # verl compares the mode with its own names to choose its behaviour.
        with open_dict(config):
            config.trainer.v1.trainer_mode = config.trainer.v1.trainer_mode.removeprefix(MODE_PREFIX)
        super().__init__(config)  # type: ignore[call-arg]

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()  # type: ignore[misc]
        settings = self.search if self.config.get("search") is not None else None
        check_chat_template(self.tokenizer, self.config.actor_rollout_ref.model.path, settings)
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
        """Run one training step, then measure it.

        Raises:
            RolloutError: if too many trajectories failed, with a checkpoint of the last finished step saved.
        """
        self.rollouts.begin()
        try:
            batch = super().step(metrics, timing_raw)  # type: ignore[misc]
        except RuntimeError as error:
            if not isinstance(error, RolloutError) and _NOTHING_LEFT not in str(error):
                raise
            raise self._saved(error, self.global_steps - 1) from error
        metrics["llds/total_steps"] = self.total_training_steps
        if self.diagnostics.settings.enabled:
            rewards = self.rollouts.rewards
            reward = statistics.fmean(rewards) if rewards else None
            with marked_timer("llds_diagnostics", timing_raw):
                report = self.diagnostics.measure(self, batch, metrics, reward)
            self._act_on(report)
        is_measured = self.diagnostics.settings.is_measured(self.global_steps)
        self.trajectories.record(self, batch, timing_raw, is_measured=is_measured)
        return batch

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train as verl does; whatever the end, the recorded trajectories are written out."""
        self.trajectories.last_step = self.global_steps
        try:
            return super().fit(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.trajectories.close()

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

    def _saved(self, error: Exception, num_steps: int) -> RolloutError:
        """Save the state after so many finished steps, unless that is done, and say so in the error."""
        folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{num_steps}")
        if num_steps == 0:
            return RolloutError(f"{error}. No step was finished, so there is nothing to save")
        if not self._has_checkpoint(num_steps):
            current, self.global_steps = self.global_steps, num_steps
            self._save_checkpoint()
            self.global_steps = current
        return RolloutError(f"{error}. The state after step {num_steps} is saved in {folder}, where it will resume")

    def _has_checkpoint(self, num_steps: int) -> bool:
        tracker = Path(self.config.trainer.default_local_dir, "latest_checkpointed_iteration.txt")
        return tracker.is_file() and tracker.read_text().strip() == str(num_steps)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self._record_rollout(batch, metrics)
        # Other estimators compare with a value function, or with the whole batch.
        is_compared = self.config.algorithm.adv_estimator == AdvantageEstimator.GRPO
        with self.rollouts.apart(batch, self.config.actor_rollout_ref.rollout.n if is_compared else 1):
            return super()._compute_advantage(batch, metrics)  # type: ignore[misc]

    def _record_rollout(self, batch: Any, metrics: dict[str, Any]) -> None:
        """Add ``search/*`` and stop the run, before its update, if too many trajectories failed."""
        config = self.config
        num_expected = config.data.train_batch_size // self.parameter_sync_step * config.actor_rollout_ref.rollout.n
        threshold = self.diagnostics.settings.correct_reward
        metrics.update(self.rollouts.record(batch, num_expected, threshold, f"step {self.global_steps}"))
        match = observation_match_ratio([row for row in self.rollouts.rows if not has_failed(row)])
        if match is not None:
            metrics["llds/observation_match_ratio"] = match

    def _validate(self) -> Any:
        try:
            return super()._validate()  # type: ignore[misc]
        except ValueError as error:
            if _NO_KEYS not in str(error):
                raise
            lost = RolloutError("every rollout of an evaluation raised; the log has their errors, as verl wrote them")
            raise self._saved(lost, self.global_steps) from error

    def _val_metrics_update(self, data_sources: Any, sample_uids: Any, facts: Any, *args: Any, **kwargs: Any) -> Any:
        expected = kwargs.get("expected_acc_counts") or {}
        try:
            found = check_evaluation(facts, sum(expected.values()), self.search)
        except RolloutError as error:
            raise self._saved(error, self.global_steps) from error
        metrics = super()._val_metrics_update(data_sources, sample_uids, facts, *args, **kwargs)  # type: ignore[misc]
        return {**metrics, **found}

    def _dump_generations(self, *args: Any, reward_extra_infos_dict: dict[str, list[Any]], **kwargs: Any) -> None:
        columns = {**reward_extra_infos_dict, **self.rollouts.dumped(reward_extra_infos_dict.get("uid", []))}
        super()._dump_generations(*args, reward_extra_infos_dict=columns, **kwargs)  # type: ignore[misc]

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info[VALID_SEARCHES_KEY] = self.rollouts.valid_searches
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
        keep_earlier_metrics(self.config.trainer)
        trainer = self.config.trainer
        folder = os.path.join(trainer.default_local_dir, f"global_step_{self.global_steps}")
        if trainer.resume_mode == "resume_path":
            folder = trainer.resume_from_path
        if not self.diagnostics.load(folder):
            print(f"verl-llds: {folder} holds no state of the diagnostics; they start anew", flush=True)


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
