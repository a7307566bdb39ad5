"""verl's adapter of the search episode: the agent loop ``search``.

verl hands over a prompt and an engine; :func:`verl_llds.search.episode.run_episode` plays; this module turns
the trajectory into the fields verl's trainer reads, plus two of our own that reach the loss: ``action_ids`` and
``answer_mask``.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from verl_llds.reward.score import Score
from verl_llds.reward.sources import canonical_source
from verl_llds.search.client import SearchClient
from verl_llds.search.encodable import encodable
from verl_llds.search.engine import VerlEngine
from verl_llds.search.environment import Environment, make_environment
from verl_llds.search.episode import run_episode
from verl_llds.search.facts import row_targets, trajectory_facts, turn_records
from verl_llds.search.scoring import score_trajectory
from verl_llds.search.settings import OnFailure, SearchConfig
from verl_llds.search.trajectory import EpisodeStatus, Trajectory

logger = logging.getLogger(__name__)

AGENT_NAME = "search"

TRAJECTORY_KEY = "search"
"""Where a trajectory's facts lie in verl's ``extra_fields``."""

TURNS_KEY = "turns"
"""Where a trajectory's turn records lie in verl's ``reward_extra_info``, which validation dumps."""


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


@functools.lru_cache(maxsize=1)
def _shared_environment(settings: SearchConfig, tokenizer: Any) -> Environment:
    return make_environment(settings, _shared_client(settings), tokenizer)


@register(AGENT_NAME)
class SearchAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Plays search episodes; selected by ``search=search_r1`` and its siblings, or a row's ``agent_name``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = SearchConfig.from_run(self.config)
        self.client = _shared_client(self.settings)
        self.environment = _shared_environment(self.settings, self.tokenizer)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> SearchAgentLoopOutput:
        """Play one episode on a dataset row and return verl's fields.

        Args:
            sampling_params: shared by the sibling rollouts of a prompt, hence copied.
            kwargs: the row's columns; ``raw_prompt`` is required, ``reward_model`` holds the targets.
        """
        step = int(kwargs["global_steps"])
        self.client.start_step(step)
        protocol = self.environment.protocol
        engine = VerlEngine(self.server_manager, self.rollout_config.name, sampling_params, protocol.stop_strings, step)
        try:
            messages, targets = protocol.messages(kwargs["raw_prompt"]), row_targets(kwargs)
            prompt_ids = await self.ct_build_initial_tokens(messages, tools=protocol.schemas)
        except Exception as error:
            # Raised, it would be padding in a synchronous run, and another try without end in an asynchronous one.
            logger.exception("a row cannot be played")
            trajectory, targets = self._unplayable(error), []
        else:
            trajectory = await run_episode(
                prompt_ids=prompt_ids,
                generate=engine,
                environment=self.environment,
                tokenizer=self.tokenizer,
                max_response_tokens=self.rollout_config.response_length,
            )
        return self._output(trajectory, targets, kwargs, engine)

    def _unplayable(self, error: Exception) -> Trajectory:
        return Trajectory(
            # verl's tensors need one token of a prompt.
            prompt_ids=[self.tokenizer.pad_token_id],
            status=EpisodeStatus.ERRORED,
            error=encodable(f"the row cannot be played: {type(error).__name__}: {error}"),
        )

    def _output(
        self, trajectory: Trajectory, targets: list[str], row: dict[str, Any], engine: VerlEngine
    ) -> SearchAgentLoopOutput:
        if not trajectory.response_ids:
            # verl's tensors need one token; a masked pad token is no evidence of anything.
            trajectory.append_observed([self.tokenizer.pad_token_id])
        is_masked = trajectory.status.is_failure and self.settings.on_failure is not OnFailure.PENALISE
        score = score_trajectory(trajectory, targets, self.environment)
        turns = turn_records(trajectory, self.tokenizer)
        facts = {
            **trajectory_facts(trajectory),
            "turns": turns,
            "num_context": engine.num_context,
            "num_cached": engine.num_cached,
        }
        latencies = [turn.latency_s for turn in trajectory.turns]
        return SearchAgentLoopOutput(
            prompt_ids=trajectory.prompt_ids,
            response_ids=trajectory.response_ids,
            response_mask=[0] * len(trajectory.response_ids) if is_masked else trajectory.response_mask,
            response_logprobs=trajectory.log_probs if self.rollout_config.calculate_log_probs else None,
            action_ids=trajectory.action_ids,
            answer_mask=trajectory.answer_mask,
            reward_score=None if self._has_own_reward() else score.reward,
            num_turns=len(trajectory.turns),
            metrics=AgentLoopMetrics(generate_sequences=engine.seconds, tool_calls=sum(latencies)),
            extra_fields={
                "min_global_steps": engine.first_step,
                "max_global_steps": engine.last_step,
                "reward_extra_info": _reward_facts(trajectory, score, row, turns),
                "policy_text": trajectory.policy_text,
                TRAJECTORY_KEY: facts,
            },
        )

    def _has_own_reward(self) -> bool:
        return bool(self.config.reward.custom_reward_function.get("path"))


def _reward_facts(
    trajectory: Trajectory, score: Score, row: dict[str, Any], turns: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what verl's validation averages and dumps: numbers by name, labels, and the turns."""
    return {
        "acc": score.answer,
        "em": score.em,
        "f1": score.f1,
        "sub_em": score.sub_em,
        "num_searches": trajectory.num_searches,
        "status": trajectory.status.value,
        "error": trajectory.error,
        "data_source": canonical_source(str(row.get("data_source", "unknown"))),
        TURNS_KEY: turns,
    }
