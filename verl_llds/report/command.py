"""``verl-llds report``: run folders to one HTML file."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from verl_llds.errors import LLDSError

if TYPE_CHECKING:
    from verl_llds.report.run_folder import Run

DEFAULT_TRAJECTORIES = 5000


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "report",
        help="make one HTML file of what runs left behind: verdict, figures, trajectories",
        description="Write one file that opens from disk: whether each run is healthy and since when not, the paper's "
        "figures of it, and its trajectories token by token.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder of a run, or its metrics alone")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the file (default: report.html)")
    parser.add_argument(
        "--max-trajectories",
        type=_count,
        default=DEFAULT_TRAJECTORIES,
        metavar="N",
        help=f"most trajectories of all runs the file holds; 0 for none (default: {DEFAULT_TRAJECTORIES})",
    )
    parser.add_argument(
        "--correct-reward",
        type=_reward,
        metavar="REWARD",
        help="reward from which a trajectory in verl's dumps counts as correct (default: what the run's token-level "
        "records say of their own, or else 1)",
    )
    parser.set_defaults(run=_report)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"it must be a whole number of at least 0, got {text!r}")
    return int(text)


def _reward(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"it must be a number, got {text!r}")
    return value


def _report(arguments: argparse.Namespace) -> int:
    from datetime import datetime

    try:
        from verl_llds.report.run_folder import read_run
        from verl_llds.report.write import write_report
    except ModuleNotFoundError as error:
        return _fail(f"the report needs {error.name}: pip install 'verl-llds[eval]'")
    out: Path = arguments.out
    try:
        runs = [read_run(path) for path in arguments.runs]
    except LLDSError as error:
        return _fail(str(error))
    try:
        found = write_report(
            runs,
            out,
            max_trajectories=arguments.max_trajectories,
            written=datetime.now(),
            correct_reward=arguments.correct_reward,
        )
    except LLDSError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"cannot write {out}: {error.strerror}; give another --out")
    for run in runs:
        _warn(run)
    num = f"{len(found.rows)} of {found.num_found}" if len(found.rows) < found.num_found else f"{len(found.rows)}"
    print(f"{out}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}, {num} trajectories, {_size(out)}")
    return 0


def _fail(message: str) -> int:
    print(f"verl-llds: {message}", file=sys.stderr)
    return 1


def _warn(run: Run) -> None:
    """Say what was passed over."""
    if run.num_broken:
        broken = f"{run.num_broken} lines of the metrics of {run.name} cannot be read and were passed over"
        print(f"verl-llds: warning: {broken}", file=sys.stderr)
    for path in run.vanished:
        print(f"verl-llds: warning: {path} is not there, or a link to nothing: passed over", file=sys.stderr)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
