"""What an evaluation needs of an engine: one turn at a time, ids in and ids out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from verl_llds.search.trajectory import Generation

Watch = Callable[[Sequence[int]], None]
"""Is told the ids of the turn so far while they are sampled."""

_SEED_BITS = 31


class Sampler(Protocol):
    """An engine that serves one model."""

    async def sample(self, token_ids: list[int], limit: int, *, seed: int, watch: Watch | None = None) -> Generation:
        """Sample one turn.

        Args:
            token_ids: everything so far.
            limit: the most ids of the turn.
            seed: of this turn, of no use where sampling is greedy.
            watch: is told of ids as they come.
        """
        ...

    async def close(self) -> None:
        """Give back what the engine holds."""
        ...


@dataclass(frozen=True)
class EpisodeSampler:
    """A sampler for one episode; a `verl_llds.search.episode.Generate`."""

    sampler: Sampler
    """The engine."""
    seed: int
    """Of the evaluation."""
    name: str
    """Of the episode: question and sample."""
    watch: Watch | None = None
    """Is told of ids as they come."""

    async def __call__(self, token_ids: list[int], limit: int) -> Generation:
        """Sample one turn, with a seed that depends on the episode and on where in it the turn begins."""
        seed = turn_seed(self.seed, self.name, len(token_ids))
        return await self.sampler.sample(token_ids, limit, seed=seed, watch=self.watch)


def turn_seed(seed: int, name: str, position: int) -> int:
    """Return the seed of one turn, so that a resumed evaluation samples as an uninterrupted one would."""
    digest = hashlib.sha256(f"{seed} {position} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)
