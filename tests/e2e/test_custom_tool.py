"""Two steps of training with a tool that is not part of the package."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_policy import make_policy
from training_run import metrics, rollouts, train

if TYPE_CHECKING:
    from conftest import World

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "custom_tool"
QUESTION = "Question: What is six times seven?\n"


@pytest.mark.e2e
def test_the_calculator_is_called_and_trained_with(
    world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path
) -> None:
    turns = ["<calculate> 6 * 7 </calculate>", "<answer> 42 </answer>"]
    make_policy(tmp_path / "model", QUESTION, turns, "42")
    target = {"style": "rule", "ground_truth": {"target": ["42"]}}
    prompt = [{"role": "user", "content": QUESTION}]
    rows = [{"data_source": "sums", "prompt": prompt, "reward_model": target} for _ in range(8)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "sums.parquet")
    ended = train(
        world,
        tmp_path,
        retriever_url,
        {**offline_environment, "PYTHONPATH": str(EXAMPLE)},
        "search.tools=[calculator.Calculator]",
        f"data.train_files={tmp_path / 'sums.parquet'}",
        f"data.val_files={tmp_path / 'sums.parquet'}",
        f"actor_rollout_ref.model.path={tmp_path / 'model'}",
        "trainer.total_training_steps=2",
        "trainer.save_freq=-1",
    )
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert set(metrics(tmp_path)) == {1, 2}
    for step, values in metrics(tmp_path).items():
        assert math.isfinite(values["actor/grad_norm"])
        called = [turn for row in rollouts(tmp_path, step) for turn in row["turns"] if turn["tool"] == "calculate"]
        assert len(called) > 8
        assert any(turn["status"] == "result" and turn["content"] == "6 * 7" for turn in called)
        assert any("<information>42</information>" in row["output"] for row in rollouts(tmp_path, step))
        assert values["critic/score/mean"] > 0
