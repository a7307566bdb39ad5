"""Settings of the search environment, checked once where they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from verl_llds.errors import ConfigError


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
    """Longest observation, in tokens, closing tag included (Search-R1: 500)."""

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
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"search.url must be an http:// or https:// address, got {self.url!r}: "
                "use the one `retriever-server serve` prints, for example http://127.0.0.1:8000/retrieve"
            )
        for name in ("topk", "max_turns", "max_action_tokens", "max_observation_tokens", "max_attempts"):
            self._check_count(name)
        self._check_count("max_concurrency")
        if not self.timeout_s > 0:
            raise ConfigError(f"search.timeout_s must be positive, got {self.timeout_s!r}: use 30")
        if not 0 <= self.max_failed_ratio <= 1:
            raise ConfigError(
                f"search.max_failed_ratio must lie in [0, 1], got {self.max_failed_ratio!r}: "
                "use 0.1, or 1 to never stop for failed searches"
            )

    def _check_count(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"search.{name} must be a whole number of at least 1, got {value!r}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object] | None) -> SearchConfig:
        """Build the settings from the run's ``search`` node.

        Raises:
            ConfigError: for an unknown key (the known ones are named) or a value out of range.
        """
        values = values or {}
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"search has no setting {', '.join(unknown)}; it has {', '.join(known)}")
        return cls(**values)  # type: ignore[arg-type]
