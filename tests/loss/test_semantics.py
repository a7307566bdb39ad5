"""What LLDS means, case by case. A failure here is a change of training that users can see.

1.  An action lost likelihood while its response gained: the action gate opens, the response gate does not.
2.  An action gained likelihood while its response lost: the response gate opens, the action gate does not.
3.  The token gate penalises a fallen token wherever it is.
4.  A row with no policy token contributes nothing.
5.  With no displacement at all the penalty and its gradient are exactly 0.
6.  A preserving set with no token gives exactly 0, and a gradient of 0.
7.  A response with an advantage of 0 is preserved; one with a negative advantage is not.
8.  A token whose likelihood rose inside an open action has no gradient.
9.  An action whose displacement sums to exactly 0 is closed.
10. Turns that touch are one action to the mask, and two if the caller says so.
11. An answer weight scales the answer in the penalty; the answer still counts in full for the gate.
12. An answer weight with no answer mask to apply it to is an error.
13. The penalty is not multiplied by the coefficient.

14 to 25 are in test_semantics_settings.py, 26 to 35 in test_semantics_sums.py.

36. The action gate of one row knows nothing of another's.
37. Tokens of one number are one action, though observations lie between them.
38. The response gate sums over the actions of a row, each token once.
"""

from __future__ import annotations

import pytest
import torch
from loss_rows import X, run

from verl_llds.errors import ConfigError
from verl_llds.settings import LLDSConfig


def test_1_action_down_response_up() -> None:
    row = [1.0, 0.5, X, -4.0, 1.0]
    assert run(row, gate="action") == (pytest.approx(1.5), [[1, 1, 0, 0, 0]])
    assert run(row, gate="response") == (0.0, [[0, 0, 0, 0, 0]])


def test_2_action_up_response_down() -> None:
    row = [-3.0, 0.5, X, 4.0]
    assert run(row, gate="action") == (pytest.approx(4.0), [[0, 0, 0, 1]])
    assert run(row, gate="response") == (pytest.approx(4.5), [[0, 1, 0, 1]])


def test_3_token_gate_knows_no_sum() -> None:
    assert run([-3.0, 0.5, X, -2.0, 1.0], gate="token") == (pytest.approx(1.5), [[0, 1, 0, 0, 1]])


@pytest.mark.parametrize("gate", ["action", "response", "token"])
def test_4_row_without_policy_tokens(gate: str) -> None:
    assert run([X, X], [1.0, X], gate=gate) == (pytest.approx(1.0), [[0, 0], [1, 0]])


@pytest.mark.parametrize("gate", ["action", "response", "token"])
def test_5_no_displacement(gate: str) -> None:
    assert run([0.0, 0.0, X, 0.0], gate=gate) == (0.0, [[0, 0, 0, 0]])


@pytest.mark.parametrize("gate", ["action", "response", "token"])
def test_6_empty_preserving_set(gate: str) -> None:
    assert run([1.0, 2.0], advantage=-1.0, gate=gate) == (0.0, [[0, 0]])
    assert run([X, X], gate=gate) == (0.0, [[0, 0]])


@pytest.mark.parametrize(("advantage", "penalty"), [(2.0, 3.0), (0.0, 3.0), (-0.0, 3.0), (-1e-5, 0.0)])
def test_7_preserving_set(advantage: float, penalty: float) -> None:
    assert run([1.0, 2.0], advantage=advantage)[0] == pytest.approx(penalty)


@pytest.mark.parametrize("gate", ["action", "response", "token"])
def test_8_risen_token_in_an_open_action(gate: str) -> None:
    assert run([2.0, -1.0, 0.5], gate=gate) == (pytest.approx(2.5), [[1, 0, 1]])


@pytest.mark.parametrize("gate", ["action", "response"])
def test_9_sum_of_exactly_zero(gate: str) -> None:
    assert run([1.0, -1.0], gate=gate) == (0.0, [[0, 0]])


def test_10_turns_that_touch() -> None:
    row = [1.0, -3.0]
    assert run(row) == (0.0, [[0, 0]])
    assert run(row, action_ids=torch.tensor([[1, 2]])) == (pytest.approx(1.0), [[1, 0]])


@pytest.mark.parametrize(("weight", "penalty"), [(1.0, 4.0), (0.5, 2.5), (0.0, 1.0)])
def test_11_answer_weight(weight: float, penalty: float) -> None:
    options = {"settings": LLDSConfig(answer_weight=weight), "answer_mask": torch.tensor([[0, 0, 1]])}
    # Open only through the answer's displacement.
    assert run([1.0, -2.0, 3.0], **options) == (pytest.approx(penalty), [[1, 0, weight]])
    # Closed only through the answer's displacement.
    assert run([1.0, -0.5, -3.0], **options) == (0.0, [[0, 0, 0]])


def test_12_answer_weight_without_answer_mask() -> None:
    with pytest.raises(ConfigError, match=r"llds\.answer_weight=0\.0 .* needs an answer_mask.* answer_weight=1"):
        run([1.0], settings=LLDSConfig(answer_weight=0.0))


def test_13_coefficient_is_left_to_the_caller() -> None:
    assert run([1.0], settings=LLDSConfig(coef=0.0)) == run([1.0], settings=LLDSConfig(coef=7.0))


def test_36_rows_do_not_share_actions() -> None:
    ids = torch.tensor([[1, 1, 0, 2], [1, 1, 0, 2]])
    rows = [[2.0, -1.0, X, -1.0], [-4.0, 1.0, X, 3.0]]
    assert run(*rows) == (pytest.approx(5.0), [[1, 0, 0, 0], [0, 0, 0, 1]])
    assert run(*rows, action_ids=ids) == run(*rows)
    assert run(*rows, gate="response") == (0.0, [[0, 0, 0, 0], [0, 0, 0, 0]])


def test_37_an_action_around_an_observation() -> None:
    row = [3.0, X, -2.0, -2.0]
    assert run(row) == (pytest.approx(3.0), [[1, 0, 0, 0]])
    assert run(row, action_ids=torch.tensor([[1, 0, 1, 2]])) == (pytest.approx(3.0), [[1, 0, 0, 0]])
    assert run(row, action_ids=torch.tensor([[4, 0, 4, 4]])) == (0.0, [[0, 0, 0, 0]])


@pytest.mark.parametrize(("last", "is_open"), [(-1.9, 1), (-2.0, 0), (-2.1, 0)])
def test_38_response_gate_sums_over_actions(last: float, is_open: int) -> None:
    gradient = [[is_open, 0, 0, 0, is_open]]
    assert run([1.5, -0.5, X, last, 1.0], gate="response") == (pytest.approx(2.5 * is_open), gradient)
