"""verl's real actor worker on the CPU for test_worker.py: ``python worker_process.py FOLDER``.

FSDP2 on gloo, a small random Qwen2, and a batch of jagged tensors such as verl's trainer sends, handed to
``compute_log_prob`` and ``update_actor``. Writes ``results.pt`` into FOLDER: by run, what `update` returns.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

os.environ.update(
    VERL_PLATFORM="cpu", VERL_ENGINE_DEVICE="cuda", HF_HUB_OFFLINE="1", MASTER_ADDR="unused", MASTER_PORT="0"
)

import torch
import torch.distributed as dist
import verl  # noqa: F401
import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.padding import response_from_nested

from verl_llds.cpu import platform
from verl_llds.loss.micro_batch import TALLY_KEY, VALID_SEARCHES_KEY
from verl_llds.worker import LLDSActorRolloutRefWorker

VOCABULARY = 32
ADVANTAGES = (-0.8, 1.1, -0.5, 0.0, -1.2, 0.4, -0.3, 2.0)
"""Of the whole batch's rows. No even row is preserved."""
RESPONSES = (9, 4, 7, 12, 5, 8, 6, 3)
LLDS = ("algorithm=grpo_llds", "algorithm.llds.coef=0.2")
# One process, two mini-batches twice over, AdamW. By name: worker class, overrides, whether the driver wants a tally.
SEQUENCES: dict[str, tuple[type, tuple[str, ...], bool]] = {
    "stock verl": (ActorRolloutRefWorker, ("algorithm=grpo",), False),
    "vanilla": (LLDSActorRolloutRefWorker, ("algorithm=grpo",), True),
    "coef 0": (LLDSActorRolloutRefWorker, ("algorithm=grpo_llds", "algorithm.llds.coef=0"), False),
    "coef 0, tally": (LLDSActorRolloutRefWorker, ("algorithm=grpo_llds", "algorithm.llds.coef=0"), True),
    "coef 0.2": (LLDSActorRolloutRefWorker, ("algorithm=grpo_llds",), False),
    "coef 0.2, tally": (LLDSActorRolloutRefWorker, ("algorithm=grpo_llds",), True),
}
# One mini-batch, by one process and by two ranks. By name: overrides, and whether the first rank has the even rows,
# without a preserved token, instead of the first half.
SINGLES: dict[str, tuple[tuple[str, ...], bool]] = {
    "preserved": (("algorithm=grpo_llds",), False),
    "none on one rank": (("algorithm=grpo_llds",), True),
    "all": (("algorithm=grpo_llds", "algorithm.llds.normalizer=all"), False),
    "correct": (("algorithm=grpo_llds", "algorithm.llds.preserve=correct", "algorithm.llds.gate=response"), False),
    "nothing": (("algorithm=grpo_llds", "algorithm.llds.preserve=correct", "algorithm.llds.correct_reward=2"), False),
}


def write_model(folder: Path) -> None:
    """Write a small random Qwen2 and a tokenizer without which verl does not start."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.3,
        eos_token_id=1,
        pad_token_id=0,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"t{number}": number for number in range(VOCABULARY)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t1", pad_token="t0").save_pretrained(folder)


@cache
def composed(model: Path, choice: str) -> DictConfig:
    """Return verl's configuration for the CPU."""
    needed = [
        "platform=cpu",
        f"actor_rollout_ref.model.path={model}",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.actor.optim.lr=1e-2",
        # Out of reach, so that the gradient is what the loss makes it.
        "actor_rollout_ref.actor.optim.clip_grad=1e9",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[*needed, choice])


def actor_config(model: Path, choice: str, *overrides: str) -> DictConfig:
    """Return what the worker is given of the configuration."""
    config = composed(model, choice).copy()
    for key, _, value in (override.partition("=") for override in overrides):
        OmegaConf.update(config, key, yaml.safe_load(value))
    OmegaConf.resolve(config.actor_rollout_ref)
    return config.actor_rollout_ref


def make_batch(rows: list[int]) -> TensorDict:
    """Return rows of the batch as verl's agent loop leaves them, with advantages and rewards."""
    fields: dict[str, list[Tensor]] = {}
    for number in rows:
        rng = torch.Generator().manual_seed(number)
        length, advantage = RESPONSES[number], ADVANTAGES[number]
        prompt = torch.randint(2, VOCABULARY, (2 + number % 3,), generator=rng)
        response = torch.randint(2, VOCABULARY, (length,), generator=rng)
        mask = torch.ones(length, dtype=torch.int64)
        mask[length // 2 : length // 2 + length // 4] = 0
        answer = torch.zeros(length, dtype=torch.int64)
        answer[-2:] = 1
        score = torch.zeros(length)
        score[-1] = float(advantage > 0)
        # How far the old policy is from the model's; 0 is where verl's trainer starts.
        displacement = 0.6 * torch.rand(length, generator=rng) - 0.3
        row = {
            "prompts": prompt,
            "responses": response,
            "input_ids": torch.cat([prompt, response]),
            "position_ids": torch.arange(len(prompt) + length),
            "response_mask": mask,
            "loss_mask": mask,
            "advantages": advantage * mask.float(),
            "rm_scores": score,
            "action_ids": mask * torch.where(torch.arange(length) < length // 2, 1, 2),
            "answer_mask": answer * mask,
            "displacement": displacement,
        }
        for name, value in row.items():
            fields.setdefault(name, []).append(value)
    return TensorDict(
        {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in fields.items()},
        batch_size=len(rows),
    )


def set_old_log_probs(worker: ActorRolloutRefWorker, data: TensorDict, *, displaced: bool) -> None:
    """Ask the worker for its log-probabilities as the trainer does, and write them into the batch."""
    request = data.copy()
    tu.assign_non_tensor(request, calculate_entropy=False, compute_loss=False, temperature=1.0)
    output = worker.compute_log_prob(request)
    old = response_from_nested(output["log_probs"], data["response_mask"])
    displacement = data.pop("displacement")
    if displaced:
        parts = zip(old.unbind(), displacement.unbind(), strict=True)
        old = torch.nested.as_nested_tensor([a + b for a, b in parts], layout=torch.jagged)
    data["old_log_probs"] = old
    data["ref_log_prob"] = old.clone()


def update(worker: ActorRolloutRefWorker, data: TensorDict, mini_batch_size: int, **extra: Any) -> dict[str, Any]:
    """Update the actor as the trainer does; return weights, the last gradient and metrics."""
    tu.assign_non_tensor(
        data,
        calculate_entropy=True,
        global_batch_size=mini_batch_size,
        mini_batch_size=mini_batch_size,
        temperature=1.0,
        seed=42,
        dataloader_kwargs={"shuffle": False},
        **{VALID_SEARCHES_KEY: 1.5},
        **extra,
    )
    engine, gradients = worker.actor.engine, []
    optimizer_step = engine.optimizer_step

    def look_then_step() -> float:
        # verl frees the gradients when the update ends.
        gradients.append(torch.cat([_full(parameter.grad).flatten() for parameter in engine.module.parameters()]))
        return optimizer_step()

    engine.optimizer_step = look_then_step
    metrics = worker.update_actor(data)["metrics"]
    return {
        "weights": {name: _full(value).clone() for name, value in engine.module.state_dict().items()},
        "gradients": gradients,
        "metrics": {name: value for name, value in metrics.items() if not name.startswith("perf/")},
    }


def _full(value: Tensor) -> Tensor:
    return value.detach().full_tensor() if isinstance(value, DTensor) else value.detach()


def start(worker_class: type, config: DictConfig) -> Any:
    """Return a worker with the model's initial weights."""
    worker = worker_class(config.copy(), role="actor")
    worker.init_model()
    # Threads cost more than they give where a model is this small.
    torch.set_num_threads(1)
    return worker


def process(rank: int, world_size: int, folder: Path, configs: dict[str, DictConfig]) -> None:
    """Be one rank of a worker group."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK="0", LOCAL_WORLD_SIZE=str(world_size))
    dist.init_process_group(
        "cpu:gloo", init_method=f"file://{folder / f'meet{world_size}'}", rank=rank, world_size=world_size
    )
    results: dict[str, Any] = {}
    if world_size == 1:
        for name, (worker_class, _, tally) in SEQUENCES.items():
            worker = start(worker_class, configs[name])
            data = make_batch(list(range(len(RESPONSES))))
            set_old_log_probs(worker, data, displaced=False)
            results[name] = update(worker, data, 4, epochs=2, **{TALLY_KEY: tally})
    for name, (_, alternating) in SINGLES.items():
        worker = start(LLDSActorRolloutRefWorker, configs[name])
        share = len(RESPONSES) // world_size
        rows = range(rank, len(RESPONSES), world_size) if alternating else range(rank * share, (rank + 1) * share)
        data = make_batch(list(rows))
        set_old_log_probs(worker, data, displaced=True)
        results[f"{name}, {world_size}"] = update(worker, data, len(RESPONSES), epochs=1, **{TALLY_KEY: True})
    if rank == 0:
        torch.save(results, folder / f"results{world_size}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main(folder: Path) -> None:
    """Run everything, one process first and then two ranks."""
    platform.activate()
    write_model(folder / "model")
    overrides = {name: run[1] for name, run in SEQUENCES.items()} | {name: run[0] for name, run in SINGLES.items()}
    configs = {name: actor_config(folder / "model", *chosen) for name, chosen in overrides.items()}
    for world_size in (1, 2):
        # Forked, so that what took seconds to import is imported once.
        torch.multiprocessing.start_processes(
            process, args=(world_size, folder, configs), nprocs=world_size, start_method="fork"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
