"""Whether a passage holds a target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.reward.qa import normalize_answer, substring_match
from verl_llds.reward.retrieval import holds_target

PARIS = '"Paris"\nParis is the capital of France.'
ROME = '"Rome"\nRome is a city in Italy.'

CASES = {
    "in a passage": ([PARIS], ["Paris"], True),
    "in the last passage": ([ROME, PARIS], ["France"], True),
    "the second target": ([PARIS], ["Lyon", "capital of the France"], True),
    "in no passage": ([PARIS, ROME], ["Lyon"], False),
    "case and punctuation": ([PARIS], ["PARIS!"], True),
    "across title and text": ([PARIS], ["Paris Paris"], True),
    "inside a word": (["Jerome K. Jerome"], ["Rome"], True),
    "not across passages": (["Rome is in", "Italy"], ["in Italy"], False),
    "lone target": ([PARIS], "Paris", True),
    "letter of a lone target": (["P"], "Paris", False),
    "no passages": ([], ["Paris"], False),
    "no targets": ([PARIS], [], False),
    "empty target": ([PARIS], ["The"], False),
    "empty target in an empty passage": (["", "..."], ["The", ""], False),
    "empty target beside another": ([PARIS], ["The", "Paris"], True),
}

texts = st.lists(st.sampled_from(["the", "Paris", "paris,", "rome", "in", "é"]), max_size=4).map(" ".join) | st.text()


@pytest.mark.parametrize(
    ("passages", "targets", "expected"),
    CASES.values(),
    ids=[f"{number}-{name}" for number, name in enumerate(CASES, start=1)],
)
def test_passages(passages: list[str], targets: list[str] | str, expected: bool) -> None:
    assert holds_target(iter(passages), targets) is expected


@given(st.lists(texts, max_size=3), st.lists(texts, max_size=3))
def test_it_is_sub_em_of_any_passage(passages: list[str], targets: list[str]) -> None:
    real = [target for target in targets if normalize_answer(target)]
    assert holds_target(passages, targets) == any(substring_match(passage, real) for passage in passages)
