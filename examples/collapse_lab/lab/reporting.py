"""The report on the finished runs of one preset: tables on the terminal, and the figure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.summary import find_runs, outcome, phase_table, run_table, table
from verl_llds.errors import ConfigError
from verl_llds.report.collapse import draw_collapse


def main(arguments: Sequence[str]) -> int:
    """Report on one preset; return the exit status."""
    parser = argparse.ArgumentParser(description="Print the tables of the lab's finished runs and draw their figure.")
    parser.add_argument("--runs", type=Path, default=Path("build/collapse_lab/runs/protocol"), help="one preset's runs")
    parser.add_argument("--arms", nargs="+", help="arms in the figure; default: all")
    parser.add_argument("--figure", type=Path, help="where the PNG goes; default: collapse.png among the runs")
    options = parser.parse_args(arguments)
    runs = find_runs(options.runs)
    try:
        if not runs:
            raise ConfigError(f"no finished runs in {options.runs}: make some with run.py, or name --runs")
        outcomes = {arm: {seed: outcome(path) for seed, path in by_seed.items()} for arm, by_seed in runs.items()}
        print(table(outcomes))
        print(f"\nFirst step of each phase, by the product's detector:\n{phase_table(outcomes)}")
        print(f"\nEvery run:\n{run_table(outcomes)}")
        figure = options.figure or options.runs / "collapse.png"
        drawn = options.arms or list(runs)
        draw_collapse(
            {arm: [runs[arm][seed] for seed in sorted(runs[arm])] for arm in drawn if arm in runs}, figure, smooth=5
        )
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"figure: {figure}")
    return 0
