"""Data-parallel ranks for test_ranks.py: ``python loss_ranks.py OUT``.

Four processes on gloo. Of one mini-batch each takes its rows and no others, counts preserved tokens by all-reduce,
calls verl's loss for each of its micro-batches on the output of a small model, and averages the gradient with the
others. The first process writes what came of it to OUT: ``{(case, ranks): {"gradient", "loss", "metrics"}}``.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from loss_mini_batch import Rows, make_actor, make_data, make_rows, nested, num_preserved, settings_of
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.utils.metric import Metric
from verl.utils.py_functional import append_to_dict
from verl.workers.utils.losses import ppo_loss

from verl_llds.loss.micro_batch import NUM_PRESERVED_KEY, WithLLDSContext

CASES = {
    "action": ("algorithm=grpo_llds",),
    "action, all tokens": ("algorithm=grpo_llds", "algorithm.llds.normalizer=all"),
    "response": ("algorithm=grpo_llds", "algorithm.llds.gate=response"),
    "token, all tokens": ("algorithm=grpo_llds", "algorithm.llds.gate=token", "algorithm.llds.normalizer=all"),
    "adaptive answer": ("algorithm=grpo_llds_ma", "algorithm.llds.answer_in_gate=false"),
    "tolerance": ("algorithm=grpo_llds", "algorithm.llds.tolerance=0.03"),
    "correct": ("algorithm=grpo_llds", "algorithm.llds.preserve=correct"),
    "nothing preserved": (
        "algorithm=grpo_llds",
        "algorithm.llds.preserve=correct",
        "algorithm.llds.correct_reward=2",
    ),
    "gspo": ("algorithm=gspo_llds",),
}
# For each rank the rows of its micro-batches. Rows 2 and 4 have a negative advantage: the first rank of two, and
# of four, has no preserved token.
RANKS = {
    "1": [[[0, 1, 2, 3, 4, 5, 6, 7]]],
    "1, micro-batches": [[[6], [1, 0, 4], [2, 3], [7, 5]]],
    "2": [[[2], [4]], [[0, 1, 3], [7, 6, 5]]],
    "4": [[[2, 4]], [[0]], [[5, 3, 1]], [[6, 7]]],
    "4, micro-batches": [[[2], [4]], [[0], [7]], [[5], [3]], [[6], [1]]],
}
VOCABULARY = 20


def mini_batch() -> Rows:
    """Return the rows of the mini-batch; every process can make them all."""
    return make_rows(
        prompts=(3, 1, 4, 2, 5, 1, 2, 3),
        responses=(7, 5, 9, 2, 12, 8, 3, 6),
        advantages=(1.1, 0.0, -0.8, 0.4, -0.5, 0.0, 2.0, 1.0),
        rewards=(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0),
        seed=3,
    )


def make_model() -> Qwen2ForCausalLM:
    """Return a small Qwen2 in float64."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
    )
    return Qwen2ForCausalLM(config).double()


def forward(model: Qwen2ForCausalLM, rows: Rows) -> dict[str, Tensor]:
    """Return log-probabilities and entropies as verl's engine does: whole sequences, one position early."""
    log_probs, entropies = [], []
    for row in rows:
        ids = torch.cat([row["prompts"], row["responses"]])
        by_token = model(ids[None]).logits[0].log_softmax(dim=-1)
        log_probs.append(by_token.gather(1, ids.roll(-1)[:, None])[:, 0])
        entropies.append(-(by_token.exp() * by_token).sum(dim=-1))
    return {"log_probs": nested(log_probs), "entropy": nested(entropies)}


def set_old_log_probs(model: Qwen2ForCausalLM, rows: Rows) -> None:
    """Put the old policy near the model's: the rows hold the displacements."""
    with torch.no_grad():
        now = forward(model, rows)["log_probs"].unbind()
    for row, values in zip(rows, now, strict=True):
        displacement = row["old_log_probs"] - row["log_probs"]
        row["old_log_probs"] = values[len(row["prompts"]) - 1 : -1] + displacement
        row["ref_log_prob"] = row["old_log_probs"] - 0.1


def run_rank(case: str, ranks: str, rank: int, group: dist.ProcessGroup) -> dict[str, Any]:
    """Return this rank's view of one update: everything in it is the same on all ranks."""
    split = RANKS[ranks]
    actor, model, all_rows = make_actor(*CASES[case]), make_model(), mini_batch()
    set_old_log_probs(model, all_rows)
    own = [[all_rows[number] for number in numbers] for numbers in split[rank]]
    rows = [row for micro_batch in own for row in micro_batch]
    settings = settings_of(actor)
    counts = torch.tensor(
        [num_preserved(rows, settings), sum(int(row["response_mask"].sum()) for row in rows), len(rows)]
    )
    dist.all_reduce(counts, group=group)

    loss_fn = WithLLDSContext(partial(ppo_loss, config=actor), settings)
    collected: dict[str, Any] = {}
    total = torch.zeros((), dtype=torch.float64)
    for micro_batch in own:
        data = make_data(micro_batch, rows, settings, dp_size=len(split), tally=True)
        tu.assign_non_tensor(
            data,
            **{NUM_PRESERVED_KEY: int(counts[0])},
            batch_num_tokens=int(counts[1]),
            global_batch_size=int(counts[2]),
        )
        loss, metrics = loss_fn(model_output=forward(model, micro_batch), data=data)
        loss.backward()
        total += loss.detach()
        append_to_dict(collected, {name: value for name, value in metrics.items() if "llds" in name})
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    for shared in (gradient, total):
        dist.all_reduce(shared, group=group)
        shared /= len(split)
    gathered: list[Any] = [None] * len(split)
    dist.all_gather_object(gathered, collected, group=group)
    reduced = {name: float(Metric.aggregate_dp([each[name] for each in gathered])) for name in collected}
    return {"gradient": gradient, "loss": total, "metrics": reduced}


def process(rank: int, meeting_point: str, out: str) -> None:
    """Be one of four ranks, and one of fewer where fewer are asked for."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=4)
    groups = {size: dist.new_group(list(range(size))) for size in (1, 2, 4)}
    results = {}
    for ranks, split in RANKS.items():
        if rank < len(split):
            for case in CASES:
                results[case, ranks] = run_rank(case, ranks, rank, groups[len(split)])
    if rank == 0:
        torch.save(results, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    for overrides in CASES.values():
        make_actor(*overrides)
    with tempfile.TemporaryDirectory() as folder:
        # Forked, so that what took seconds to import is imported once.
        torch.multiprocessing.start_processes(
            process, args=(str(Path(folder) / "meet"), sys.argv[1]), nprocs=4, start_method="fork"
        )
