"""Turn records cut the response where verl's dumps hold it as text."""

from __future__ import annotations

import pytest

from verl_llds.search.documents import Document
from verl_llds.search.facts import turn_records
from verl_llds.search.trajectory import EpisodeStatus

SEARCH = "<think> é </think> <search> capital of France </search>"
INVALID = "<information> mine </information> <think> and then"
ANSWER = "<answer> Paris </answer>"


@pytest.mark.parametrize("keep_closing_tag", [True, False])
@pytest.mark.parametrize("end", ["", "special token", "\n"])
def test_records_cut_the_text_as_verl_decodes_it(play, tokenizer, end: str, keep_closing_tag: bool) -> None:
    end = tokenizer.eos_token if end == "special token" else end
    long = [Document("7", "Paris\n" + "The capital of France. " * 40)]
    turns = [SEARCH + end, INVALID + end, SEARCH + end, ANSWER]
    played = play(turns, [long], keep_closing_tag=keep_closing_tag, max_observation_tokens=60)
    trajectory, tokenizer = played.trajectory, played.tokenizer
    assert len(trajectory.turns) == 4
    # With the padding of a batch, as verl decodes it.
    response = tokenizer.decode([*trajectory.response_ids, tokenizer.pad_token_id], skip_special_tokens=True)
    texts, observations = [], []
    place = start = 0
    for turn, record in zip(trajectory.turns, turn_records(trajectory, tokenizer), strict=True):
        assert record.items() >= turn.summary().items()
        end_of_text = place + record["num_chars"]
        texts.append(response[place:end_of_text])
        place = end_of_text + record["num_observation_chars"]
        observations.append(response[end_of_text:place])
        middle = start + turn.num_tokens
        start = middle + turn.num_observation_tokens
        found = tokenizer.decode(trajectory.response_ids[middle:start], skip_special_tokens=True)
        assert observations[-1].strip() == found.strip()
    assert place == len(response)
    assert [text.strip().endswith(("</search>", "then", "</answer>")) for text in texts] == [True] * 4
    assert [observation.strip()[:13] for observation in observations] == [
        "<information>",
        "My previous a",
        "<information>",
        "",
    ]
    assert trajectory.turns[0].is_truncated


def test_a_reply_without_room_has_no_characters(play, tokenizer) -> None:
    room = len(tokenizer.encode(SEARCH, add_special_tokens=False)) + 1
    played = play([SEARCH, ANSWER], max_response_tokens=room)
    assert played.trajectory.status is EpisodeStatus.OUT_OF_TOKENS
    (record,) = turn_records(played.trajectory, played.tokenizer)
    response = played.tokenizer.decode(played.trajectory.response_ids, skip_special_tokens=True)
    assert (record["num_chars"], record["num_observation_chars"]) == (len(response), 0)
    assert turn_records(play([]).trajectory, played.tokenizer) == []
