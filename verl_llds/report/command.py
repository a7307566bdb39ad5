"""``verl-llds report``: run folders to one HTML file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from verl_llds.errors import LLDSError

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
    parser.set_defaults(run=_report)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"it must be a whole number of at least 0, got {text!r}")
    return int(text)


def _report(arguments: argparse.Namespace) -> int:
    from datetime import datetime

    try:
        from verl_llds.report.run_folder import read_run
        from verl_llds.report.write import write_report
    except ModuleNotFoundError as error:
        print(f"verl-llds: the report needs {error.name}: pip install 'verl-llds[eval]'", file=sys.stderr)
        return 1
    out: Path = arguments.out
    try:
        runs = [read_run(path) for path in arguments.runs]
        num = write_report(runs, out, max_trajectories=arguments.max_trajectories, written=datetime.now())
    except LLDSError as error:
        print(f"verl-llds: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"verl-llds: cannot write {out}: {error.strerror}; give another --out", file=sys.stderr)
        return 1
    for run in runs:
        if run.num_broken:
            broken = f"{run.num_broken} lines of the metrics of {run.name} cannot be read and were passed over"
            print(f"verl-llds: warning: {broken}", file=sys.stderr)
    print(f"{out}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}, {num} trajectories, {_size(out)}")
    return 0


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
