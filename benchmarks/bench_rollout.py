"""Independent episodes against lock-step ones, in one run: ``python benchmarks/bench_rollout.py``.

Both play the same questions with the same policy on the same vLLM engine against the same retriever
(`latency_retriever.py`), through the same client and `run_episode`, with as many in flight. In lock-step, as in
Search-R1's loop, a turn starts when all trajectories of the batch have read their passages, searches start when all
turns are sampled, and the next batch starts when one has ended. Independent episodes wait for nobody, and the next one
starts as one ends. Prints a Markdown table; a ratio is the median over repetitions, in which the two alternate.
``--overhead`` measures what our own Python costs a turn instead, with an engine and a retriever that answer at once.

The policy and the questions are the laptop example's: ``bash recipes/laptop_llds.sh`` makes them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from lock_step import LockStep, LockStepSearcher
from rollout_overhead import measure_overhead, write_passages
from transformers import AutoTokenizer

from verl_llds.search.client import SearchClient
from verl_llds.search.environment import Environment, make_environment
from verl_llds.search.episode import Generate, run_episode
from verl_llds.search.settings import SearchConfig
from verl_llds.search.tools import Searcher
from verl_llds.search.trajectory import Generation, Trajectory

MAX_RESPONSE_TOKENS = 320


@dataclass
class VllmEngine:
    """vLLM's asynchronous engine, with the prefix cache's hits counted."""

    llm: Any
    stop_strings: Sequence[str]
    num_context: int = 0
    num_cached: int = 0
    busy_s: float = 0.0
    num_running: int = 0
    _since: float = field(default=0.0, repr=False)

    async def __call__(self, token_ids: list[int], limit: int) -> Generation:
        """Sample one turn."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        params = SamplingParams(
            temperature=1.0,
            max_tokens=limit,
            stop=list(self.stop_strings),
            include_stop_str_in_output=True,
        )
        request_id = f"{random.getrandbits(64):x}"
        self._count(1)
        try:
            async for output in self.llm.generate(TokensPrompt(prompt_token_ids=token_ids), params, request_id):
                last = output
        finally:
            self._count(-1)
        self.num_context += len(token_ids)
        self.num_cached += last.num_cached_tokens or 0
        return Generation(token_ids=list(last.outputs[0].token_ids))

    def _count(self, change: int) -> None:
        now = time.perf_counter()
        if self.num_running:
            self.busy_s += now - self._since
        self.num_running += change
        self._since = now


@dataclass(frozen=True)
class Played:
    """One repetition of one contender."""

    seconds: float
    trajectories: list[Trajectory]
    engine: VllmEngine

    @property
    def rate(self) -> float:
        """Trajectories a second."""
        return len(self.trajectories) / self.seconds


@dataclass(frozen=True)
class Bench:
    """What both contenders share."""

    llm: Any
    tokenizer: Any
    settings: SearchConfig
    in_flight: int

    async def play(self, prompts: Sequence[list[int]], *, lock_step: bool) -> Played:
        """Play all prompts, ``in_flight`` at a time: batch after batch, or the next one as soon as one has ended."""
        client = SearchClient(self.settings)
        # Every repetition starts with a cold cache.
        await self.llm.reset_prefix_cache()
        engine = VllmEngine(self.llm, make_environment(self.settings, client, self.tokenizer).protocol.stop_strings)
        started = time.perf_counter()
        if lock_step:
            batches = [prompts[start : start + self.in_flight] for start in range(0, len(prompts), self.in_flight)]
            trajectories = [one for batch in batches for one in await self._batch(batch, engine, client)]
        else:
            trajectories = await self._stream(prompts, engine, client)
        seconds = time.perf_counter() - started
        await client.close()
        failed = {trajectory.error for trajectory in trajectories if trajectory.status.is_failure}
        assert not failed, failed
        return Played(seconds, trajectories, engine)

    async def _stream(self, prompts: Sequence[list[int]], engine: VllmEngine, client: Searcher) -> list[Trajectory]:
        environment = make_environment(self.settings, client, self.tokenizer)
        places = asyncio.Semaphore(self.in_flight)

        async def one(prompt_ids: list[int]) -> Trajectory:
            async with places:
                return await self._episode(prompt_ids, engine, environment)

        return await asyncio.gather(*map(one, prompts))

    async def _batch(self, prompts: Sequence[list[int]], engine: VllmEngine, client: Searcher) -> list[Trajectory]:
        lock = LockStep(len(prompts))
        environment = make_environment(self.settings, LockStepSearcher(client, lock), self.tokenizer)

        async def generate(token_ids: list[int], limit: int) -> Generation:
            await lock.wait(lock.turns)
            return await engine(token_ids, limit)

        async def one(prompt_ids: list[int]) -> Trajectory:
            try:
                return await self._episode(prompt_ids, generate, environment)
            finally:
                lock.leave()

        return await asyncio.gather(*map(one, prompts))

    async def _episode(self, prompt_ids: list[int], generate: Generate, environment: Environment) -> Trajectory:
        return await run_episode(
            prompt_ids=prompt_ids,
            generate=generate,
            environment=environment,
            tokenizer=self.tokenizer,
            max_response_tokens=MAX_RESPONSE_TOKENS,
        )


async def compare(options: argparse.Namespace, settings: SearchConfig, tokenizer: Any) -> None:
    """Alternate the two and print what was measured."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(options.model),
        max_model_len=MAX_RESPONSE_TOKENS + 96,
        max_num_seqs=options.in_flight,
        enable_prefix_caching=True,
        enforce_eager=True,
        dtype="float32",
        gpu_memory_utilization=0.1,
        disable_log_stats=True,
    )
    llm = AsyncLLM.from_engine_args(arguments)
    prompts = read_prompts(options.world / "train.parquet", tokenizer, options.episodes)
    contenders: dict[str, list[Played]] = {"independent": [], "lock-step": []}
    bench = Bench(llm, tokenizer, settings, options.in_flight)
    try:
        await bench.play(prompts[:8], lock_step=False)
        for _ in range(options.repetitions):
            for name, played in contenders.items():
                played.append(await bench.play(prompts, lock_step=name == "lock-step"))
    finally:
        llm.shutdown()
    report(contenders)


def read_prompts(path: Path, tokenizer: Any, count: int) -> list[list[int]]:
    """Return the rendered prompts of the first questions."""
    rows = pq.read_table(path, columns=["prompt"]).slice(0, count).to_pylist()
    texts = [tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False) for row in rows]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def report(contenders: dict[str, list[Played]]) -> None:
    """Print a Markdown table of the contenders and the ratio of their rates."""
    print("| episodes | trajectories/s | seconds | turns | searches | engine busy | prefix cache hits |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, played in contenders.items():
        turns = statistics.fmean(len(one.turns) for run in played for one in run.trajectories)
        searches = statistics.fmean(one.num_searches for run in played for one in run.trajectories)
        busy = statistics.median(run.engine.busy_s / run.seconds for run in played)
        cached = sum(run.engine.num_cached for run in played) / sum(run.engine.num_context for run in played)
        rate, seconds = (statistics.median(getattr(run, part) for run in played) for part in ("rate", "seconds"))
        print(f"| {name} | {rate:.2f} | {seconds:.2f} | {turns:.2f} | {searches:.2f} | {busy:.0%} | {cached:.0%} |")
    ratios = [one.rate / other.rate for one, other in zip(*contenders.values(), strict=True)]
    print(f"\nIndependent by lock-step: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when something listens."""
    for _ in range(300):
        assert process.poll() is None, "the retriever ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the retriever does not listen")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("build/laptop/policy"))
    parser.add_argument("--world", type=Path, default=Path("build/laptop/world"))
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--median-s", type=float, default=0.05)
    parser.add_argument("--p99-s", type=float, default=0.8)
    parser.add_argument("--overhead", action="store_true")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("latency_retriever.py")
    median_s, p99_s = (1e-4, 1e-3) if options.overhead else (options.median_s, options.p99_s)
    latency = ["--median-s", str(median_s), "--p99-s", str(p99_s)]
    folder = tempfile.TemporaryDirectory()
    passages = options.world / "passages.jsonl"
    if options.overhead:
        passages = Path(folder.name) / "passages.jsonl"
        write_passages(passages)
    command = [sys.executable, script, "--passages", passages, "--port", str(port), *latency]
    retriever = subprocess.Popen(command)
    try:
        wait_for(port, retriever)
        url = f"http://127.0.0.1:{port}/retrieve"
        if options.overhead:
            asyncio.run(measure_overhead(options, url, tokenizer))
            return
        settings = SearchConfig(
            url=url,
            max_action_tokens=64,
            max_observation_tokens=160,
            max_concurrency=options.in_flight,
            # The latency is what is measured; identical queries of siblings would hide it.
            cache=False,
        )
        asyncio.run(compare(options, settings, tokenizer))
    finally:
        retriever.terminate()
        retriever.wait()
        folder.cleanup()


if __name__ == "__main__":
    # What platform=cpu sets for a run, in this process and in the engine's.
    os.environ.update(VERL_PLATFORM="cpu", VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    main()
