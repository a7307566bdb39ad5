"""GRPO against GRPO with LLDS on the laptop world at a learning rate that breaks it; recipes/laptop_collapse.sh.

    python examples/laptop_search/collapse.py --out DIR [-- HYDRA OVERRIDES]

Both arms run one after the other through verl's trainer with the same seed and settings, and are compared in a
table and a figure. One pair is a check that everything is measured and that the coefficient does something, not
a proof of anything: examples/collapse_lab has the runs that a claim can rest on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from processes import own_processes
from rich.console import Console
from rich.table import Table
from run import LAPTOP, new_run_dir, phase, prepare, script, serve, split, train

from verl_llds.report.collapse import draw_collapse

ARMS = ("grpo", "grpo_llds")
COLLAPSE = replace(LAPTOP, experiment="laptop_collapse", num_steps=30)
WINDOW = 10
COMPARED = {
    "critic/score/mean": "reward",
    "search/answer_share": "answer share",
    "actor/entropy": "entropy",
    "actor/llds/open_token_frac": "tokens under an open gate",
    "llds/displaced_action_frac/correct": "displaced actions, correct",
    "llds/displacement/correct": "displacement, correct",
    "llds/probe/log_prob": "probe log-likelihood",
    "actor/grad_norm": "gradient norm",
    "llds/phase": "phase (0 healthy, 4 collapsed)",
}
"""What the table shows, by the name of its metric."""


def main() -> int:
    """Run both arms; return the exit status."""
    own, overrides = split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="directory for everything made")
    out: Path = parser.parse_args(own).out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with own_processes() as run:
        if overrides:
            # The second arm's settings should not be found wanting after the first arm has run.
            with phase("configuration: checking both arms"):
                for arm in ARMS:
                    check = [script("verl-llds"), "check", "experiment=laptop_collapse", *overrides_of(arm, overrides)]
                    if run.call(check) != 0:
                        return 1
        prepare(run, out, [], COLLAPSE)
        pair_dir = new_run_dir(out)
        with phase("retriever: serving the index"):
            url = serve(run, out, pair_dir)
        for arm in ARMS:
            run_dir = pair_dir / arm
            run_dir.mkdir()
            status = train(run, out, run_dir, url, overrides_of(arm, overrides), COLLAPSE)
            if status != 0:
                return status
    logs = {arm: pair_dir / arm / "metrics.jsonl" for arm in ARMS}
    figure = pair_dir / "collapse.png"
    draw_collapse({arm: [log] for arm, log in logs.items()}, figure)
    Console().print(comparison({arm: read_steps(log) for arm, log in logs.items()}))
    print(f"figure: {figure}\nlogs, metrics and trajectories of both runs: {pair_dir}")
    return 0


def overrides_of(arm: str, overrides: Sequence[str]) -> list[str]:
    """Return one arm's overrides: those of ``algorithm.llds`` are for the arm that has it."""
    kept = [override for override in overrides if arm == ARMS[-1] or not override.startswith("algorithm.llds.")]
    return [f"algorithm={arm}", *kept]


def read_steps(log: Path) -> list[dict[str, float]]:
    """Return the metrics of each training step in order."""
    rows = {row["step"]: row["data"] for row in map(json.loads, log.read_text().splitlines())}
    return [data for _, data in sorted(rows.items()) if "actor/grad_norm" in data]


def comparison(arms: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    """Return the means of the first and the last steps of each arm."""
    table = Table(title=f"Means over the first and the last {WINDOW} steps", title_justify="left")
    table.add_column("quantity")
    for arm in arms:
        table.add_column(f"{arm} first", justify="right")
        table.add_column("last", justify="right")
    for metric, label in COMPARED.items():
        cells = [_mean(steps, metric) for log in arms.values() for steps in (log[:WINDOW], log[-WINDOW:])]
        table.add_row(label, *cells)
    return table


def _mean(steps: Sequence[Mapping[str, float]], metric: str) -> str:
    values = [step[metric] for step in steps if metric in step]
    return f"{fmean(values):.3f}" if values else "-"


if __name__ == "__main__":
    sys.exit(main())
