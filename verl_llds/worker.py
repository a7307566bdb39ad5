"""verl's actor worker with what the LLDS loss needs: the preserved tokens of each mini-batch, and its context.

The paper divides the penalty by the policy tokens of the preserving set. verl splits a mini-batch into
micro-batches over data-parallel ranks, so the count has to be taken, and summed over ranks, before the split.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from verl_llds.cpu import platform
from verl_llds.loss.llds import count_preserved_tokens
from verl_llds.loss.micro_batch import NUM_PRESERVED_KEY, WithLLDSContext, correct_rows
from verl_llds.settings import LLDSConfig, Preserve


class LLDSTrainingWorker(TrainingWorker):  # type: ignore[misc]
    """Counts the preserved tokens of a mini-batch before verl splits it."""

    llds = LLDSConfig()
    """The settings; replaced by the run's where it has any."""

    def train_batch(self, data: Any) -> Any:
        """Train on one mini-batch; every rank calls it with its own rows."""
        count = count_preserved_tokens(
            data["advantages"].to_padded_tensor(0),
            data["response_mask"].to_padded_tensor(0),
            preserve=Preserve(self.llds.preserve),
            correct=correct_rows(data, self.llds),
        ).to(get_device_id())
        torch.distributed.all_reduce(count, group=self.engine.get_data_parallel_group())
        tu.assign_non_tensor(data, **{NUM_PRESERVED_KEY: count.item()})
        return super().train_batch(data)


class _LLDSActor:
    """Trains the actor of a verl worker with the LLDS context around verl's loss."""

    actor_worker_cls = LLDSTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def init_model(self) -> None:
        """Build the models as verl does, then wrap the actor's loss."""
        if platform.is_chosen():
            platform.use_all_cores()
        super().init_model()  # type: ignore[misc]
        if self.actor is None:  # type: ignore[attr-defined]
            return
        # A baseline has no LLDS settings; the defaults then measure what the paper's penalty would have been.
        policy_loss = self.loss_fn.keywords["config"].policy_loss  # type: ignore[attr-defined]
        settings = getattr(policy_loss, "llds", LLDSConfig())
        self.actor.llds = settings  # type: ignore[attr-defined]
        first = torch.distributed.get_rank() == 0
        self.actor.set_loss_fn(WithLLDSContext(self.loss_fn, settings, warn=first))  # type: ignore[attr-defined]


class LLDSActorRolloutRefWorker(_LLDSActor, ActorRolloutRefWorker):  # type: ignore[misc]
    """verl's colocated worker with LLDS."""


class LLDSDetachActorWorker(_LLDSActor, DetachActorWorker):  # type: ignore[misc]
    """The worker of verl's separated asynchronous trainer with LLDS."""
