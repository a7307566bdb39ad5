"""A checkpoint's weights, tokenizer and generation config in Hugging Face's format."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

from verl_llds.errors import ExportError
from verl_llds.export.checkpoint import Checkpoint

_ADAPTER = "lora_adapter"


def write_weights(checkpoint: Checkpoint, out: Path) -> None:
    """Fill a folder with the model.

    Whole weights that the trainer saved are taken as they are; shards are merged by verl's own merger, in bfloat16. A
    LoRA adapter is merged into the weights: loaded without it, they would be the model from before the training.

    Raises:
        ExportError: if the checkpoint cannot be merged.
    """
    if checkpoint.has_whole_weights:
        shutil.copytree(checkpoint.hf_folder, out, dirs_exist_ok=True)
    else:
        _merge(checkpoint, out)
    if (out / _ADAPTER).is_dir():
        _fold_adapter(out)
    if not (out / "generation_config.json").is_file():
        _write_generation_config(out)


def _merge(checkpoint: Checkpoint, out: Path) -> None:
    from verl.model_merger.base_model_merger import ModelMergerConfig
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    config = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        target_dir=str(out),
        local_dir=str(checkpoint.actor),
        hf_model_config_path=str(checkpoint.hf_folder),
    )
    # It prints what it does; the answer of this command is the last line alone.
    with redirect_stdout(sys.stderr):
        try:
            FSDPModelMerger(config).merge_and_save()
        # verl's merger asserts, and torch raises many kinds for files that are broken.
        except Exception as error:
            raise ExportError(f"{checkpoint.actor} cannot be merged ({type(error).__name__}: {error})") from error


def _fold_adapter(out: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = out / _ADAPTER
    values = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if not values.get("lora_alpha"):
        raise ExportError(
            "the checkpoint has a LoRA adapter, but lora_train_meta.json does not say its lora_alpha, without which it "
            "weighs nothing: copy the file from the run's other checkpoints into the folder actor"
        )
    base = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    for path in out.glob("*.safetensors*"):
        path.unlink()
    merged.save_pretrained(out)
    shutil.rmtree(adapter)


def _write_generation_config(out: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    GenerationConfig.from_model_config(AutoConfig.from_pretrained(out)).save_pretrained(out)
