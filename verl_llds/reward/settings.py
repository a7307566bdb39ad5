"""Settings of the reward, checked once where they are made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from verl_llds.errors import ConfigError
from verl_llds.fields import check_choice, is_number, known_values


class AnswerMetric(str, Enum):
    """How an answer is compared with the targets; the best of several targets counts."""

    EM = "em"
    """1 if the normalised texts are equal, else 0. Search-R1's and the LLDS paper's reward."""
    SUB_EM = "sub_em"
    """1 if the normalised answer contains a normalised target, else 0."""
    F1 = "f1"
    """Harmonic mean of token precision and recall of the normalised texts, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardConfig:
    """The reward of a trajectory; the node ``search.reward``.

    With all scores at 0 it is the answer metric alone. The scores are those of Search-R1 v0.3 (arXiv 2505.15117).
    """

    metric: AnswerMetric = AnswerMetric.EM
    """How the answer is scored."""

    format_score: float = 0.0
    """What a wrong answer in a well-formed trajectory earns, and a right one in an ill-formed trajectory loses.

    Search-R1 v0.3 trains with 0.2.
    """

    final_format_score: float = 0.0
    """What a wrong answer earns in an ill-formed trajectory (Search-R1 v0.3: 0.1)."""

    retrieval_score: float = 0.0
    """What a wrong answer earns on top of ``format_score`` if a passage held a target.

    Search-R1 v0.3's code has it, its training scripts leave it at 0.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("search.reward", self, "metric", AnswerMetric)
        for name in ("format_score", "final_format_score", "retrieval_score"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1):
                raise ConfigError(
                    f"search.reward.{name} must be a number in [0, 1], got {value!r}: "
                    "use 0 to leave it out, written without quotes"
                )
        if max(self.format_score + self.retrieval_score, self.format_score + self.final_format_score) > 1:
            raise ConfigError(
                f"search.reward: format_score={self.format_score} with retrieval_score={self.retrieval_score} and "
                f"final_format_score={self.final_format_score} would pay some wrong answer more than a right one: keep "
                "format_score plus either of them at 1 or below"
            )
        if self.retrieval_score > 0 and self.format_score == 0:
            raise ConfigError(
                f"search.reward.retrieval_score={self.retrieval_score} needs a format_score: only well-formed "
                "trajectories earn it, so set search.reward.format_score too (Search-R1 v0.3: 0.2)"
            )

    @classmethod
    def from_mapping(cls, values: object) -> RewardConfig:
        """Build the settings from the run's ``search.reward`` node.

        Raises:
            ConfigError: for an unknown key (the known ones are named) or a value out of range.
        """
        return cls(**known_values("search.reward", cls, values))
