"""Checkpoints: found, checked, merged; made by hand in the form verl's FSDP trainer saves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from verl_llds import cli
from verl_llds.compose import compose_run
from verl_llds.data.files import write_json
from verl_llds.errors import ExportError
from verl_llds.evaluation.folder import SUMMARY
from verl_llds.evaluation.model import fingerprint
from verl_llds.evaluation.summary import summarize
from verl_llds.export import checkpoint as checkpoint_module
from verl_llds.export.checkpoint import check_room, find_checkpoint
from verl_llds.export.export import export
from verl_llds.preflight.run_folder import claim_folder
from verl_llds.report.run_folder import find_log, read_run

CONFIG = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "eos_token_id": 1,
}


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**CONFIG))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: number for number, token in enumerate([*alphabet, "<|end|>"])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", chat_template="{{ messages }}")


def save(
    root: Path, state: dict[str, Any], tokenizer: PreTrainedTokenizerFast, *, step: int = 7, world_size: int = 1
) -> Path:
    """Write a checkpoint as verl does; plain tensors are whole on every rank."""
    actor = root / f"global_step_{step}" / "actor"
    actor.mkdir(parents=True)
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world_size}))
    for rank in range(world_size):
        torch.save(state, actor / f"model_world_size_{world_size}_rank_{rank}.pt")
    config = Qwen2Config(**CONFIG, architectures=["Qwen2ForCausalLM"])
    config.save_pretrained(actor / "huggingface")
    tokenizer.save_pretrained(actor / "huggingface")
    (root / "latest_checkpointed_iteration.txt").write_text(str(step))
    return actor


def run_export(checkpoint: Path, out: Path) -> None:
    export(checkpoint, out, run=None, evaluation=None, name="an agent")


@pytest.mark.parametrize("world_size", [1, 2])
def test_shards_become_the_same_model(
    tmp_path: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, world_size: int
) -> None:
    save(tmp_path / "run", model.state_dict(), tokenizer, world_size=world_size)
    run_export(tmp_path / "run", tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.bfloat16()), name
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ messages }}"
    assert (tmp_path / "out" / "generation_config.json").is_file()
    assert list((tmp_path / "out").glob("*.safetensors"))
    assert "Step 7 of a run" in (tmp_path / "out" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_whole_weights_are_taken_as_they_are(
    tmp_path: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    actor = save(tmp_path / "run", {}, tokenizer)
    model.save_pretrained(actor / "huggingface")
    run_export(actor, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.state_dict()["lm_head.weight"], model.state_dict()["lm_head.weight"])


def lora_state(model: Qwen2ForCausalLM) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return a checkpoint's state with an adapter of rank 2 on one matrix, and that matrix with it."""
    target = "model.layers.0.self_attn.q_proj"
    state = {}
    for name, weight in model.state_dict().items():
        module, _, part = name.rpartition(".")
        state[f"base_model.model.{module}.base_layer.{part}" if module == target else f"base_model.model.{name}"] = (
            weight
        )
    torch.manual_seed(1)
    a, b = torch.randn(2, 32), torch.randn(32, 2)
    state[f"base_model.model.{target}.lora_A.default.weight"] = a
    state[f"base_model.model.{target}.lora_B.default.weight"] = b
    # Alpha 4 over rank 2.
    return state, model.state_dict()[f"{target}.weight"].bfloat16() + 2.0 * (b.bfloat16() @ a.bfloat16())


def test_an_adapter_is_part_of_the_weights(
    tmp_path: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    state, expected = lora_state(model)
    actor = save(tmp_path / "run", state, tokenizer)
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": 2, "lora_alpha": 4, "task_type": "CAUSAL_LM"}))
    run_export(actor, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    found = loaded.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.02)
    assert not (tmp_path / "out" / "lora_adapter").exists()


def test_an_adapter_of_unknown_scale_is_refused(
    tmp_path: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    save(tmp_path / "run", lora_state(model)[0], tokenizer)
    with pytest.raises(ExportError, match="does not say its lora_alpha"):
        run_export(tmp_path / "run", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_broken_shards_leave_nothing_behind(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    actor = save(tmp_path / "run", {}, tokenizer)
    (actor / "model_world_size_1_rank_0.pt").write_bytes(b"broken")
    with pytest.raises(ExportError, match="cannot be merged"):
        run_export(actor, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_a_killed_export_left_is_in_nobodys_way(
    tmp_path: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    save(tmp_path / "run", model.state_dict(), tokenizer)
    (tmp_path / ".out.building").mkdir()
    (tmp_path / ".out.building" / "half").write_text("half")
    run_export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out" / "half").exists()
    assert not (tmp_path / ".out.building").exists()


def write_evaluation(folder: Path, model: str) -> Path:
    row = {"em": 1.0, "f1": 1.0, "sub_em": 1.0, "status": "answered", "turns": [], "num_searches": 2}
    row |= {"question": "nq/0", "sample": 0, "number": 0, "data_source": "nq"}
    row |= {"num_policy": 3, "num_observation": 4, "seconds": 1.0}
    facts = dict.fromkeys(("decoding", "episode", "retriever", "engine"), "so")
    folder.mkdir()
    summary = summarize([row], seed=0).facts()
    write_json(folder / SUMMARY, {"settings": {"model": model}, "facts": facts, "summary": summary})
    return folder


def test_a_model_is_exported_evaluated_and_its_card_written_anew(
    tmp_path: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    save(run, model.state_dict(), tokenizer)
    run_export(run, out)
    weights = (out / "model.safetensors").stat()
    evaluation = write_evaluation(tmp_path / "evaluation", f"out {fingerprint(out)}")
    export(run, out, run=None, evaluation=evaluation, name="an agent")
    assert "| NQ | 1 | 1.000 [1.000, 1.000] |" in (out / "README.md").read_text()
    assert (out / "model.safetensors").stat() == weights
    # The same checkpoint exported elsewhere is the same model.
    export(run, tmp_path / "again", run=None, evaluation=evaluation, name="an agent")
    assert "| NQ | 1 |" in (tmp_path / "again" / "README.md").read_text()


def test_the_card_of_a_recipe_s_run_needs_no_more_than_its_checkpoint(
    tmp_path: Path,
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder as the published recipes leave it, exported from another place, after the questions were made anew."""
    start, elsewhere = tmp_path / "start", tmp_path / "elsewhere"
    start.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(start)
    Path("train.parquet").write_bytes(b"questions")
    config = compose_run(["experiment=qwen3b_nq_llds", "data.train_files=train.parquet", "data.val_files=gone.parquet"])
    claim_folder(config)
    run = start / "checkpoints" / "verl-llds" / "qwen3b_nq_llds"
    for time in ("2026-01-01_10-00-00", "2026-01-02_10-00-00"):
        (run / "hydra" / time / ".hydra").mkdir(parents=True)
        OmegaConf.save(config, run / "hydra" / time / ".hydra" / "config.yaml")
    (run / "verl-llds").mkdir()
    for number, name in enumerate(("qwen3b_nq_llds.start1.jsonl", "qwen3b_nq_llds.jsonl"), start=1):
        line = json.dumps({"step": number, "data": {"critic/score/mean": 0.1}})
        (run / "verl-llds" / name).write_text(line + "\n")
    save(run, model.state_dict(), tokenizer)
    Path("train.parquet").write_bytes(b"other questions")

    monkeypatch.chdir(elsewhere)
    assert cli.main(["export", str(run / "global_step_7"), "--out", "out"]) == 0
    assert capsys.readouterr().err.count("verl-llds: warning") == 0
    card = Path("out/README.md").read_text()
    assert "| `actor_rollout_ref.actor.policy_loss.loss_mode` | llds |" in card
    assert f"| `train.parquet` | `{hashlib.sha256(b'questions').hexdigest()}` |" in card
    assert "| `gone.parquet` | - |" in card
    assert "![Metrics by training step](curves.png)" in card
    assert (elsewhere / "out" / "curves.png").is_file()
    # The folder is also all that report and watch need.
    assert list(read_run(run).metrics) == [1, 2]
    assert len(find_log(run)) == 2


def test_what_a_card_lacks_is_said(
    tmp_path: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "checkpoints"
    save(run, model.state_dict(), tokenizer)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "a")]) == 0
    assert f"warning: the card lacks recipe, hashes and curves: {run} has no .hydra" in capsys.readouterr().err
    (run / ".hydra").mkdir()
    (run / ".hydra" / "config.yaml").write_text("data: {train_files: train.parquet}")
    assert cli.main(["export", str(run), "--out", str(tmp_path / "b")]) == 0
    said = capsys.readouterr().err
    assert "the card lacks the hashes of the questions" in said
    assert "the card lacks curves" in said


def test_the_numbers_of_another_model_are_refused(
    tmp_path: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    save(tmp_path / "run", model.state_dict(), tokenizer)
    evaluation = write_evaluation(tmp_path / "evaluation", "other 0123456789abcdef")
    for _ in range(2):
        with pytest.raises(ExportError, match="--eval is of another model"):
            export(tmp_path / "run", tmp_path / "out", run=None, evaluation=evaluation, name="an agent")
        assert not (tmp_path / "out" / "README.md").exists()
        (tmp_path / "out").mkdir(exist_ok=True)


def test_what_is_no_checkpoint_is_said(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ExportError, match="there is no folder"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ExportError, match="neither a global_step_N nor a folder of them"):
        find_checkpoint(tmp_path)
    (tmp_path / "global_step_3").mkdir()
    with pytest.raises(ExportError, match="has no folder actor"):
        find_checkpoint(tmp_path / "global_step_3")
    (tmp_path / "global_step_3" / "actor").mkdir()
    with pytest.raises(ExportError, match=r"only checkpoints of FSDP are exported.*megatron"):
        find_checkpoint(tmp_path / "global_step_3")
    actor = save(tmp_path / "run", {}, tokenizer, world_size=2)
    (actor / "model_world_size_2_rank_1.pt").unlink()
    with pytest.raises(ExportError, match=r"1 of its files are missing, .*rank_1\.pt"):
        find_checkpoint(tmp_path / "run")


def test_a_folder_that_is_taken_or_a_disk_that_is_full_is_said_before_the_merge(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_checkpoint(save(tmp_path / "run", {"w": torch.zeros(9)}, tokenizer))
    with pytest.raises(ExportError, match="is there already"):
        check_room(found, tmp_path / "run")
    monkeypatch.setattr(checkpoint_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(ExportError, match=r"0\.0 GiB are free"):
        check_room(found, tmp_path / "deep" / "out")


def test_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-llds: there is no folder")
