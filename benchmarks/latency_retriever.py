"""A retriever in a process of its own whose answers take as long as a busy one's: log-normal latencies.

It ranks passages by shared words, which costs next to nothing, so that the benchmark's engine keeps the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from aiohttp import web

_Z99 = 2.3263478740408408
"""The standard normal's 99th percentile."""


class Overlap:
    """Passages by the rarity of the words they share with a query."""

    def __init__(self, path: Path) -> None:
        self.passages = [json.loads(line) for line in path.read_text().splitlines()]
        self.postings: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(self.passages):
            for word in set(passage["contents"].lower().split()):
                self.postings[word].append(number)

    def search(self, query: str, topk: int) -> list[dict[str, Any]]:
        """Return the best passages with their scores."""
        scores: Counter[int] = Counter()
        for word in set(query.lower().split()):
            found = self.postings.get(word, ())
            for number in found:
                scores[number] += math.log(1 + len(self.passages) / len(found))
        return [{"document": self.passages[number], "score": score} for number, score in scores.most_common(topk)]


def latency_s(rng: random.Random, median_s: float, p99_s: float) -> float:
    """Draw a latency with this median and 99th percentile."""
    return median_s * math.exp(rng.gauss(0, math.log(p99_s / median_s) / _Z99))


def make_app(index: Overlap, median_s: float, p99_s: float, seed: int) -> web.Application:
    """Serve ``/retrieve``; a query's latency depends on its text, so that all contenders meet the same."""

    async def retrieve(request: web.Request) -> web.Response:
        body = await request.json()
        found = []
        for query in body["queries"]:
            await asyncio.sleep(latency_s(random.Random(f"{seed}:{query}"), median_s, p99_s))
            found.append(index.search(query, body["topk"]))
        return web.json_response({"result": found})

    app = web.Application()
    app.router.add_post("/retrieve", retrieve)
    return app


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--median-s", type=float, default=0.05)
    parser.add_argument("--p99-s", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    app = make_app(Overlap(options.passages), options.median_s, options.p99_s, options.seed)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None)


if __name__ == "__main__":
    main()
