"""The recording of a training step on verl's driver: chooses trajectories, asks queue and actor, hands them on.

What is on the step's critical path is here: copying the chosen rows out of verl's queue, and one forward pass over
them. The rest is done by `verl_llds.trajectories.recorder` while training goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf
from verl.utils.debug import marked_timer
from verl.workers.utils.padding import response_from_nested

from verl_llds.diagnostics.forward import compute_log_probs, num_ranks
from verl_llds.fields import known_values
from verl_llds.settings import LLDSConfig
from verl_llds.trajectories.recorder import TrajectoryRecorder
from verl_llds.trajectories.rows import Context, StepBatch
from verl_llds.trajectories.selection import choose_rows
from verl_llds.trajectories.settings import TrajectoriesConfig
from verl_llds.trajectories.store import TrajectoryStore

_RESPONSE = ("responses", "response_mask", "old_log_probs", "advantages", "rm_scores", "action_ids", "answer_mask")
_ROW = ("uid", "data_source", "question", "extra_info", "raw_prompt", "reward_model")
"""Plain values; of the last five a dataset need not have any."""


class StepTrajectories:
    """Records the steps that are due; made with the trainer, begins with its first recorded step."""

    def __init__(self, settings: TrajectoriesConfig, correct_reward: float) -> None:
        self.settings = settings
        self.correct_reward = correct_reward
        self.last_step = 0
        """The step a resumed run begins after."""
        self._recorder: TrajectoryRecorder | None = None

    def record(self, trainer: Any, batch: Any, timing: dict[str, float], *, is_measured: bool) -> None:
        """Record the step that has just ended, if it is due.

        Args:
            trainer: verl's trainer, its actor updated.
            batch: verl's ``KVBatchMeta`` of all trajectories of the step.
            timing: verl's timers, to which ``llds_trajectories`` is added, and the forward pass's share of it.
            is_measured: whether all trajectories have been measured after the update.
        """
        if not self.settings.is_due(trainer.global_steps):
            return
        with marked_timer("llds_trajectories", timing):
            keys, num_trajectories = self._chosen(batch)
            if self.settings.post_update and not is_measured:
                with marked_timer("llds_trajectories_forward", timing):
                    compute_log_probs(trainer, batch.partition_id, *_filled(batch, keys, num_ranks(trainer)))
            found = StepBatch(
                step=trainer.global_steps,
                num_trajectories=num_trajectories,
                keys=keys,
                columns=_columns(batch.partition_id, keys, self.settings.post_update or is_measured),
                facts={row["key"]: row for row in trainer.rollouts.rows},
                valid_searches=trainer.rollouts.valid_searches,
            )
            self._started(trainer).record(found)

    def close(self) -> None:
        """Wait until everything is written."""
        if self._recorder is not None:
            self._recorder.close()

    def _started(self, trainer: Any) -> TrajectoryRecorder:
        if self._recorder is None:
            folder = self.settings.dir or f"{trainer.config.trainer.default_local_dir}/trajectories"
            store = TrajectoryStore(Path(folder).expanduser(), self.settings.max_bytes)
            self._recorder = TrajectoryRecorder(store, self._context(trainer), self.last_step)
        return self._recorder

    def _context(self, trainer: Any) -> Context:
        policy_loss = trainer.config.actor_rollout_ref.actor.policy_loss
        # A baseline has no such node: then it is the paper's penalty that would have been.
        node: Any = OmegaConf.to_container(policy_loss.get("llds") or OmegaConf.create(), resolve=True)
        node.pop("_target_", None)
        llds = LLDSConfig(**known_values("algorithm.llds", LLDSConfig, node))
        return Context(
            tokenizer=trainer.tokenizer,
            llds=llds,
            is_applied=policy_loss.get("loss_mode") == "llds" and llds.coef > 0,
            correct_reward=self.correct_reward,
        )

    def _chosen(self, batch: Any) -> tuple[list[str], int]:
        """Return the keys of the rows to keep, and how many trajectories the step has."""
        real = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        data = tq.kv_batch_get(keys=real, partition_id=batch.partition_id, select_fields=["uid", "rm_scores"])
        scores = data["rm_scores"].to_padded_tensor(0).sum(dim=1)
        groups = data.pop("uid").tolist()
        rows = choose_rows(groups, (scores >= self.correct_reward).tolist(), self.settings.max_rows)
        return [real[row] for row in rows], len(real)


def _filled(batch: Any, keys: list[str], ranks: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Return these rows and their tags, with as many others as make them divisible: ranks take the same number."""
    tags = dict(zip(batch.keys, batch.tags, strict=True))
    rest = [key for key in batch.keys if key not in set(keys)]
    rows = keys + rest[: -len(keys) % ranks]
    return rows, [tags[key] for key in rows]


def _columns(partition: str, keys: list[str], is_measured: bool) -> dict[str, list[Any]]:
    """Return verl's columns of these rows, a list each; those that the queue does not hold are left out."""
    names = ["prompts", *_RESPONSE, *_ROW, *(["log_probs"] if is_measured else [])]
    data = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=names)
    if is_measured:
        data["log_probs"] = response_from_nested(data["log_probs"], data["response_mask"])
    columns = {name: data.pop(name).tolist() for name in _ROW if name in data}
    return columns | {name: list(rows.unbind()) for name, rows in data.items()}
