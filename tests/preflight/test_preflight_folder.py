"""Whose checkpoints a folder holds, and which of them a run may go on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from verl_llds.doctor import Finding, Status
from verl_llds.errors import ConfigError, RunFolderError
from verl_llds.preflight.identity import find_differences, run_identity
from verl_llds.preflight.run_folder import FILE, check_folder, claim_folder, read_claim

Compose = Callable[..., DictConfig]

ANEW = "trainer.resume_mode=disable"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the run's checkpoints go."""
    return tmp_path / "checkpoints"


def save_step(folder: Path, step: int) -> None:
    """Leave what verl leaves of a checkpoint, as far as a resume looks for one."""
    (folder / f"global_step_{step}").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def check(config: DictConfig) -> Finding:
    (finding,) = check_folder(config)
    return finding


def test_a_folder_is_its_experiment_s(run_config: Compose, folder: Path) -> None:
    finding = check(run_config())
    assert (finding.status, "a new folder" in finding.text) == (Status.OK, True)
    claim_folder(run_config())
    assert [path.name for path in folder.iterdir()] == [FILE]
    save_step(folder, 150)
    # What does not change the experiment may change.
    same = run_config("search.url=http://other:8000/retrieve", "trainer.save_freq=10", "trainer.logger=[console]")
    finding = check(same)
    assert (finding.status, "goes on after step 150" in finding.text) == (Status.OK, True)
    finding = check(run_config(ANEW))
    assert (finding.status, "from the start" in finding.text) == (Status.OK, True)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.llds.coef=0.3", "policy_loss.llds.coef was 0.2, is now 0.3"),
        ("algorithm=grpo", "policy_loss.loss_mode was 'llds', is now 'vanilla'"),
        ("policy=qwen2.5_7b", "model.path was 'Qwen/Qwen2.5-3B', is now 'Qwen/Qwen2.5-7B'"),
        ("trainer.n_gpus_per_node=4", "n_gpus_per_node was 8, is now 4"),
        ("trainer.experiment_name=mine", "experiment_name was 'qwen3b_nq_hotpot_llds_ma', is now 'mine'"),
    ],
)
def test_another_experiment_s_checkpoints_are_not_gone_on_from(
    override: str, said: str, run_config: Compose, folder: Path
) -> None:
    claim_folder(run_config())
    save_step(folder, 50)
    finding = check(run_config(override))
    assert finding.status is Status.FAIL
    assert "at step 50, belongs to another experiment" in finding.text
    assert said in finding.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.max_response_length", 3000),
        ("search.max_action_tokens", 400),
        ("search.max_observation_tokens", 400),
        ("algorithm.norm_adv_by_std_in_grpo", False),
        ("actor_rollout_ref.actor.shuffle", True),
        ("actor_rollout_ref.actor.optim.weight_decay", 0.1),
        ("actor_rollout_ref.actor.grad_clip", 0.5),
        ("actor_rollout_ref.actor.kl_loss_type", "kl"),
        ("actor_rollout_ref.model.lora_alpha", 32),
    ],
)
def test_what_changes_the_outcome_makes_another_experiment(key: str, value: object, run_config: Compose) -> None:
    config = run_config()
    before = run_identity(config)
    assert before[key] not in (value, None)
    node, name = key.rsplit(".", 1)
    for part in node.split("."):
        config = config[part]
    config[name] = value
    (said,) = find_differences(before, run_identity(config._get_root()))
    assert said.startswith(f"{key} was ")


def test_other_questions_in_the_same_file_make_another_experiment(
    run_config: Compose, folder: Path, questions: Path
) -> None:
    claim_folder(run_config())
    save_step(folder, 50)
    pq.write_table(pq.read_table(questions).slice(0, 490), questions)
    finding = check(run_config())
    assert finding.status is Status.FAIL
    assert f"{questions} had the sha256 " in finding.text
    # A file that is not here is another check's affair.
    questions.unlink()
    assert check(run_config()).status is Status.OK


def test_without_a_checkpoint_the_folder_is_anybody_s(run_config: Compose, folder: Path) -> None:
    """The first try ran out of memory before it saved; the next one has fewer GPUs."""
    claim_folder(run_config())
    retry = run_config("trainer.n_gpus_per_node=4")
    assert check(retry).status is Status.OK
    claim_folder(retry)
    save_step(folder, 50)
    assert check(retry).status is Status.OK
    assert check(run_config()).status is Status.FAIL


def test_a_checkpoint_that_verl_would_not_find_is_none(run_config: Compose, folder: Path) -> None:
    claim_folder(run_config())
    (folder / "latest_checkpointed_iteration.txt").write_text("50")
    assert check(run_config("algorithm=grpo")).status is Status.OK


def test_a_folder_of_unknown_origin(run_config: Compose, folder: Path) -> None:
    save_step(folder, 50)
    finding = check(run_config())
    assert finding.status is Status.FAIL
    assert "at step 50, was left by a run that did not say its settings" in finding.text
    for text in ("[1", "[]", '{"settings": {}}'):
        (folder / FILE).write_text(text)
        finding = check(run_config())
        assert (finding.status, "cannot be read" in finding.text) == (Status.FAIL, True)
        with pytest.raises(RunFolderError, match="cannot be read"):
            read_claim(folder)


def test_a_run_from_the_start_beside_other_checkpoints_is_warned_and_its_folder_is_no_one_s(
    run_config: Compose, folder: Path
) -> None:
    claim_folder(run_config())
    save_step(folder, 50)
    finding = check(run_config("algorithm=grpo", ANEW))
    assert (finding.status, "belongs to another experiment" in finding.text) == (Status.WARN, True)
    claim_folder(run_config("algorithm=grpo", ANEW))
    # It was killed before its first checkpoint: the last one is still the other's.
    for resumed in (run_config("algorithm=grpo"), run_config()):
        assert check(resumed).status is Status.FAIL
    assert "several experiments" in check(run_config("algorithm=grpo")).text


def test_a_checkpoint_that_is_named_is_gone_on_from_with_a_warning(
    run_config: Compose, folder: Path, tmp_path: Path
) -> None:
    claim_folder(run_config())
    save_step(folder, 50)
    named = f"trainer.resume_from_path={folder / 'global_step_50'}"
    adopted = run_config("algorithm=grpo", "trainer.resume_mode=resume_path", named)
    finding = check(adopted)
    assert (finding.status, "belongs to another experiment" in finding.text) == (Status.WARN, True)
    # Named on purpose, it is from now on this experiment's.
    claim_folder(adopted)
    assert check(adopted).status is Status.OK
    assert check(run_config("algorithm=grpo")).status is Status.OK
    nowhere = run_config("trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/global_step_9")
    first, *_ = check_folder(nowhere)
    assert (first.status, "is no folder global_step_N" in first.text) == (Status.FAIL, True)


def test_a_folder_that_cannot_be_written_is_said(run_config: Compose, folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written to"):
        claim_folder(run_config())


def test_the_identity_is_json(run_config: Compose) -> None:
    identity = run_identity(run_config())
    assert json.loads(json.dumps(identity)) == identity
    assert identity["actor_rollout_ref.actor.policy_loss.llds.answer_weight"] == "paper"
