"""Whose likelihood is held and how much an answer counts: the numbered list of test_semantics.py, continued.

14. ``preserve=nonnegative`` protects a group of equal rewards, all wrong or all correct, and no negative advantage.
15. ``preserve=positive`` protects neither kind of equal group: only what is better than its siblings.
16. ``preserve=correct`` protects by reward alone: all of an all-correct group, none of an all-wrong one, and a
    correct response whatever its advantage.
17. ``preserve=correct`` with no rewards to tell by is an error.
18. ``answer_weight=paper`` is min(V / 2, 1) for V valid searches.
19. ``answer_weight=authors`` is clip(V - 1, 0, 1).
20. An adaptive answer weight with V unknown is an error.
21. ``answer_in_gate=false``: an answer whose likelihood rose no longer closes the gate of its action.
22. ``answer_in_gate=false``: an answer whose likelihood fell no longer opens it.
23. ``answer_in_gate=false``: in an open gate the answer pays as before.
24. ``answer_in_gate=false``: an action that is nothing but answer stays closed.
25. ``answer_in_gate=false`` with no answer mask to go by is an error.
"""

from __future__ import annotations

import pytest
import torch
from loss_rows import X, gated, run

from verl_llds.errors import ConfigError
from verl_llds.settings import LLDSConfig

GATES = ["action", "response", "token"]
# Groups of two responses that fell by 1: advantages, and which are correct.
ALL_WRONG = ([0.0, 0.0], [False, False])
ALL_CORRECT = ([0.0, 0.0], [True, True])
MIXED = ([0.7, -0.7], [True, False])
BETTER_OF_TWO_WRONG = ([0.7, -0.7], [False, False])
WORSE_OF_TWO_CORRECT = ([0.7, -0.7], [True, True])


def preserved_rows(preserve: str, group: tuple[list[float], list[bool]], gate: str) -> list[float]:
    """Return the gradient of each of two one-token responses, both fallen."""
    advantages, correct = group
    settings = LLDSConfig(preserve=preserve, gate=gate)
    _, gradient = run([1.0], [1.0], advantage=advantages, correct=correct, settings=settings)
    return [row[0] for row in gradient]


@pytest.mark.parametrize("gate", GATES)
def test_14_preserve_nonnegative(gate: str) -> None:
    assert preserved_rows("nonnegative", ALL_WRONG, gate) == [1, 1]
    assert preserved_rows("nonnegative", ALL_CORRECT, gate) == [1, 1]
    assert preserved_rows("nonnegative", MIXED, gate) == [1, 0]
    assert preserved_rows("nonnegative", WORSE_OF_TWO_CORRECT, gate) == [1, 0]


@pytest.mark.parametrize("gate", GATES)
def test_15_preserve_positive(gate: str) -> None:
    assert preserved_rows("positive", ALL_WRONG, gate) == [0, 0]
    assert preserved_rows("positive", ALL_CORRECT, gate) == [0, 0]
    assert preserved_rows("positive", MIXED, gate) == [1, 0]
    assert preserved_rows("positive", BETTER_OF_TWO_WRONG, gate) == [1, 0]


@pytest.mark.parametrize("gate", GATES)
def test_16_preserve_correct(gate: str) -> None:
    assert preserved_rows("correct", ALL_WRONG, gate) == [0, 0]
    assert preserved_rows("correct", ALL_CORRECT, gate) == [1, 1]
    assert preserved_rows("correct", MIXED, gate) == [1, 0]
    assert preserved_rows("correct", BETTER_OF_TWO_WRONG, gate) == [0, 0]
    assert preserved_rows("correct", WORSE_OF_TWO_CORRECT, gate) == [1, 1]


def test_17_preserve_correct_without_rewards() -> None:
    with pytest.raises(ConfigError, match=r"llds\.preserve=correct needs .* reward.* use preserve=nonnegative"):
        run([1.0], settings=LLDSConfig(preserve="correct"))


def answer_gradient(weight: str, valid_searches: float | None) -> tuple[float, float]:
    """Return the gradients of an ordinary and of an answer token."""
    settings = LLDSConfig(answer_weight=weight)
    answer = torch.tensor([[0, 1]])
    _, gradient = run([1.0, 1.0], settings=settings, answer_mask=answer, valid_searches=valid_searches)
    return gradient[0][0], gradient[0][1]


@pytest.mark.parametrize(("searches", "weight"), [(0, 0.0), (1, 0.5), (1.5, 0.75), (2, 1.0), (3, 1.0)])
def test_18_paper_weight(searches: float, weight: float) -> None:
    assert answer_gradient("paper", searches) == (1, weight)


@pytest.mark.parametrize(("searches", "weight"), [(0, 0.0), (1, 0.0), (1.5, 0.5), (2, 1.0), (3, 1.0)])
def test_19_authors_weight(searches: float, weight: float) -> None:
    assert answer_gradient("authors", searches) == (1, weight)


@pytest.mark.parametrize("weight", ["paper", "authors"])
def test_20_adaptive_weight_without_searches(weight: str) -> None:
    with pytest.raises(ConfigError, match=rf"llds\.answer_weight={weight} follows the number of valid searches"):
        answer_gradient(weight, None)


@pytest.mark.parametrize("gate", ["action", "response"])
def test_21_answer_that_rose(gate: str) -> None:
    row, answer = [1.0, -0.5, -3.0], [0, 0, 1]
    assert gated(row, answer, True, gate=gate) == (0.0, [0, 0, 0])
    assert gated(row, answer, False, gate=gate) == (1.0, [1, 0, 0])


@pytest.mark.parametrize("gate", ["action", "response"])
def test_22_answer_that_fell(gate: str) -> None:
    row, answer = [1.0, -2.0, 3.0], [0, 0, 1]
    assert gated(row, answer, True, gate=gate) == (4.0, [1, 0, 1])
    assert gated(row, answer, False, gate=gate) == (0.0, [0, 0, 0])


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
def test_23_answer_pays_in_an_open_gate(gate: str, weight: float) -> None:
    expected = (2.0 + 3.0 * weight, [1, 0, weight])
    assert gated([2.0, -1.0, 3.0], [0, 0, 1], False, gate=gate, answer_weight=weight) == expected


def test_24_action_of_answer_alone() -> None:
    row, answer = [1.0, X, 2.0, 2.0], [0, 0, 1, 1]
    assert gated(row, answer, False) == (1.0, [1, 0, 0, 0])
    # The other gates do not ask the answer.
    assert gated(row, answer, False, gate="response") == (5.0, [1, 0, 1, 1])
    assert gated(row, answer, False, gate="token") == (5.0, [1, 0, 1, 1])


def test_25_answer_in_gate_without_answer_mask() -> None:
    with pytest.raises(ConfigError, match=r"answer_in_gate=False needs an answer_mask.* answer_in_gate=true"):
        run([1.0], settings=LLDSConfig(answer_in_gate=False))
