"""Settings of an evaluation, checked once where they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from verl_llds.errors import ConfigError
from verl_llds.fields import is_number
from verl_llds.search.settings import SearchConfig

EVAL_TURNS = 4
"""Turns that may search: what Search-R1's and the LLDS paper's tables were made with; training has 3."""


_SEEDS = 2**32
"""numpy, which vLLM seeds too, takes no larger ones."""


def check_seed(seed: int) -> None:
    """Refuse a seed that a generator would not take.

    Raises:
        ConfigError: for a negative or too large one.
    """
    if not 0 <= seed < _SEEDS:
        raise ConfigError(f"--seed must be a whole number from 0 to {_SEEDS - 1}, got {seed}: use 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How answers are sampled."""

    temperature: float = 0.0
    """0 is greedy, as in the published tables."""

    top_p: float = 1.0
    """Share of probability that is sampled from."""

    top_k: int = -1
    """Tokens that are sampled from; -1 is all of them."""

    num_samples: int = 1
    """Episodes for each question."""

    seed: int = 0
    """Seed of the sampling and of the bootstrap."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not (is_number(self.temperature) and 0 <= self.temperature < math.inf):
            raise ConfigError(f"--temperature must be a number from 0 on, got {self.temperature!r}: use 0 for greedy")
        if not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigError(f"--top-p must be a number in (0, 1], got {self.top_p!r}: use 1")
        if self.top_k != -1 and self.top_k < 1:
            raise ConfigError(f"--top-k must be at least 1, got {self.top_k}: leave it out for all tokens")
        check_seed(self.seed)
        if self.num_samples < 1:
            raise ConfigError(f"--num-samples must be at least 1, got {self.num_samples}: use 1")
        if self.is_greedy and self.num_samples > 1:
            raise ConfigError(
                f"--num-samples {self.num_samples} with --temperature 0 would play the same episode "
                f"{self.num_samples} times: set --temperature 1, or leave --num-samples at 1"
            )
        if self.is_greedy and (self.top_p != 1 or self.top_k != -1):
            raise ConfigError("--top-p and --top-k do nothing with --temperature 0: leave them out, or set it to 1")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """One evaluation."""

    model: str
    """A directory or hub id in Hugging Face's format."""

    search: SearchConfig
    """The environment, as in training."""

    decoding: Decoding = field(default_factory=Decoding)
    """How answers are sampled."""

    max_response_tokens: int | None = None
    """Budget of sampled and observed ids together; None is what turns and observations can take, or the model."""

    chat_template: Path | None = None
    """A Jinja file instead of the tokenizer's own template."""

    dtype: str = "auto"
    """Precision of the weights: vLLM's names; ``auto`` is the checkpoint's on a GPU and float32 on a CPU."""

    server: str | None = None
    """Address of an OpenAI-compatible server that serves the model; None plays in this process."""

    retokenize: bool = False
    """Whether the server's text is encoded again instead of asking it for the ids it sampled."""

    concurrency: int = 256
    """Episodes in flight."""

    tensor_parallel: int = 1
    """GPUs that hold the model together."""

    gpu_memory: float = 0.9
    """Share of a GPU's memory for vLLM."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.max_response_tokens is not None and self.max_response_tokens < 1:
            raise ConfigError(f"--max-response-tokens must be at least 1, got {self.max_response_tokens}: use 4096")
        if self.concurrency < 1:
            raise ConfigError(f"--concurrency must be at least 1, got {self.concurrency}: use 256")
        if self.tensor_parallel < 1:
            raise ConfigError(f"--tensor-parallel must be at least 1, got {self.tensor_parallel}: use 1")
        if not 0 < self.gpu_memory <= 1:
            raise ConfigError(f"--gpu-memory must be in (0, 1], got {self.gpu_memory}: use 0.9")
        if self.chat_template is not None and not self.chat_template.is_file():
            raise ConfigError(f"--chat-template {self.chat_template} is not there: give a Jinja file")
        if self.server is not None and not self.server.startswith(("http://", "https://")):
            raise ConfigError(f"--server must be an http:// or https:// address, got {self.server!r}")
        if self.server is not None and (self.tensor_parallel != 1 or self.gpu_memory != 0.9 or self.dtype != "auto"):
            raise ConfigError(
                "--tensor-parallel, --gpu-memory and --dtype are the server's affair: leave them out with --server"
            )
        if self.retokenize and self.server is None:
            raise ConfigError("--retokenize is of --server alone: vLLM in this process gives the ids it sampled")
        if self.retokenize and self.decoding.top_k != -1:
            raise ConfigError(
                "--top-k with --retokenize would do nothing, OpenAI's completions have no such field: leave it out, or "
                "use a server that gives ids"
            )

    @property
    def most_response_tokens(self) -> int:
        """The longest response that turns and observations allow."""
        search = self.search
        return (search.max_turns + 1) * search.max_action_tokens + search.max_turns * search.max_observation_tokens

    @property
    def _engine(self) -> str:
        if self.server is None:
            return "vllm"
        return "server, retokenized" if self.retokenize else "server"

    def compared(self) -> dict[str, Any]:
        """Return what a number depends on, as plain values; where and how fast it is computed is not among it."""
        search, decoding = self.search, self.decoding
        return {
            "protocol": search.protocol.value,
            "topk": search.topk,
            "max_turns": search.max_turns,
            "max_action_tokens": search.max_action_tokens,
            "max_observation_tokens": search.max_observation_tokens,
            "keep_closing_tag": search.keep_closing_tag,
            "tools": list(search.tools),
            "max_response_tokens": self.max_response_tokens,
            "dtype": self.dtype,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": decoding.top_k,
            "num_samples": decoding.num_samples,
            "seed": decoding.seed,
            "engine": self._engine,
        }


def run_episode_settings(path: Path | None) -> tuple[dict[str, Any], int | None]:
    """Return the node ``search`` and the response length of a training run; without one, those of an evaluation.

    Raises:
        ConfigError: if the file is no run's configuration.
    """
    if path is None:
        return {"max_turns": EVAL_TURNS}, None
    try:
        run = OmegaConf.load(path)
        search = OmegaConf.to_container(run.search, resolve=False)
        length = OmegaConf.select(run, "data.max_response_length")
    except (OSError, ValueError, AttributeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"--run-config {path} holds no node `search` ({error}): give the .hydra/config.yaml that a training run "
            "with search=... left in its hydra.run.dir"
        ) from error
    if not isinstance(search, dict):
        raise ConfigError(f"--run-config {path}: the run had no search=..., so its episode is not known")
    return {str(name): value for name, value in search.items()}, None if length is None else int(length)
