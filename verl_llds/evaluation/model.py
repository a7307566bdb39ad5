"""The model's tokenizer and limits, read before anything heavy is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.questions import Question
from verl_llds.evaluation.settings import EvalSettings
from verl_llds.search.environment import Environment

_WEIGHTS = ("*.safetensors", "*.bin")
_EDGE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What is known of a model before its weights are loaded."""

    name: str
    """The directory or hub id."""
    identity: str
    """What tells it from another one under the same name: a commit of the hub, or a fingerprint of its files."""
    tokenizer: Any
    """A transformers tokenizer with a chat template."""
    template_sha256: str
    """Hash of the chat template."""
    max_tokens: int
    """Most ids it can read and write together."""


def open_model(settings: EvalSettings) -> Model:
    """Read configuration and tokenizer.

    Raises:
        EvaluationError: if there is no such model, it has no weights, or no chat template.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(settings.model).expanduser()
    name = str(folder) if folder.exists() else settings.model
    try:
        config = AutoConfig.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EvaluationError(
            f"--model {settings.model} is no model in Hugging Face's format ({reason}): give a directory with "
            "config.json, tokenizer and weights, or a hub id; `verl-llds export` makes one of verl's checkpoints"
        ) from error
    if settings.chat_template is not None:
        tokenizer.chat_template = settings.chat_template.read_text(encoding="utf-8")
    if not getattr(tokenizer, "chat_template", None):
        raise EvaluationError(
            f"the tokenizer of {settings.model} has no chat template, so questions cannot be put as in training: give "
            "the training's with --chat-template FILE"
        )
    text = config.get_text_config()
    identity = fingerprint(folder) if folder.is_dir() else str(getattr(config, "_commit_hash", None) or "unknown")
    return Model(
        name=name,
        identity=identity,
        tokenizer=tokenizer,
        template_sha256=hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest(),
        max_tokens=int(getattr(text, "max_position_embeddings", None) or 2**31),
    )


def fingerprint(folder: Path) -> str:
    """Return a short hash of a model folder: its configuration, and size, beginning and end of each file of weights.

    Two checkpoints of one run differ in it, and a model of hundreds of gigabytes takes no time.

    Raises:
        EvaluationError: if there are no weights.
    """
    weights = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    if not weights:
        raise EvaluationError(
            f"{folder} holds no weights ({' or '.join(_WEIGHTS)}): `verl-llds export` makes a model folder of a "
            "checkpoint"
        )
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in weights:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(0, size - _EDGE_BYTES))
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()[:16]


def render(question: Question, environment: Environment, tokenizer: Any) -> list[int]:
    """Return the ids of a question's prompt, as training renders it: chat template, tools, the assistant's turn."""
    protocol = environment.protocol
    ids: list[int] = tokenizer.apply_chat_template(
        protocol.messages([dict(message) for message in question.messages]),
        tools=protocol.schemas,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    return ids


def response_budget(settings: EvalSettings, model: Model, prompts: Sequence[tuple[Question, list[int]]]) -> int:
    """Return the ids a response may have.

    Raises:
        EvaluationError: if the longest prompt and the budget do not fit into the model.
    """
    question, longest = max(prompts, key=lambda pair: len(pair[1]))
    room = model.max_tokens - len(longest)
    wanted = settings.max_response_tokens
    if room < 1 or (wanted is not None and wanted > room):
        raise EvaluationError(
            f"the prompt of {question.id} has {len(longest)} tokens and {model.name} takes {model.max_tokens}: "
            + (f"set --max-response-tokens to at most {room}" if room > 0 else "it cannot be asked this question")
        )
    return min(settings.most_response_tokens, room) if wanted is None else wanted
