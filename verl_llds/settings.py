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

    answer_weight: float = 1.0
    """Weight of the tokens of the final answer, the paper's beta (eq 5), in [0, 1].

    1 is plain LLDS; 0 is the MA variant of v1, which leaves the answer free to move. Lower it where a policy
    settles on a single search per question. Any value but 1 needs an answer mask in the batch.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        _check_number("coef", self.coef, "use 0.2 (the paper's value), or 0 to turn the penalty off")
        if not (math.isfinite(self.coef) and self.coef >= 0):
            raise ConfigError(
                f"llds.coef must be finite and not negative, got {self.coef!r}: "
                "use 0.2 (the paper's value), or 0 to turn the penalty off"
            )
        if self.gate not in tuple(Gate):
            choices = ", ".join(gate.value for gate in Gate)
            raise ConfigError(f"llds.gate must be one of {choices}, got {self.gate!r}: use action for the paper's LLDS")
        _check_number("answer_weight", self.answer_weight, "use 1 for plain LLDS, 0 for the MA variant of v1")
        if not 0 <= self.answer_weight <= 1:
            raise ConfigError(
                f"llds.answer_weight must lie in [0, 1], got {self.answer_weight!r}: "
                "use 1 for plain LLDS, 0 for the MA variant of v1"
            )

    @property
    def gate_kind(self) -> Gate:
        """The gate as an enum member."""
        return Gate(self.gate)


def _check_number(name: str, value: object, remedy: str) -> None:
    # A quoted "0.2" or a yes/no in YAML arrives as str or bool; comparing those would fail obscurely or pass.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(
            f"llds.{name} must be a number, got {value!r} ({type(value).__name__}): {remedy}, written without quotes"
        )
