from dataclasses import replace

import pytest
import torch
from lab.batch import Batch
from lab.objective import Anchor, ObjectiveSettings, anchor_term, objective, surrogate
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
from verl.workers.config import ActorConfig


@pytest.fixture
def batch() -> Batch:
    mask = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 0, 1, 0], [1, 0, 1, 1, 1]]).bool()
    return Batch(
        ids=torch.zeros(3, 10, dtype=torch.long),
        prompt_length=5,
        response_mask=mask,
        action_ids=torch.tensor([[1, 1, 0, 2, 2], [1, 1, 0, 2, 0], [1, 0, 2, 2, 2]]),
        answer_mask=torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool(),
        num_searches=torch.ones(3),
    )


@pytest.fixture
def log_probs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(3, 5, generator=generator)
    # Both clips are met in either direction, and the dual one in the second row, whose advantage is negative.
    moved = [[0.5, -0.5, 9.0, 0.1, -0.1], [0.5, 2.0, 9.0, -0.5, 0.0], [0.5, 0.0, -0.1, -2.0, 1.0]]
    return old, old + torch.tensor(moved)


ADVANTAGES = torch.tensor([1.2, -0.8, 0.0])


@pytest.mark.parametrize("dual_clip", [None, 3.0])
def test_surrogate_is_that_of_verl(
    batch: Batch, log_probs: tuple[torch.Tensor, torch.Tensor], dual_clip: float | None
) -> None:
    old, new = log_probs
    new = new.requires_grad_()
    by_token = ADVANTAGES[:, None].expand(3, 5)
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=5,
        clip_ratio=0.2,
        clip_ratio_low=0.2,
        clip_ratio_high=0.2,
        # verl has no off: a bound this far away is never reached.
        clip_ratio_c=dual_clip or 1e9,
        ppo_micro_batch_size_per_gpu=1,
        global_batch_info={"dp_size": 1, "batch_num_tokens": int(batch.response_mask.sum())},
    )
    expected, metrics = compute_policy_loss_vanilla(old, new, by_token, batch.response_mask, "token-mean", config)
    assert dual_clip is None or metrics["actor/pg_clipfrac_lower"] > 0
    (expected_gradient,) = torch.autograd.grad(expected, new)
    found = surrogate(old, new, by_token, batch.response_mask, clip=0.2, dual_clip=dual_clip)
    (gradient,) = torch.autograd.grad(found, new)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def _loss(batch: Batch, log_probs: tuple[torch.Tensor, torch.Tensor], settings: ObjectiveSettings) -> torch.Tensor:
    old, new = log_probs
    return objective(
        batch=batch,
        old_log_prob=old,
        log_prob=new,
        entropy=torch.ones(3, 5),
        advantages=ADVANTAGES,
        correct=ADVANTAGES > 0,
        valid_searches=1.0,
        settings=settings,
    ).loss


def test_every_term_adds_what_it_says(batch: Batch, log_probs: tuple[torch.Tensor, torch.Tensor]) -> None:
    plain = ObjectiveSettings()
    base = _loss(batch, log_probs, plain)
    old, new = log_probs
    fallen = (old - new)[batch.response_mask]
    assert _loss(batch, log_probs, replace(plain, entropy_coef=0.01)) - base == pytest.approx(-0.01, abs=1e-6)
    absolute = replace(plain, anchor=Anchor.ABSOLUTE, anchor_coef=0.2)
    assert _loss(batch, log_probs, absolute) - base == pytest.approx(0.2 * float(fallen.abs().mean()), abs=1e-6)
    preserved = batch.response_mask & (ADVANTAGES >= 0)[:, None]
    hinge = torch.relu(old - new)[preserved].sum() / preserved.sum()
    token_gate = replace(plain, llds={"coef": 0.2, "gate": "token"})
    assert _loss(batch, log_probs, token_gate) - base == pytest.approx(0.2 * float(hinge), abs=1e-6)


def test_anchors_pull_back_from_both_sides() -> None:
    old = torch.zeros(1, 4)
    new = torch.tensor([[0.5, -0.5, 0.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 0]]).bool()
    (k3,) = torch.autograd.grad(anchor_term(Anchor.K3, old, new, mask), new)
    expected = torch.tensor([[0.5, -0.5, 0.0]]).exp() - 1
    torch.testing.assert_close(k3[:, :3], expected / 3)
    (absolute,) = torch.autograd.grad(anchor_term(Anchor.ABSOLUTE, old, new, mask), new)
    torch.testing.assert_close(absolute, torch.tensor([[1.0, -1.0, 0.0, 0.0]]) / 3)
    assert k3[0, 3] == 0
