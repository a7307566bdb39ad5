"""The subcommands ``verl-llds eval`` and ``verl-llds compare``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from verl_llds.errors import ConfigError, LLDSError

if TYPE_CHECKING:
    from verl_llds.evaluation.settings import EvalSettings
    from verl_llds.search.settings import SearchConfig

_SEARCH_R1_BATCH = 256


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both subcommands."""
    _add_eval(commands)
    compare = commands.add_parser(
        "compare",
        help="say whether two evaluations differ",
        description="Compare two evaluations question by question: paired bootstrap, and McNemar's exact test of EM.",
    )
    compare.add_argument("a", type=Path, metavar="A", help="folder of an evaluation, or its trajectories.jsonl")
    compare.add_argument("b", type=Path, metavar="B", help="another one of the same questions")
    compare.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    compare.set_defaults(run=_compare)


def _add_eval(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "eval",
        help="evaluate a model on question sets, with the episode it was trained in",
        description="Play every question and print EM, F1 and sub-EM with intervals beside published figures. No "
        "trainer, no Ray. Stopped in any way, the same command goes on.",
    )
    parser.add_argument(
        "--model", required=True, metavar="PATH|HUB", help="a folder or hub id in Hugging Face's format"
    )
    parser.add_argument(
        "--data", nargs="+", type=Path, metavar="FILE", help="parquet files of `verl-llds data prepare`"
    )
    parser.add_argument("--retriever", required=True, nargs="+", metavar="URL", help="one, or several of one corpus")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for trajectories and numbers")
    parser.add_argument(
        "--ask", metavar="QUESTION", help="play one episode in the terminal instead of --data and --out"
    )
    parser.add_argument(
        "--ask-prompt",
        metavar="TEXT",
        help="what is said around --ask's question, for a policy trained with another prompt than Search-R1's; "
        "{question} stands for it",
    )
    _add_episode(parser.add_argument_group("the episode"))
    _add_decoding(parser.add_argument_group("sampling"))
    _add_engine(parser.add_argument_group("the engine"))
    _add_scope(parser.add_argument_group("what is evaluated and shown"))
    parser.set_defaults(run=_eval)


def _add_episode(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--run-config",
        type=Path,
        metavar="FILE",
        help="the .hydra/config.yaml of a training run, whose episode is played; the options below come first",
    )
    group.add_argument("--protocol", choices=("search_r1", "tool_call"), help="how the policy searches (search_r1)")
    group.add_argument("--topk", type=int, metavar="N", help="passages a search (3)")
    group.add_argument(
        "--max-turns", type=int, metavar="N", help="turns that may search (4, as in Search-R1's and the paper's tables)"
    )
    group.add_argument("--max-action-tokens", type=int, metavar="N", help="longest turn (500)")
    group.add_argument("--max-observation-tokens", type=int, metavar="N", help="longest observation (500)")
    group.add_argument(
        "--max-response-tokens", type=int, metavar="N", help="longest response (what the others allow, or the model)"
    )
    group.add_argument("--tool", action="append", metavar="MODULE.CLASS", help="a tool beside search; may be repeated")
    group.add_argument("--chat-template", type=Path, metavar="FILE", help="a Jinja file instead of the model's own")
    group.add_argument(
        "--max-failure-ratio", type=float, metavar="R", help="stop when more of the episodes fail than this (0.1)"
    )


def _add_decoding(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    group.add_argument("--top-p", type=float, default=1.0, metavar="P", help="share of probability sampled from (1)")
    group.add_argument("--top-k", type=int, default=-1, metavar="K", help="tokens sampled from (all)")
    group.add_argument("--num-samples", type=int, default=1, metavar="N", help="episodes a question (1)")
    group.add_argument("--seed", type=int, default=0, help="of sampling and bootstrap (0)")


def _add_engine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--server", metavar="URL", help="OpenAI-compatible server of the model, instead of vLLM in here")
    group.add_argument(
        "--retokenize",
        action="store_true",
        help="of a server that gives text alone, encode it again: the ids may be others than were sampled",
    )
    group.add_argument("--dtype", default="auto", help="precision of the weights (the model's; float32 on a CPU)")
    group.add_argument("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs that hold the model (1)")
    group.add_argument("--gpu-memory", type=float, default=0.9, metavar="R", help="share of a GPU's memory (0.9)")
    group.add_argument("--concurrency", type=int, default=256, metavar="N", help="episodes in flight (256)")


def _add_scope(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--limit", type=_positive, metavar="N", help="only the first N questions of each set")
    group.add_argument(
        "--expect-corpus",
        metavar="HASH|DIR",
        help="refuse a retriever of another corpus: the first digits of its SHA-256, or the directory that "
        "`verl-llds data corpus` or `retriever-server index` made",
    )
    group.add_argument(
        "--compat-drop-last",
        type=_positive,
        nargs="?",
        const=_SEARCH_R1_BATCH,
        metavar="BATCH",
        help=f"leave the last incomplete batch out of the numbers, as Search-R1 does (batch: {_SEARCH_R1_BATCH})",
    )
    group.add_argument(
        "--published", default="", metavar="TEXT", help="published rows to show: those that contain TEXT, or none (all)"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it must be a whole number of at least 1, got {text!r}")
    return int(text)


def _eval(arguments: argparse.Namespace) -> int:
    from verl_llds.evaluation.ask import ask
    from verl_llds.evaluation.expected_corpus import expected_corpus
    from verl_llds.evaluation.run import Request, evaluate
    from verl_llds.evaluation.tables import open_console

    try:
        settings = _settings(arguments)
        corpus = None if arguments.expect_corpus is None else expected_corpus(arguments.expect_corpus)
        if arguments.ask is not None:
            ask(settings, _asked(arguments), corpus, open_console())
            return 0
        request = Request(
            data=tuple(arguments.data),
            out=arguments.out,
            limit=arguments.limit,
            expect_corpus=corpus,
            drop_last=arguments.compat_drop_last,
            published=arguments.published,
        )
        evaluate(settings, request, open_console())
    except LLDSError as error:
        print(f"verl-llds: {error}", file=sys.stderr)
        return 1
    return 0


def _asked(arguments: argparse.Namespace) -> str:
    """Return the user's turn of --ask.

    Raises:
        ConfigError: for an empty question, or a prompt without a place for it.
    """
    from verl_llds.search.search_r1 import PROMPT_TEMPLATE

    question, prompt = arguments.ask.strip(), arguments.ask_prompt or PROMPT_TEMPLATE
    if not question:
        raise ConfigError("--ask is empty: ask something")
    if "{question}" not in prompt:
        raise ConfigError("--ask-prompt has no {question}: write it where the question is to stand")
    # Search-R1's questions end so, and policies are trained on such.
    return str(prompt).replace("{question}", question if question.endswith("?") else f"{question}?")


def _settings(arguments: argparse.Namespace) -> EvalSettings:
    """Return the settings of a command line.

    Raises:
        ConfigError: for a value that cannot work, or options that do not go together.
    """
    from verl_llds.evaluation.settings import Decoding, EvalSettings

    if arguments.ask is None and not (arguments.data and arguments.out):
        raise ConfigError("eval needs --data and --out, or a question with --ask")
    if arguments.ask is None and arguments.ask_prompt is not None:
        raise ConfigError("--ask-prompt is of --ask alone; the prompts of --data are in its files")
    if arguments.ask is not None and (arguments.data or arguments.out or arguments.num_samples > 1):
        raise ConfigError("--ask plays one episode and keeps nothing: leave --data, --out and --num-samples out")
    search, response_length = _search(arguments)
    given_length = arguments.max_response_tokens
    return EvalSettings(
        model=arguments.model,
        search=search,
        decoding=Decoding(
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            top_k=arguments.top_k,
            num_samples=arguments.num_samples,
            seed=arguments.seed,
        ),
        max_response_tokens=response_length if given_length is None else given_length,
        chat_template=arguments.chat_template,
        dtype=arguments.dtype,
        server=arguments.server,
        retokenize=arguments.retokenize,
        concurrency=arguments.concurrency,
        tensor_parallel=arguments.tensor_parallel,
        gpu_memory=arguments.gpu_memory,
    )


def _search(arguments: argparse.Namespace) -> tuple[SearchConfig, int | None]:
    """Return the environment and the run's response length: a training run's, with the command line's changes."""
    from verl_llds.evaluation.retriever import retrieve_url
    from verl_llds.evaluation.settings import run_episode_settings
    from verl_llds.search.settings import SearchConfig

    values, response_length = run_episode_settings(arguments.run_config)
    given = {
        "protocol": arguments.protocol,
        "topk": arguments.topk,
        "max_turns": arguments.max_turns,
        "max_action_tokens": arguments.max_action_tokens,
        "max_observation_tokens": arguments.max_observation_tokens,
        "tools": arguments.tool,
        "max_failure_ratio": arguments.max_failure_ratio,
    }
    values |= {name: value for name, value in given.items() if value is not None}
    values["url"] = [retrieve_url(address) for address in arguments.retriever]
    return SearchConfig.from_mapping(values), response_length


def _compare(arguments: argparse.Namespace) -> int:
    from verl_llds.evaluation.compare import compare
    from verl_llds.evaluation.tables import open_console

    try:
        compare(arguments.a, arguments.b, open_console(), seed=arguments.seed)
    except LLDSError as error:
        print(f"verl-llds: {error}", file=sys.stderr)
        return 1
    return 0
