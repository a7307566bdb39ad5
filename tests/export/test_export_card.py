"""The card: recipe, data, curves, results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from verl_llds.data.files import write_json
from verl_llds.errors import ExportError
from verl_llds.evaluation.folder import SUMMARY
from verl_llds.evaluation.summary import summarize
from verl_llds.export.card import Card
from verl_llds.export.curves import draw_curves
from verl_llds.export.export import _results
from verl_llds.export.recipe import find_run, read_recipe

CONFIG = """
algorithm: {adv_estimator: grpo, llds: {coef: 0.2, gate: action}}
actor_rollout_ref:
  model: {path: Qwen/Qwen2.5-3B}
  actor: {optim: {lr: 1.0e-6}, policy_loss: {loss_mode: llds, llds: "${algorithm.llds}"}}
data: {train_files: train.parquet, val_files: [test.parquet], train_batch_size: 512}
trainer: {default_local_dir: "somewhere/${.experiment_name}", experiment_name: NAME}
"""

HASHES = {"train.parquet": "ab12", "other.parquet": "cd34"}


def write_configuration(folder: Path, *, name: str = "mine", lr: str = "1.0e-6", seconds: int = 0) -> Path:
    """Leave what Hydra leaves of a start."""
    path = folder / ".hydra" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(CONFIG.replace("NAME", name).replace("1.0e-6", lr))
    os.utime(path, (seconds, seconds))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_configuration(tmp_path / "run" / "hydra")
    return tmp_path / "run"


def test_the_recipe_is_read_off_the_runs_configuration(run: Path) -> None:
    recipe = read_recipe(run, HASHES)
    assert recipe.shown["algorithm.llds"] == "coef=0.2, gate=action"
    assert recipe.shown["actor_rollout_ref.actor.optim.lr"] == "1e-06"
    assert "search.topk" not in recipe.shown
    assert recipe.data == {"train.parquet": "ab12", "test.parquet": ""}


def test_of_several_starts_the_newest_counts(tmp_path: Path) -> None:
    write_configuration(tmp_path / "hydra" / "b", lr="2.0e-6", seconds=2)
    write_configuration(tmp_path / "hydra" / "a", lr="3.0e-6", seconds=3)
    write_configuration(tmp_path / "hydra" / "c", lr="1.0e-6", seconds=1)
    assert read_recipe(tmp_path, HASHES).shown["actor_rollout_ref.actor.optim.lr"] == "3e-06"


def test_a_folder_named_by_the_time_is_no_hindrance(run: Path) -> None:
    path = run / "hydra" / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("somewhere", "${now:%Y-%m-%d}"))
    assert read_recipe(run, HASHES).data["train.parquet"] == "ab12"


def test_the_record_lies_with_the_checkpoints_or_above_them(tmp_path: Path) -> None:
    recipe, laptop = tmp_path / "verl-llds" / "mine", tmp_path / "runs" / "001"
    write_configuration(recipe / "hydra" / "2026-01-01")
    assert find_run(recipe) == recipe
    write_configuration(laptop / "hydra", name="checkpoints")
    (laptop / "checkpoints").mkdir()
    assert find_run(laptop / "checkpoints") == laptop
    # A neighbour's record is not this run's.
    (tmp_path / "verl-llds" / "yours").mkdir()
    write_configuration(tmp_path / "verl-llds" / "theirs")
    assert find_run(tmp_path / "verl-llds" / "yours") is None


def test_a_card_says_all_of_it(run: Path) -> None:
    values = {"em": 1.0, "f1": 1.0, "sub_em": 1.0, "status": "answered", "turns": [], "num_searches": 2}
    row = {**values, "question": "nq/0", "sample": 0, "number": 0, "data_source": "nq"}
    row |= {"num_policy": 3, "num_observation": 4, "seconds": 1.0}
    facts = dict.fromkeys(("decoding", "episode", "retriever", "engine"), "so")
    card = Card(
        name="an agent",
        step=30,
        versions={"verl": "0.9.1"},
        recipe=read_recipe(run, HASHES),
        has_curves=True,
        evaluation={"facts": facts, "summary": summarize([row], seed=0).facts()},
    )
    text = card.render()
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "\nbase_model: Qwen/Qwen2.5-3B\n---\n" in text
    assert "| NQ | 1 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 2.00 |" in text
    assert "| `algorithm.llds` | coef=0.2, gate=action |" in text
    assert "| `train.parquet` | `ab12` |" in text
    assert "| `test.parquet` | - |" in text
    assert "![Metrics by training step](curves.png)" in text
    assert "| verl | 0.9.1 |" in text
    assert str(run.parent) not in text


def test_a_card_of_a_checkpoint_alone_has_no_empty_parts() -> None:
    text = Card(name="an agent", step=1, versions={"verl": "0.9.1"}).render()
    assert "## Results" not in text
    assert "## Training" not in text
    assert "curves" not in text


def test_curves_are_drawn_of_what_was_logged(tmp_path: Path) -> None:
    metrics = {1: {"critic/score/mean": 0.1, "actor/grad_norm": float("nan")}, 2: {"critic/score/mean": 0.2}}
    assert draw_curves(metrics, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not draw_curves({1: {"other": 1.0}}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_no_run_several_runs_and_what_is_no_configuration_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"holds no \.hydra/config\.yaml"):
        read_recipe(tmp_path / "nowhere", {})
    other = write_configuration(run / "other", name="yours")
    with pytest.raises(ExportError, match=r"configurations of several runs, .*run/hydra.*run/other"):
        read_recipe(run, {})
    (other / ".hydra" / "config.yaml").write_text("trainer: [")
    with pytest.raises(ExportError, match="is no run's configuration"):
        read_recipe(run, {})


def test_an_evaluation_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="let `verl-llds eval` end first"):
        _results(tmp_path)
    write_json(tmp_path / SUMMARY, {"other": 1})
    with pytest.raises(ExportError, match="let `verl-llds eval` end first"):
        _results(tmp_path)
