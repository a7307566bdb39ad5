"""``retriever-server index`` and ``retriever-server serve``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retriever_server.errors import RetrieverError
from retriever_server.settings import DEFAULT_ENCODER, BuildSettings, Pooling, ServeSettings

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. What a user can mend is one line on stderr."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        return _index(BuildSettings(**arguments)) if command == "index" else _serve(ServeSettings(**arguments))
    except RetrieverError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error}; check the path, its permissions and the free space.")
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on.")
        return _INTERRUPTED


def _fail(message: str) -> int:
    print(f"retriever-server: {message}", file=sys.stderr)
    return 1


def _index(settings: BuildSettings) -> int:
    from retriever_server.build import build_index

    result = build_index(settings)
    encoder = result.manifest.inputs.encoder
    print(
        f"{settings.out}: {result.outcome.value}, {result.manifest.count} passages, "
        f"{encoder.name} ({encoder.dim}-d, {encoder.pooling.value} pooling, "
        f"query prefix {encoder.query_prefix!r}, passage prefix {encoder.passage_prefix!r})"
    )
    return 0


def _serve(settings: ServeSettings) -> int:
    from retriever_server.server import serve

    serve(settings)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="retriever-server", description="A local retriever over FAISS.")
    commands = parser.add_subparsers(dest="command", required=True)
    index = commands.add_parser("index", help="make an index", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    index.add_argument("--corpus", type=Path, required=True, help='JSONL lines {"id": str, "contents": "Title\\ntext"}')
    index.add_argument("--out", type=Path, required=True, help="directory to make")
    index.add_argument("--encoder", default=DEFAULT_ENCODER, help="model package, directory or hub id")
    index.add_argument("--pooling", type=Pooling, metavar="{mean,cls}", help="if the encoder does not say")
    index.add_argument("--query-prefix", help="if not the encoder's own")
    index.add_argument("--passage-prefix", help="if not the encoder's own")
    index.add_argument("--batch-size", type=int, default=32, help="passages per forward pass")
    index.add_argument("--overwrite", action="store_true", help="replace an index made from other inputs")
    serve = commands.add_parser("serve", help="serve an index", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    serve.add_argument("--index", type=Path, required=True, help="directory made by `retriever-server index`")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    serve.add_argument("--insecure", action="store_true", help="allow a --host that others can reach")
    serve.add_argument("--ready-file", type=Path, help='gets {"url", "pid"} once queries are answered')
    serve.add_argument("--encoder", help="where the encoder is, if not where the index was made")
    serve.add_argument("--max-topk", type=int, default=100, help="passages per query at most")
    serve.add_argument("--max-batch", type=int, default=128, help="queries the engine takes at a time")
    serve.add_argument("--max-queue", type=int, default=8192, help="queries that may wait before 503")
    for command in (index, serve):
        command.add_argument("--device", default="cpu", help="torch device of the encoder")
        command.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    return parser
