"""verl's rollout engines behind the one function an episode samples turns with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from omegaconf import DictConfig

from verl_llds.errors import ConfigError
from verl_llds.search.trajectory import Generation

_STOP_OPTIONS: dict[str, dict[str, Any]] = {
    "vllm": {"include_stop_str_in_output": True},
    "sglang": {"no_stop_trim": True},
}
"""How each engine is told to keep the stop string, by ``rollout.name``."""

_ABORTED = frozenset({"aborted", "abort"})
"""What vLLM's and SGLang's servers say of a turn that was made to stop."""


def check_engine(rollout: DictConfig) -> None:
    """Refuse a rollout engine that cannot stop at a closing tag.

    Raises:
        ConfigError: naming the setting and a value that works.
    """
    name = rollout.get("name")
    if name is None:
        # verl says itself that it is missing.
        return
    if name not in _STOP_OPTIONS:
        raise ConfigError(
            f"actor_rollout_ref.rollout.name={name}: search rollouts stop at closing tags, which is known how "
            f"to ask of {' and '.join(_STOP_OPTIONS)} only; use one of these"
        )
    if name == "sglang" and rollout.skip_tokenizer_init:
        raise ConfigError(
            "actor_rollout_ref.rollout.skip_tokenizer_init=true leaves SGLang without a tokenizer, so it could not "
            "stop at </search>: set it to false, as search=search_r1 does"
        )


class VerlEngine:
    """Samples the turns of one episode on verl's engine; a `verl_llds.search.episode.Generate`."""

    def __init__(
        self, server: Any, name: str, sampling_params: dict[str, Any], stop_strings: Sequence[str], step: int
    ) -> None:
        """Take verl's server client, ``rollout.name``, parameters shared by sibling rollouts, and the step."""
        self._server = server
        self._options = {
            **sampling_params,
            **_STOP_OPTIONS[name],
            "stop": list(stop_strings),
            # The tags of some models are special tokens; hidden, no stop string would ever match.
            "skip_special_tokens": False,
        }
        # One id for all turns keeps an episode on one server, where its prefix is cached.
        self._request_id = uuid4().hex
        self.seconds = 0.0
        self.num_context = 0
        self.num_cached = 0
        self.first_step = self.last_step = step

    async def __call__(self, token_ids: list[int], limit: int) -> Generation:
        """Sample one turn."""
        started = time.perf_counter()
        # A copy for each turn: servers take entries out of it.
        options = {**self._options, "max_tokens": limit}
        output = await self._server.generate(request_id=self._request_id, prompt_ids=token_ids, sampling_params=options)
        facts = output.extra_fields
        if not self.num_context:
            self.first_step = facts["min_global_steps"]
        self.last_step = facts["max_global_steps"]
        self.seconds += time.perf_counter() - started
        self.num_context += len(token_ids)
        self.num_cached += facts.get("num_cached_tokens") or 0
        return Generation(
            token_ids=output.token_ids, log_probs=output.log_probs, is_aborted=output.stop_reason in _ABORTED
        )
