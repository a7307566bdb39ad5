"""``loss_mode=llds`` through verl's registry, verl's settings and verl's own ``ppo_loss``."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import verl  # noqa: F401
from hydra.errors import InstantiationException
from loss_mini_batch import (
    Rows,
    evaluate,
    make_actor,
    make_data,
    make_rows,
    penalty_alone,
    settings_of,
    whole_sequence,
)
from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn
from verl.utils.metric import AggregationType
from verl.workers.config.actor import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss

from verl_llds.errors import ConfigError, PluginError
from verl_llds.loss.policy_loss import LLDSPolicyLossConfig, llds_policy_loss
from verl_llds.settings import LLDSConfig

EXACT = {"rtol": 1e-12, "atol": 1e-14}

POLICY_LOSS = "actor_rollout_ref.actor.policy_loss"
# dro refuses to run without.
DRO_BETA = f"{POLICY_LOSS}.dro_beta=0.1"
# bypass_mode takes old_log_prob for the rollout's, needs rollout_correction settings that only that mode has, and
# is refused by the plugin's checks.
BASES = sorted(set(POLICY_LOSS_REGISTRY) - {"llds", "bypass_mode"})


@pytest.fixture
def rows() -> Rows:
    return make_rows()


def test_verl_finds_the_loss_by_name() -> None:
    assert get_policy_loss_fn("llds") is llds_policy_loss


def test_verl_builds_our_settings_inside_its_own() -> None:
    actor = make_actor("algorithm=gspo_llds", "algorithm.llds.coef=0.3")
    assert isinstance(actor, FSDPActorConfig)
    assert isinstance(actor.policy_loss, LLDSPolicyLossConfig)
    assert actor.policy_loss.llds == LLDSConfig(coef=0.3)
    assert (actor.policy_loss.loss_mode, actor.policy_loss.base_loss) == ("llds", "gspo")


@pytest.mark.parametrize("base", BASES)
def test_coefficient_0_is_the_base_loss_bit_for_bit(rows: Rows, base: str) -> None:
    stock = make_actor("algorithm=grpo", f"{POLICY_LOSS}.loss_mode={base}", DRO_BETA)
    ours = make_actor("algorithm=grpo_llds", "algorithm.llds.coef=0", f"{POLICY_LOSS}.base_loss={base}", DRO_BETA)
    torch.manual_seed(0)
    loss, gradient, metrics = evaluate(stock, rows)
    torch.manual_seed(0)
    our_loss, our_gradient, our_metrics = evaluate(ours, rows)
    assert torch.equal(our_loss, loss)
    assert torch.equal(our_gradient, gradient)
    assert gradient.abs().sum() > 0
    added = {name for name in our_metrics if name not in metrics}
    assert {name.rpartition("/")[0] for name in added} == {"actor/llds"}
    assert our_metrics["actor/llds/penalty"].aggregate() > 0
    for name, metric in metrics.items():
        assert getattr(our_metrics[name], "values", metric) == getattr(metric, "values", metric)


@pytest.mark.parametrize("base", BASES)
def test_the_loss_is_the_base_plus_coef_times_the_penalty(rows: Rows, base: str) -> None:
    stock = make_actor("algorithm=grpo", f"{POLICY_LOSS}.loss_mode={base}", DRO_BETA)
    ours = make_actor("algorithm=grpo_llds", "algorithm.llds.coef=0.3", f"{POLICY_LOSS}.base_loss={base}", DRO_BETA)
    # Some base losses draw random numbers.
    torch.manual_seed(0)
    base_loss, base_gradient, base_metrics = evaluate(stock, rows)
    torch.manual_seed(0)
    loss, gradient, metrics = evaluate(ours, rows)
    penalty, penalty_gradient = penalty_alone(rows, LLDSConfig())
    assert penalty > 0
    torch.testing.assert_close(loss, base_loss + 0.3 * penalty, **EXACT)
    torch.testing.assert_close(gradient, base_gradient + 0.3 * penalty_gradient, **EXACT)
    assert metrics["actor/llds/penalty"].aggregation is AggregationType.SUM
    assert metrics["actor/llds/penalty"].aggregate() == pytest.approx(float(penalty), rel=1e-12)
    for name, metric in base_metrics.items():
        # verl's own metrics stay as they were, apart from the loss that was added to.
        if name != "actor/pg_loss":
            assert getattr(metrics[name], "values", metric) == getattr(metric, "values", metric)


def test_coefficient_0_lets_nothing_of_the_penalty_through(rows: Rows) -> None:
    # verl clamps its ratios, so that its loss stays finite where the penalty is infinite.
    assert float(rows[0]["advantages"][0]) > 0
    rows[0]["log_probs"][0] = -math.inf
    loss, _, metrics = evaluate(make_actor("algorithm=grpo_llds", "algorithm.llds.coef=0"), rows)
    assert metrics["actor/llds/penalty"].aggregate() == math.inf
    assert torch.isfinite(loss)
    assert torch.equal(loss, evaluate(make_actor("algorithm=grpo"), rows)[0])


def test_coefficient_0_keeps_nothing_for_the_backward_pass(rows: Rows) -> None:
    def saved(*choices: str) -> int:
        tensors: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            evaluate(make_actor(*choices), rows)
        return len(tensors)

    stock = saved("algorithm=grpo")
    assert saved("algorithm=grpo_llds", "algorithm.llds.coef=0") == stock
    assert saved("algorithm=grpo_llds") > stock


def test_verls_other_arguments_reach_the_base_loss(rows: Rows) -> None:
    mode = "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum"
    weighted = [{**row, "rollout_is_weights": 0.5 + row["entropy"]} for row in rows]
    for choices in (("algorithm=grpo",), ("algorithm=grpo_llds", "algorithm.llds.coef=0")):
        plain, other = evaluate(make_actor(*choices), rows), evaluate(make_actor(*choices, mode), rows)
        with_weights = evaluate(make_actor(*choices), weighted)
        assert len({float(plain[0]), float(other[0]), float(with_weights[0])}) == 3
    stock = ("algorithm=grpo", mode)
    ours = ("algorithm=grpo_llds", "algorithm.llds.coef=0", mode)
    assert torch.equal(evaluate(make_actor(*ours), weighted)[1], evaluate(make_actor(*stock), weighted)[1])


def test_there_are_base_losses() -> None:
    assert {"vanilla", "gspo", "gpg", "clip_cov", "kl_cov", "geo_mean", "sapo"} <= set(BASES)


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=grpo_llds_ma",),
        ("algorithm=grpo_llds_ma", "algorithm.llds.answer_weight=authors"),
        ("algorithm=grpo_llds_ma", "algorithm.llds.answer_weight=0"),
        ("algorithm=grpo_llds", "algorithm.llds.gate=response"),
        ("algorithm=grpo_llds", "algorithm.llds.gate=token", "algorithm.llds.tolerance=0.05"),
        ("algorithm=grpo_llds", "algorithm.llds.preserve=correct"),
        ("algorithm=grpo_llds", "algorithm.llds.normalizer=all", "algorithm.llds.answer_in_gate=false"),
    ],
)
def test_every_setting_reaches_the_penalty(rows: Rows, overrides: tuple[str, ...]) -> None:
    base_loss, base_gradient, _ = evaluate(make_actor("algorithm=grpo"), rows)
    actor = make_actor(*overrides)
    loss, gradient, _ = evaluate(actor, rows)
    settings = settings_of(actor)
    assert settings != LLDSConfig()
    penalty, penalty_gradient = penalty_alone(rows, settings)
    assert penalty > 0
    torch.testing.assert_close(loss, base_loss + settings.coef * penalty, **EXACT)
    torch.testing.assert_close(gradient, base_gradient + settings.coef * penalty_gradient, **EXACT)


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
        ppo_loss(config=actor, model_output=output, data=make_data(rows, rows, LLDSConfig()))


@pytest.mark.parametrize(
    ("overrides", "missing", "said"),
    [
        (("algorithm=grpo_llds_ma",), "answer_mask", "answer_mask"),
        (("algorithm=grpo_llds", "algorithm.llds.answer_in_gate=false"), "answer_mask", "answer_mask"),
        (("algorithm=grpo_llds", "algorithm.llds.preserve=correct"), "rm_scores", "reward"),
    ],
)
def test_a_setting_whose_data_is_missing_is_refused(
    rows: Rows, overrides: tuple[str, ...], missing: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate(make_actor(*overrides), rows, without=[missing])


def test_a_batch_without_our_fields_takes_the_runs_of_the_mask_as_actions(rows: Rows) -> None:
    actor = make_actor("algorithm=grpo_llds")
    bare = evaluate(actor, rows, without=["action_ids", "answer_mask", "rm_scores"])
    torch.testing.assert_close(bare[0], evaluate(actor, rows)[0], **EXACT)


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


@pytest.mark.parametrize("choice", ["grpo", "grpo_llds", "grpo_llds_ma", "gspo_llds"])
def test_a_mini_batch_all_of_whose_trajectories_failed_moves_nothing(choice: str) -> None:
    """verl divides by its policy tokens, of which there are none."""
    rows = make_rows()
    for row in rows:
        row["response_mask"].zero_()
        row["advantages"].zero_()
    loss, gradient, metrics = evaluate(make_actor(f"algorithm={choice}"), rows, tally=True)
    assert loss == 0
    assert not gradient.any()
    values = [value.aggregate() if hasattr(value, "aggregate") else value for value in metrics.values()]
    assert all(math.isfinite(float(value)) for value in values)
