"""Episodes at once on a scripted engine: lines, scores, failures, seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.model import render
from verl_llds.evaluation.play import Job, Table
from verl_llds.evaluation.questions import Question
from verl_llds.evaluation.rows import segments
from verl_llds.evaluation.sampler import turn_seed
from verl_llds.evaluation.summary import summarize
from verl_llds.search.environment import Environment, make_environment
from verl_llds.search.settings import SearchConfig

from .conftest import OneDocument, ScriptedSampler, searches_then_answers


def question(number: int, source: str = "nq", target: str = "Paris") -> Question:
    messages = ({"role": "user", "content": f"Question {number}?"},)
    return Question(
        id=f"{source}/{number}", source=source, split="test", messages=messages, targets=(target,), number=number
    )


def play(
    tokenizer: PreTrainedTokenizerFast,
    sampler: ScriptedSampler,
    questions: list[Question],
    *,
    num_samples: int = 1,
    most_failures: int = 0,
) -> list[dict[str, Any]]:
    environment: Environment = make_environment(SearchConfig(max_turns=2), OneDocument(), tokenizer)
    table = Table(
        sampler=sampler,
        environment=environment,
        tokenizer=tokenizer,
        max_response_tokens=2000,
        seed=3,
        concurrency=4,
    )
    rows: list[dict[str, Any]] = []

    def add(row: Mapping[str, Any]) -> None:
        rows.append(dict(row))

    jobs = [
        Job(question=one, sample=sample, prompt_ids=render(one, environment, tokenizer))
        for one in questions
        for sample in range(num_samples)
    ]
    asyncio.run(table.play(jobs, add, most_failures))
    return sorted(rows, key=lambda row: (row["number"], row["sample"]))


def test_a_line_holds_the_whole_trajectory_and_its_score(tokenizer: PreTrainedTokenizerFast) -> None:
    right, wrong = play(
        tokenizer, ScriptedSampler(tokenizer, searches_then_answers), [question(0), question(1, target="New Paris")]
    )
    assert (right["uid"], right["status"], right["answer"]) == ("nq/0#0", "answered", "Paris")
    assert (right["em"], right["f1"], right["sub_em"], right["score"], right["acc"]) == (1, 1, 1, 1, 1)
    assert (wrong["em"], wrong["sub_em"]) == (0, 0)
    assert wrong["f1"] == pytest.approx(2 / 3)
    assert right["num_searches"] == 1
    assert right["turns"][0]["documents"] == ["7"]
    assert right["log_prob"] == pytest.approx(-0.5)
    assert right["input"] == "<|im_start|>user\nQuestion 0?<|im_end|>\n<|im_start|>assistant\n"
    pieces = [(kind, right["output"][start:end]) for kind, start, end in right["spans"]]
    assert pieces == [
        ("policy", "<search> capital of France </search>"),
        ("observation", "\n\n<information>Doc 1(Title: Paris) The capital of France.</information>\n\n"),
        ("answer", "<answer> Paris </answer>"),
    ]
    assert right["num_policy"] + right["num_observation"] == len(tokenizer.encode(right["output"]))


def test_segments_follow_the_masks_and_lose_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    from verl_llds.search.trajectory import Generation, Trajectory

    trajectory = Trajectory(prompt_ids=[1])
    trajectory.append_sampled(Generation(token_ids=[5, 6]))
    trajectory.append_observed([7])
    trajectory.append_sampled(Generation(token_ids=[8, 9]))
    trajectory.answer_mask[-1] = 1
    assert list(segments(trajectory)) == [("policy", [5, 6]), ("observation", [7]), ("policy", [8]), ("answer", [9])]


def test_too_many_failures_stop_it_and_say_why(tokenizer: PreTrainedTokenizerFast) -> None:
    def broken(text: str) -> str:
        raise ConnectionError("the engine is gone")

    sampler = ScriptedSampler(tokenizer, broken)
    with pytest.raises(EvaluationError, match=r"3 episodes .* the 2 allowed: 3 errored.*engine is gone"):
        play(tokenizer, sampler, [question(n) for n in range(50)], most_failures=2)
    assert len(sampler.prompts) < 10


def test_a_failed_episode_counts_as_wrong_and_is_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    def sometimes(text: str) -> str:
        if "Question 1?" in text:
            raise ConnectionError("gone")
        return searches_then_answers(text)

    rows = play(tokenizer, ScriptedSampler(tokenizer, sometimes), [question(n) for n in range(4)], most_failures=1)
    summary = summarize(rows, seed=0)
    assert summary.metrics["em"].micro.mean == 0.75
    assert summary.means["failed"] == [0.25, 0.25]
    assert summary.statuses[-1] == {"answered": 3, "errored": 1}


def test_every_turn_of_every_sample_has_a_seed_of_its_own_and_the_same_again(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    first = ScriptedSampler(tokenizer, searches_then_answers)
    play(tokenizer, first, [question(0), question(1)], num_samples=3)
    again = ScriptedSampler(tokenizer, searches_then_answers)
    play(tokenizer, again, [question(0), question(1)], num_samples=3)
    assert len(set(first.seeds)) == len(first.seeds) == 12
    assert sorted(first.seeds) == sorted(again.seeds)
    assert 0 <= turn_seed(0, "a", 0) < 2**31
