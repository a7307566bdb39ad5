"""Failures under ``search.on_failure=penalise`` through verl's trainer; the other two are in ``test_faults.py``."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_retriever import POISON
from test_faults import Step, play
from training_run import log, metrics, rollouts

if TYPE_CHECKING:
    from conftest import World


@pytest.mark.e2e
def test_a_penalised_failure_is_a_wrong_answer_of_its_group(
    world: World, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    # The one question whose answer the policy knows: whoever is not failed by the retriever is right.
    france = pq.read_table(world.train).to_pylist()[0]
    pq.write_table(pa.Table.from_pylist([france] * 8), tmp_path / "france.parquet")
    script = (Step("error_500", every=2), Step("error_500"))
    files = (f"data.train_files={tmp_path / 'france.parquet'}", f"data.val_files={tmp_path / 'france.parquet'}")
    ended = play(world, tmp_path, offline_environment, script, "search.on_failure=penalise", *files)
    assert ended.returncode == 0, log(tmp_path)[-4000:]
    half, none = metrics(tmp_path).values()
    rows = rollouts(tmp_path, 1)
    failed = [row for row in rows if row["status"] == "retrieval_failed"]
    assert 0 < len(failed) < len(rows)
    assert all(row["score"] == 0 for row in failed)
    assert all(POISON not in row["output"] for row in rows)
    assert any(row["score"] == 1 for row in rows)
    # Failed ones enter the mean and the deviation of their groups, and each of their tokens has its advantage.
    mean, least = advantages(rows)
    assert half["critic/advantages/mean"] == pytest.approx(mean, abs=1e-4)
    assert half["critic/advantages/min"] == pytest.approx(least, abs=1e-4)
    assert half["critic/advantages/min"] < 0
    assert math.isfinite(half["actor/grad_norm"])
    assert half["actor/grad_norm"] > 0
    # Masked, a step all of whose trajectories failed would end the run.
    rows = rollouts(tmp_path, 2)
    assert all(row["status"] == "retrieval_failed" for row in rows if "call" in {turn["kind"] for turn in row["turns"]})
    assert none["search/status/retrieval_failed"] > 0.5
    assert all(POISON not in row["output"] for row in rows)
    assert math.isfinite(none["actor/grad_norm"])


def advantages(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the mean over policy tokens and the least of GRPO's advantages, by its formula, all rows counted."""
    groups = defaultdict(list)
    for row in rows:
        # verl's key of a rollout: its question, then the number among its siblings.
        groups[row["uid"].split("_")[0]].append((row["score"], sum(turn["num_tokens"] for turn in row["turns"])))
    assert [len(group) for group in groups.values()] == [4, 4, 4, 4]
    found = []
    for group in groups.values():
        scores = [score for score, _ in group]
        mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
        found += [((score - mean) / (deviation + 1e-6), num_tokens) for score, num_tokens in group]
    total = sum(num_tokens for _, num_tokens in found)
    return sum(value * num_tokens for value, num_tokens in found) / total, min(value for value, _ in found)
