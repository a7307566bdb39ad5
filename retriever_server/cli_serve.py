"""The options of ``retriever-server serve``, ``front`` and ``web``."""

import argparse
import os
from pathlib import Path
from typing import Any

from retriever_server.auth import read_token
from retriever_server.front_settings import FrontSettings
from retriever_server.settings import ServeSettings
from retriever_server.shard import Shard
from retriever_server.web_provider import APIS, Provider
from retriever_server.web_settings import WebSettings
from retriever_server.worker_metrics import shared_metrics

Commands = Any


def add_serve(commands: Commands) -> argparse.ArgumentParser:
    """Add ``serve``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve", help="serve an index", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True, help="directory made by `retriever-server index`")
    parser.add_argument("--encoder", help="where the encoder is, if not where the index was made")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="serve part I of N of the rows, from 0")
    parser.add_argument("--in-memory", action="store_true", help="read the index instead of mapping its files")
    parser.add_argument("--reranker", help="directory or hub id of a cross-encoder that orders anew what was found")
    parser.add_argument("--rerank-depth", type=int, default=20, help="passages the reranker gets per query")
    _add_service(parser)
    return parser


def add_front(commands: Commands) -> None:
    """Add ``front``."""
    parser = commands.add_parser(
        "front",
        help="merge the answers of servers that serve shards",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--shards",
        required=True,
        metavar="URL,URL",
        help="the shards' servers in the order of their rows; replicas of one shard are joined by |",
    )
    parser.add_argument("--shard-token-file", type=Path, help="what the shards' servers ask for; or RETRIEVER_TOKEN")
    _add_service(parser)


def add_web(commands: Commands) -> None:
    """Add ``web``."""
    parser = commands.add_parser(
        "web",
        help="ask a web search provider instead of an index",
        description="The key is read from " + ", ".join(f"{api.key_variable}" for api in APIS.values()) + ".",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = "{" + ",".join(provider.value for provider in Provider) + "}"
    parser.add_argument("--provider", type=Provider, required=True, metavar=names, help="who is asked")
    parser.add_argument("--url", help="a gateway of your own instead of the provider's public address")
    parser.add_argument("--cache-file", type=Path, help="SQLite file that keeps every answer")
    parser.add_argument("--concurrency", type=int, default=8, help="requests to the provider at a time")
    parser.add_argument("--timeout-s", type=float, default=10.0, help="longest time of a request to the provider")
    _add_service(parser)
    parser.set_defaults(max_topk=20)


def run_web(arguments: dict[str, Any]) -> None:
    """Run ``web``."""
    token = read_token(arguments.pop("token_file"))
    key = os.environ.get(APIS[arguments["provider"]].key_variable, "").strip()
    settings = WebSettings(token=token, key=key, **arguments)
    with shared_metrics(settings.workers):
        from retriever_server.web import serve_web

        serve_web(settings)


def run_serve(arguments: dict[str, Any]) -> None:
    """Run ``serve``."""
    shard = Shard.parse(arguments.pop("shard"))
    settings = ServeSettings(token=read_token(arguments.pop("token_file")), shard=shard, **arguments)
    with shared_metrics(settings.workers):
        from retriever_server.server import serve

        serve(settings)


def run_front(arguments: dict[str, Any]) -> None:
    """Run ``front``."""
    token = read_token(arguments.pop("token_file"))
    shard_token = read_token(arguments.pop("shard_token_file"), "--shard-token-file")
    settings = FrontSettings.parse(arguments.pop("shards"), token=token, shard_token=shard_token, **arguments)
    with shared_metrics(settings.workers):
        from retriever_server.front import serve_front

        serve_front(settings)


def _add_service(parser: argparse.ArgumentParser) -> None:
    """The options of `ServiceSettings`."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="0 takes a free one")
    add("--token-file", type=Path, help="file with the token clients must send; or RETRIEVER_TOKEN")
    add("--insecure", action="store_true", help="allow a --host that others can reach, without a token")
    add("--ready-file", type=Path, help='gets {"url", "pid"} once queries are answered')
    add("--workers", type=int, default=1, help="processes, each with an engine of its own")
    add("--max-topk", type=int, default=100, help="passages per query at most")
    add("--max-passages", type=int, default=1 << 16, help="passages per request at most, its queries times its topk")
    add("--max-batch", type=int, default=128, help="queries the engine takes at a time")
    add("--max-batch-tokens", type=int, default=8192, help="estimated tokens the engine takes at a time")
    add(
        "--max-queue", type=int, default=8192, help="queries that may wait before 503; also the most a request may hold"
    )
    add("--cache-size", type=int, default=10_000, help="answers kept; 0 keeps none")
    add("--cache-mb", type=int, default=256, help="megabytes the kept answers may take")
    add("--max-rps", type=float, default=0.0, help="requests per second and address before 503; 0 is no limit")
    add("--deadline-s", type=float, default=25.0, help="longest time a request may take before 503")
    add("--read-timeout-s", type=float, default=20.0, help="longest time a client may take to send a request")
    add("--drain-s", type=float, default=30.0, help="longest time SIGTERM leaves for requests in progress")
