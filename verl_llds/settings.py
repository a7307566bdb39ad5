"""Typed settings, checked once where they are made.

Imports neither torch nor verl: a driver, a notebook or a test can build and check a configuration at no cost.
Values come from YAML through Hydra, so an ``int`` is accepted where a ``float`` is meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from verl_llds.errors import ConfigError


class Gate(str, Enum):
    """Which tokens of the preserving set the penalty is open on (arXiv 2512.04220 v2)."""

    ACTION = "action"
    """Eq 4, the default LLDS: an action is open if its own summed log-likelihood fell."""
    RESPONSE = "response"
    """Eq 10, the LLDS of v1: a whole response is open if its summed log-likelihood fell."""
    TOKEN = "token"
    """Eq 9: no gate, every token whose likelihood fell is penalised."""


class Preserve(str, Enum):
    """Which trajectories the penalty protects, the preserving set."""

    NONNEGATIVE = "nonnegative"
    """The paper's: advantage >= 0. Holds also the groups whose rewards are all equal, all wrong ones included."""
    POSITIVE = "positive"
    """Advantage > 0: better than their siblings."""
    CORRECT = "correct"
    """A reward of at least ``correct_reward``, whatever the siblings did."""


class AdaptiveWeight(str, Enum):
    """Answer weights that follow V, the mean number of valid searches of a step's trajectories."""

    PAPER = "paper"
    """``min(V / 2, 1)``, as printed (arXiv 2512.04220 v2, section on LLDS-MA): one search gives 0.5."""
    AUTHORS = "authors"
    """``clip(V - 1, 0, 1)``, what the authors' code computes in their adaptive run: one search gives 0."""


class Normalizer(str, Enum):
    """What the penalty's sum is divided by."""

    PRESERVED = "preserved"
    """The paper's: policy tokens of the preserving set of the mini-batch, over all micro-batches and ranks."""
    ALL = "all"
    """The authors' code: all policy tokens, so that the effective coefficient falls with their share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LLDSConfig:
    """The LLDS regulariser: ``L_total = L_GRPO + coef * L`` (arXiv 2512.04220 v2, eq 6)."""

    coef: float = 0.2
    """Weight of the penalty, the paper's lambda; 0 turns it off.

    The paper uses 0.2, and 0.3 for Qwen2.5-7B-Instruct; v1 used 0.1 with the response gate. Raise it if the
    likelihood of correct trajectories still falls; lower it if the reward stops rising.
    """

    gate: str = "action"
    """Where the penalty is open: ``action``, ``response`` or ``token``, see `Gate`.

    ``response`` lets an action that lost likelihood hide behind one that gained; ``token`` also holds back
    tokens of an action that gained as a whole. Change it to reproduce v1 or an ablation.
    """

    preserve: str = "nonnegative"
    """Whose likelihood is protected: ``nonnegative``, ``positive`` or ``correct``, see `Preserve`.

    The paper's ``nonnegative`` also protects groups in which every trajectory is wrong. Change it if the policy
    holds on to bad text while no group has a correct trajectory.
    """

    correct_reward: float = 1.0
    """Reward from which a trajectory is correct; read by ``preserve=correct``. Exact match gives 0 or 1."""

    answer_weight: float | str = 1.0
    """Weight of the tokens of the final answer, the paper's beta (eq 5): a number in [0, 1], ``paper`` or ``authors``.

    1 is plain LLDS; 0 is the MA variant of v1, which leaves the answer free to move; the names are the adaptive
    weights of `AdaptiveWeight`. Lower it where a policy settles on a single search per question. Any value but 1
    needs an answer mask in the batch.
    """

    answer_in_gate: bool = True
    """Whether answer tokens count in the sum that opens a gate, as in the paper.

    With false, an answer that gained likelihood no longer closes the gate of the reasoning in its own action.
    """

    tolerance: float = 0.0
    """Displacement per token, in nats, below which a token or gate does not count as fallen (the paper: 0).

    In the first mini-batch after a rollout the policy has not moved, yet low-precision forward passes differ; a
    tolerance above that noise keeps its gates closed. Tokens pay ``relu(displacement - tolerance)``, and a gate
    opens if the mean displacement of its span is greater than the tolerance.
    """

    normalizer: str = "preserved"
    """What the sum is divided by: ``preserved`` or ``all``, see `Normalizer`. ``all`` matches the authors' numbers."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check_number("coef", self.coef, "use 0.2 (the paper's value), or 0 to turn the penalty off")
        _check_number("tolerance", self.tolerance, "use 0, the paper's value, or the noise of a token in nats")
        _check_finite("correct_reward", self.correct_reward, "use 1 for exact match")
        _check_choice("gate", self.gate, Gate, "use action for the paper's LLDS")
        _check_choice("preserve", self.preserve, Preserve, "use nonnegative for the paper's preserving set")
        _check_choice("normalizer", self.normalizer, Normalizer, "use preserved for the paper's loss")
        if not isinstance(self.answer_in_gate, bool):
            raise ConfigError(f"llds.answer_in_gate must be true or false, got {self.answer_in_gate!r}")
        self._check_answer_weight()

    def _check_answer_weight(self) -> None:
        remedy = "use 1 for plain LLDS, 0 for the MA variant of v1, or an adaptive weight, paper or authors"
        if isinstance(self.answer_weight, str):
            _check_choice("answer_weight", self.answer_weight, AdaptiveWeight, remedy)
            return
        _check_finite("answer_weight", self.answer_weight, remedy)
        if not 0 <= self.answer_weight <= 1:
            raise ConfigError(f"llds.answer_weight must lie in [0, 1], got {self.answer_weight!r}: {remedy}")

    @property
    def needs_answer_mask(self) -> bool:
        """Whether the loss treats answer tokens in a way of their own."""
        return self.answer_weight != 1 or not self.answer_in_gate

    def answer_weight_at(self, valid_searches: float | None) -> float:
        """Return the answer weight in force, in [0, 1].

        Args:
            valid_searches: mean number of valid searches of the step's trajectories; read by the adaptive ones.

        Raises:
            ConfigError: the weight is adaptive and the number is not known.
        """
        if not isinstance(self.answer_weight, str):
            return float(self.answer_weight)
        if valid_searches is None:
            raise ConfigError(
                f"llds.answer_weight={self.answer_weight} follows the number of valid searches, which this batch "
                "does not give: use an agent loop that counts them (search=search_r1), or a number in [0, 1]"
            )
        if AdaptiveWeight(self.answer_weight) is AdaptiveWeight.PAPER:
            return min(valid_searches / 2, 1.0)
        return min(max(valid_searches - 1, 0.0), 1.0)


def _check_choice(name: str, value: object, choices: type[Enum], remedy: str) -> None:
    names = [str(choice.value) for choice in choices]
    if value not in names:
        raise ConfigError(f"llds.{name} must be one of {', '.join(names)}, got {value!r}: {remedy}")


def _check_number(name: str, value: object, remedy: str) -> None:
    if _check_finite(name, value, remedy) < 0:
        raise ConfigError(f"llds.{name} must be finite and not negative, got {value!r}: {remedy}")


def _check_finite(name: str, value: object, remedy: str) -> float:
    # A quoted "0.2" or a yes/no in YAML arrives as str or bool; comparing those would fail obscurely or pass.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(
            f"llds.{name} must be a number, got {value!r} ({type(value).__name__}): {remedy}, written without quotes"
        )
    if not math.isfinite(value):
        raise ConfigError(f"llds.{name} must be finite, got {value!r}: {remedy}")
    return value
