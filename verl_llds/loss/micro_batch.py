"""One micro-batch in the actor worker: the context of its LLDS loss, and the sums its diagnostics are made of.

verl's engine hands a loss function the model's output and the batch. `WithLLDSContext` wraps verl's own function:
it reads from the batch what verl does not pass on, and adds metrics. It does so for any policy loss, so that a
baseline without LLDS is measured like a run with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from verl_llds.diagnostics.tally import flatten, tally
from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.loss.policy_loss import LossContext, current
from verl_llds.settings import LLDSConfig, Preserve

NUM_PRESERVED_KEY = "llds_num_preserved_tokens"
"""Batch entry written by `verl_llds.worker.LLDSTrainingWorker`."""

VALID_SEARCHES_KEY = "llds_valid_searches"
"""Batch entry of the driver: mean number of valid searches of the step's trajectories, or None."""

TALLY_KEY = "llds_tally"
"""Batch entry of the driver: whether to report the sums that likelihood metrics are made of."""

TALLY_PREFIX = "actor/llds_tally"
"""First part of the names of those sums; the driver turns them into metrics and drops them."""


class WithLLDSContext:
    """A loss function for verl's engine: verl's own, called with the LLDS context of its micro-batch."""

    def __init__(
        self, loss_fn: Callable[..., tuple[Tensor, dict[str, Any]]], settings: LLDSConfig, warn: bool = True
    ) -> None:
        self.loss_fn = loss_fn
        self.settings = settings
        self.warn = warn

    def __call__(self, *, model_output: Any, data: Any, dp_group: Any = None) -> tuple[Tensor, dict[str, Any]]:
        """Return verl's loss and metrics, with ours added as sums over micro-batches."""
        if not int(data["batch_num_tokens"]):
            # verl divides by it, and 0/0 would make a loss of NaN out of a mini-batch all of whose searches failed.
            tu.assign_non_tensor(data, batch_num_tokens=1)
        context = self._context(data)
        token = current.set(context)
        try:
            loss, metrics = self.loss_fn(model_output=model_output, data=data, dp_group=dp_group)
        finally:
            current.reset(token)
        if tu.get_non_tensor_data(data, TALLY_KEY, False):
            self._observe(context, model_output, data, metrics)
        for name, value in context.metrics.items():
            metrics[name] = Metric(aggregation=AggregationType.SUM, value=value)
        return loss, metrics

    def _context(self, data: Any) -> LossContext:
        width = int(data["responses"].offsets().diff().max())
        action_ids = _padded(data.get("action_ids", None), width)
        if action_ids is None and self.warn:
            self.warn = False
            warnings.warn(
                "this agent loop gives no action_ids: contiguous runs of the response mask are taken as actions, "
                "so that turns with no masked token between them count as one",
                stacklevel=2,
            )
        return LossContext(
            num_preserved_tokens=int(data[NUM_PRESERVED_KEY]),
            num_policy_tokens=int(data["batch_num_tokens"]),
            dp_size=int(data["dp_size"]),
            action_ids=action_ids,
            answer_mask=_padded(data.get("answer_mask", None), width),
            correct=correct_rows(data, self.settings),
            valid_searches=tu.get_non_tensor_data(data, VALID_SEARCHES_KEY, None),
        )

    @torch.no_grad()
    def _observe(self, context: LossContext, model_output: Any, data: Any, metrics: dict[str, Any]) -> None:
        """Add the tally and, where the policy loss is not LLDS, what its penalty would have been."""
        log_prob = no_padding_2_padding(model_output["log_probs"], data)
        width = log_prob.shape[1]
        tensors = {
            "old_log_prob": _dense(data["old_log_probs"], width),
            "log_prob": log_prob,
            "advantages": _dense(data["advantages"], width),
            "response_mask": _dense(data["response_mask"], width).bool(),
        }
        if not context.metrics:
            context.penalty(**tensors, settings=self.settings)
        ids = action_ids_from_mask(tensors["response_mask"]) if context.action_ids is None else context.action_ids
        context.metrics.update(flatten(tally(**tensors, action_ids=ids), TALLY_PREFIX))
        ratio = torch.where(tensors["response_mask"], log_prob - tensors["old_log_prob"], 0.0).abs()
        finite = torch.isfinite(ratio)
        context.metrics["actor/llds/nonfinite_tokens"] = context.dp_size * float((~finite).sum())
        largest = float(torch.where(finite, ratio, 0.0).max())
        metrics["actor/llds/log_ratio_abs_max"] = Metric(aggregation=AggregationType.MAX, value=largest)


def correct_rows(data: Any, settings: LLDSConfig) -> Tensor | None:
    """Return which rows of a batch are correct, ``[B]`` bool; None if the settings do not ask or it has no rewards."""
    rewards = data.get("rm_scores", None)
    if Preserve(settings.preserve) is not Preserve.CORRECT or rewards is None:
        return None
    correct: Tensor = rewards.to_padded_tensor(0).sum(dim=1) >= settings.correct_reward
    return correct


def _padded(values: Tensor | None, width: int) -> Tensor | None:
    return None if values is None else _dense(values, width)


def _dense(values: Tensor, width: int) -> Tensor:
    """Return a jagged batch field as ``[B, width]``, zero-padded.

    Rows that verl adds to fill a batch copy our fields from a longer row, hence the cut.
    """
    dense = values.to_padded_tensor(0) if values.is_nested else values
    return pad(dense[:, :width], (0, max(0, width - dense.shape[1])))
