"""A mini-batch as verl's engine hands it to a loss function, and verl's own loss on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.losses import ppo_loss

from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.loss.micro_batch import NUM_PRESERVED_KEY, TALLY_KEY, VALID_SEARCHES_KEY, WithLLDSContext
from verl_llds.settings import LLDSConfig, Preserve

PROMPTS = (3, 1, 4, 2)
RESPONSES = (7, 5, 9, 1)
ADVANTAGES = (1.1, 0.0, -0.8, 0.4)
REWARDS = (1.0, 0.0, 1.0, 0.0)
VALID_SEARCHES = 1.5
MODEL_FIELDS = ("log_probs", "entropy")

Row = dict[str, Tensor]
Rows = list[Row]


@cache
def _composed(choice: str) -> DictConfig:
    needed = ["actor_rollout_ref.actor.use_dynamic_bsz=true", "actor_rollout_ref.rollout.name=vllm"]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[*needed, choice])


@cache
def make_actor(choice: str, *overrides: str) -> Any:
    """Build the actor's settings as verl's worker does, from verl's composed configuration.

    ``choice`` is a Hydra choice such as ``algorithm=grpo``, an override ``key=value`` without quotes.
    """
    config = _composed(choice).copy()
    for key, _, value in (override.partition("=") for override in overrides):
        OmegaConf.update(config, key, yaml.safe_load(value))
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)


def settings_of(actor: Any) -> LLDSConfig:
    """Return the LLDS settings our worker would use with this actor."""
    settings: LLDSConfig = getattr(actor.policy_loss, "llds", LLDSConfig())
    return settings


def make_rows(
    prompts: Sequence[int] = PROMPTS,
    responses: Sequence[int] = RESPONSES,
    advantages: Sequence[float] = ADVANTAGES,
    rewards: Sequence[float] = REWARDS,
    seed: int = 0,
) -> Rows:
    """Return ragged rows in float64, each with an observation in its middle and an answer at its end."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(length: int) -> Tensor:
        return torch.rand(length, generator=rng, dtype=torch.float64)

    made = []
    for prompt, response, advantage, reward in zip(prompts, responses, advantages, rewards, strict=True):
        mask = torch.ones(response, dtype=torch.int64)
        mask[response // 2 : response // 2 + response // 3] = 0
        answer = torch.zeros(response, dtype=torch.int64)
        answer[-2:] = 1
        score = torch.zeros(response)
        score[-1] = reward
        old = -3 * uniform(response)
        made.append(
            {
                "prompts": torch.randint(0, 20, (prompt,), generator=rng),
                "responses": torch.randint(0, 20, (response,), generator=rng),
                "response_mask": mask,
                "old_log_probs": old,
                "ref_log_prob": old - 0.1 * uniform(response),
                "advantages": advantage * mask.double(),
                "rm_scores": score,
                "action_ids": mask * torch.where(torch.arange(response) < max(1, response // 2), 1, 2),
                "answer_mask": answer * mask,
                "log_probs": old + 0.6 * (uniform(response) - 0.5),
                "entropy": uniform(response),
            }
        )
    return made


def nested(tensors: list[Tensor]) -> Tensor:
    """Return verl's form of a field: one tensor per row, jagged."""
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def padded(rows: Rows, name: str) -> Tensor:
    """Return a field as ``[B, T]``, zero-padded."""
    return torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True)


def correct_rows(rows: Rows, settings: LLDSConfig) -> Tensor:
    """Return which rows have a reward of at least ``correct_reward``, ``[B]`` bool."""
    return padded(rows, "rm_scores").sum(dim=1) >= settings.correct_reward


def num_preserved(rows: Rows, settings: LLDSConfig) -> int:
    """Return the number of preserved tokens of a mini-batch."""
    where = (padded(rows, "advantages"), padded(rows, "response_mask"))
    correct = correct_rows(rows, settings)
    return int(count_preserved_tokens(*where, preserve=Preserve(settings.preserve), correct=correct))


def make_data(
    rows: Rows,
    mini_batch: Rows,
    settings: LLDSConfig,
    *,
    dp_size: int = 1,
    tally: bool = False,
    without: Sequence[str] = (),
) -> TensorDict:
    """Return one micro-batch of a mini-batch, which is that of all ranks."""
    fields = [name for name in rows[0] if name not in (*MODEL_FIELDS, *without)]
    data = TensorDict({name: nested([row[name] for row in rows]) for name in fields}, batch_size=len(rows))
    tu.assign_non_tensor(
        data,
        dp_size=dp_size,
        batch_num_tokens=int(sum(row["response_mask"].sum() for row in mini_batch)),
        global_batch_size=len(mini_batch),
        **{
            NUM_PRESERVED_KEY: num_preserved(mini_batch, settings),
            VALID_SEARCHES_KEY: VALID_SEARCHES,
            TALLY_KEY: tally,
        },
    )
    return data


def whole_sequence(rows: Rows, values: list[Tensor]) -> Tensor:
    """Return response values as the model gives them: over the whole sequence, one position early."""
    pieces = zip(rows, values, strict=True)
    return nested(
        [torch.cat([value.new_zeros(len(row["prompts"]) - 1), value, value.new_zeros(1)]) for row, value in pieces]
    )


def evaluate(
    actor: Any, rows: Rows, mini_batch: Rows | None = None, **options: Any
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return loss, gradient ``[B, T]`` and metrics of verl's ``ppo_loss``, wrapped as in our worker."""
    settings = settings_of(actor)
    log_probs = [row["log_probs"].clone().requires_grad_() for row in rows]
    output = {
        "log_probs": whole_sequence(rows, log_probs),
        "entropy": whole_sequence(rows, [row["entropy"] for row in rows]),
    }
    loss_fn = WithLLDSContext(partial(ppo_loss, config=actor), settings, warn=False)
    loss, metrics = loss_fn(model_output=output, data=make_data(rows, mini_batch or rows, settings, **options))
    loss.backward()
    gradients = [value.grad for value in log_probs if value.grad is not None]
    return loss.detach(), torch.nn.utils.rnn.pad_sequence(gradients, batch_first=True), metrics


def penalty_alone(rows: Rows, settings: LLDSConfig) -> tuple[Tensor, Tensor]:
    """Return the penalty of a mini-batch and its gradient ``[B, T]``, from `llds_penalty` itself."""
    log_prob = padded(rows, "log_probs").requires_grad_()
    names = ("advantages", "response_mask", "action_ids", "answer_mask")
    penalty, _ = llds_penalty(
        old_log_prob=padded(rows, "old_log_probs"),
        log_prob=log_prob,
        num_preserved_tokens=num_preserved(rows, settings),
        num_policy_tokens=int(padded(rows, "response_mask").sum()),
        settings=settings,
        correct=correct_rows(rows, settings),
        valid_searches=VALID_SEARCHES,
        **{name: padded(rows, name) for name in names},
    )
    penalty.backward()
    assert log_prob.grad is not None
    return penalty.detach(), log_prob.grad
