"""How an episode ends, one numbered test per status and per rule.

If one of these fails, a user sees training behave differently: other tokens are trained on, other
trajectories count, or another reward is paid. Change the code, or announce the change.
"""

from __future__ import annotations

import pytest

from verl_llds.errors import RetrievalError, ToolError
from verl_llds.search.documents import Document
from verl_llds.search.search_r1 import INVALID_ACTION_MESSAGE
from verl_llds.search.trajectory import EpisodeStatus, Generation

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
    first, last = (turn.summary() for turn in trajectory.turns)
    assert (first["kind"], first["status"], first["tool"]) == ("call", "result", "search")
    assert (first["content"], first["documents"], first["attempts"]) == ("capital of France", ["7"], 2)
    assert (last["kind"], last["status"], last["content"], last["documents"]) == ("answer", "answer", "Paris", [])
    assert trajectory.num_searches == 1
    assert trajectory.policy_text == SEARCH + ANSWER


def test_02_answered_forced(play) -> None:
    """A failure changes training: after max_turns turns one more is sampled, and an answer in it counts."""
    played = play([SEARCH, SEARCH, ANSWER], max_turns=2)
    assert played.trajectory.status is EpisodeStatus.ANSWERED_FORCED
    assert played.trajectory.answer == "Paris"
    assert len(played.observations) == 2


@pytest.mark.parametrize(
    ("final", "status", "turn"),
    [
        (SEARCH, EpisodeStatus.OUT_OF_TURNS, "not_called"),
        ("<think> I do not know", EpisodeStatus.INVALID_ACTIONS, "invalid"),
    ],
)
def test_03_out_of_turns(play, final: str, status: EpisodeStatus, turn: str) -> None:
    """A failure changes training: a search in the final turn is not executed and is no valid search."""
    played = play([SEARCH, SEARCH, final], max_turns=2)
    assert played.trajectory.status is status
    assert played.trajectory.turns[-1].status == turn
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
    assert [turn.num_observation_tokens for turn in full.trajectory.turns] == [0]
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


def test_05_out_of_tokens_in_the_final_turn(play, tokenizer) -> None:
    """A failure changes what a run is read by: a final answer that the budget cut would pass for no answer."""
    num_first = len(
        tokenizer.encode(SEARCH, add_special_tokens=False) + tokenizer.encode(SHOWN, add_special_tokens=False)
    )
    played = play([SEARCH, ANSWER], max_turns=1, max_response_tokens=num_first + 3)
    assert played.trajectory.status is EpisodeStatus.OUT_OF_TOKENS
    assert [turn.status for turn in played.trajectory.turns] == ["result", "invalid"]
    complete = play(["<think> no", ANSWER], max_turns=1)
    assert complete.trajectory.status is EpisodeStatus.ANSWERED_FORCED


def test_06_retrieval_failed(play) -> None:
    """A failure changes training: nothing is shown, nothing goes on, and the search is no valid search."""
    played = play([SEARCH, SEARCH, ANSWER], [[Document("7", "Paris\nx")], RetrievalError("down")])
    trajectory = played.trajectory
    assert trajectory.status is EpisodeStatus.RETRIEVAL_FAILED
    assert trajectory.status.is_failure
    assert trajectory.num_searches == 1
    assert [turn.status for turn in trajectory.turns] == ["result", "failed"]
    assert trajectory.turns[1].latency_s > 0
    assert trajectory.error == "down"
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
    """A failure changes training: exactly these endings carry no gradient."""
    assert [status for status in EpisodeStatus if status.is_failure] == [
        EpisodeStatus.RETRIEVAL_FAILED,
        EpisodeStatus.TOOL_FAILED,
        EpisodeStatus.ENGINE_ABORTED,
        EpisodeStatus.ERRORED,
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
    assert [turn.kind for turn in played.trajectory.turns] == ["call", "answer"]
    assert not any(played.trajectory.answer_mask[: len(played.kept[0])])
    # An id that completes the tag may hold the next one's first character.
    assert played.tokenizer.decode(played.kept[0], skip_special_tokens=False) in (SEARCH, f"{SEARCH}<")


def test_12_tags_do_not_pair_up_across_turns(play) -> None:
    """A failure changes training: an answer opened in one turn and closed in another is paid no reward."""
    played = play(["<answer> Paris", "</answer>", "<think> no"], max_turns=2)
    assert played.trajectory.status is EpisodeStatus.INVALID_ACTIONS
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


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ToolError("out of order"), EpisodeStatus.TOOL_FAILED),
        (ZeroDivisionError("by zero"), EpisodeStatus.ERRORED),
    ],
)
def test_15_whatever_a_tool_raises_ends_the_episode_and_is_kept(play, error: Exception, status: EpisodeStatus) -> None:
    """A failure loses trajectories: verl would put silent padding in the place of a rollout that raises."""
    trajectory = play([SEARCH, ANSWER], [error]).trajectory
    assert trajectory.status is status
    assert trajectory.status.is_failure
    assert trajectory.error in (str(error), f"ZeroDivisionError: {error}")
    assert trajectory.turns[-1].status == "failed"


def test_16_an_engine_that_raises_ends_the_episode_and_is_kept(play) -> None:
    """A failure loses trajectories, as above."""
    trajectory = play([RuntimeError("engine gone")]).trajectory
    assert trajectory.status is EpisodeStatus.ERRORED
    assert trajectory.error == "RuntimeError: engine gone"
    assert trajectory.response_ids == []


def test_17_an_interrupted_turn_is_no_action(play) -> None:
    """A failure changes training: half a turn would be trained on as an invalid action of the policy."""
    half = Generation(token_ids=[5, 6], log_probs=[-1.0, -1.0], is_aborted=True)
    trajectory = play([half]).trajectory
    assert trajectory.status is EpisodeStatus.ENGINE_ABORTED
    assert "after 2 tokens" in trajectory.error
    assert trajectory.response_ids == []


def test_18_search_r1_loses_the_closing_tag_of_a_cut_observation(play) -> None:
    """A failure breaks the comparison with published numbers: with keep_closing_tag=false the cut is Search-R1's."""
    long = [[Document("1", "t\n" + "word " * 200)]]
    kept = play([SEARCH, ANSWER], long, max_observation_tokens=40)
    lost = play([SEARCH, ANSWER], long, max_observation_tokens=40, keep_closing_tag=False)
    assert kept.observations[0].endswith("</information>\n\n")
    assert "</information>" not in lost.observations[0]
    assert lost.trajectory.response_mask.count(0) == kept.trajectory.response_mask.count(0) == 40
    for played in (kept, lost):
        assert played.trajectory.turns[0].is_truncated
        assert played.trajectory.turns[0].num_observation_tokens == 40


@pytest.mark.parametrize("query", ["", " ", " \n\t "])
def test_19_an_empty_query_is_searched_for(play, query: str) -> None:
    """A failure changes training: Search-R1 sends the query stripped and otherwise as it is, and so does this."""
    played = play([f"<search>{query}</search>", ANSWER])
    assert played.searcher.queries == [""]
    assert played.trajectory.status is EpisodeStatus.ANSWERED


@pytest.mark.parametrize(
    ("turn", "query"),
    [
        ("<search> a <search> b </search>", "a <search> b"),
        ("<search> a </search></search>", "a"),
        ("<think> I could <search> 東京 😀 </search>", "東京 😀"),
        ("<think><search> Zürich\n1291 </search> </think>", "Zürich\n1291"),
        ("</search><answer> <search> q </search>", "q"),
    ],
)
def test_20_nested_repeated_and_misplaced_tags(play, turn: str, query: str) -> None:
    """A failure changes training: the first complete pair of tags decides, wherever it stands."""
    assert play([turn, ANSWER]).searcher.queries == [query]


def test_21_half_a_surrogate_pair_ends_no_run(play) -> None:
    """A failure ends a run: neither a tokenizer nor verl's dumps take what JSON lets a retriever send."""
    played = play([SEARCH, ANSWER], [[Document("7", "Paris\nThe \ud800 capital.")]])
    assert "The ? capital." in played.observations[0]
    assert played.trajectory.status is EpisodeStatus.ANSWERED
    for error in (ToolError("no \udcff"), ValueError("no \udcff")):
        assert play([SEARCH], [error]).trajectory.error.endswith("no ?")
