"""One line and an exit status of 1 on the driver, where a setting of ours cannot work."""

from __future__ import annotations

import pytest

from verl_llds.compose import compose_run, describe_run, reason, validate_run
from verl_llds.hydra_checks import CheckRun

GOOD = ("experiment=laptop_llds",)


def test_a_working_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    CheckRun().on_run_start(compose_run(GOOD))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.llds.coef=-1", "llds.coef must be finite and not negative, got -1"),
        ("algorithm.llds.gate=turn", "llds.gate must be one of action, response, token"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=20", "one update per rollout"),
        ("search.url=localhost", "search.url must be an http:// or https:// address"),
        ("search.topk=0", "search.topk"),
        ("+search.top_k=3", "search has no setting top_k"),
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
