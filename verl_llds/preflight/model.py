"""The model of a run: whether it is there, how large it is, whether it can render a prompt."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from verl_llds.checks import check_chat_template, check_search
from verl_llds.doctor.findings import Finding, Status
from verl_llds.errors import ConfigError
from verl_llds.preflight.model_shape import ModelShape

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def model_directory(path: str) -> Path | None:
    """Return the directory of a model on this machine, the hub's cache included, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory
    try:
        cached = try_to_load_from_cache(path, "config.json")
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def find_shape(config: DictConfig) -> ModelShape | None:
    """Return the size of a run's model: from its ``config.json``, else from ``policy.shape``, else None.

    Raises:
        ConfigError: for a ``policy.shape`` that cannot be.
    """
    directory = model_directory(config.actor_rollout_ref.model.path)
    if directory is not None and (directory / "config.json").is_file():
        return ModelShape.from_model_config(json.loads((directory / "config.json").read_text(encoding="utf-8")))
    declared = config.get("policy")
    return None if declared is None else ModelShape.from_mapping(declared.get("shape"))


def check_model(config: DictConfig) -> Iterator[Finding]:
    """Look for the model, and try its chat template where its tokenizer is at hand."""
    path = config.actor_rollout_ref.model.path
    directory = model_directory(path)
    if directory is None:
        yield _absent(path)
        return
    if not (directory / "config.json").is_file():
        text = f"{directory} has no config.json: set MODEL to a directory in Hugging Face's format, or to a hub id"
        yield Finding(Status.FAIL, "model", text)
        return
    try:
        _try_chat_template(config, directory)
    except (ConfigError, OSError) as error:
        yield Finding(Status.FAIL, "model", str(error))
    else:
        yield Finding(Status.OK, "model", f"{path}, its tokenizer renders prompts")


def _absent(path: str) -> Finding:
    if not _HUB_ID.fullmatch(path):
        return Finding(Status.FAIL, "model", f"{path} is not there: set MODEL to a directory, or to a hub id")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        text = f"{path} is not in the hub's cache and HF_HUB_OFFLINE=1 forbids to fetch it: set MODEL to a directory"
        return Finding(Status.FAIL, "model", text)
    return Finding(Status.WARN, "model", f"{path} is not on this machine: verl will fetch it from the hub")


def _try_chat_template(config: DictConfig, directory: Path) -> None:
    from transformers import AutoTokenizer

    model = config.actor_rollout_ref.model
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=bool(model.get("trust_remote_code", False)))
    if model.get("custom_chat_template"):
        tokenizer.chat_template = model.custom_chat_template
    settings = check_search(config) if config.get("search") is not None else None
    check_chat_template(tokenizer, model.path, settings)
