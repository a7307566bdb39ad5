"""What a run needs of the machine: GPUs, their memory, and room for checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from verl_llds.doctor.findings import Finding, Status
from verl_llds.errors import ConfigError
from verl_llds.preflight.memory import GIB, MemoryEstimate, Workload, checkpoint_bytes, estimate_memory
from verl_llds.preflight.model_shape import ModelShape

_OWN_CONTEXT = GIB
"""What looking at a GPU's free memory may itself take of it."""


class Gpu(NamedTuple):
    """The memory of one GPU, in bytes."""

    total: int
    """All of it."""
    free: int
    """What no process holds."""


def visible_gpus() -> list[Gpu]:
    """Return the memory of each GPU this process sees."""
    import torch

    found = [torch.cuda.mem_get_info(index) for index in range(torch.cuda.device_count())]
    return [Gpu(total=total, free=free) for free, total in found]


def check_batches(config: DictConfig) -> None:
    """Refuse batches that the GPUs cannot share evenly, which verl would only notice at the first update.

    Raises:
        ConfigError: naming the batch and the number of GPUs.
    """
    num_gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    n = config.actor_rollout_ref.rollout.n
    for name, questions in (
        ("data.train_batch_size", config.data.train_batch_size),
        ("actor_rollout_ref.actor.ppo_mini_batch_size", config.actor_rollout_ref.actor.ppo_mini_batch_size),
    ):
        if questions * n % num_gpus:
            raise ConfigError(
                f"{name}={questions} makes {questions * n} trajectories with {n} rollouts a question, which {num_gpus} "
                f"GPUs cannot share evenly: change it, or trainer.n_gpus_per_node={config.trainer.n_gpus_per_node}"
            )


def read_workload(config: DictConfig) -> Workload:
    """Return what of a run's configuration decides over its memory."""
    actor, rollout, model = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "model"))
    longest = config.data.max_prompt_length + config.data.max_response_length
    return Workload(
        num_shards=config.trainer.nnodes * config.trainer.n_gpus_per_node,
        max_tokens=actor.ppo_max_token_len_per_gpu
        if actor.use_dynamic_bsz
        else actor.ppo_micro_batch_size_per_gpu * longest,
        entropy_gradient=actor.entropy_coeff != 0,
        gradient_checkpointing=bool(model.enable_gradient_checkpointing),
        lora_rank=model.get("lora_rank", 0),
        offload_parameters=bool(actor.fsdp_config.param_offload),
        offload_optimizer=bool(actor.fsdp_config.optimizer_offload),
        engine_share=rollout.gpu_memory_utilization,
        engine_shards=rollout.tensor_model_parallel_size,
    )


def check_gpus(config: DictConfig, shape: ModelShape | None, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Compare the GPUs of this machine with what the run asks for.

    Args:
        config: the composed run.
        shape: the size of its model, or None where nobody knows it.
        gpus: those of this machine.
    """
    if config.trainer.device == "cpu":
        yield Finding(Status.OK, "GPUs", "none needed, platform=cpu")
        return
    wanted = config.trainer.n_gpus_per_node
    if len(gpus) < wanted:
        text = (
            f"the run asks for {wanted} a node, this machine shows {len(gpus)}: choose hardware= or NUM_GPUS to fit, "
            "or run it elsewhere"
        )
        yield Finding(Status.FAIL, "GPUs", text)
    else:
        yield Finding(Status.OK, "GPUs", f"{len(gpus)} of at least {min(gpu.total for gpu in gpus) / GIB:.1f} GiB")
    if find_spec("flash_attn") is None and config.actor_rollout_ref.model.use_remove_padding:
        text = "not installed: pip install --no-deps --no-build-isolation flash-attn==2.8.3"
        yield Finding(Status.FAIL, "flash-attn", text)
    declared = config.get("hardware")
    has = min(gpu.total for gpu in gpus) if gpus else int(declared.gpu_memory_gib * GIB) if declared is not None else 0
    if shape is None or not has:
        text = "no estimate, since the model's layout or the GPU's size is not known here"
        yield Finding(Status.WARN, "GPU memory", text)
        return
    taken = max((gpu.total - gpu.free for gpu in gpus), default=0)
    yield _compare_memory(estimate_memory(shape, read_workload(config), has), has, taken, seen=bool(gpus))


def _compare_memory(estimate: MemoryEstimate, has: int, taken: int, *, seen: bool) -> Finding:
    gib = {
        name: f"{getattr(estimate, name) / GIB:.1f}"
        for name in ("states", "gathered", "activations", "logits", "update", "sync", "rollout", "peak")
    }
    source = "this machine's" if seen else "the hardware choice's"
    text = (
        f"about {gib['peak']} GiB at the peak, of {source} {has / GIB:.1f} (estimate, unverified on a GPU): "
        f"update {gib['update']} (states {gib['states']}, gathered {gib['gathered']}, "
        f"activations {gib['activations']}, logits {gib['logits']}), weight transfer {gib['sync']}, "
        f"rollout {gib['rollout']}"
    )
    if taken > _OWN_CONTEXT and estimate.peak + taken > has:
        text = (
            f"other processes hold {taken / GIB:.1f} GiB of a GPU, and the run needs {text}: end them (nvidia-smi "
            "names them), or give them another GPU"
        )
        return Finding(Status.FAIL, "GPU memory", text)
    if estimate.peak <= has:
        return Finding(Status.OK, "GPU memory", text)
    remedy = (
        "lower actor_rollout_ref.actor.ppo_max_token_len_per_gpu"
        if estimate.update > has
        else "lower actor_rollout_ref.rollout.gpu_memory_utilization"
    )
    return Finding(Status.FAIL, "GPU memory", f"{text}: {remedy}, or choose a larger hardware=")


def check_disk(config: DictConfig, shape: ModelShape | None) -> Iterator[Finding]:
    """Compare the free space where checkpoints go with what those of this start will take.

    verl removes only what the same start has saved, so that checkpoints of earlier starts keep their room.
    """
    folder = Path(config.trainer.default_local_dir)
    if config.trainer.save_freq <= 0:
        yield Finding(Status.WARN, "disk", "no checkpoint will be kept: set trainer.save_freq to keep some")
        return
    if shape is None:
        yield Finding(Status.WARN, "disk", "no estimate, since the model's layout is not known here")
        return
    one = checkpoint_bytes(
        shape,
        lora_rank=config.actor_rollout_ref.model.get("lora_rank", 0),
        contents=list(config.actor_rollout_ref.actor.checkpoint.save_contents),
    )
    num_kept = num_checkpoints(config)
    free = shutil.disk_usage(_existing(folder)).free
    text = f"{num_kept} checkpoints of {one / 1e9:.0f} GB in {folder}, {free / 1e9:.0f} GB free"
    if num_kept * one <= free:
        yield Finding(Status.OK, "disk", text)
        return
    remedy = "set trainer.default_local_dir to a larger disk, or trainer.max_actor_ckpt_to_keep lower"
    if earlier := len(list(folder.glob("global_step_*"))):
        remedy += f", or remove what you need no longer of the {earlier} from earlier starts, which verl leaves there"
    yield Finding(Status.FAIL, "disk", f"{text}: {remedy}")


def num_checkpoints(config: DictConfig) -> int:
    """Return how many checkpoints a run leaves behind: those it makes, or those it is told to keep."""
    steps, keep = config.trainer.total_training_steps, config.trainer.max_actor_ckpt_to_keep
    made = -(-steps // config.trainer.save_freq) if steps is not None else None
    counts = [count for count in (made, keep) if count]
    return min(counts) if counts else 1


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
