"""The command ``verl-llds``: one subcommand each for what surrounds a training run.

Imports nothing heavy, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Sequence

from verl_llds.data import command as data_command
from verl_llds.evaluation import command as evaluation_command
from verl_llds.export import command as export_command
from verl_llds.preflight import command as preflight_command
from verl_llds.report import command as report_command
from verl_llds.trackers import command as trackers_command
from verl_llds.watch import command as watch_command

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 if all is well, 1 if not."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except KeyboardInterrupt:
        print("verl-llds: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="verl-llds", description="LLDS and search agents for stock verl.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="check that verl, this plugin and the machine fit together",
        description="Print one line per check; the exit status is 1 if something is broken.",
    )
    doctor.add_argument("--retriever", metavar="URL", help="also ask the retriever at this address")
    doctor.add_argument(
        "--platform",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="what runs compute on (default: an accelerator if there is one, else the CPU)",
    )
    doctor.add_argument("--skip-ray", action="store_true", help="do not start a local Ray to look inside")
    doctor.set_defaults(run=_doctor)
    check = commands.add_parser(
        "check",
        help="compose and check a run's configuration without starting it",
        description="Take what `python -m verl.trainer.main_ppo` would take; the exit status is 1 if it cannot work.",
    )
    check.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="a Hydra override, such as algorithm=grpo_llds")
    check.set_defaults(run=_check)
    data_command.add_parser(commands)
    evaluation_command.add_parser(commands)
    export_command.add_parser(commands)
    preflight_command.add_parser(commands)
    report_command.add_parser(commands)
    trackers_command.add_parser(commands)
    watch_command.add_parser(commands)
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    from verl_llds.doctor import Platform, Status, diagnose

    # What verl says about optional engines on import would bury the report.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    broken = 0
    for finding in diagnose(Platform(arguments.platform), retriever=arguments.retriever, skip_ray=arguments.skip_ray):
        print(finding, flush=True)
        broken += finding.status is Status.FAIL
    print(f"{broken} broken" if broken else "ready", flush=True)
    return 1 if broken else 0


def _check(arguments: argparse.Namespace) -> int:
    from verl_llds.compose import compose_run, describe_run, reason, run_cautions, validate_run

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        config = compose_run(arguments.overrides)
        validate_run(config)
    # Hydra and verl raise many kinds, AssertionError among them; here they are all one answer: it cannot work.
    except Exception as error:
        print(f"verl-llds: {reason(error)}", file=sys.stderr)
        return 1
    print(describe_run(config))
    for caution in run_cautions(arguments.overrides):
        print(f"verl-llds: warning: {caution}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
