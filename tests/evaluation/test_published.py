"""The published figures: whole, and what the papers' own averages say."""

from __future__ import annotations

import pytest

from verl_llds.evaluation.published import PublishedRow, matching_sources, published_sources

# The averages printed in the papers' tables, which are not in the file.
AVERAGES = {
    ("Search-R1", "Qwen2.5-3B", "GRPO"): 0.312,
    ("Search-R1", "Qwen2.5-3B-Instruct", "GRPO"): 0.336,
    ("Search-R1", "Qwen2.5-3B", "PPO"): 0.303,
    ("Search-R1", "Qwen2.5-3B-Instruct", "PPO"): 0.325,
    ("Search-R1", "Qwen2.5-7B", "GRPO"): 0.350,
    ("Search-R1", "Qwen2.5-7B-Instruct", "GRPO"): 0.396,
    ("Search-R1", "Qwen2.5-7B", "PPO"): 0.431,
    ("Search-R1", "Qwen2.5-7B-Instruct", "PPO"): 0.385,
    ("Search-R1", "Qwen2.5-14B", "PPO"): 0.479,
    ("Search-R1", "Qwen2.5-14B-Instruct", "PPO"): 0.433,
    ("LLDS", "Qwen2.5-3B", "GRPO + LLDS (response)"): 0.353,
    ("LLDS", "Qwen2.5-3B", "GRPO + LLDS"): 0.360,
    ("LLDS", "Qwen2.5-3B", "GRPO + LLDS-MA"): 0.440,
    ("LLDS", "Qwen2.5-3B-Instruct", "GRPO + LLDS (response)"): 0.419,
    ("LLDS", "Qwen2.5-3B-Instruct", "GRPO + LLDS"): 0.441,
    ("LLDS", "Qwen2.5-3B-Instruct", "GSPO"): 0.331,
    ("LLDS", "Qwen2.5-3B-Instruct", "GSPO + LLDS (response)"): 0.442,
    ("LLDS", "Qwen2.5-3B-Instruct", "GSPO + LLDS"): 0.451,
    ("LLDS", "Qwen2.5-7B", "GRPO + LLDS"): 0.480,
    ("LLDS", "Qwen2.5-7B-Instruct", "GRPO + LLDS"): 0.483,
    ("LLDS", "Llama-3.2-3B", "GRPO"): 0.212,
    ("LLDS", "Llama-3.2-3B", "GRPO + LLDS"): 0.374,
    ("LLDS", "Llama-3.2-3B", "GRPO + LLDS-MA"): 0.427,
    ("LLDS, NQ only", "Qwen2.5-3B", "GRPO"): 0.303,
    ("LLDS, NQ only", "Qwen2.5-3B", "GRPO + LLDS (token)"): 0.321,
    ("LLDS, NQ only", "Qwen2.5-3B", "GRPO + LLDS (response)"): 0.323,
    ("LLDS, NQ only", "Qwen2.5-3B", "GRPO + LLDS"): 0.332,
    ("LLDS, NQ only", "Qwen2.5-3B-Instruct", "GRPO + LLDS (token)"): 0.319,
    ("LLDS, NQ only", "Qwen2.5-3B-Instruct", "GRPO + LLDS (response)"): 0.319,
    ("LLDS, NQ only", "Qwen2.5-3B-Instruct", "GRPO + LLDS"): 0.330,
    ("SkyRL", "Qwen2.5-3B-Instruct", "GRPO"): 0.421,
}

ROWS = {(row.source, row.model, row.method): row for source in published_sources() for row in source.rows}


@pytest.mark.parametrize("key", AVERAGES, ids=" / ".join)
def test_the_figures_have_the_average_their_source_prints(key: tuple[str, str, str]) -> None:
    row: PublishedRow = ROWS[key]
    assert row.macro == pytest.approx(AVERAGES[key], abs=0.0015)


def test_every_row_of_the_two_papers_is_checked_above() -> None:
    papers = {key for key in ROWS if key[0] in ("Search-R1", "LLDS", "LLDS, NQ only")}
    assert papers == {key for key in AVERAGES if key[0] != "SkyRL"}


def test_every_source_says_where_it_is_from_and_what_to_beware_of() -> None:
    for source in published_sources():
        assert source.url.startswith("https://")
        assert source.where
        assert source.caveat
        assert all(0 < value < 1 for row in source.rows for value in row.em.values())


def test_a_row_that_lacks_a_set_has_no_average() -> None:
    (row,) = [row for (source, _, _), row in ROWS.items() if source == "tinker-cookbook"]
    assert "popqa" not in row.em
    assert row.macro is None


def test_rows_are_picked_by_source_model_or_method() -> None:
    assert {source.name for source in matching_sources("llds-ma")} == {"LLDS"}
    assert all("7B" in row.model for source in matching_sources("7b") for row in source.rows)
    assert matching_sources("no such model") == ()
