"""Follow a verl run through the metrics file it writes, and say when it has gone wrong."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

_POLL_S = 0.5

SHOWN = {
    "critic/score/mean": "EM",
    "search/valid_searches": "searches",
    "actor/llds/penalty": "LLDS",
    "actor/entropy": "entropy",
    "actor/grad_norm": "grad",
}
"""Metrics of a training step on the progress bar, with their short names there."""


def follow(process: subprocess.Popen[bytes], metrics: Path, num_steps: int) -> dict[int, dict[str, Any]]:
    """Show a bar until the process ends; return the metrics of each step, 0 for the evaluation before training."""
    steps: dict[int, dict[str, Any]] = {}
    started = time.monotonic()
    with tqdm(total=num_steps, desc="waiting for the engine", unit="step") as bar:
        for record in _records(process, metrics):
            step, values = record["step"], record["data"]
            steps[step] = values
            if step == 0:
                bar.set_description("training")
                tqdm.write(f"  evaluated before training, {time.monotonic() - started:.0f} s after the start")
                continue
            if step == 1:
                tqdm.write(f"  first training step done {time.monotonic() - started:.0f} s after the start")
            bar.update(step - bar.n)
            bar.set_postfix({short: f"{values[name]:.3g}" for name, short in SHOWN.items() if name in values})
    return steps


def _records(process: subprocess.Popen[bytes], metrics: Path) -> Iterator[dict[str, Any]]:
    position = 0
    while True:
        ended = process.poll() is not None
        if metrics.exists():
            with metrics.open("rb") as lines:
                lines.seek(position)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    position += len(line)
                    yield json.loads(line)
        if ended:
            return
        time.sleep(_POLL_S)


def explain_failure(log: Path, num_lines: int = 40) -> str:
    """Return what a reader needs of a failed run's log: our own message if there is one, else its end."""
    lines = log.read_text(errors="replace").splitlines()
    ours = [line for line in lines if "verl_llds.errors." in line or line.startswith("verl-llds: ")]
    chosen = ours[-1:] if ours else lines[-num_lines:]
    return "\n".join(f"  {line}" for line in chosen)
