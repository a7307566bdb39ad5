"""The table of rewards, and what lies between its entries."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.reward.qa import exact_match, f1_score, substring_match
from verl_llds.reward.score import Score, score
from verl_llds.reward.settings import AnswerMetric, RewardConfig

SCORES = {"format_score": 0.2, "final_format_score": 0.1, "retrieval_score": 0.05}

TABLE = {
    # answer, well-formed, retrieved, reward
    "right": ("Paris", True, False, 1.0),
    "right and retrieved": ("Paris", True, True, 1.0),
    "right, ill-formed": ("Paris", False, False, 0.8),
    "right, ill-formed, retrieved": ("Paris", False, True, 0.8),
    "wrong": ("Rome", True, False, 0.2),
    "wrong and retrieved": ("Rome", True, True, 0.25),
    "wrong, ill-formed": ("Rome", False, False, 0.1),
    "wrong, ill-formed, retrieved": ("Rome", False, True, 0.1),
    "empty": ("", True, False, 0.2),
    "empty, ill-formed": ("", False, False, 0.1),
    "none": (None, True, False, 0.2),
    "none, retrieved": (None, True, True, 0.25),
    "none, ill-formed": (None, False, False, 0.0),
    "none, ill-formed, retrieved": (None, False, True, 0.0),
}

HALF_RIGHT = {
    # 2/3 of the entry for a right answer and 1/3 of that for a wrong one
    "well-formed": (True, False, (2 * 1.0 + 0.2) / 3),
    "retrieved": (True, True, (2 * 1.0 + 0.25) / 3),
    "ill-formed": (False, False, (2 * 0.8 + 0.1) / 3),
}

metrics = st.sampled_from(AnswerMetric)
answers = st.none() | st.sampled_from(["Paris", "paris France", "Rome", "", "the"]) | st.text(max_size=5)
targets = st.lists(st.sampled_from(["Paris", "Paris, France", "Rome", "The"]), max_size=2)


def ids(cases: dict[str, tuple[object, ...]]) -> list[str]:
    return [f"{number}-{name}" for number, name in enumerate(cases, start=1)]


@pytest.mark.parametrize(("answer", "well_formed", "retrieved", "reward"), TABLE.values(), ids=ids({**TABLE}))
@pytest.mark.parametrize("metric", AnswerMetric)
def test_the_table(answer: str | None, well_formed: bool, retrieved: bool, reward: float, metric: AnswerMetric) -> None:
    settings = RewardConfig(metric=metric, **SCORES)
    result = score(answer=answer, targets=["Paris"], well_formed=well_formed, retrieved=retrieved, settings=settings)
    assert result.reward == pytest.approx(reward, abs=1e-15)
    right = float(answer == "Paris")
    assert (result.answer, result.em, result.f1, result.sub_em) == (right,) * 4


@pytest.mark.parametrize(("well_formed", "retrieved", "reward"), HALF_RIGHT.values(), ids=ids({**HALF_RIGHT}))
def test_an_answer_that_is_partly_right(well_formed: bool, retrieved: bool, reward: float) -> None:
    settings = RewardConfig(metric=AnswerMetric.F1, **SCORES)
    result = score(
        answer="Paris, France", targets="Paris", well_formed=well_formed, retrieved=retrieved, settings=settings
    )
    assert result.answer == result.f1 == pytest.approx(2 / 3)
    assert (result.em, result.sub_em) == (0, 1)
    assert result.reward == pytest.approx(reward)


@given(metrics, answers, targets, st.booleans(), st.booleans())
def test_without_scores_the_reward_is_the_metric(
    metric: AnswerMetric, answer: str | None, targets: list[str], well_formed: bool, retrieved: bool
) -> None:
    settings = RewardConfig(metric=metric)
    result = score(answer=answer, targets=targets, well_formed=well_formed, retrieved=retrieved, settings=settings)
    em, f1, sub_em = (compare(answer, targets) for compare in (exact_match, f1_score, substring_match))
    value = {AnswerMetric.EM: em, AnswerMetric.F1: f1, AnswerMetric.SUB_EM: sub_em}[metric]
    assert result == Score(reward=value, answer=value, em=em, f1=f1, sub_em=sub_em)


@given(answers, targets, st.booleans(), st.booleans())
def test_a_better_answer_and_a_better_form_never_cost(
    answer: str | None, targets: list[str], well_formed: bool, retrieved: bool
) -> None:
    settings = RewardConfig(metric=AnswerMetric.F1, **SCORES)

    def reward(answer: str | None, well_formed: bool, retrieved: bool) -> float:
        return score(
            answer=answer, targets=targets, well_formed=well_formed, retrieved=retrieved, settings=settings
        ).reward

    earned = reward(answer, well_formed, retrieved)
    assert 0 <= earned <= 1
    assert reward(answer, True, retrieved) >= earned
    assert reward(answer, well_formed, True) >= earned
    if targets:
        assert reward(targets[0], well_formed, retrieved) >= earned - 1e-15


def test_targets_may_be_read_once_only() -> None:
    for metric, (well_formed, retrieved) in product(AnswerMetric, product((False, True), repeat=2)):
        result = score(
            answer="Paris",
            targets=iter(["Rome", "Paris"]),
            well_formed=well_formed,
            retrieved=retrieved,
            settings=RewardConfig(metric=metric),
        )
        assert (result.em, result.f1, result.sub_em) == (1, 1, 1)
