"""verl's three trainer modes with the LLDS worker, search metrics and checks before anything heavy starts.

``algorithm=grpo_llds`` and its siblings select ``trainer.v1.trainer_mode=llds_sync``; ``llds_colocate_async`` and
``llds_separate_async`` are the same over verl's asynchronous trainers.
"""

from __future__ import annotations

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

from verl_llds.checks import check_chat_template, check_config, check_retriever
from verl_llds.search.agent_loop import TRAJECTORY_KEY, search_settings
from verl_llds.search.metrics import check_failures, search_metrics
from verl_llds.worker import LLDSActorRolloutRefWorker, LLDSDetachActorWorker

MODE_PREFIX = "llds_"


class LLDSTrainerMixin:
    """What the plugin adds to a verl trainer; mixed in before one of verl's trainer classes."""

    config: DictConfig
    tokenizer: Any
    role_worker_mapping: dict[Any, Any]
    worker_cls: type = LLDSActorRolloutRefWorker

    def __init__(self, config: DictConfig) -> None:
        check_config(config)
        if config.get("search") is not None:
            check_retriever(search_settings(config))
        # verl compares the mode with its own names to choose its behaviour.
        with open_dict(config):
            config.trainer.v1.trainer_mode = config.trainer.v1.trainer_mode.removeprefix(MODE_PREFIX)
        super().__init__(config)  # type: ignore[call-arg]

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()  # type: ignore[misc]
        check_chat_template(self.tokenizer, self.config.actor_rollout_ref.model.path)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()  # type: ignore[misc]
        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(self.worker_cls)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self._record_search(batch, metrics)
        return super()._compute_advantage(batch, metrics)  # type: ignore[misc]

    def _record_search(self, batch: Any, metrics: dict[str, Any]) -> None:
        """Add ``search/*`` and stop the run, before its update, if too many searches failed."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        # Rows that verl adds to fill a batch copy another row's fields.
        rows = [
            fields[TRAJECTORY_KEY]
            for fields, tag in zip(data.pop("extra_fields").tolist(), batch.tags, strict=True)
            if TRAJECTORY_KEY in fields and not tag.get("is_padding", False)
        ]
        if not rows:
            return
        metrics.update(search_metrics(rows))
        check_failures(rows, search_settings(self.config))


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
