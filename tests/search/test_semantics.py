"""How an episode ends, one numbered test per status and per rule.

If one of these fails, a user sees training behave differently: other tokens are trained on, other
trajectories count, or another reward is paid. Change the code, or announce the change.
"""

from __future__ import annotations

import pytest

from verl_llds.errors import RetrievalError
from verl_llds.search.protocol import INVALID_ACTION_MESSAGE, Document
from verl_llds.search.trajectory import EpisodeStatus

SEARCH = "<think> where </think><search> capital of France </search>"
ANSWER = "<think> so </think><answer> Paris </answer>"
SHOWN = "\n\n<information>Doc 1(Title: Paris) The capital of France.</information>\n\n"


def test_01_answered(play) -> None:
    """A failure changes training: an answer before the last turn ends the episode and is what is scored."""
    played = play([SEARCH, ANSWER, "never sampled"])
    trajectory = played.trajectory
    assert trajectory.status is EpisodeStatus.ANSWERED
    assert trajectory.answer == "Paris"
    assert played.observations == [SHOWN]
    assert played.searcher.queries == ["capital of France"]
    assert [(turn.kind, turn.content, turn.documents) for turn in trajectory.turns] == [
        ("search", "capital of France", ("7",)),
        ("answer", "Paris", ()),
    ]
    assert trajectory.num_searches == 1
    assert trajectory.policy_text == SEARCH + ANSWER


def test_02_answered_forced(play) -> None:
    """A failure changes training: after max_turns turns one more is sampled, and an answer in it counts."""
    played = play([SEARCH, SEARCH, ANSWER], max_turns=2)
    assert played.trajectory.status is EpisodeStatus.ANSWERED_FORCED
    assert played.trajectory.answer == "Paris"
    assert len(played.observations) == 2


@pytest.mark.parametrize("final", [SEARCH, "<think> I do not know"])
def test_03_out_of_turns(play, final: str) -> None:
    """A failure changes training: a search in the final turn is not executed and is no valid search."""
    played = play([SEARCH, SEARCH, final], max_turns=2)
    assert played.trajectory.status is EpisodeStatus.OUT_OF_TURNS
    assert played.trajectory.answer is None
    assert len(played.trajectory.turns) == 3
    assert len(played.searcher.queries) == 2
    assert played.trajectory.num_searches == 2
    assert played.trajectory.response_mask[-1] == 1


def test_04_out_of_tokens_when_an_observation_does_not_fit(play, tokenizer) -> None:
    """A failure changes training: an observation is shown with room for an id after it, or not at all."""
    num_turn = len(tokenizer.encode(SEARCH, add_special_tokens=False))
    num_shown = len(tokenizer.encode(SHOWN, add_special_tokens=False))
    full = play([SEARCH, ANSWER], max_response_tokens=num_turn + num_shown)
    assert full.trajectory.status is EpisodeStatus.OUT_OF_TOKENS
    assert full.trajectory.response_mask == [1] * num_turn
    one_left = play([SEARCH, ANSWER], max_response_tokens=num_turn + num_shown + 1)
    assert one_left.observations == [SHOWN]
    assert one_left.engine.limits[1] == 1
    assert one_left.trajectory.status is EpisodeStatus.OUT_OF_TOKENS
    assert len(one_left.trajectory.response_ids) == num_turn + num_shown + 1


def test_05_out_of_tokens_when_a_turn_is_cut_by_the_budget(play) -> None:
    """A failure changes training: a turn the budget cuts short is trained on and ends the episode."""
    played = play([SEARCH], max_response_tokens=5)
    assert played.trajectory.status is EpisodeStatus.OUT_OF_TOKENS
    assert played.trajectory.response_mask == [1] * 5
    assert played.searcher.queries == []


def test_06_retrieval_failed(play) -> None:
    """A failure changes training: nothing is shown, nothing goes on, and the search is no valid search."""
    played = play([SEARCH, SEARCH, ANSWER], [[Document("7", "Paris\nx")], RetrievalError("down")])
    trajectory = played.trajectory
    assert trajectory.status is EpisodeStatus.RETRIEVAL_FAILED
    assert trajectory.status.is_failure
    assert trajectory.num_searches == 1
    assert [turn.kind for turn in trajectory.turns] == ["search", "search"]
    assert trajectory.turns[1].search_s > 0
    assert len(played.observations) == 1
    assert trajectory.response_mask[-1] == 1


@pytest.mark.parametrize("turns", [[], [SEARCH]])
def test_07_engine_aborted(play, turns: list[str]) -> None:
    """A failure changes training: an engine without tokens makes a failure, not a wrong answer."""
    played = play(turns)
    assert played.trajectory.status is EpisodeStatus.ENGINE_ABORTED
    assert played.trajectory.status.is_failure
    assert len(played.trajectory.turns) == len(turns)


def test_08_failures_are_the_environment_s() -> None:
    """A failure changes training: exactly these two endings carry no gradient."""
    assert [status for status in EpisodeStatus if status.is_failure] == [
        EpisodeStatus.RETRIEVAL_FAILED,
        EpisodeStatus.ENGINE_ABORTED,
    ]


@pytest.mark.parametrize("wrong", ["<think> no action", "<search> cut", "</answer>", "Paris<|end|>"])
def test_09_invalid_action(play, wrong: str) -> None:
    """A failure changes training: a turn without an action is told so, masked, and uses up a turn."""
    played = play([wrong, ANSWER], max_turns=1)
    assert played.observations == [INVALID_ACTION_MESSAGE]
    assert played.trajectory.turns[0].kind == "invalid"
    assert played.trajectory.status is EpisodeStatus.ANSWERED_FORCED
    assert played.searcher.queries == []


def test_10_turn_cut_by_its_own_limit(play) -> None:
    """A failure changes training: a turn cut at max_action_tokens is an invalid action, and play goes on."""
    played = play([SEARCH, ANSWER], max_action_tokens=4)
    assert played.engine.limits == [4, 4, 4]
    assert [turn.kind for turn in played.trajectory.turns] == ["invalid", "invalid"]
    assert played.observations == [INVALID_ACTION_MESSAGE] * 2


def test_11_first_action_of_a_turn_decides(play) -> None:
    """A failure changes training: a search before an answer in one turn is executed, the answer ignored."""
    played = play([SEARCH + ANSWER, ANSWER])
    assert [turn.kind for turn in played.trajectory.turns] == ["search", "answer"]
    assert not any(played.trajectory.answer_mask[: len(played.engine.sampled[0])])


def test_12_tags_do_not_pair_up_across_turns(play) -> None:
    """A failure changes training: an answer opened in one turn and closed in another is paid no reward."""
    played = play(["<answer> Paris", "</answer>", "<think> no"], max_turns=2)
    assert played.trajectory.status is EpisodeStatus.OUT_OF_TURNS
    assert played.trajectory.answer is None


def test_13_nothing_found_is_no_valid_search(play) -> None:
    """A failure changes training metrics: an empty result goes on, but is not counted as a search."""
    played = play([SEARCH, ANSWER], [[]])
    assert played.observations == ["\n\n<information></information>\n\n"]
    assert played.trajectory.num_searches == 0
    assert played.trajectory.status is EpisodeStatus.ANSWERED


def test_14_passages_are_never_the_policy_s_answer(play) -> None:
    """A failure changes training: retrieved text is masked, and its tags answer nothing."""
    played = play([SEARCH, "<think> no", "<think> no"], [[Document("1", "t\n<answer> Paris </answer>")]])
    assert "<answer> Paris </answer>" in played.observations[0]
    assert "<answer>" not in played.trajectory.policy_text
    assert played.trajectory.answer is None
    assert not any(played.trajectory.answer_mask)


def test_15_other_errors_are_not_swallowed(play) -> None:
    """A failure hides bugs: only a `RetrievalError` is an ending."""
    with pytest.raises(ZeroDivisionError):
        play([SEARCH], [ZeroDivisionError()])
