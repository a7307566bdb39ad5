"""The published figures: whole, and what the papers' own averages say."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import pytest

from verl_llds.evaluation.published import matching_sources, published_sources

Key = tuple[str, str, str]

# The means printed in the papers' tables, which are not in the file: of NQ, TriviaQA and PopQA, of the four sets that
# take several hops (both in the LLDS paper alone, which repeats some of Search-R1's rows), and of all seven.
PRINTED: dict[Key, tuple[float | None, float | None, float]] = {
    ("Search-R1", "Qwen2.5-3B", "GRPO"): (0.472, 0.191, 0.312),
    ("Search-R1", "Qwen2.5-3B-Instruct", "GRPO"): (0.451, 0.249, 0.336),
    ("Search-R1", "Qwen2.5-3B", "PPO"): (None, None, 0.303),
    ("Search-R1", "Qwen2.5-3B-Instruct", "PPO"): (None, None, 0.325),
    ("Search-R1", "Qwen2.5-7B", "GRPO"): (0.448, 0.277, 0.350),
    ("Search-R1", "Qwen2.5-7B-Instruct", "GRPO"): (0.493, 0.324, 0.396),
    ("Search-R1", "Qwen2.5-7B", "PPO"): (None, None, 0.431),
    ("Search-R1", "Qwen2.5-7B-Instruct", "PPO"): (None, None, 0.385),
    ("Search-R1", "Qwen2.5-14B", "PPO"): (None, None, 0.479),
    ("Search-R1", "Qwen2.5-14B-Instruct", "PPO"): (None, None, 0.433),
    ("LLDS", "Qwen2.5-3B", "GRPO + LLDS (response)"): (0.522, 0.226, 0.353),
    ("LLDS", "Qwen2.5-3B", "GRPO + LLDS"): (0.520, 0.240, 0.360),
    ("LLDS", "Qwen2.5-3B", "GRPO + LLDS-MA"): (0.530, 0.372, 0.440),
    ("LLDS", "Qwen2.5-3B-Instruct", "GRPO + LLDS (response)"): (0.515, 0.347, 0.419),
    ("LLDS", "Qwen2.5-3B-Instruct", "GRPO + LLDS"): (0.519, 0.383, 0.441),
    ("LLDS", "Qwen2.5-3B-Instruct", "GSPO"): (0.437, 0.252, 0.331),
    ("LLDS", "Qwen2.5-3B-Instruct", "GSPO + LLDS (response)"): (0.532, 0.375, 0.442),
    ("LLDS", "Qwen2.5-3B-Instruct", "GSPO + LLDS"): (0.537, 0.385, 0.451),
    ("LLDS", "Qwen2.5-7B", "GRPO + LLDS"): (0.555, 0.424, 0.480),
    ("LLDS", "Qwen2.5-7B-Instruct", "GRPO + LLDS"): (0.560, 0.426, 0.483),
    ("LLDS", "Llama-3.2-3B", "GRPO"): (0.305, 0.142, 0.212),
    ("LLDS", "Llama-3.2-3B", "GRPO + LLDS"): (0.532, 0.255, 0.374),
    ("LLDS", "Llama-3.2-3B", "GRPO + LLDS-MA"): (0.538, 0.343, 0.427),
    ("LLDS, NQ only", "Qwen2.5-3B", "GRPO"): (0.478, 0.171, 0.303),
    ("LLDS, NQ only", "Qwen2.5-3B", "GRPO + LLDS (token)"): (0.512, 0.178, 0.321),
    ("LLDS, NQ only", "Qwen2.5-3B", "GRPO + LLDS (response)"): (0.511, 0.182, 0.323),
    ("LLDS, NQ only", "Qwen2.5-3B", "GRPO + LLDS"): (0.519, 0.192, 0.332),
    ("LLDS, NQ only", "Qwen2.5-3B-Instruct", "GRPO + LLDS (token)"): (0.512, 0.174, 0.319),
    ("LLDS, NQ only", "Qwen2.5-3B-Instruct", "GRPO + LLDS (response)"): (0.517, 0.171, 0.319),
    ("LLDS, NQ only", "Qwen2.5-3B-Instruct", "GRPO + LLDS"): (0.517, 0.189, 0.330),
    ("SkyRL", "Qwen2.5-3B-Instruct", "GRPO"): (None, None, 0.421),
}

# A printed mean is that of the printed figures, rounded once more.
ROUNDED = 0.00051

# Except for these, which their authors took of figures before these were rounded.
ROUNDED_BEFORE = {
    ("Search-R1", "Qwen2.5-14B", "PPO"): "all",
    ("LLDS", "Qwen2.5-3B-Instruct", "GSPO + LLDS"): "all",
    ("LLDS, NQ only", "Qwen2.5-3B-Instruct", "GRPO + LLDS"): "general",
}

GROUPS = {"general": slice(0, 3), "multi-hop": slice(3, 7), "all": slice(0, 7)}

ROWS = {(row.source, row.model, row.method): row for source in published_sources() for row in source.rows}


def wrong_means(key: Key, em: Mapping[str, float]) -> dict[str, float]:
    """Return the means that are not the printed ones, and by how much."""
    figures = list(em.values())
    gaps = {
        name: fmean(figures[part]) - printed
        for (name, part), printed in zip(GROUPS.items(), PRINTED[key], strict=True)
        if printed is not None
    }
    allowed = {name: 2 * ROUNDED if ROUNDED_BEFORE.get(key) == name else ROUNDED for name in gaps}
    return {name: gap for name, gap in gaps.items() if abs(gap) > allowed[name]}


@pytest.mark.parametrize("key", PRINTED, ids=" / ".join)
def test_the_figures_have_the_means_their_source_prints(key: Key) -> None:
    assert wrong_means(key, ROWS[key].em) == {}


@pytest.mark.parametrize("key", [key for key, printed in PRINTED.items() if None not in printed], ids=" / ".join)
def test_a_figure_that_is_wrong_by_half_a_point_would_be_noticed(key: Key) -> None:
    em = ROWS[key].em
    for name in em:
        for error in (-0.005, 0.005):
            assert wrong_means(key, {**em, name: em[name] + error}), f"{name} {error:+}"


def test_every_row_of_the_two_papers_is_checked_above() -> None:
    papers = {key for key in ROWS if key[0] in ("Search-R1", "LLDS", "LLDS, NQ only")}
    assert papers == {key for key in PRINTED if key[0] != "SkyRL"}


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
