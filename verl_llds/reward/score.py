"""What a trajectory earns: the answer metric, and the scores for form and retrieval of Search-R1 v0.3."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from verl_llds.reward.qa import exact_match, f1_score, substring_match
from verl_llds.reward.settings import AnswerMetric, RewardConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The reward of one trajectory and what it is made of."""

    reward: float
    """What the policy is trained on."""
    answer: float
    """The configured metric of the answer, in [0, 1]."""
    em: float
    """Exact match, 0 or 1."""
    f1: float
    """Token F1, in [0, 1]."""
    sub_em: float
    """Whether the answer contains a target, 0 or 1."""


def score(
    *, answer: str | None, targets: str | Iterable[str], well_formed: bool, retrieved: bool, settings: RewardConfig
) -> Score:
    """Score a trajectory by Search-R1 v0.3's table (``qa_em_format.py``).

    ============  ===========================================  ========================================
    answer        well-formed                                  ill-formed
    ============  ===========================================  ========================================
    right         1                                            1 - format_score
    wrong         format_score (+ retrieval_score if           final_format_score
                  retrieved)
    none          as a wrong one                               0
    ============  ===========================================  ========================================

    A metric m between 0 and 1, such as F1, earns the share m of what a right answer would and the share 1 - m of
    what a wrong one would. With all scores at 0 the reward is the metric.

    Args:
        answer: the policy's answer, or None if it gave none.
        targets: the accepted answers.
        well_formed: `verl_llds.reward.format.is_well_formed` of the trajectory.
        retrieved: `verl_llds.reward.retrieval.holds_target` of its passages.
        settings: metric and scores.
    """
    targets = [targets] if isinstance(targets, str) else list(targets)
    values = {
        AnswerMetric.EM: exact_match(answer, targets),
        AnswerMetric.SUB_EM: substring_match(answer, targets),
        AnswerMetric.F1: f1_score(answer, targets),
    }
    value = values[settings.metric]
    right = 1.0 if well_formed else 1.0 - settings.format_score
    wrong = _wrong(answer is not None, well_formed, retrieved, settings)
    return Score(
        reward=value * right + (1.0 - value) * wrong,
        answer=value,
        em=values[AnswerMetric.EM],
        f1=values[AnswerMetric.F1],
        sub_em=values[AnswerMetric.SUB_EM],
    )


def _wrong(answered: bool, well_formed: bool, retrieved: bool, settings: RewardConfig) -> float:
    """Return what a wrong answer, or none, earns."""
    if well_formed:
        return settings.format_score + (settings.retrieval_score if retrieved else 0.0)
    return settings.final_format_score if answered else 0.0
