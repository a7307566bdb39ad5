"""Names of the question sets: ours, and those that verl's scorer knows."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from verl.utils import reward_score

from verl_llds.reward.sources import MULTI_HOP, SEVEN_SETS, SINGLE_HOP, canonical_source

CASES = {
    "Search-R1's name": ("nq", "nq"),
    "verl's name": ("searchR1_nq", "nq"),
    "a name that begins with a digit": ("searchR1_2wikimultihopqa", "2wikimultihopqa"),
    "unknown": ("openai/gsm8k", "openai/gsm8k"),
    "unknown with verl's prefix": ("searchR1_strategyqa", "searchR1_strategyqa"),
    "prefix alone": ("searchR1_", "searchR1_"),
    "prefix twice": ("searchR1_searchR1_nq", "searchR1_searchR1_nq"),
    "other case": ("NQ", "NQ"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(
    ("name", "canonical"), CASES.values(), ids=[f"{number}-{name}" for number, name in enumerate(CASES, start=1)]
)
def test_canonical_names(name: str, canonical: str) -> None:
    assert canonical_source(name) == canonical


def test_verl_scores_the_same_seven_sets() -> None:
    source = Path(inspect.getfile(reward_score)).read_text()
    names = re.findall(r'"(searchR1_\w*)"', source)
    assert {canonical_source(name) for name in names} == {one.name for one in SEVEN_SETS}
    assert len(names) == len(SEVEN_SETS)


def test_there_are_seven_sets_of_the_published_size() -> None:
    assert SEVEN_SETS == SINGLE_HOP + MULTI_HOP
    assert len({one.name for one in SEVEN_SETS}) == 7
    first_rows = [sum(one.num_questions for one in SEVEN_SETS[:number]) for number in range(8)]
    assert first_rows == [0, 3_610, 14_923, 29_190, 36_595, 49_171, 51_588, 51_713]


def test_dev_splits_stand_in_where_test_answers_are_not_public() -> None:
    assert [one.name for one in SEVEN_SETS if one.split == "dev"] == ["hotpotqa", "2wikimultihopqa", "musique"]
    assert {one.split for one in SEVEN_SETS} == {"dev", "test"}
