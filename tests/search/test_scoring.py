"""What of a trajectory the reward reads."""

from dataclasses import replace

import pytest

from verl_llds.reward.settings import RewardConfig
from verl_llds.search.environment import make_environment
from verl_llds.search.scoring import score_trajectory
from verl_llds.search.settings import SearchConfig

REWARD = RewardConfig(format_score=0.2)


@pytest.mark.parametrize("beyond", ["", ".", " and"])
def test_what_the_closing_tag_s_token_carries_beyond_it_costs_no_format(play, tokenizer, beyond: str) -> None:
    turns = ["<think>a</think><search>b</search>", "<think>a</think><answer>Paris</answer>"]
    played = play(turns, reward=REWARD)
    last = played.trajectory.turns[-1]
    played.trajectory.turns[-1] = replace(last, text=last.text + beyond)
    environment = make_environment(SearchConfig(reward=REWARD), played.searcher, tokenizer)
    assert score_trajectory(played.trajectory, "Paris", environment).reward == 1.0


def test_text_before_the_tags_still_costs_it(play, tokenizer) -> None:
    played = play(["So: <think>a</think><answer>Paris</answer>"], reward=REWARD)
    environment = make_environment(SearchConfig(reward=REWARD), played.searcher, tokenizer)
    assert score_trajectory(played.trajectory, "Paris", environment).reward == 0.8
