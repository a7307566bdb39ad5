"""What LLDS adds is a few tensors of the size of the log-probabilities; nothing of the size of the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from loss_mini_batch import evaluate, make_actor, make_rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from verl_llds.diagnostics.tally import QUANTITIES, tally
from verl_llds.loss.displacement import action_ids_from_mask
from verl_llds.loss.llds import llds_penalty
from verl_llds.settings import Gate, LLDSConfig


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


@pytest.mark.parametrize("gate", [gate.value for gate in Gate])
@pytest.mark.parametrize("answer_weight", [1.0, 0.5])
def test_the_penalty_and_its_gradient(
    ragged_batch: Callable[..., dict[str, Tensor]], gate: str, answer_weight: float
) -> None:
    batch = ragged_batch(num_rows=8, width=50)
    log_prob = batch["log_prob"].clone().requires_grad_()
    settings = LLDSConfig(gate=gate, answer_weight=answer_weight)
    with Largest() as largest:
        penalty, _ = llds_penalty(**{**batch, "log_prob": log_prob}, num_preserved_tokens=10, settings=settings)
        penalty.backward()
    assert largest.operations > 20
    # One column more than the batch has, for the numbers of actions.
    assert largest.elements <= 8 * 51


def test_the_tally(ragged_batch: Callable[..., dict[str, Tensor]]) -> None:
    batch = ragged_batch(num_rows=8, width=50)
    del batch["answer_mask"]
    with Largest() as largest:
        tally(**batch, action_ids=action_ids_from_mask(batch["response_mask"]))
    assert largest.elements <= len(QUANTITIES) * 8 * 51


def test_the_micro_batch_beside_stock_verl() -> None:
    rows = make_rows()
    sizes = {}
    for name, choice in (("stock", "algorithm=grpo"), ("llds", "algorithm=grpo_llds_ma")):
        actor = make_actor(choice)
        with Largest() as largest:
            evaluate(actor, rows)
        sizes[name] = largest.elements
    width = max(len(row["responses"]) for row in rows)
    assert sizes["llds"] <= max(sizes["stock"], len(rows) * (width + 1))
