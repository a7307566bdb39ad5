"""Records a run to look at: verl's trainer on the CPU, a policy that half knows eight capitals.

    python -m pytest tests/e2e/record_report_run.py --basetemp=build/recording

A few minutes. Called by hand; pytest does not collect it by itself. The recording, tests/report/data/searches, is
trimmed to a few steps of trajectories, token by token where they were recorded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_policy import CAPITALS
from training_run import log, start

from verl_llds.search.documents import Document, format_documents
from verl_llds.search.search_r1 import format_observation

if TYPE_CHECKING:
    from conftest import World

RECORDING = Path(__file__).resolve().parents[1] / "report" / "data" / "searches"
NUM_STEPS = 12
KEPT_STEPS = (1, 4, 12)
TIMEOUT_S = 1500


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_record(world: World, retriever_url: str, offline_environment: dict[str, str], tmp_path: Path) -> None:
    teach(world.model)
    deep = ("diagnostics=deep", "diagnostics.probe_size=8", "diagnostics.trajectories.every=4")
    process = start(
        world,
        tmp_path,
        retriever_url,
        offline_environment,
        f"trainer.total_training_steps={NUM_STEPS}",
        "trainer.total_epochs=100",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.optim.lr=3e-4",
        "diagnostics.trajectories.max_rows=16",
        f"trainer.validation_data_dir={tmp_path / 'evaluations'}",
        f"trainer.test_freq={NUM_STEPS}",
        "trainer.save_freq=-1",
        *deep,
    )
    try:
        process.wait(TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0, log(tmp_path)[-4000:]
    shutil.rmtree(RECORDING, ignore_errors=True)
    RECORDING.mkdir(parents=True)
    shutil.copy(tmp_path / "metrics.jsonl", RECORDING)
    for step in KEPT_STEPS:
        copy_dump(tmp_path / "rollouts" / f"{step}.jsonl")
        name = f"step_{step:08d}.parquet"
        (RECORDING / "trajectories").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "checkpoints" / "trajectories" / name, RECORDING / "trajectories")
    copy_dump(tmp_path / "evaluations" / f"{NUM_STEPS}.jsonl")
    assert sum(path.stat().st_size for path in RECORDING.rglob("*") if path.is_file()) < 300_000


def copy_dump(path: Path) -> None:
    (RECORDING / path.parent.name).mkdir(exist_ok=True)
    rows = path.read_text().splitlines()[:24]
    assert all(json.loads(row) for row in rows)
    (RECORDING / path.parent.name / path.name).write_text("\n".join(rows) + "\n")


def teach(path: Path) -> None:
    """Train the small policy on all capitals, not to the end: it shall be right now and then."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    examples = [example(tokenizer, country) for country in CAPITALS]
    torch.manual_seed(0)
    for _ in range(60):
        loss = sum(model(input_ids=ids, labels=labels).loss for ids, labels in examples) / len(examples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.35:
            break
    model.save_pretrained(path)


def example(tokenizer, country):
    """Return ids and labels of one right trajectory."""
    import torch

    others = [country, *(name for name in CAPITALS if name != country)][:3]
    documents = [Document(id="0", contents=f"{c}\nThe capital of {c} is {CAPITALS[c]}.") for c in others]
    parts = [
        (f"<|im_start|>user\nQuestion: What is the capital of {country}?\n<|im_end|>\n<|im_start|>assistant\n", False),
        (f"<search> capital of {country} </search>", True),
        (format_observation(format_documents(documents)), False),
        (f"<answer> {CAPITALS[country]} </answer>", True),
    ]
    ids, labels = [], []
    for text, is_policy in parts:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        ids += tokens
        labels += tokens if is_policy else [-100] * len(tokens)
    return torch.tensor([ids]), torch.tensor([labels])
