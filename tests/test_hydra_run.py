"""What Hydra makes of our callbacks and of a recipe's folders, by Hydra's own start of verl's configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import pytest
import verl.trainer
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from verl_llds.preflight.run_folder import FILE, read_claim

Start = Callable[..., list[DictConfig]]

VARIABLES = "ray_kwargs.ray_init.runtime_env.env_vars"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start verl's command with overrides in an empty directory; return the configurations its main function got."""
    monkeypatch.chdir(tmp_path)
    for name in ("VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT"):
        monkeypatch.delenv(name, raising=False)
    configs = str(Path(verl.trainer.__path__[0]) / "config")

    def call(*arguments: str) -> list[DictConfig]:
        started: list[DictConfig] = []
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        monkeypatch.setattr(sys, "argv", ["main_ppo", *quiet, *arguments])
        hydra.main(config_path=configs, config_name="ppo_trainer", version_base=None)(started.append)()
        return started

    environment = dict(os.environ)
    yield call
    # platform=cpu leaves its variables for the processes of the run.
    os.environ.clear()
    os.environ.update(environment)
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def save_step(folder: Path, step: int) -> None:
    """Leave what verl leaves of a checkpoint, as far as a resume looks for one."""
    (folder / f"global_step_{step}").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_a_recipe_s_run_is_one_folder(start: Start) -> None:
    (config,) = start("experiment=qwen3b_nq_llds")
    folder = Path("checkpoints/verl-llds/qwen3b_nq_llds")
    assert OmegaConf.select(config, VARIABLES) == {"VERL_FILE_LOGGER_ROOT": str(folder)}
    (saved,) = folder.glob("hydra/*/.hydra/config.yaml")
    assert OmegaConf.load(saved).trainer.experiment_name == "qwen3b_nq_llds"
    assert [path.name for path in Path().iterdir()] == ["checkpoints"]
    assert read_claim(folder) is not None


def test_the_user_s_own_places_win(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    (config,) = start("experiment=qwen3b_nq_llds", f"+{VARIABLES}.VERL_FILE_LOGGER_PATH=a.jsonl", "hydra.run.dir=mine")
    assert OmegaConf.select(config, VARIABLES) == {"VERL_FILE_LOGGER_PATH": "a.jsonl"}
    assert Path("mine/.hydra/config.yaml").is_file()
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", "b.jsonl")
    (config,) = start("experiment=qwen3b_nq_llds", "platform=cpu")
    assert OmegaConf.select(config, VARIABLES).VERL_FILE_LOGGER_PATH == "b.jsonl"
    assert "VERL_FILE_LOGGER_ROOT" not in OmegaConf.select(config, VARIABLES)


def test_the_plain_command_does_not_go_on_from_another_experiment(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    start("experiment=qwen3b_nq_llds")
    folder = Path("checkpoints/verl-llds/qwen3b_nq_llds")
    save_step(folder, 50)
    before = sorted(folder.rglob("*")), (folder / FILE).read_text()
    with pytest.raises(SystemExit) as ended:
        start("experiment=qwen3b_nq_llds", "algorithm=grpo")
    assert ended.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("verl-llds: ")]
    assert "at step 50, belongs to another experiment" in line
    assert "policy_loss.loss_mode was 'llds', is now 'vanilla'" in line
    # Least of all does it leave its configuration there, which an export would take for the run's.
    assert (sorted(folder.rglob("*")), (folder / FILE).read_text()) == before
    assert len(start("experiment=qwen3b_nq_llds")) == 1


def test_a_sweep_is_looked_at_job_by_job(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start("experiment=qwen3b_nq_llds")
    save_step(Path("checkpoints/verl-llds/qwen3b_nq_llds"), 50)
    with pytest.raises(SystemExit):
        start("experiment=qwen3b_nq_llds", "algorithm=grpo_llds,grpo", "--multirun")
    assert "belongs to another experiment" in capsys.readouterr().err


def test_a_look_at_the_configuration_leaves_nothing(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("experiment=qwen3b_nq_llds", "--cfg", "job") == []
    assert "experiment_name: qwen3b_nq_llds" in capsys.readouterr().out
    assert list(Path().iterdir()) == []
