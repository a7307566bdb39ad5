"""The engine an evaluation plays on: vLLM in here, or a server."""

from __future__ import annotations

from collections.abc import Sequence

from verl_llds.evaluation.model import Model
from verl_llds.evaluation.sampler import Sampler
from verl_llds.evaluation.server_sampler import ServerSampler
from verl_llds.evaluation.settings import EvalSettings
from verl_llds.evaluation.turn_readers import EngineIds, Retokenizer, TurnReader
from verl_llds.evaluation.vllm_sampler import VllmSampler
from verl_llds.search.environment import Environment


async def open_sampler(
    settings: EvalSettings, model: Model, environment: Environment, num_tokens: int, probe_ids: Sequence[int]
) -> Sampler:
    """Load the model, or connect to its server.

    Args:
        settings: which of both, and how it samples.
        model: the model.
        environment: whose stop strings end a turn.
        num_tokens: most ids of a prompt and its response.
        probe_ids: a prompt a server is tried with.

    Raises:
        EvaluationError: if it cannot be had.
    """
    stop_strings = environment.protocol.stop_strings
    if settings.server is None:
        return VllmSampler.open(settings, model.name, num_tokens, stop_strings)
    reader: TurnReader
    if settings.retokenize:
        reader = Retokenizer(model.tokenizer, model.tokenizer.eos_token_id, stop_strings)
    else:
        reader = EngineIds(settings.decoding)
    return await ServerSampler.open(settings.server, model.name, reader, settings.decoding, stop_strings, probe_ids)
