"""The subcommands ``verl-llds trackers layout`` and ``verl-llds trackers metrics``; imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from verl_llds.errors import LLDSError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``trackers`` with its two commands."""
    trackers = commands.add_parser("trackers", help="layouts of our metrics for wandb and TensorBoard, and their table")
    kinds = trackers.add_subparsers(required=True, metavar="WHAT")
    layout = kinds.add_parser(
        "layout",
        help="write a ready layout",
        description="wandb: a script that makes a workspace by your login. tensorboard: an event file for the tab "
        "Custom Scalars, beside a run's own event files.",
    )
    layout.add_argument("--for", dest="tracker", required=True, choices=("wandb", "tensorboard"), help="the tracker")
    layout.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="wandb: the script to write; tensorboard: the folder that a run logs to (TENSORBOARD_DIR)",
    )
    layout.set_defaults(run=_layout)
    metrics = kinds.add_parser("metrics", help="print every metric: what it is, what is healthy, what to do if not")
    metrics.set_defaults(run=_metrics)


def _layout(arguments: argparse.Namespace) -> int:
    from verl_llds.trackers.layouts import wandb_script, write_tensorboard_layout

    out: Path = arguments.out
    try:
        if arguments.tracker == "wandb":
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(wandb_script(out.name))
            print(f"{out}: make the workspace with `python {out} ENTITY PROJECT`, after pip install wandb-workspaces")
        else:
            write_tensorboard_layout(out)
            print(f"{out}: see the tab Custom Scalars of `tensorboard --logdir {out}`")
    except (LLDSError, OSError) as error:
        print(f"verl-llds: {error}", file=sys.stderr)
        return 1
    return 0


def _metrics(arguments: argparse.Namespace) -> int:
    from verl_llds.trackers.table import metrics_markdown

    print(metrics_markdown(), end="")
    return 0
