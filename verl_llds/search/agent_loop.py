"""verl's adapter of the search episode: the agent loop ``search_r1``.

verl hands over a prompt and an engine; :func:`verl_llds.search.episode.run_episode` plays; this module turns
the trajectory into the fields verl's trainer reads, plus two of our own that reach the loss: ``action_ids`` and
``answer_mask``.
"""

from __future__ import annotations

import functools
import time
from typing import Any
from uuid import uuid4

import torch
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from verl_llds.reward.qa import exact_match
from verl_llds.search.client import SearchClient
from verl_llds.search.episode import run_episode
from verl_llds.search.protocol import STOP_STRINGS, ActionKind
from verl_llds.search.settings import SearchConfig
from verl_llds.search.trajectory import Generation, Trajectory

AGENT_NAME = "search_r1"

TRAJECTORY_KEY = "search"
"""Where a trajectory's facts lie in verl's ``extra_fields``."""


class SearchAgentLoopOutput(AgentLoopOutput):  # type: ignore[misc]
    """verl's output with the two fields the LLDS loss reads."""

    action_ids: list[int]
    """Number of the action a response token belongs to, from 1; 0 on observations."""
    answer_mask: list[int]
    """1 on the final answer with its tags."""

    def as_dict(self) -> dict[str, Any]:
        """Return verl's fields; a tensor at the top level becomes a field of the training batch."""
        fields: dict[str, Any] = super().as_dict()
        fields["action_ids"] = torch.tensor(fields["action_ids"], dtype=torch.int64)
        fields["answer_mask"] = torch.tensor(fields["answer_mask"], dtype=torch.int64)
        return fields


@functools.lru_cache(maxsize=1)
def _shared_client(settings: SearchConfig) -> SearchClient:
    # verl makes one agent loop per trajectory; a worker's loops share one event loop and so one pool.
    return SearchClient(settings)


def search_settings(config: Any) -> SearchConfig:
    """Return the settings in the run's ``search`` node, or the defaults where it has none."""
    node = config.get("search")
    values = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return SearchConfig.from_mapping(values)


@register(AGENT_NAME)
class SearchAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Plays Search-R1's protocol; selected by ``search=search_r1`` or a row's ``agent_name``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = search_settings(self.config)
        self.client = _shared_client(self.settings)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> SearchAgentLoopOutput:
        """Play one episode on a dataset row and return verl's fields.

        Args:
            sampling_params: shared by the sibling rollouts of a prompt, hence copied.
            kwargs: the row's columns; ``raw_prompt`` is required, ``reward_model`` holds the targets.
        """
        request_id = uuid4().hex
        steps: list[int] = []
        generate_s = 0.0

        async def generate(token_ids: list[int], limit: int) -> Generation:
            nonlocal generate_s
            started = time.perf_counter()
            output = await self.server_manager.generate(
                # One id for all turns keeps an episode on one server, where its prefix is cached.
                request_id=request_id,
                prompt_ids=token_ids,
                sampling_params={
                    **sampling_params,
                    "stop": list(STOP_STRINGS),
                    "include_stop_str_in_output": True,
                    "max_tokens": limit,
                },
            )
            generate_s += time.perf_counter() - started
            steps.extend((output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]))
            return Generation(token_ids=output.token_ids, log_probs=output.log_probs)

        trajectory = await run_episode(
            prompt_ids=await self.ct_build_initial_tokens(list(kwargs["raw_prompt"])),
            generate=generate,
            searcher=self.client,
            tokenizer=self.tokenizer,
            settings=self.settings,
            max_response_tokens=self.rollout_config.response_length,
        )
        latencies = [turn.search_s for turn in trajectory.turns if turn.search_s]
        timings = AgentLoopMetrics(generate_sequences=generate_s, tool_calls=sum(latencies))
        return self._output(trajectory, kwargs, steps, timings)

    def _output(
        self, trajectory: Trajectory, row: dict[str, Any], steps: list[int], timings: AgentLoopMetrics
    ) -> SearchAgentLoopOutput:
        if not trajectory.response_ids:
            # verl's tensors need one token; a masked pad token is no evidence of anything.
            trajectory.append_observed([self.tokenizer.pad_token_id])
        mask = [0] * len(trajectory.response_ids) if trajectory.status.is_failure else trajectory.response_mask
        facts = _facts(trajectory, row)
        return SearchAgentLoopOutput(
            prompt_ids=trajectory.prompt_ids,
            response_ids=trajectory.response_ids,
            response_mask=mask,
            response_logprobs=trajectory.log_probs if self.rollout_config.calculate_log_probs else None,
            action_ids=trajectory.action_ids,
            answer_mask=trajectory.answer_mask,
            reward_score=None if self._has_own_reward() else facts["acc"],
            num_turns=len(trajectory.turns),
            metrics=timings,
            extra_fields={
                "min_global_steps": min(steps),
                "max_global_steps": max(steps),
                "reward_extra_info": facts,
                "policy_text": trajectory.policy_text,
                TRAJECTORY_KEY: {
                    "status": trajectory.status.value,
                    "num_searches": trajectory.num_searches,
                    "num_asked": sum(turn.kind == ActionKind.SEARCH for turn in trajectory.turns),
                    "first_documents": trajectory.first_documents,
                    "num_invalid": sum(turn.kind == "invalid" for turn in trajectory.turns),
                    # A search asked for in the final turn is not made and has no latency.
                    "search_s": [turn.search_s for turn in trajectory.turns if turn.search_s],
                    "num_tokens": len(trajectory.response_ids),
                    "num_policy": sum(trajectory.response_mask),
                },
            },
        )

    def _has_own_reward(self) -> bool:
        return bool(self.config.reward.custom_reward_function.get("path"))


def _facts(trajectory: Trajectory, row: dict[str, Any]) -> dict[str, Any]:
    """Return what verl's validation averages and dumps: numbers by name, and two labels."""
    targets = row["reward_model"]["ground_truth"]["target"]
    return {
        "acc": exact_match(trajectory.answer, targets),
        "num_searches": trajectory.num_searches,
        "status": trajectory.status.value,
        "data_source": str(row.get("data_source", "unknown")),
    }
