"""A run that composes in a moment, with its files in a temporary directory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from verl_llds.compose import compose_run

ROW = {
    "data_source": "nq",
    "prompt": [{"role": "user", "content": "Question: who?"}],
    "reward_model": {"style": "rule", "ground_truth": {"target": ["them"]}},
}


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A parquet file with 500 questions."""
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([ROW] * 500), path)
    return path


@pytest.fixture
def run_config(tmp_path: Path, questions: Path) -> Callable[..., DictConfig]:
    """Compose a published run with the files of this directory."""

    def compose(*overrides: str) -> DictConfig:
        files = {"train_files": str(questions), "val_files": str(questions)}
        here = {"data": files, "trainer": {"default_local_dir": str(tmp_path / "checkpoints")}}
        merged = OmegaConf.merge(_composed(overrides), here)
        assert isinstance(merged, DictConfig)
        return merged

    return compose


@functools.cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose_run(["experiment=qwen3b_nq_hotpot_llds_ma", *overrides])
