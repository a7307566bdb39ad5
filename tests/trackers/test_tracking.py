"""Our metrics through verl's own tracking, into each tracker that is installed here."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from verl_llds.report.run_folder import read_run
from verl_llds.trackers.catalogue import METRICS

NAMES = [name for metric in METRICS for name in metric.names]
SCRIPT = """
import math, sys
from verl.utils.tracking import Tracking
tracking = Tracking("project", "experiment", [sys.argv[1]], {"trainer": {}})
names = sys.stdin.read().split()
for step in (1, 2):
    values = {name: step + number / 1000 for number, name in enumerate(names)}
    if step == 2:
        values["actor/grad_norm"], values["actor/entropy"] = math.nan, math.inf
    tracking.log(values, step=step)
tracking.finish()
"""


def log_to(tracker: str, folder: Path, **environment: str) -> None:
    """Log two steps of all our metrics from a process of its own, as trackers keep global state."""
    if tracker != "file" and importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tracker],
        input="\n".join(NAMES),
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "failed" not in done.stderr, done.stderr[-3000:]


def expected(step: int) -> dict[str, float]:
    return {name: step + number / 1000 for number, name in enumerate(NAMES)}


def check(found: dict[int, dict[str, float]]) -> None:
    assert found[1] == pytest.approx(expected(1), rel=1e-6)
    assert set(found[2]) == set(NAMES)
    assert math.isnan(found[2]["actor/grad_norm"])
    assert not math.isfinite(found[2]["actor/entropy"])
    assert found[2]["llds/phase"] == pytest.approx(expected(2)["llds/phase"])


def test_file(tmp_path: Path) -> None:
    log_to("file", tmp_path)
    assert json.loads((tmp_path / "project" / "experiment.jsonl").read_text().splitlines()[0])["step"] == 1
    check(read_run(tmp_path).metrics)


def test_tensorboard(tmp_path: Path) -> None:
    log_to("tensorboard", tmp_path)
    check(read_run(tmp_path / "tensorboard_log").metrics)


def test_wandb(tmp_path: Path) -> None:
    log_to("wandb", tmp_path, WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_SILENT="true")
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    written = payload(path.read_bytes())
    assert not [name for name in NAMES if name.encode() not in written]


def payload(log: bytes) -> bytes:
    """Return what an offline run of wandb holds: LevelDB's log format after a header of 7 bytes."""
    at, parts = 7, []
    while at + 7 <= len(log):
        room = 32_768 - at % 32_768
        length = int.from_bytes(log[at + 4 : at + 6], "little")
        if room < 7:
            at += room
            continue
        parts.append(log[at + 7 : at + 7 + length])
        at += 7 + length
    return b"".join(parts)


def test_mlflow_with_its_default_store(tmp_path: Path) -> None:
    log_to("mlflow", tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("project").experiment_id])
    assert set(run.data.metrics) == set(NAMES)


def test_swanlab(tmp_path: Path) -> None:
    log_to("swanlab", tmp_path, SWANLAB_MODE="local")


def test_trackio(tmp_path: Path) -> None:
    log_to("trackio", tmp_path, TRACKIO_DIR=str(tmp_path))
