"""What our own Python costs a turn: client, episode and score, with an engine that answers at once."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

from verl_llds.search.client import SearchClient
from verl_llds.search.environment import Environment, make_environment
from verl_llds.search.episode import Generate, run_episode
from verl_llds.search.scoring import score_trajectory
from verl_llds.search.settings import SearchConfig
from verl_llds.search.trajectory import Generation, Trajectory


def write_passages(path: Path) -> None:
    """Write three passages of a hundred words."""
    text = "Norway\n" + "The highest peak and the capital of the country lie far apart. " * 9
    path.write_text("".join(json.dumps({"id": str(n), "contents": text}) + "\n" for n in range(3)))


class ScriptedEngine:
    """Answers at once: two searches, then an answer."""

    def __init__(self, tokenizer: Any) -> None:
        turns = ("<search> capital of Norway </search>", "<search> highest peak </search>", "<answer> Oslo </answer>")
        thought = "<think> " + "I need the name of the place where this was first seen. " * 6 + "</think>\n"
        self.turns = [tokenizer.encode(thought + turn, add_special_tokens=False) for turn in turns]

    def episode(self) -> Generate:
        """Return the engine of one episode."""
        turns = iter(self.turns)

        async def generate(token_ids: list[int], limit: int) -> Generation:
            await asyncio.sleep(0)
            ids = next(turns)
            return Generation(token_ids=ids, log_probs=[-1.0] * len(ids))

        return generate


async def measure_overhead(options: argparse.Namespace, url: str, tokenizer: Any) -> None:
    """Print the CPU time our own Python takes a turn: client, episode and score, all episodes at once."""
    settings = SearchConfig(url=url, cache=False, max_concurrency=options.episodes)
    engine = ScriptedEngine(tokenizer)
    costs = []
    for _ in range(options.repetitions):
        client = SearchClient(settings)
        environment = make_environment(settings, client, tokenizer)

        async def one(environment: Environment = environment) -> Trajectory:
            trajectory = await run_episode(
                prompt_ids=list(range(200)),
                generate=engine.episode(),
                environment=environment,
                tokenizer=tokenizer,
                max_response_tokens=4096,
            )
            score_trajectory(trajectory, ["Oslo"], environment)
            return trajectory

        started = time.process_time()
        trajectories = await asyncio.gather(*(one() for _ in range(options.episodes)))
        turns = sum(len(trajectory.turns) for trajectory in trajectories)
        costs.append((time.process_time() - started) / turns * 1000)
        await client.close()
        assert turns == 3 * options.episodes
    observed = statistics.fmean(turn.num_observation_tokens for turn in trajectories[0].turns[:2])
    sizes = f"{len(engine.turns[0])} tokens a turn, {observed:.0f} an observation"
    print(f"{options.episodes} episodes at once: {statistics.median(costs):.2f} ms of CPU a turn ({sizes})")
