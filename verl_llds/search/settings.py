"""Settings of the search environment, checked once where they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from verl_llds.errors import ConfigError
from verl_llds.fields import check_count, is_number, known_values

_MIN_OBSERVATION_TOKENS = 32
"""Both information tags are 31 bytes, so no tokenizer with byte fallback needs more ids for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """One search environment; the node ``search`` of the run's configuration."""

    url: str = "http://127.0.0.1:8000/retrieve"
    """Where the retriever listens: any server that speaks Search-R1's ``/retrieve``."""

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

    timeout_s: float = 30.0
    """Seconds until one attempt at the retriever is given up."""

    max_attempts: int = 5
    """Attempts per query before the search counts as failed; 503 and connection errors are tried again."""

    max_concurrency: int = 64
    """Requests one rollout worker keeps in flight at the retriever."""

    max_failed_ratio: float = 0.1
    """Share of a step's trajectories that may end with a failed search; above it the run stops.

    Trajectories whose search failed carry no gradient either way.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        if not _is_http_url(self.url):
            raise ConfigError(
                f"search.url must be an http:// or https:// address, got {self.url!r}: "
                "use the one `retriever-server serve` prints, for example http://127.0.0.1:8000/retrieve"
            )
        for name in ("topk", "max_turns", "max_action_tokens", "max_attempts", "max_concurrency"):
            check_count("search", self, name, 1)
        check_count("search", self, "max_observation_tokens", _MIN_OBSERVATION_TOKENS)
        if not (is_number(self.timeout_s) and 0 < self.timeout_s < math.inf):
            raise ConfigError(
                f"search.timeout_s must be a positive number of seconds, got {self.timeout_s!r}: "
                "use 30, written without quotes"
            )
        if not (is_number(self.max_failed_ratio) and 0 <= self.max_failed_ratio <= 1):
            raise ConfigError(
                f"search.max_failed_ratio must be a number in [0, 1], got {self.max_failed_ratio!r}: "
                "use 0.1, or 1 to never stop for failed searches, written without quotes"
            )

    @classmethod
    def from_mapping(cls, values: object) -> SearchConfig:
        """Build the settings from the run's ``search`` node.

        Raises:
            ConfigError: for an unknown key (the known ones are named) or a value out of range.
        """
        return cls(**known_values("search", cls, values))


def _is_http_url(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
