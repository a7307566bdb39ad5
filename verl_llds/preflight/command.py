"""The subcommand ``verl-llds preflight``."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``preflight``."""
    parser = commands.add_parser(
        "preflight",
        help="look at all a run needs before anything is loaded",
        description="Take what `python -m verl.trainer.main_ppo` would take, print the plan and what is missing for "
        "it, and mark the checkpoint folder as this run's. The exit status is 1 if it should not be started.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, which ``python -m verl_llds.preflight`` shares."""
    parser.add_argument(
        "--dry-run", action="store_true", help="leave nothing behind, and fail only for a configuration that is wrong"
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="a Hydra override, such as experiment=NAME")


def run(arguments: argparse.Namespace) -> int:
    """Check one run and return the exit status."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    # Imported here: the command's help must not wait for verl.
    from verl_llds.compose import reason
    from verl_llds.preflight.run import preflight

    try:
        return preflight(arguments.overrides, dry_run=arguments.dry_run)
    # Hydra and verl raise many kinds, AssertionError among them; here they are all one answer: it cannot work.
    except Exception as error:
        print(f"verl-llds: {reason(error)}", file=sys.stderr)
        return 1
