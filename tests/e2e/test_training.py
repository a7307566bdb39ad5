"""One real run: retriever process, verl's trainer, vLLM on the CPU, two steps, a checkpoint, one step resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from exporting import check_export
from training_run import metrics, rollouts, train

from verl_llds.report.run_folder import read_run
from verl_llds.trackers.catalogue import METRICS
from verl_llds.trajectories.reader import list_steps, read_step

if TYPE_CHECKING:
    from conftest import World


@pytest.mark.e2e
def test_trains_saves_and_resumes(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    # Every trajectory counts as correct, so that the probe set is complete after the first step.
    deep = ("diagnostics=deep", "diagnostics.probe_size=3", "diagnostics.correct_reward=0")
    first = train(world, tmp_path, retriever_url, offline_environment, "trainer.total_training_steps=2", *deep)
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    steps = metrics(tmp_path)
    assert set(steps) == {1, 2}
    for values in steps.values():
        assert values["search/valid_searches"] > 0.5
        assert values["search/status/retrieval_failed"] == 0
        assert values["search/observation_tokens"] > 0
        assert values["training/rollout_probs_diff_mean"] < 0.05
        assert math.isfinite(values["actor/grad_norm"])
        assert values["actor/grad_norm"] > 0
        assert 0 <= values["actor/llds/open_token_frac"] <= 1
        assert not [name for name in values if "tally" in name]
        shares = [values.get(f"llds/trajectory_frac/{kind}", 0) for kind in ("correct", "zero", "incorrect")]
        assert sum(shares) == pytest.approx(1)
        assert values["llds/log_prob/zero/old"] == pytest.approx(values["actor/llds/log_prob/zero/old"], abs=1e-5)
        assert values["llds/probe/log_prob"] < 0
        assert values["llds/nonfinite_tokens"] == 0
        assert values["llds/phase"] == 0
    assert steps[1]["llds/probe/displacement"] == 0
    assert steps[2]["llds/probe/displacement"] != 0
    # Two updates a step: in the second the likelihood has moved, so the penalty is at work.
    assert any(values["actor/llds/penalty"] > 0 for values in steps.values())
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "2"
    dumped = rollouts(tmp_path, 1)
    assert len(dumped) == 16
    assert any("<information>Doc 1(Title: France)" in row["output"] for row in dumped)
    searched = [turn for row in dumped for turn in row["turns"] if turn["status"] == "result"]
    assert searched
    assert all(turn["documents"] and turn["content"] and turn["latency_s"] >= 0 for turn in searched)
    check_trajectories(tmp_path, steps, dumped)

    # Without the pass over all trajectories, recording makes one over its own.
    later = ("trainer.total_training_steps=3", *deep, "diagnostics.post_update_every=0")
    second = train(world, tmp_path, retriever_url, offline_environment, *later)
    assert second.returncode == 0, second.stdout[-4000:] + second.stderr[-4000:]
    assert set(metrics(tmp_path)) == {3}, "the second run must go on after the checkpoint, not start again"
    assert (tmp_path / "checkpoints" / "global_step_3" / "actor").is_dir()
    # The probe set is the one of the first run: measured anew, it would start at 0.
    assert metrics(tmp_path)[3]["llds/probe/displacement"] != 0
    run = read_run(tmp_path)
    assert list(run.metrics) == [1, 2, 3], "verl empties its file; what it held is kept beside it"
    assert run.trajectories is not None
    assert list_steps(run.trajectories) == [1, 2, 3]
    assert all(row["new_log_probs"] is not None for row in read_step(run.trajectories, 3))
    assert 0 < run.metrics[3]["timing_s/llds_trajectories_forward"] < run.metrics[3]["timing_s/llds_trajectories"]
    logged = {name for name in run.metrics[3] if name.startswith(("actor/llds/", "llds/", "search/"))}
    assert not logged - {name for metric in METRICS for name in metric.names}, "metrics that the table does not have"
    check_export(world, tmp_path, retriever_url, offline_environment)


def check_trajectories(out: Path, steps: dict[int, dict[str, Any]], dumped: list[dict[str, Any]]) -> None:
    """Hold the recorded tokens against verl's own dump and metrics."""
    folder = out / "checkpoints" / "trajectories"
    assert list_steps(folder) == [1, 2]
    recorded = {row["key"]: row for row in read_step(folder, 1)}
    assert set(recorded) == {row["uid"] for row in dumped}
    for row in dumped:
        kept = recorded[row["uid"]]
        assert "".join(kept["tokens"]).replace("<|im_end|>", "") == row["output"]
        assert (kept["score"], kept["status"]) == (row["score"], row["status"])
        assert kept["gold_answers"] == row["gts"]["target"]
        assert kept["question"].startswith("What is the capital of ")
        texts = [kept["tokens"][turn["start"] :][: turn["num_tokens"]] for turn in kept["turns"]]
        assert all(turn["content"] in "".join(text) for turn, text in zip(kept["turns"], texts, strict=True))
    moved = penalised = False
    for step, values in steps.items():
        rows = read_step(folder, step)
        tokens = [
            pair
            for row in rows
            for pair in zip(row["old_log_probs"], row["new_log_probs"], strict=True)
            if pair[0] is not None
        ]
        mean = sum(old for old, _ in tokens) / len(tokens)
        kinds = [kind for kind in ("correct", "zero", "incorrect") if values.get(f"llds/trajectory_frac/{kind}")]
        logged = [values[f"llds/log_prob/{kind}/old"] for kind in kinds]
        assert min(logged) - 1e-5 <= mean <= max(logged) + 1e-5
        moved = moved or any(new != old for old, new in tokens)
        penalised = penalised or any(sum(row["penalty"]) > 0 for row in rows if row["preserved"])
        assert 0 < values["timing_s/llds_trajectories"] < values["timing_s/step"]
    assert moved, "measured after the update"
    assert penalised


@pytest.mark.e2e
def test_a_missing_retriever_stops_the_run_before_training(
    world: World, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    ended = train(
        world,
        tmp_path,
        "http://127.0.0.1:9/retrieve",
        offline_environment,
        "trainer.total_training_steps=2",
    )
    assert ended.returncode != 0
    output = ended.stdout + ended.stderr
    assert "verl_llds.errors.RetrievalError" in output
    assert "http://127.0.0.1:9/retrieve" in output
    assert "Training Progress" not in output


@pytest.mark.e2e
def test_partial_rollouts_carry_loss_answer_mask_and_diagnostics(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    # The adaptive weight needs the answer mask in the worker and the valid searches from the driver.
    ended = train(
        world,
        tmp_path,
        retriever_url,
        offline_environment,
        "algorithm=grpo_llds_ma",
        "trainer.v1.trainer_mode=llds_colocate_async",
        "trainer.total_training_steps=2",
        "diagnostics=deep",
        "diagnostics.correct_reward=0",
        "diagnostics.probe_size=3",
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    steps = metrics(tmp_path)
    assert set(steps) == {1, 2}
    for values in steps.values():
        assert values["search/answer_share"] > 0
        assert values["actor/llds/effective_coef"] == pytest.approx(0.2)
        assert values["llds/probe/log_prob"] < 0
        assert "llds/displacement/zero" in values or "llds/displacement/correct" in values
    assert any(values["actor/llds/penalty"] > 0 for values in steps.values())
