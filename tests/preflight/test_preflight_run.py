"""From overrides to a status: good, dry, refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

from verl_llds import cli
from verl_llds.doctor import Finding, Status
from verl_llds.preflight import run as preflight_run
from verl_llds.preflight.run_folder import FILE

NOBODY = "search.url=http://127.0.0.1:9/retrieve"


@pytest.fixture
def overrides(questions: Path, tmp_path: Path) -> list[str]:
    return [
        "experiment=qwen3b_nq_llds",
        f"data.train_files={questions}",
        f"data.val_files={questions}",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
        NOBODY,
    ]


def test_a_dry_run_is_good_where_only_the_machine_lacks(
    overrides: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["preflight", "--dry-run", "--", *overrides]) == 0
    said = capsys.readouterr().out
    assert "10 updates" in said
    assert "FAIL  retriever: " in said
    assert "the configuration is good; this machine lacks" in said
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.llds.coef=-1", "llds.coef must be finite and not negative"),
        ("trainer.n_gpus_per_node=7", "cannot share evenly"),
        ("hardware=1x40gb", "1x40gb"),
    ],
)
def test_a_configuration_that_cannot_work_fails_also_dry(
    override: str, said: str, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["preflight", "--dry-run", "--", *overrides, override]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("verl-llds: ")]
    assert said in line


def test_nothing_is_claimed_while_something_is_missing(
    overrides: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["preflight", *overrides, "search.max_wait_s=1"]) == 1
    assert "not started" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


def _all_is_there(config: DictConfig, *, dry_run: bool) -> Iterator[Finding]:
    yield Finding(Status.OK, "all", "is there")


def _healthy(config: DictConfig) -> Iterator[Finding]:
    yield Finding(Status.WARN, "torch", "another version")


def test_a_run_that_may_start_claims_its_folder(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight_run, "look_around", _all_is_there)
    monkeypatch.setattr(preflight_run, "see_doctor", _healthy)
    assert preflight_run.preflight(overrides, dry_run=False) == 0
    assert (tmp_path / "checkpoints" / FILE).is_file()
