"""``loss_mode=llds`` through verl's registry, verl's settings and verl's own ``ppo_loss``."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import verl  # noqa: F401
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.metric import AggregationType
from verl.workers.config.actor import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss

from verl_llds.errors import ConfigError, PluginError
from verl_llds.loss import policy_loss
from verl_llds.loss.llds import count_preserved_tokens, llds_penalty
from verl_llds.loss.micro_batch import NUM_PRESERVED_KEY, WithLLDSContext
from verl_llds.loss.policy_loss import LLDSPolicyLossConfig, LossContext, llds_policy_loss
from verl_llds.settings import LLDSConfig

PROMPTS = (3, 1, 4, 2)
RESPONSES = (7, 5, 9, 1)
ADVANTAGES = (1.1, 0.0, -0.8, 0.4)
EXACT = {"rtol": 1e-12, "atol": 1e-14}

Rows = list[dict[str, Tensor]]


def make_actor(*overrides: str) -> Any:
    """Build the actor's settings as verl's worker does, from verl's composed configuration."""
    needed = ["actor_rollout_ref.actor.use_dynamic_bsz=true", "actor_rollout_ref.rollout.name=vllm"]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[*needed, *overrides])
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)


@pytest.fixture
def rows() -> Rows:
    """Four ragged rows in float64, each with an observation in its middle and an answer at its end."""
    rng = torch.Generator().manual_seed(0)

    def uniform(length: int) -> Tensor:
        return torch.rand(length, generator=rng, dtype=torch.float64)

    made = []
    for prompt, response, advantage in zip(PROMPTS, RESPONSES, ADVANTAGES, strict=True):
        mask = torch.ones(response, dtype=torch.int64)
        mask[response // 2 : response // 2 + response // 3] = 0
        action_ids = mask * torch.where(torch.arange(response) < max(1, response // 2), 1, 2)
        answer = torch.zeros(response, dtype=torch.int64)
        answer[-2:] = 1
        old = -3 * uniform(response)
        made.append(
            {
                "prompts": torch.ones(prompt, dtype=torch.int64),
                "responses": torch.ones(response, dtype=torch.int64),
                "response_mask": mask,
                "old_log_probs": old,
                "ref_log_prob": old - 0.1 * uniform(response),
                "advantages": advantage * mask.double(),
                "action_ids": action_ids,
                "answer_mask": answer * mask,
                "log_probs": old + 0.6 * (uniform(response) - 0.5),
                "entropy": uniform(response),
            }
        )
    return made


def nested(tensors: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def padded(rows: Rows, name: str) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True)


def num_preserved(rows: Rows) -> int:
    return int(count_preserved_tokens(padded(rows, "advantages"), padded(rows, "response_mask")))


def make_data(rows: Rows, mini_batch: Rows) -> TensorDict:
    """Return one micro-batch of a mini-batch as verl's engine hands it to a loss function."""
    fields = [name for name in rows[0] if name not in ("log_probs", "entropy")]
    data = TensorDict({name: nested([row[name] for row in rows]) for name in fields}, batch_size=len(rows))
    tu.assign_non_tensor(
        data,
        dp_size=1,
        batch_num_tokens=int(sum(row["response_mask"].sum() for row in mini_batch)),
        global_batch_size=len(mini_batch),
        **{NUM_PRESERVED_KEY: num_preserved(mini_batch)},
    )
    return data


def whole_sequence(rows: Rows, values: list[Tensor]) -> Tensor:
    """Return response values as the model gives them: over the whole sequence, one position early."""
    pieces = zip(rows, values, strict=True)
    return nested(
        [torch.cat([value.new_zeros(len(row["prompts"]) - 1), value, value.new_zeros(1)]) for row, value in pieces]
    )


def evaluate(actor: Any, rows: Rows, mini_batch: Rows | None = None) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return loss, gradient ``[B, T]`` and metrics of verl's ``ppo_loss``, wrapped as in our worker."""
    log_probs = [row["log_probs"].clone().requires_grad_() for row in rows]
    output = {
        "log_probs": whole_sequence(rows, log_probs),
        "entropy": whole_sequence(rows, [row["entropy"] for row in rows]),
    }
    loss_fn = WithLLDSContext(partial(ppo_loss, config=actor), getattr(actor.policy_loss, "llds", LLDSConfig()))
    loss, metrics = loss_fn(model_output=output, data=make_data(rows, mini_batch or rows))
    loss.backward()
    gradients = [value.grad for value in log_probs if value.grad is not None]
    return loss.detach(), torch.nn.utils.rnn.pad_sequence(gradients, batch_first=True), metrics


def penalty_alone(rows: Rows, settings: LLDSConfig) -> tuple[Tensor, Tensor]:
    log_prob = padded(rows, "log_probs").requires_grad_()
    names = ("advantages", "response_mask", "action_ids", "answer_mask")
    penalty, _ = llds_penalty(
        old_log_prob=padded(rows, "old_log_probs"),
        log_prob=log_prob,
        num_preserved_tokens=num_preserved(rows),
        settings=settings,
        **{name: padded(rows, name) for name in names},
    )
    penalty.backward()
    assert log_prob.grad is not None
    return penalty.detach(), log_prob.grad


def test_verl_finds_the_loss_by_name() -> None:
    assert get_policy_loss_fn("llds") is llds_policy_loss


def test_verl_builds_our_settings_inside_its_own() -> None:
    actor = make_actor("algorithm=gspo_llds", "algorithm.llds.coef=0.3")
    assert isinstance(actor, FSDPActorConfig)
    assert isinstance(actor.policy_loss, LLDSPolicyLossConfig)
    assert actor.policy_loss.llds == LLDSConfig(coef=0.3)
    assert (actor.policy_loss.loss_mode, actor.policy_loss.base_loss) == ("llds", "gspo")


@pytest.mark.parametrize("base", ["vanilla", "gspo"])
def test_coefficient_0_is_the_base_loss_bit_for_bit(rows: Rows, base: str) -> None:
    stock = make_actor("algorithm=grpo", f"actor_rollout_ref.actor.policy_loss.loss_mode={base}")
    off = f"actor_rollout_ref.actor.policy_loss.base_loss={base}"
    ours = make_actor("algorithm=grpo_llds", "algorithm.llds.coef=0", off)
    loss, gradient, metrics = evaluate(stock, rows)
    our_loss, our_gradient, our_metrics = evaluate(ours, rows)
    assert torch.equal(our_loss, loss)
    assert torch.equal(our_gradient, gradient)
    assert gradient.abs().sum() > 0
    added = {name for name in our_metrics if name not in metrics}
    assert {name.rpartition("/")[0] for name in added} == {"actor/llds"}
    for name, metric in metrics.items():
        assert getattr(our_metrics[name], "values", metric) == getattr(metric, "values", metric)


@pytest.mark.parametrize("choice", ["grpo_llds", "grpo_llds_ma"])
def test_the_loss_is_the_base_plus_coef_times_the_penalty(rows: Rows, choice: str) -> None:
    base_loss, base_gradient, _ = evaluate(make_actor("algorithm=grpo"), rows)
    actor = make_actor(f"algorithm={choice}")
    loss, gradient, metrics = evaluate(actor, rows)
    penalty, penalty_gradient = penalty_alone(rows, actor.policy_loss.llds)
    assert penalty > 0
    torch.testing.assert_close(loss, base_loss + 0.2 * penalty, **EXACT)
    torch.testing.assert_close(gradient, base_gradient + 0.2 * penalty_gradient, **EXACT)
    assert metrics["actor/llds/penalty"].aggregation is AggregationType.SUM
    assert metrics["actor/llds/penalty"].aggregate() == pytest.approx(float(penalty), rel=1e-12)


@pytest.mark.parametrize("cuts", [(2,), (1, 3), (1, 2, 3)])
def test_micro_batches_add_up_to_the_mini_batch(rows: Rows, cuts: tuple[int, ...]) -> None:
    actor = make_actor("algorithm=grpo_llds_ma")
    loss, gradient, metrics = evaluate(actor, rows)
    edges = (0, *cuts, len(rows))
    parts = [evaluate(actor, rows[start:stop], rows) for start, stop in pairwise(edges)]
    torch.testing.assert_close(torch.stack([part[0] for part in parts]).sum(), loss, **EXACT)
    split_rows = [row for part in parts for row in part[1]]
    split_gradient = torch.nn.utils.rnn.pad_sequence(split_rows, batch_first=True)
    torch.testing.assert_close(split_gradient, gradient, **EXACT)
    for name in metrics:
        if name.startswith("actor/llds/"):
            shares = [part[2][name].aggregate() for part in parts]
            assert sum(shares) == pytest.approx(metrics[name].aggregate(), rel=1e-12)


def test_without_its_worker_the_loss_refuses(rows: Rows) -> None:
    actor = make_actor("algorithm=grpo_llds")
    output = {"log_probs": whole_sequence(rows, [row["log_probs"] for row in rows])}
    with pytest.raises(PluginError, match="algorithm=grpo_llds"):
        ppo_loss(config=actor, model_output=output, data=make_data(rows, rows))


def test_an_answer_weight_without_an_answer_mask_is_refused(rows: Rows) -> None:
    bare = [{name: value for name, value in row.items() if name != "answer_mask"} for row in rows]
    with pytest.raises(ConfigError, match="answer_mask"):
        evaluate(make_actor("algorithm=grpo_llds_ma"), bare)


def test_a_batch_without_our_fields_takes_the_runs_of_the_mask_as_actions(rows: Rows) -> None:
    ours = ("action_ids", "answer_mask")
    bare = [{name: value for name, value in row.items() if name not in ours} for row in rows]
    actor = make_actor("algorithm=grpo_llds")
    torch.testing.assert_close(evaluate(actor, bare)[0], evaluate(actor, rows)[0], **EXACT)


def seen_context(data: TensorDict) -> LossContext:
    seen = []

    def loss_fn(**kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
        seen.append(policy_loss.current.get())
        return torch.zeros(()), {}

    WithLLDSContext(loss_fn, LLDSConfig())(model_output={}, data=data)
    (context,) = seen
    assert context is not None
    return context


@pytest.mark.parametrize("extra", [-1, 0, 5])
def test_our_fields_are_cut_or_padded_to_the_responses(rows: Rows, extra: int) -> None:
    width = max(RESPONSES)
    data = make_data(rows, rows)
    # verl fills a batch with rows of one response token that keep our fields of a longer row.
    lengths = [max(1, response + extra) for response in RESPONSES]
    data["action_ids"] = nested([torch.full((length,), 3) for length in lengths])
    data["answer_mask"] = nested([torch.ones(length, dtype=torch.int64) for length in lengths])
    context = seen_context(data)
    assert context.num_preserved_tokens == num_preserved(rows)
    for values, fill in ((context.action_ids, 3), (context.answer_mask, 1)):
        assert values is not None
        assert values.shape == (len(rows), width)
        for row, length in zip(values, lengths, strict=True):
            assert row.tolist() == [fill] * min(length, width) + [0] * max(0, width - length)


def test_fields_that_are_not_nested_are_taken_too(rows: Rows) -> None:
    data = make_data(rows, rows)
    data["action_ids"] = torch.ones(len(rows), 20, dtype=torch.int64)
    values = seen_context(data).action_ids
    assert values is not None
    assert values.shape == (len(rows), max(RESPONSES))


def test_the_context_ends_with_the_call_even_if_it_fails(rows: Rows) -> None:
    def loss_fn(**kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        WithLLDSContext(loss_fn, LLDSConfig())(model_output={}, data=make_data(rows, rows))
    assert policy_loss.current.get() is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.llds.coef=-0.1", "llds.coef must be finite and not negative, got -0.1"),
        ("algorithm.llds.gate=chunk", "llds.gate must be one of action, response, token"),
        ("algorithm.llds.answer_weight=2", "llds.answer_weight must lie in [0, 1]"),
    ],
)
def test_a_bad_setting_is_refused_by_name_when_verl_builds_it(override: str, said: str) -> None:
    with pytest.raises(InstantiationException) as caught:
        make_actor("algorithm=grpo_llds", override)
    assert said in str(caught.value)
    assert isinstance(caught.value.__cause__, ConfigError)
