"""``verl-llds watch``: its arguments and its endings; imports nothing heavy."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from verl_llds.errors import LLDSError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "watch",
        help="show a run in the terminal while it trains",
        description="Reads what verl's file logger (trainer.logger='[console,file]') or TensorBoard's leaves. On a "
        "terminal the view is redrawn in place; into a pipe it prints one line a step.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="a run's folder, or the file of its metrics")
    parser.add_argument("--once", action="store_true", help="show the present state and end")
    parser.add_argument(
        "--interval", type=seconds, default=2.0, metavar="SECONDS", help="between looks at the files (default: 2)"
    )
    parser.add_argument(
        "--total-steps", type=steps, metavar="N", help="of the whole run, where it does not log them itself"
    )
    parser.set_defaults(run=_run)


def seconds(text: str) -> float:
    """Return a number of seconds between two looks."""
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be between 0.1 and 3600 seconds, got {text}")
    return value


def steps(text: str) -> int:
    """Return a number of steps."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _run(arguments: argparse.Namespace) -> int:
    from verl_llds.watch.loop import Watcher

    try:
        watcher = Watcher(arguments.folder, arguments.total_steps)
        if arguments.once:
            watcher.show_once()
        else:
            watcher.follow(arguments.interval)
    except LLDSError as error:
        print(f"verl-llds: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # The usual end of watching.
        return 0
    except BrokenPipeError:
        # Who read the pipe has seen enough; Python would complain once more as it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
