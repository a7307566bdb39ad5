"""The subcommands ``verl-llds data prepare`` and ``verl-llds data corpus``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from verl_llds.data.published import MIXTURES
from verl_llds.errors import LLDSError

_HUB = "hub"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``data`` with its two commands."""
    data = commands.add_parser("data", help="make the files that training, evaluation and the retriever read")
    kinds = data.add_subparsers(required=True, metavar="WHAT")
    prepare = kinds.add_parser(
        "prepare",
        help="questions: published files to verl's parquet",
        description="Write train.parquet, test.parquet and manifest.json, checked against the published counts.",
    )
    prepare.add_argument(
        "--dataset",
        required=True,
        choices=tuple(MIXTURES),
        metavar="NAME",
        help=f"{', '.join(MIXTURES)}; the last two have all seven sets in one test file",
    )
    prepare.add_argument("--overwrite", action="store_true", help="replace another data set in --out")
    prepare.set_defaults(run=_prepare)
    corpus = kinds.add_parser(
        "corpus",
        help="passages: wiki-18 and its e5 index for `retriever-server index`",
        description="Fetch or convert the 21,015,324 passages of wiki-18 and join the published e5 index in place.",
    )
    corpus.add_argument("--no-index", dest="index", action="store_false", help="the passages only")
    corpus.add_argument(
        "--consume-parts", action="store_true", help="with --source PATH: its part_aa, part_ab may be used up"
    )
    corpus.set_defaults(run=_corpus)
    for command in (prepare, corpus):
        command.add_argument("--source", default=_HUB, metavar="hub|PATH", help="the hub, or a file or directory")
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
        command.add_argument(
            "--allow-partial", action="store_true", help="take fewer rows than published; the manifest says so"
        )


def _source(arguments: argparse.Namespace) -> Path | None:
    return None if arguments.source == _HUB else Path(arguments.source)


def _prepare(arguments: argparse.Namespace) -> int:
    from verl_llds.data.hub import HuggingFaceHub
    from verl_llds.data.prepare import prepare
    from verl_llds.data.settings import PrepareSettings

    try:
        settings = PrepareSettings(
            dataset=arguments.dataset,
            source=_source(arguments),
            out=arguments.out,
            allow_partial=arguments.allow_partial,
            overwrite=arguments.overwrite,
        )
        prepared = prepare(settings, HuggingFaceHub())
    except (LLDSError, OSError) as error:
        return _fail(error)
    for file in prepared.manifest.files:
        sets = ", ".join(f"{one.name} {one.num_rows:,}" for one in file.sets)
        state = "is there already" if prepared.was_there else "written"
        print(f"{settings.out / file.name}: {file.num_rows:,} questions ({sets}), {state}")
        for one in file.sets:
            if one.num_blank_answers:
                print(
                    f"verl-llds: warning: {one.name}: {one.num_blank_answers} blank answers left out", file=sys.stderr
                )
    if prepared.manifest.is_partial:
        print("verl-llds: warning: partial: results are not comparable with published ones", file=sys.stderr)
    return 0


def _corpus(arguments: argparse.Namespace) -> int:
    from verl_llds.data.corpus import make_corpus
    from verl_llds.data.hub import HuggingFaceHub
    from verl_llds.data.settings import CorpusSettings

    try:
        settings = CorpusSettings(
            source=_source(arguments),
            out=arguments.out,
            index=arguments.index,
            consume_parts=arguments.consume_parts,
            allow_partial=arguments.allow_partial,
        )
        made = make_corpus(settings, HuggingFaceHub())
    except (LLDSError, OSError) as error:
        return _fail(error)
    print(made.summary())
    return 0


def _fail(error: Exception) -> int:
    print(f"verl-llds: {error}", file=sys.stderr)
    return 1
