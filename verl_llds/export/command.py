"""The subcommand ``verl-llds export``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from verl_llds.errors import LLDSError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "export",
        help="turn a checkpoint into a model folder with a card",
        description="Merge a checkpoint of verl's FSDP trainer into a folder in Hugging Face's format, with a "
        "README.md that says how it was trained and how it does. With --eval, the card of an earlier export is "
        "written anew.",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="global_step_N, or trainer.default_local_dir for its latest"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder to make")
    parser.add_argument(
        "--run",
        dest="run_dir",
        type=Path,
        metavar="DIR",
        help="folder of the run: its metrics and .hydra/config.yaml, for the card (default: where CHECKPOINT lies)",
    )
    parser.add_argument(
        "--eval",
        type=Path,
        metavar="DIR",
        help="folder of `verl-llds eval` of the exported model, for the card; --out may be the model evaluated",
    )
    parser.add_argument("--name", help="title of the card (default: the folder's name)")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from verl_llds.export.export import export

    try:
        lacks = export(
            arguments.checkpoint,
            arguments.out,
            run=arguments.run_dir,
            evaluation=arguments.eval,
            name=arguments.name or arguments.out.resolve().name,
        )
    except LLDSError as error:
        print(f"verl-llds: {error}", file=sys.stderr)
        return 1
    for part in lacks:
        print(f"verl-llds: warning: the card lacks {part}", file=sys.stderr)
    print(f"{arguments.out}: a model folder; README.md is its card")
    return 0
