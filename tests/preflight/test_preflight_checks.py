"""Each check says in one line what is wrong and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from verl_llds.doctor import Finding, Status
from verl_llds.errors import ConfigError
from verl_llds.preflight.memory import GIB
from verl_llds.preflight.model import check_model, find_shape
from verl_llds.preflight.model_shape import ModelShape
from verl_llds.preflight.questions import check_questions
from verl_llds.preflight.resources import Gpu, check_batches, check_disk, check_gpus, num_checkpoints

Compose = Callable[..., DictConfig]


def the_one(findings: Iterable[Finding], subject: str) -> Finding:
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


def test_good_questions(run_config: Compose) -> None:
    assert [finding.status for finding in check_questions(run_config())] == [Status.OK, Status.OK]


@pytest.mark.parametrize(
    ("change", "count", "said"),
    [
        ({}, 479, "479 questions, but one step needs 480"),
        ({"prompt": "who?"}, 480, "column prompt holds no chats"),
        ({"reward_model": {"style": "rule"}}, 480, "no ground_truth.target"),
    ],
)
def test_questions_that_cannot_be_trained_on(
    change: dict[str, Any], count: int, said: str, questions: Path, run_config: Compose
) -> None:
    row = pq.read_table(questions).slice(0, 1).to_pylist()[0]
    pq.write_table(pa.Table.from_pylist([{**row, **change}] * count), questions)
    first, _ = check_questions(run_config())
    assert first.status is Status.FAIL
    assert said in first.text


def test_questions_in_other_columns(questions: Path, run_config: Compose) -> None:
    pq.write_table(pa.Table.from_pylist([{"question": "who?", "answer": "them"}] * 500), questions)
    first, _ = check_questions(run_config())
    assert first.status is Status.FAIL
    assert "no column data_source, prompt, reward_model" in first.text


def test_questions_that_are_no_parquet_or_not_there(questions: Path, run_config: Compose) -> None:
    questions.write_text("question,answer\n")
    first, _ = check_questions(run_config())
    assert (first.status, "cannot be read as parquet" in first.text) == (Status.FAIL, True)
    questions.unlink()
    first, _ = check_questions(run_config())
    assert (first.status, "verl-llds data prepare" in first.text) == (Status.FAIL, True)


@pytest.mark.parametrize(("hardware", "num_gpus"), [("1x80gb_lora", 1), ("4x80gb", 4), ("8x80gb", 8), ("2x8x80gb", 8)])
def test_enough_gpus_of_enough_memory(hardware: str, num_gpus: int, run_config: Compose) -> None:
    config = run_config(f"hardware={hardware}")
    check_batches(config)
    findings = list(check_gpus(config, find_shape(config), [Gpu(80 * GIB, 80 * GIB)] * num_gpus))
    assert the_one(findings, "GPUs").status is Status.OK
    memory = the_one(findings, "GPU memory")
    assert memory.status is Status.OK
    assert "unverified on a GPU" in memory.text


def test_too_few_gpus_of_too_little_memory(run_config: Compose) -> None:
    config = run_config()
    findings = list(check_gpus(config, find_shape(config), [Gpu(24 * GIB, 24 * GIB)] * 2))
    gpus, memory = the_one(findings, "GPUs"), the_one(findings, "GPU memory")
    assert (gpus.status, memory.status) == (Status.FAIL, Status.FAIL)
    assert "asks for 8 a node, this machine shows 2" in gpus.text
    assert "ppo_max_token_len_per_gpu" in memory.text


def test_an_engine_that_takes_all(run_config: Compose) -> None:
    config = run_config("actor_rollout_ref.rollout.gpu_memory_utilization=1.0")
    memory = the_one(check_gpus(config, find_shape(config), [Gpu(80 * GIB, 80 * GIB)] * 8), "GPU memory")
    assert memory.status is Status.FAIL
    assert "gpu_memory_utilization" in memory.text


@pytest.mark.parametrize(("free", "status"), [(79 * GIB, Status.OK), (20 * GIB, Status.FAIL)])
def test_a_gpu_that_others_use(free: int, status: Status, run_config: Compose) -> None:
    """What a retriever, say, holds of one GPU is missed there, however much the others have."""
    config = run_config()
    gpus = [Gpu(80 * GIB, 80 * GIB)] * 7 + [Gpu(80 * GIB, free)]
    memory = the_one(check_gpus(config, find_shape(config), gpus), "GPU memory")
    assert memory.status is status
    assert ("other processes hold 60.0 GiB of a GPU" in memory.text) is (status is Status.FAIL)


def test_a_cpu_needs_no_gpu(run_config: Compose) -> None:
    (finding,) = check_gpus(run_config("platform=cpu"), None, [])
    assert finding.status is Status.OK


def test_batches_that_the_gpus_cannot_share(run_config: Compose) -> None:
    with pytest.raises(ConfigError, match=r"ppo_mini_batch_size=48 makes 240 trajectories .* 7 GPUs"):
        check_batches(run_config("trainer.n_gpus_per_node=7", "data.train_batch_size=490"))


def test_disk(run_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config()
    for free, status in ((140, Status.FAIL), (150, Status.OK)):
        usage = SimpleNamespace(free=free * 10**9)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        (finding,) = check_disk(config, find_shape(config))
        assert finding.status is status
        assert "3 checkpoints of 49 GB" in finding.text
        assert "earlier starts" not in finding.text


def test_checkpoints_of_earlier_starts_make_no_room(
    run_config: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """verl forgets them with the start that saved them, and never removes them."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=140 * 10**9))
    for step in (50, 100, 150):
        old = tmp_path / "checkpoints" / f"global_step_{step}" / "actor"
        old.mkdir(parents=True)
        with (old / "model.pt").open("wb") as sparse:
            sparse.truncate(49 * 10**9)
    config = run_config()
    (finding,) = check_disk(config, find_shape(config))
    assert finding.status is Status.FAIL
    assert "the 3 from earlier starts" in finding.text


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (("trainer.total_training_steps=60",), 2),
        ((), 3),
        (("trainer.max_actor_ckpt_to_keep=null",), 21),
        (("trainer.max_actor_ckpt_to_keep=null", "trainer.total_training_steps=null"), 1),
    ],
)
def test_checkpoints_left_behind(overrides: tuple[str, ...], count: int, run_config: Compose) -> None:
    assert num_checkpoints(run_config(*overrides)) == count


def test_a_model_that_is_not_there(run_config: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (finding,) = check_model(run_config(f"actor_rollout_ref.model.path={tmp_path}/none"))
    assert (finding.status, "is not there" in finding.text) == (Status.FAIL, True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (finding,) = check_model(run_config("actor_rollout_ref.model.path=nobody/nothing"))
    assert (finding.status, "HF_HUB_OFFLINE" in finding.text) == (Status.FAIL, True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (finding,) = check_model(run_config("actor_rollout_ref.model.path=nobody/nothing"))
    assert (finding.status, "will fetch" in finding.text) == (Status.WARN, True)
    (finding,) = check_model(run_config(f"actor_rollout_ref.model.path={tmp_path}"))
    assert (finding.status, "no config.json" in finding.text) == (Status.FAIL, True)


def test_a_model_without_chat_template(run_config: Compose, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="<end>")
    tokenizer.save_pretrained(tmp_path)
    Qwen2Config().save_pretrained(tmp_path)
    path = f"actor_rollout_ref.model.path={tmp_path}"
    (finding,) = check_model(run_config(path))
    assert finding.status is Status.FAIL
    assert "has no chat template" in finding.text
    (finding,) = check_model(run_config("policy=llama3.2_3b", path))
    assert finding.status is Status.OK
    # The size is now the directory's own.
    assert find_shape(run_config(path)) == ModelShape.from_model_config(Qwen2Config().to_dict())
