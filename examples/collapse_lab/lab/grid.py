"""The grid of runs, presets by arms by seeds, as ``run.py`` carries it out.

Finished runs are skipped, so the same call again goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from lab.arms import PRESETS, RunSettings, arms
from lab.runs import Run, carry_out, is_finished
from verl_llds.errors import ConfigError


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description="Run arms of the collapse lab; finished runs are skipped.")
    parser.add_argument("--preset", default="protocol", choices=sorted(PRESETS))
    parser.add_argument("--arms", nargs="+", default=["grpo", "llds_action"], help="names of lab/arms.py, or all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--learning-rate", type=float, help="instead of the arm's own; for trials")
    parser.add_argument("--steps", type=int, help="instead of the preset's; for trials")
    parser.add_argument("--out", type=Path, default=Path("build/collapse_lab/runs"))
    parser.add_argument("--policies", type=Path, default=Path("build/collapse_lab"), help="cache of cold starts")
    options = parser.parse_args(arguments)
    try:
        table = chosen_arms(options.preset, options.arms)
        table = {name: _altered(settings, options.learning_rate, options.steps) for name, settings in table.items()}
        grid = [
            Run(preset=options.preset, arm=name, seed=seed, settings=settings)
            for seed in options.seeds
            for name, settings in table.items()
        ]
        # One thread: the model is too small for the others to help.
        torch.set_num_threads(1)
        run_grid(grid, options.out, options.policies)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def chosen_arms(preset: str, names: Sequence[str]) -> dict[str, RunSettings]:
    """Return the named arms of a preset; ``all`` stands for every one.

    Raises:
        ConfigError: there is no such arm.
    """
    table = arms(preset)
    if list(names) == ["all"]:
        return table
    unknown = [name for name in names if name not in table]
    if unknown:
        raise ConfigError(f"no arm {', '.join(unknown)}: choose of {', '.join(table)}, or all")
    return {name: table[name] for name in names}


def run_grid(grid: Sequence[Run], out: Path, policies: Path) -> None:
    """Carry out the runs that are not there yet, one after the other."""
    missing = [run for run in grid if not is_finished(run, out)]
    print(f"{len(grid)} runs, {len(grid) - len(missing)} of them finished before")
    with tqdm(total=sum(run.settings.steps for run in missing), unit="step") as bar:
        for run in missing:
            bar.set_description(f"{run.arm} seed {run.seed}")
            for row in carry_out(run, out, policies):
                bar.update()
                bar.set_postfix(
                    reward=f"{row['critic/score/mean']:.2f}", answers=f"{row['search/answer_share']:.2f}", refresh=False
                )


def _altered(settings: RunSettings, learning_rate: float | None, steps: int | None) -> RunSettings:
    if learning_rate is not None:
        settings = replace(settings, learning_rate=learning_rate)
    return settings if steps is None else replace(settings, steps=steps)
