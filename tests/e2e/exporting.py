"""A trained checkpoint exported, loaded in transformers and played in vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from verl_llds.data.files import sha256_file

if TYPE_CHECKING:
    from conftest import World


def check_export(world: World, run: Path, url: str, environment: dict[str, str]) -> None:
    """Export a run's latest checkpoint, compare its weights with the shards, and evaluate it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    command = Path(sys.executable).parent / "verl-llds"
    out, evaluation = run / "exported", run / "evaluation"
    # The run's record lies above its checkpoints; another folder is as good to stand in.
    subprocess.run(
        [command, "export", run / "checkpoints", "--out", out],
        env=environment,
        cwd=world.root,
        check=True,
        timeout=300,
    )
    (shard,) = (run / "checkpoints" / "global_step_3" / "actor").glob("model_world_size_1_rank_0.pt")
    trained = torch.load(shard, map_location="cpu", weights_only=False)
    exported = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16).state_dict()
    before = AutoModelForCausalLM.from_pretrained(world.model, dtype=torch.bfloat16).state_dict()
    for name, weight in exported.items():
        part = trained[name]
        whole = part.to_local() if hasattr(part, "to_local") else part
        assert torch.equal(weight, whole.bfloat16()), name
    assert any(not torch.equal(exported[name], before[name]) for name in exported), "training has changed nothing"
    template = AutoTokenizer.from_pretrained(world.model).chat_template
    assert AutoTokenizer.from_pretrained(out).chat_template == template
    card = (out / "README.md").read_text()
    assert "Step 3 of a run" in card
    assert "| `actor_rollout_ref.actor.policy_loss.loss_mode` | llds |" in card
    assert f"| `train.parquet` | `{sha256_file(world.train)}` |" in card
    assert "![Metrics by training step](curves.png)" in card
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")

    arguments = ["--data", world.train, "--limit", "2", "--out", evaluation, "--max-turns", "2"]
    subprocess.run(
        [command, "eval", "--model", out, "--retriever", url, "--run-config", _config(run), *arguments],
        env=environment,
        check=True,
        timeout=300,
    )
    summary = json.loads((evaluation / "summary.json").read_text())["summary"]
    assert summary["num_questions"] == [2]
    assert summary["means"]["failed"] == [0.0, 0.0]
    again = [command, "export", run / "checkpoints", "--out", out, "--run", run, "--eval", evaluation]
    subprocess.run(again, env=environment, check=True, timeout=300)
    assert "| capitals | 2 |" in (out / "README.md").read_text()


def _config(run: Path) -> Path:
    (found,) = run.glob("*/.hydra/config.yaml")
    return found
