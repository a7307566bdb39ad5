"""One line and an exit status of 1 on the driver, where a setting of ours cannot work."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from verl_llds.compose import compose_run, describe_run, reason, run_cautions, validate_run
from verl_llds.hydra_checks import CheckRun

GOOD = ("experiment=laptop_llds",)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the process stands, since a run that may start marks its folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_working_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    # A second start from scratch is as good as the first.
    for _ in range(2):
        CheckRun().on_run_start(compose_run(GOOD))
        assert capsys.readouterr().err == ""
        save_step(Path("build/laptop/run/checkpoints"), 20)


def save_step(folder: Path, step: int) -> None:
    """Leave what verl leaves of a checkpoint, as far as a resume looks for one."""
    (folder / f"global_step_{step}").mkdir(parents=True, exist_ok=True)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_a_resume_into_another_experiment_s_folder_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("here")
    auto = [*GOOD, "trainer.resume_mode=auto", f"trainer.default_local_dir={folder}"]
    CheckRun().on_run_start(compose_run(auto))
    save_step(folder, 20)
    CheckRun().on_run_start(compose_run([*auto, "trainer.total_training_steps=40"]))
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as ended:
        CheckRun().on_run_start(compose_run([*auto, "algorithm=grpo"]))
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-llds: here, at step 20, belongs to another experiment")
    # From the start it may run there, and is warned.
    CheckRun().on_run_start(compose_run([*auto, "algorithm=grpo", "trainer.resume_mode=disable"]))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-llds: warning: here, at step 20, belongs to another experiment")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.llds.coef=-1", "llds.coef must be finite and not negative, got -1"),
        ("algorithm.llds.gate=turn", "llds.gate must be one of action, response, token"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=20", "one update per rollout"),
        ("search.url=localhost", "search.url must be an http:// or https:// address"),
        ("search.topk=0", "search.topk"),
        ("+search.top_k=3", "search has no setting top_k"),
        ("algorithm.llds.preserve=all", "llds.preserve must be one of nonnegative, positive, correct"),
        ("algorithm.llds.answer_weight=adaptive", "llds.answer_weight must be one of paper, authors"),
        ("algorithm.llds.normalizer=mean", "llds.normalizer must be one of preserved, all"),
        ("algorithm.llds.tolerance=-1", "llds.tolerance must be finite and not negative"),
        ("+algorithm.llds.lambda=1", "lambda"),
        ("diagnostics.probe_every=-1", "diagnostics.probe_every"),
        ("diagnostics.on_phase.decay=panic", "diagnostics.on_phase"),
        ("+diagnostics.phases.windows=3", "windows"),
    ],
)
def test_a_setting_that_cannot_work_ends_the_process(
    override: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        CheckRun().on_run_start(compose_run([*GOOD, override]))
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-llds: ")
    assert said in line
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("algorithm=grpo", "actor_rollout_ref.actor.clip_ratio_c=3.0"), "clip_ratio_c=3.0"),
        (("actor_rollout_ref.actor.ppo_epochs=2",), "ppo_epochs=2"),
    ],
)
def test_a_setting_that_may_surprise_is_warned_of(
    overrides: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose_run([*GOOD, *overrides])
    CheckRun(faithful=True).on_run_start(config)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-llds: warning: ")
    assert said in line


def test_the_guarded_baseline_keeps_the_defaults_of_verl(capsys: pytest.CaptureFixture[str]) -> None:
    guarded = compose_run(["algorithm=grpo_guarded"])
    stock = compose_run(["actor_rollout_ref.rollout.n=5"])
    assert guarded.actor_rollout_ref.actor == stock.actor_rollout_ref.actor
    assert guarded.actor_rollout_ref.actor.clip_ratio_c == 3.0
    CheckRun(faithful=False).on_run_start(guarded)
    assert capsys.readouterr().err == ""


def test_check_says_what_the_driver_would_warn_of() -> None:
    (caution,) = run_cautions([*GOOD, "algorithm=grpo", "actor_rollout_ref.actor.clip_ratio_c=3.0"])
    assert "clip_ratio_c=3.0" in caution
    assert run_cautions([*GOOD, "algorithm=grpo_guarded"]) == []
    assert run_cautions([]) == []


@pytest.mark.parametrize(("name", "faithful"), [("grpo", True), ("grpo_guarded", False)])
def test_which_baseline_is_faithful(name: str, faithful: bool) -> None:
    file = resources.files("verl_llds.config") / "algorithm" / f"{name}.yaml"
    callbacks = OmegaConf.create(file.read_text(encoding="utf-8")).hydra.callbacks
    assert instantiate(callbacks.verl_llds_checks).faithful is faithful


def test_the_paper_s_baseline_has_no_dual_clip_in_effect() -> None:
    actor = compose_run(["algorithm=grpo"]).actor_rollout_ref.actor
    assert (actor.clip_ratio_c, actor.entropy_coeff, actor.policy_loss.loss_mode) == (1e6, 0.001, "vanilla")


@pytest.mark.parametrize("name", ["laptop_llds", "qwen3b_nq_hotpot_llds_ma"])
def test_every_experiment_is_valid(name: str) -> None:
    config = compose_run([f"experiment={name}"])
    validate_run(config)
    assert "x penalty, action gate" in describe_run(config)


def test_the_large_recipe_makes_ten_updates_as_the_authors_do() -> None:
    config = compose_run(["experiment=qwen3b_nq_hotpot_llds_ma"])
    assert "10 updates" in describe_run(config)
    for num_gpus in (1, 2, 4, 8):
        rows = config.actor_rollout_ref.actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
        assert rows % num_gpus == 0


def test_a_typo_names_the_choices() -> None:
    with pytest.raises(Exception, match="typo") as raised:
        compose_run(["algorithm=typo"])
    assert "grpo_llds_ma" in reason(raised.value)
