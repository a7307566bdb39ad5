"""Lock-step as in Search-R1's loop, for episodes that know nothing of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from verl_llds.search.tools import Searcher, SearchResult


class LockStep:
    """Lets the trajectories of a batch go on only together: all their searches, then all their next turns."""

    def __init__(self, num_playing: int) -> None:
        self.num_playing = num_playing
        self.searches: list[asyncio.Future[None]] = []
        self.turns: list[asyncio.Future[None]] = []

    async def wait(self, waiting: list[asyncio.Future[None]]) -> None:
        """Wait, for a search or a turn, until every other trajectory waits too."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        self._release()
        await future

    def leave(self) -> None:
        """Play no longer."""
        self.num_playing -= 1
        self._release()

    def _release(self) -> None:
        if len(self.searches) + len(self.turns) < self.num_playing:
            return
        # A trajectory whose turn was invalid waits for its next one while the others search.
        ready = self.searches or self.turns
        released = ready[:]
        ready.clear()
        for future in released:
            future.set_result(None)


@dataclass
class LockStepSearcher:
    """A searcher that waits for the batch."""

    searcher: Searcher
    lock: LockStep

    async def search(self, query: str) -> SearchResult:
        """Search when every turn of the batch is sampled."""
        await self.lock.wait(self.lock.searches)
        return await self.searcher.search(query)
