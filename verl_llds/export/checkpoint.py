"""Where a checkpoint of verl's FSDP trainer has what, checked before anything is merged."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from verl_llds.errors import ExportError

_STEP = re.compile(r"global_step_(\d+)")
_LATEST = "latest_checkpointed_iteration.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The actor's part of one checkpoint."""

    actor: Path
    """Its folder."""
    step: int
    """Training steps it has behind it."""
    shards: tuple[Path, ...]
    """Weights, a file for each rank."""

    @property
    def hf_folder(self) -> Path:
        """Where configuration and tokenizer lie, and the whole weights if they were saved."""
        return self.actor / "huggingface"

    @property
    def has_whole_weights(self) -> bool:
        """Whether ``actor.checkpoint.save_contents`` had ``hf_model``; not of an adapter, which is merged here."""
        return any(self.hf_folder.glob("*.safetensors")) and not (self.actor / "lora_train_meta.json").exists()

    @property
    def num_bytes(self) -> int:
        """Bytes of its weights: what the model folder takes at most."""
        return sum(path.stat().st_size for path in self.shards)


def find_checkpoint(path: Path) -> Checkpoint:
    """Find the actor's checkpoint.

    Args:
        path: ``global_step_N``, its ``actor``, or the folder of all checkpoints, whose latest is taken.

    Raises:
        ExportError: if there is none, it was not saved by FSDP, or files are missing.
    """
    step_folder = _step_folder(path)
    actor = step_folder / "actor"
    if not actor.is_dir():
        raise ExportError(f"{step_folder} has no folder actor: give a global_step_N that verl's trainer has saved")
    found = _STEP.fullmatch(step_folder.name)
    assert found is not None, "a step's folder is called so"
    config = actor / "fsdp_config.json"
    if not config.is_file():
        raise ExportError(
            f"{actor} has no {config.name}: only checkpoints of FSDP are exported; for Megatron's use "
            "`python -m verl.model_merger merge --backend megatron`"
        )
    world_size = int(json.loads(config.read_text(encoding="utf-8"))["world_size"])
    shards = tuple(actor / f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size))
    hf_config = actor / "huggingface" / "config.json"
    missing = [str(path) for path in (*shards, hf_config) if not path.is_file()]
    if missing:
        raise ExportError(
            f"the checkpoint is not whole, {len(missing)} of its files are missing, {missing[0]} among them: bring the "
            "files of all nodes together, or take an earlier one"
        )
    return Checkpoint(actor=actor, step=int(found[1]), shards=shards)


def check_room(checkpoint: Checkpoint, out: Path) -> None:
    """Refuse a target that is taken, or too small.

    Raises:
        ExportError: naming the bytes there are and that are needed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"--out {out} is there already: give a new folder")
    parent = next(folder for folder in out.resolve().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < checkpoint.num_bytes:
        needed = f"{free / 2**30:.1f} GiB are free and up to {checkpoint.num_bytes / 2**30:.1f} GiB are needed"
        raise ExportError(f"--out {out}: {needed}: make room, or give a folder on another disk")


def _step_folder(path: Path) -> Path:
    folder = path.resolve()
    if not folder.is_dir():
        raise ExportError(f"there is no folder {path}: give a global_step_N that verl's trainer has saved")
    if folder.name == "actor":
        folder = folder.parent
    if _STEP.fullmatch(folder.name):
        return folder
    latest = folder / _LATEST
    if not latest.is_file():
        raise ExportError(
            f"{path} is neither a global_step_N nor a folder of them ({_LATEST} is missing): give "
            "trainer.default_local_dir or one of its global_step_N"
        )
    return folder / f"global_step_{latest.read_text(encoding='utf-8').strip()}"
