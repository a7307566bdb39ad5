"""Forward passes of the actor that a training step does not make by itself."""

from __future__ import annotations

import math
from typing import Any

from transfer_queue import KVBatchMeta


def compute_log_probs(trainer: Any, partition_id: str, keys: list[str], tags: list[dict[str, Any]]) -> None:
    """Have the actor write the column ``log_probs`` of rows in verl's queue, under its present weights.

    Args:
        trainer: verl's trainer.
        partition_id: the rows' part of the queue.
        keys: the rows, as many as `num_ranks` divides.
        tags: verl's, of each row.
    """
    rollout = trainer.config.actor_rollout_ref.rollout
    extra_info = {"calculate_entropy": False, "compute_loss": False, "temperature": rollout.temperature}
    if not rollout.log_prob_use_dynamic_bsz:
        size = math.gcd(len(keys) // num_ranks(trainer), rollout.log_prob_micro_batch_size_per_gpu)
        extra_info["micro_batch_size_per_gpu"] = size
    meta = KVBatchMeta(partition_id=partition_id, keys=keys, tags=tags, extra_info=extra_info)
    trainer.actor_rollout_wg.compute_log_prob(meta)


def num_ranks(trainer: Any) -> int:
    """Return the data-parallel size, as verl's own batch balancing finds it."""
    group = trainer.actor_rollout_wg
    if "actor" not in group._dispatch_info:
        group._dispatch_info["actor"] = group._query_dispatch_info("actor")
    return int(max(group._dispatch_info["actor"])) + 1
