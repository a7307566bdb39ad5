"""The examples of the page on extending work as they stand there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_blocks import ROOT
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils.import_utils import import_external_libs

from verl_llds.loss.policy_loss import LossContext, current, llds_policy_loss
from verl_llds.settings import LLDSConfig

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Write each example into the file that its title names."""
    found = re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in found} == {"my_losses.py", "my_reward.py"}
    for name, text in found:
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def loss_of_the_page(examples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(examples))
    importlib.invalidate_caches()
    import_external_libs("my_losses")
    yield
    del POLICY_LOSS_REGISTRY["unclipped"]


def update() -> dict[str, torch.Tensor]:
    old = torch.tensor([[-1.0, -2.0, -1.0], [-1.0, -1.0, -3.0]])
    return {
        "old_log_prob": old,
        "log_prob": (old + torch.tensor([[-0.3, 0.2, 0.0], [0.3, 0.0, -0.2]])),
        "advantages": torch.tensor([[1.0], [-1.0]]).expand(2, 3),
        "response_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
    }


@pytest.mark.usefixtures("loss_of_the_page")
def test_a_loss_of_one_s_own_is_the_base_of_the_penalty() -> None:
    tensors = update()
    llds = LLDSConfig(coef=0.5)
    config = SimpleNamespace(
        policy_loss=SimpleNamespace(base_loss="unclipped", llds=llds),
        global_batch_info={"dp_size": 1, "batch_num_tokens": 5, "global_batch_size": 2},
    )
    base, _ = get_policy_loss_fn("unclipped")(**tensors, config=config)
    ratio = torch.exp(tensors["log_prob"] - tensors["old_log_prob"])
    assert base.item() == pytest.approx((-(ratio[0, :2].sum()) + ratio[1].sum()).item() / 5)
    token = current.set(LossContext(num_preserved_tokens=2, num_policy_tokens=5, dp_size=1))
    try:
        total, _ = llds_policy_loss(**tensors, config=config)
    finally:
        current.reset(token)
    # The first row is preserved and lost 0.1 as a whole; of its two tokens one fell, by 0.3.
    assert total.item() == pytest.approx(base.item() + 0.5 * 0.3 / 2)


def test_a_reward_of_one_s_own_is_called_as_verl_calls_it(examples: Path) -> None:
    path = str(examples / "my_reward.py")
    config = OmegaConf.create({"reward": {"custom_reward_function": {"path": path, "name": "compute_score"}}})
    score = get_custom_reward_fn(config)
    assert score is not None

    def of(answer: str | None, num_searches: int) -> float:
        turns = [{"kind": "call", "content": "capital of France"}] * num_searches
        turns += [] if answer is None else [{"kind": "answer", "content": answer}]
        facts = {"num_searches": num_searches, "turns": turns}
        return score(
            data_source="nq",
            solution_str="",
            ground_truth={"target": ["Paris"]},
            extra_info={"search": facts, "policy_text": ""},
        )

    assert [of("paris", 1), of("Paris", 3), of("Rome", 2), of(None, 0)] == pytest.approx([1.0, 0.9, -0.05, 0.0])
