"""The reward of a trajectory: what of it each part of the score reads."""

from __future__ import annotations

from collections.abc import Iterable

from verl_llds.reward.format import is_well_formed
from verl_llds.reward.retrieval import holds_target
from verl_llds.reward.score import Score, score
from verl_llds.search.environment import Environment
from verl_llds.search.trajectory import Trajectory


def score_trajectory(trajectory: Trajectory, targets: str | Iterable[str], environment: Environment) -> Score:
    """Score a trajectory on the policy's own text; only the retrieval score reads what was found.

    A failed one scores 0: it holds no answer, and how it began is no merit.
    """
    targets = [targets] if isinstance(targets, str) else list(targets)
    settings = environment.settings.reward
    parse = environment.protocol.parse
    # What a token of the closing tag carries beyond it is the tokenizer's doing.
    turns = [turn.text[: parse(turn.text).end] for turn in trajectory.turns]
    has_failed = trajectory.status.is_failure
    passages = (document.contents for turn in trajectory.turns for document in turn.documents)
    return score(
        answer=trajectory.answer,
        targets=targets,
        well_formed=not has_failed and is_well_formed(turns, tools=environment.protocol.call_tags),
        retrieved=not has_failed and settings.retrieval_score > 0 and holds_target(passages, targets),
        settings=settings,
    )
