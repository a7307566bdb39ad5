"""LLDS against verl's vanilla loss, forward and backward, in one run: ``python benchmarks/bench_loss.py``.

Repetitions are interleaved, so that a busy machine slows all contenders alike; a ratio is the median over
repetitions of the contender's time by vanilla's of the same repetition. CPU time leaves out what other processes
take. Prints a Markdown table. ``--rows 4 --width 64 --repetitions 3`` is a quick look.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import verl  # noqa: F401
from torch import Tensor
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config.actor import FSDPActorConfig

from verl_llds.loss.llds import count_preserved_tokens
from verl_llds.loss.policy_loss import LLDSPolicyLossConfig, LossContext, current
from verl_llds.settings import LLDSConfig

VARIANTS = {
    "LLDS, action gate": LLDSConfig(),
    "LLDS, response gate": LLDSConfig(gate="response"),
    "LLDS, token gate": LLDSConfig(gate="token"),
    "LLDS-MA": LLDSConfig(answer_weight="paper"),
}


@dataclass
class Batch:
    """A micro-batch of search trajectories, ``[B, T]`` each."""

    old_log_prob: Tensor
    log_prob: Tensor
    advantages: Tensor
    response_mask: Tensor
    action_ids: Tensor
    answer_mask: Tensor

    def arguments(self) -> dict[str, Tensor]:
        """Return what verl passes to a policy loss."""
        return {name: getattr(self, name) for name in ("old_log_prob", "log_prob", "advantages", "response_mask")}


def make_batch(rows: int, width: int, actions: int, policy_share: float, device: str) -> Batch:
    """Return rows of ``actions`` actions with an observation after each; the last ends in an answer."""
    rng = torch.Generator().manual_seed(0)
    action_ids = torch.zeros(rows, width, dtype=torch.int64)
    answer = torch.zeros(rows, width, dtype=torch.int64)
    stride = width // actions
    length = max(1, int(policy_share * stride))
    for number in range(actions):
        action_ids[:, number * stride : number * stride + length] = number + 1
    last = (actions - 1) * stride + length
    answer[:, max(0, last - 8) : last] = 1
    mask = action_ids > 0
    old = -torch.rand(rows, width, generator=rng)
    new = old + 0.2 * (torch.rand(rows, width, generator=rng) - 0.5)
    advantages = torch.tensor([1.0, 0.0, -1.0, 0.5])[torch.arange(rows) % 4][:, None] * mask
    tensors = (old, new, advantages, mask, action_ids, answer * mask)
    return Batch(*(tensor.to(device) for tensor in tensors))


def make_config(settings: LLDSConfig | None, batch: Batch) -> FSDPActorConfig:
    """Return verl's actor settings, for LLDS or, without settings, for its vanilla loss."""
    policy_loss = LLDSPolicyLossConfig(
        loss_mode="vanilla" if settings is None else "llds", llds=settings or LLDSConfig()
    )
    config = FSDPActorConfig(strategy="fsdp2", ppo_micro_batch_size_per_gpu=1, rollout_n=1, policy_loss=policy_loss)
    config.global_batch_info.update(
        dp_size=1,
        batch_num_tokens=int(batch.response_mask.sum()),
        global_batch_size=len(batch.log_prob),
        loss_scale_factor=None,
    )
    return config


def run_vanilla(batch: Batch, config: FSDPActorConfig) -> None:
    """Run verl's vanilla loss and its backward pass."""
    loss, _ = get_policy_loss_fn("vanilla")(config=config, **batch.arguments())
    loss.backward()


def run_llds(batch: Batch, config: FSDPActorConfig) -> None:
    """Run vanilla plus LLDS and the backward pass, with the count that the actor worker takes before."""
    context = LossContext(
        num_preserved_tokens=int(count_preserved_tokens(batch.advantages, batch.response_mask)),
        num_policy_tokens=config.global_batch_info["batch_num_tokens"],
        dp_size=1,
        action_ids=batch.action_ids,
        answer_mask=batch.answer_mask,
        valid_searches=1.5,
    )
    token = current.set(context)
    loss, _ = get_policy_loss_fn("llds")(config=config, **batch.arguments())
    current.reset(token)
    loss.backward()


def run_authors(batch: Batch, config: FSDPActorConfig) -> None:
    """Run vanilla plus the action gate as in the authors' code: rows split into runs in Python."""
    loss, _ = get_policy_loss_fn("vanilla")(config=config, **batch.arguments())
    decrease = batch.old_log_prob.detach() - batch.log_prob
    kept = batch.response_mask * (batch.advantages >= 0)
    gate = torch.zeros_like(decrease)
    for row in range(len(kept)):
        values = kept[row].tolist()
        start = 0
        while start < len(values):
            stop = start
            while stop < len(values) and values[stop] == values[start]:
                stop += 1
            if values[start] and decrease[row, start:stop].sum() > 0:
                gate[row, start:stop] = 1.0
            start = stop
    penalty = (gate * torch.maximum(torch.zeros_like(decrease), decrease) * batch.response_mask).sum()
    (loss + 0.2 * penalty / batch.response_mask.sum()).backward()


def measure(run: Callable[[], None], batch: Batch) -> tuple[float, float]:
    """Return wall and CPU milliseconds of one call."""
    batch.log_prob.grad = None
    on_cuda = batch.log_prob.is_cuda
    if on_cuda:
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if on_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def compare(contenders: dict[str, Callable[[], None]], batch: Batch, repetitions: int) -> list[str]:
    """Return a table row per contender; the first is what the others are divided by."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for repetition in range(repetitions + 2):
        for name, run in contenders.items():
            found = measure(run, batch)
            if repetition >= 2:
                times[name].append(found)
    base = times[next(iter(contenders))]
    lines = []
    for name, found in times.items():
        medians = [statistics.median(pair[kind] for pair in found) for kind in (0, 1)]
        ratios = [
            statistics.median(pair[kind] / other[kind] for pair, other in zip(found, base, strict=True))
            for kind in (0, 1)
        ]
        lines.append(f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=64, help="rows of the micro-batch")
    parser.add_argument("--width", type=int, default=4096, help="response tokens of a row, observations included")
    parser.add_argument("--actions", type=int, default=4, help="actions of a row")
    parser.add_argument("--policy-share", type=float, default=0.3, help="share of tokens the policy wrote")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # As in a process that has run a model: glibc stops handing memory back to the system after every tensor.
    torch.empty(30 * 2**20, dtype=torch.uint8)
    batch = make_batch(arguments.rows, arguments.width, arguments.actions, arguments.policy_share, arguments.device)
    batch.log_prob.requires_grad_()
    contenders: dict[str, Callable[[], None]] = {"verl vanilla": partial(run_vanilla, batch, make_config(None, batch))}
    for name, settings in VARIANTS.items():
        contenders[name] = partial(run_llds, batch, make_config(settings, batch))
    contenders["authors' way, action gate"] = partial(run_authors, batch, make_config(None, batch))
    print(f"[{arguments.rows}, {arguments.width}], {arguments.actions} actions, {arguments.device}, ", end="")
    print(f"{arguments.threads} thread(s), torch {torch.__version__}, {arguments.repetitions} repetitions\n")
    print("| loss, forward and backward | wall ms | CPU ms | wall / vanilla | CPU / vanilla |\n|---|---|---|---|---|")
    print("\n".join(compare(contenders, batch, arguments.repetitions)))


if __name__ == "__main__":
    main()
