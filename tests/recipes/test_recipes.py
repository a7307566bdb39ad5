"""Each recipe says what is missing, and checks its configuration anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QWEN = ROOT / "recipes" / "qwen3b_nq_hotpot_llds_ma.sh"


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": sys.executable, "NUM_GPUS": "0", **environment}
    return subprocess.run(
        ["bash", str(script), *arguments], capture_output=True, text=True, env=variables, timeout=300, check=False
    )


@pytest.mark.parametrize("script", sorted(ROOT.glob("recipes/*.sh")), ids=lambda path: path.name)
def test_bash_can_parse_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_dry_run_checks_and_says_what_is_missing() -> None:
    ended = run(QWEN, "--dry-run", RETRIEVER_URL="http://127.0.0.1:9/retrieve")
    assert ended.returncode == 0, ended.stderr
    for missing in ("a GPU", "train.parquet", "a retriever at http://127.0.0.1:9/retrieve"):
        assert missing in ended.stdout
    assert "the configuration is good" in ended.stdout


def test_a_dry_run_refuses_a_bad_setting() -> None:
    ended = run(QWEN, "--dry-run", "algorithm.llds.coef=-1", RETRIEVER_URL="http://127.0.0.1:9/retrieve")
    assert ended.returncode == 1
    assert "llds.coef must be finite and not negative" in ended.stderr


def test_without_a_gpu_nothing_is_started() -> None:
    ended = run(QWEN, RETRIEVER_URL="http://127.0.0.1:9/retrieve")
    assert ended.returncode == 1
    assert "not started" in ended.stderr
