"""Settings of the search environment, checked once where they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf

from verl_llds.errors import ConfigError
from verl_llds.fields import check_choice, check_count, check_seconds, check_switch, is_number, known_values
from verl_llds.reward.settings import RewardConfig

_MIN_OBSERVATION_TOKENS = 32
"""Both information tags are 31 bytes, so no tokenizer with byte fallback needs more ids for them."""


class ProtocolName(str, Enum):
    """How the policy asks for a search and reads what was found."""

    SEARCH_R1 = "search_r1"
    """Search-R1's tags in one assistant turn."""
    TOOL_CALL = "tool_call"
    """The model's own tool calls: its chat template, a JSON call between ``<tool_call>`` tags."""


class OnFailure(str, Enum):
    """What a trajectory is worth whose environment failed."""

    MASK = "mask"
    """Nothing: it carries no gradient, stays out of its group's mean, and is counted."""
    PENALISE = "penalise"
    """A wrong answer: reward 0 and an ordinary gradient."""
    RAISE = "raise"
    """The run: it stops at the first one, with a checkpoint saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """One search environment; the node ``search`` of the run's configuration."""

    protocol: ProtocolName = ProtocolName.SEARCH_R1
    """The text protocol between policy and environment."""

    url: str | tuple[str, ...] = "http://127.0.0.1:8000/retrieve"
    """Where the retriever listens: any server that speaks Search-R1's ``/retrieve``.

    With several, the first that works is asked, and the next one when it does not.
    """

    topk: int = 3
    """Passages per query. Search-R1 and the LLDS paper use 3."""

    max_turns: int = 3
    """Turns in which the policy may search; one forced final turn without search follows.

    The LLDS authors train with 3 and evaluate with 4.
    """

    max_action_tokens: int = 500
    """Longest single turn of the policy, in tokens (Search-R1: 500)."""

    max_observation_tokens: int = 500
    """Longest observation, in tokens, closing tag included (Search-R1: 500); at least 32."""

    keep_closing_tag: bool = True
    """Whether an observation that is cut keeps its closing tag.

    Search-R1 loses it, so the figures published with it were made without; False repeats that, in its protocol only.
    """

    tools: tuple[str, ...] = ()
    """More tools than search: import paths of classes, such as ``my_module.Calculator``.

    `verl_llds.search.tools.Tool` says what such a class has to have.
    """

    reward: RewardConfig = field(default_factory=RewardConfig)
    """How a trajectory is scored."""

    timeout_s: float = 30.0
    """Seconds until one attempt at the retriever is given up."""

    max_attempts: int = 5
    """Wrong answers or timeouts, over all addresses, after which a query is given up.

    A retriever that is down or says it is busy (503) is waited for, up to ``max_wait_s``.
    """

    max_wait_s: float = 120.0
    """Longest time one query may take, retries and waiting for a retriever that is down included."""

    max_concurrency: int = 64
    """Requests one rollout worker keeps in flight at the retriever."""

    cache: bool = True
    """Whether identical queries of one training step are asked once."""

    on_failure: OnFailure = OnFailure.MASK
    """What a trajectory is worth whose environment failed."""

    max_failure_ratio: float = 0.1
    """Share of a step's trajectories that may fail; above it the run stops with a checkpoint saved.

    Under ``on_failure=mask`` a step all of whose trajectories failed stops it in any case: nothing is left to train on.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        urls = self.urls if isinstance(self.url, str | tuple) else ()
        if not urls or not all(_is_http_url(url) for url in urls):
            raise ConfigError(
                f"search.url must be an http:// or https:// address or a list of them, got {self.url!r}: "
                "use the one `retriever-server serve` prints, for example http://127.0.0.1:8000/retrieve"
            )
        if len(set(urls)) < len(urls):
            raise ConfigError(f"search.url names an address twice: {list(urls)}; give each retriever once")
        for name in ("topk", "max_turns", "max_action_tokens", "max_attempts", "max_concurrency"):
            check_count("search", self, name, 1)
        check_count("search", self, "max_observation_tokens", _MIN_OBSERVATION_TOKENS)
        for name in ("timeout_s", "max_wait_s"):
            check_seconds("search", self, name)
        for name in ("keep_closing_tag", "cache"):
            check_switch("search", self, name)
        check_choice("search", self, "protocol", ProtocolName)
        check_choice("search", self, "on_failure", OnFailure)
        if self.protocol is ProtocolName.TOOL_CALL and not self.keep_closing_tag:
            raise ConfigError(
                "search.keep_closing_tag=false would cut off the chat turn in which search.protocol=tool_call lets the "
                "policy speak again: set it to true, or use search.protocol=search_r1"
            )
        if not (is_number(self.max_failure_ratio) and 0 <= self.max_failure_ratio <= 1):
            raise ConfigError(
                f"search.max_failure_ratio must be a number in [0, 1], got {self.max_failure_ratio!r}: "
                "use 0.1, or 1 to stop only when all of them failed, written without quotes"
            )
        paths = self.tools if isinstance(self.tools, tuple) else (None,)
        if not all(isinstance(path, str) and "." in path for path in paths):
            raise ConfigError(
                f"search.tools must be a list of import paths, got {self.tools!r}: write for example "
                "search.tools=[my_module.Calculator], or [] for search alone"
            )

    @property
    def urls(self) -> tuple[str, ...]:
        """The retrievers, in the order in which they are asked."""
        return (self.url,) if isinstance(self.url, str) else self.url

    @classmethod
    def from_run(cls, config: Any) -> SearchConfig:
        """Build the settings from a run's configuration; the defaults where it has no ``search`` node.

        Raises:
            ConfigError: for an unknown key (the known ones are named) or a value out of range.
        """
        node = config.get("search")
        return cls.from_mapping(OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node)

    @classmethod
    def from_mapping(cls, values: object) -> SearchConfig:
        """Build the settings from the run's ``search`` node.

        Raises:
            ConfigError: for an unknown key (the known ones are named) or a value out of range.
        """
        known = known_values("search", cls, values)
        # Lists of YAML become tuples: settings are keys of caches.
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
        if "reward" in known:
            known["reward"] = RewardConfig.from_mapping(known["reward"])
        return cls(**known)


def _is_http_url(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
