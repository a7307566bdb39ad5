"""Numbers out of lines: sets, samples, what Search-R1 drops."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.console import Console

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.compare import compare_rows, other_settings
from verl_llds.evaluation.published import matching_sources
from verl_llds.evaluation.summary import ordered_sources, summarize
from verl_llds.evaluation.tables import episodes_table, footnotes, published_table, scores_table, status_line


def line(number: int, source: str, em: float, sample: int = 0, **values: Any) -> dict[str, Any]:
    return {
        "uid": f"{source}/{number}#{sample}",
        "question": f"{source}/{number}",
        "sample": sample,
        "number": number,
        "data_source": source,
        "em": em,
        "f1": em,
        "sub_em": em,
        "gts": ["x"],
        "status": "answered",
        "turns": [{}, {}],
        "num_searches": 1,
        "num_policy": 10,
        "num_observation": 20,
        "seconds": 1.0,
        **values,
    }


def by_uid(*lines: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["uid"]: one for one in lines}


def shown(*tables: Any, width: int = 240) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in tables:
        console.print(table)
    return console.export_text()


def test_macro_counts_sets_and_micro_questions() -> None:
    rows = [line(0, "bamboogle", 1), *(line(n, "nq", 0) for n in range(1, 4))]
    summary = summarize(rows, seed=0)
    assert summary.sources == ("nq", "bamboogle")
    assert summary.num_questions == (3, 1)
    assert summary.metrics["em"].macro.mean == 0.5
    assert summary.metrics["em"].micro.mean == 0.25


def test_samples_of_a_question_count_by_their_mean() -> None:
    rows = [line(0, "nq", 1, 0), line(0, "nq", 0, 1), line(1, "nq", 1, 0), line(1, "nq", 1, 1)]
    summary = summarize(rows, seed=0)
    assert summary.num_samples == 2
    assert summary.num_questions == (2,)
    assert summary.metrics["em"].micro.mean == 0.75


def test_the_last_batch_is_dropped_by_the_order_of_the_files_and_said() -> None:
    rows = [*(line(n, "nq", 0) for n in range(4)), *(line(n, "bamboogle", 1) for n in range(4, 7))]
    # As in Search-R1's test file, whose last batch is one question of Bamboogle.
    summary = summarize(list(reversed(rows)), seed=0, drop_last=6)
    assert summary.num_questions == (4, 2)
    assert summary.num_dropped == 1
    assert "1 dropped as Search-R1 does" in " ".join(shown(scores_table(summary)).split())
    assert summarize(rows, seed=0).num_questions == (4, 3)


def test_sets_come_in_the_order_of_the_papers_and_then_by_name() -> None:
    assert ordered_sources({"own", "musique", "nq", "laptop_2hop"}) == ["nq", "musique", "laptop_2hop", "own"]


def test_the_tables_say_what_was_measured() -> None:
    rows = [line(0, "nq", 1), line(1, "nq", 0, status="out_of_turns")]
    summary = summarize(rows, seed=0)
    text = shown(
        scores_table(summary),
        episodes_table(summary),
        published_table(summary, "mine", matching_sources("3B GRPO + LLDS-MA")),
    )
    assert "0.500 [0.000, 1.000]" in text
    assert "50.0%" in text
    assert "mine" in text
    # The paper's row of NQ beside ours, and no mean of seven where six are missing.
    assert "0.483" in text
    assert status_line(summary) == "2 episodes: 1 answered, 1 out_of_turns"
    assert "https://arxiv.org/abs/2512.04220" in footnotes(matching_sources("LLDS-MA"))[0]


def test_nothing_published_is_shown_beside_questions_of_ones_own() -> None:
    assert published_table(summarize([line(0, "own", 1)], seed=0), "mine", matching_sources("")) is None


def test_two_evaluations_are_compared_on_what_both_have() -> None:
    a = by_uid(*(line(n, "nq", float(n < 2)) for n in range(6)), line(9, "own", 1))
    b = by_uid(*(line(n, "nq", float(n < 5)) for n in range(1, 7)))
    found = compare_rows(a, b, seed=0)
    assert (found.sources, found.num_questions) == (("nq",), (5,))
    assert (found.only_a, found.only_b) == (2, 1)
    assert found.differences["em"].micro.estimate.mean == pytest.approx(3 / 5)
    assert found.mcnemar is not None
    assert (found.mcnemar[-1].only_a, found.mcnemar[-1].only_b) == (0, 3)
    assert found.mcnemar[-1].p_value == 0.25


def test_samples_are_compared_by_their_mean_and_without_mcnemar() -> None:
    a = by_uid(line(0, "nq", 1, 0), line(0, "nq", 0, 1))
    found = compare_rows(a, by_uid(line(0, "nq", 1)), seed=0)
    assert found.differences["em"].micro.estimate.mean == 0.5
    assert found.mcnemar is None


def test_evaluations_of_other_questions_are_not_compared() -> None:
    with pytest.raises(EvaluationError, match="no question in common"):
        compare_rows(by_uid(line(0, "nq", 1)), by_uid(line(1, "nq", 1)), seed=0)
    with pytest.raises(EvaluationError, match="nq/0 has other accepted answers"):
        compare_rows(by_uid(line(0, "nq", 1)), by_uid(line(0, "nq", 1, gts=["y"])), seed=0)


def test_what_differs_beside_the_model_is_named() -> None:
    old, new = {"settings": {"model": "a", "topk": 3}}, {"settings": {"model": "b", "topk": 5}}
    assert other_settings(old, new) == ["topk is 3 in A and 5 in B"]


def test_scores_are_whole_in_a_narrow_terminal() -> None:
    rows = [line(n, source, n % 2) for source in ("hotpotqa", "2wikimultihopqa") for n in range(20_000)]
    text = shown(scores_table(summarize(rows, seed=0)), width=80)
    assert len(re.findall(r"0\.500 \[0\.\d{3}, 0\.\d{3}\]", text)) == 4 * 3
    assert "20000" in text
    assert "…" not in text
