"""The whole actor update with LLDS against without: ``python benchmarks/bench_actor.py``.

verl's own actor worker on the CPU: FSDP2, a random Qwen2, one mini-batch of jagged rows as the trainer sends it;
forward, loss, backward and optimizer. Updates of the contenders are interleaved; a ratio is the median over
repetitions of the contender's time by stock verl's of the same repetition. Peak memory is that of a process of
its own for each contender. ``--hidden 32 --vocabulary 256 --width 64 --repetitions 2`` is a quick look.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(
    VERL_PLATFORM="cpu",
    VERL_ENGINE_DEVICE="cuda",
    HF_HUB_OFFLINE="1",
    RANK="0",
    WORLD_SIZE="1",
    MASTER_ADDR="unused",
    MASTER_PORT="0",
)

import torch
import torch.distributed as dist
import verl  # noqa: F401
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from tensordict import TensorDict
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.padding import response_from_nested

from verl_llds.cpu import platform
from verl_llds.loss.micro_batch import TALLY_KEY, VALID_SEARCHES_KEY
from verl_llds.worker import LLDSActorRolloutRefWorker

# By name: worker class, Hydra choice, whether the diagnostics' tally is taken.
CONTENDERS: dict[str, tuple[type, str, bool]] = {
    "stock verl, GRPO": (ActorRolloutRefWorker, "algorithm=grpo", False),
    "LLDS": (LLDSActorRolloutRefWorker, "algorithm=grpo_llds", False),
    "LLDS-MA": (LLDSActorRolloutRefWorker, "algorithm=grpo_llds_ma", False),
    "GRPO with diagnostics": (LLDSActorRolloutRefWorker, "algorithm=grpo", True),
    "LLDS with diagnostics": (LLDSActorRolloutRefWorker, "algorithm=grpo_llds", True),
}


def write_model(folder: Path, arguments: argparse.Namespace) -> None:
    """Write a random Qwen2 and a tokenizer without which verl does not start."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.hidden,
        intermediate_size=4 * arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2 * arguments.width + 64,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"t0": 0, "t1": 1}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t1", pad_token="t0").save_pretrained(folder)


def make_worker(name: str, model: Path, arguments: argparse.Namespace) -> Any:
    """Return verl's worker with its actor built."""
    worker_class, choice, _ = CONTENDERS[name]
    overrides = [
        "platform=cpu",
        choice,
        f"actor_rollout_ref.model.path={model}",
        "actor_rollout_ref.actor.use_kl_loss=false",
        f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={arguments.micro_batch}",
        f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={arguments.micro_batch}",
        # So small that every repetition meets the same policy.
        "actor_rollout_ref.actor.optim.lr=1e-12",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=overrides)
    OmegaConf.resolve(config.actor_rollout_ref)
    worker = worker_class(config.actor_rollout_ref, role="actor")
    worker.init_model()
    torch.set_num_threads(arguments.threads)
    return worker


def make_batch(worker: Any, arguments: argparse.Namespace) -> TensorDict:
    """Return a mini-batch: four actions a row, observations between them, an old policy near the model's."""
    rng = torch.Generator().manual_seed(0)
    fields: dict[str, list[torch.Tensor]] = {}
    for number in range(arguments.rows):
        length = arguments.width - 7 * (number % 4)
        prompt = torch.randint(2, arguments.vocabulary, (32,), generator=rng)
        response = torch.randint(2, arguments.vocabulary, (length,), generator=rng)
        stride = length // 4
        at = torch.arange(length)
        ids = torch.where(at % stride < stride // 3, 1 + at // stride, 0)
        mask = (ids > 0).long()
        row = {
            "prompts": prompt,
            "responses": response,
            "input_ids": torch.cat([prompt, response]),
            "position_ids": torch.arange(32 + length),
            "response_mask": mask,
            "loss_mask": mask,
            "advantages": (1.0, 0.0, -1.0, 0.5)[number % 4] * mask.float(),
            "rm_scores": torch.zeros(length),
            "action_ids": ids,
            "answer_mask": mask * (at >= 3 * stride + stride // 6),
        }
        for name, value in row.items():
            fields.setdefault(name, []).append(value)
    data = TensorDict(
        {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in fields.items()},
        batch_size=arguments.rows,
    )
    request = data.copy()
    tu.assign_non_tensor(request, calculate_entropy=False, compute_loss=False, temperature=1.0)
    old = response_from_nested(worker.compute_log_prob(request)["log_probs"], data["response_mask"])
    noise = [row + 0.1 * (torch.rand(len(row), generator=rng) - 0.5) for row in old.unbind()]
    data["old_log_probs"] = torch.nested.as_nested_tensor(noise, layout=torch.jagged)
    return data


def update(name: str, worker: Any, data: TensorDict) -> tuple[float, float]:
    """Update the actor once; return wall and CPU milliseconds."""
    data = data.copy()
    tu.assign_non_tensor(
        data,
        calculate_entropy=True,
        global_batch_size=len(data),
        mini_batch_size=len(data),
        temperature=1.0,
        dataloader_kwargs={"shuffle": False},
        **{VALID_SEARCHES_KEY: 1.5, TALLY_KEY: CONTENDERS[name][2]},
    )
    wall, cpu = time.perf_counter(), time.process_time()
    worker.update_actor(data)
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def peak_mebibytes(name: str, model: Path) -> float:
    """Return the peak resident size of a process that updates this contender's actor three times."""
    command = [sys.executable, __file__, *sys.argv[1:], "--alone", name, "--model", str(model)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(ended.stdout.split()[-1])


def run_alone(arguments: argparse.Namespace) -> None:
    """Be that process."""
    worker = make_worker(arguments.alone, arguments.model, arguments)
    data = make_batch(worker, arguments)
    for _ in range(3):
        update(arguments.alone, worker, data)
    # Not ru_maxrss, which starts from the size of the process that started this one.
    (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(int(peak.split()[1]) / 1024)


def compare(model: Path, arguments: argparse.Namespace) -> None:
    """Measure all contenders and print a table."""
    workers = {name: make_worker(name, model, arguments) for name in CONTENDERS}
    stock = next(iter(workers))
    data = make_batch(workers[stock], arguments)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for repetition in range(arguments.repetitions + 1):
        for name, worker in workers.items():
            found = update(name, worker, data)
            if repetition:
                times[name].append(found)
    peaks: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.memory):
        for name, found_peaks in peaks.items():
            found_peaks.append(peak_mebibytes(name, model))
    print(f"\n{arguments}, torch {torch.__version__}\n")
    titles = ["update", "wall ms", "CPU ms", "wall / stock", "CPU / stock"]
    if arguments.memory:
        titles += ["peak MiB", "peak / stock"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name, found in times.items():
        cells = [f"{statistics.median(pair[kind] for pair in found):.0f}" for kind in (0, 1)]
        for kind in (0, 1):
            pairs = zip(found, times[stock], strict=True)
            cells.append(f"{statistics.median(pair[kind] / other[kind] for pair, other in pairs):.3f}")
        if arguments.memory:
            peak, spread = statistics.median(peaks[name]), max(peaks[name]) - min(peaks[name])
            cells += [f"{peak:.0f} (spread {spread:.0f})", f"{peak / statistics.median(peaks[stock]):.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=8, help="rows of the mini-batch")
    parser.add_argument("--micro-batch", type=int, default=4, help="rows of a micro-batch")
    parser.add_argument("--width", type=int, default=512, help="response tokens of a row, observations included")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=int, default=0, help="processes each whose median peak memory is taken")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    platform.activate()
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("cpu:gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
        if arguments.alone:
            run_alone(arguments)
        else:
            write_model(Path(folder) / "model", arguments)
            compare(Path(folder) / "model", arguments)
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
