"""The ``retriever-server`` command."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retriever_server.cli_serve import add_front, add_serve, add_web, run_front, run_serve, run_web
from retriever_server.errors import RetrieverError
from retriever_server.manifest import Manifest
from retriever_server.precision import Dtype
from retriever_server.settings import DEFAULT_ENCODER, BuildSettings, IndexType, Pooling

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. What a user can mend is one line on stderr."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        if command == "verify":
            return _verify(arguments["index"])
        if command == "index":
            return _index(BuildSettings(**arguments))
        {"serve": run_serve, "front": run_front, "web": run_web}[command](arguments)
        return 0
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
    manifest = result.manifest
    line = f"{settings.out}: {result.outcome.value}, {manifest.count} passages, {manifest.index_type}"
    encoder = manifest.inputs.encoder
    if encoder is not None:
        line += (
            f", {encoder.name} ({encoder.dim}-d, {encoder.pooling.value} pooling, "
            f"query prefix {encoder.query_prefix!r}, passage prefix {encoder.passage_prefix!r})"
        )
    if (recall := manifest.recall) is not None:
        line += (
            f", recall of exact search over {recall.num_queries} queries: @3 {recall.at_3:.3f}, @10 {recall.at_10:.3f}"
        )
    print(line)
    return 0


def _verify(directory: Path) -> int:
    manifest = Manifest.load(directory)
    manifest.check_files(directory, every_byte=True)
    print(f"{directory}: {len(manifest.files)} files are as they were made, {manifest.count} passages")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="retriever-server", description="A local retriever over FAISS.")
    commands = parser.add_subparsers(dest="command", required=True)
    index = commands.add_parser("index", help="make an index", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    _add_index(index)
    verify = commands.add_parser("verify", help="read every byte of an index and compare checksums")
    verify.add_argument("--index", type=Path, required=True, help="directory made by `retriever-server index`")
    serve = add_serve(commands)
    add_front(commands)
    add_web(commands)
    for command in (index, serve):
        command.add_argument("--device", default="cpu", help="torch device, or several: cuda:0,cuda:1")
        command.add_argument(
            "--dtype", type=Dtype, default=Dtype.AUTO, metavar="{auto,fp32,bf16,fp16}", help="precision of the encoder"
        )
    index.add_argument(
        "--threads",
        type=int,
        help="CPU threads of each worker; None is torch's own choice, or of several workers their share of the cores",
    )
    serve.add_argument(
        "--threads",
        type=int,
        help="CPU threads for each of the two batches in work, of each worker; None shares the cores among them",
    )
    return parser


def _add_index(parser: argparse.ArgumentParser) -> None:
    """The options of `BuildSettings`."""
    add = parser.add_argument
    add(
        "--corpus", type=Path, required=True, help='JSONL lines {"id": str, "contents": "Title\\ntext"}, or DPR\'s .tsv'
    )
    add("--out", type=Path, required=True, help="directory to make")
    kinds = "{" + ",".join(kind.value for kind in IndexType) + "}"
    add("--type", type=IndexType, default=IndexType.FLAT, metavar=kinds, help="how passages are found")
    add("--encoder", default=DEFAULT_ENCODER, help="model package, directory or hub id")
    add("--pooling", type=Pooling, metavar="{mean,cls}", help="if the encoder does not say")
    add("--query-prefix", help="if not the encoder's own")
    add("--passage-prefix", help="if not the encoder's own")
    add("--normalize", action=argparse.BooleanOptionalAction, help="if not as the encoder's own convention")
    add("--vectors", type=Path, help="a FAISS flat index of the corpus: encode nothing")
    add("--drop-vectors", dest="keep_vectors", action="store_false", help="keep the smaller form only")
    add("--workers", type=int, default=1, help="processes that encode; with several devices, one each")
    add("--batch-size", type=int, help="passages per forward pass at most (default: 32, on a GPU 256)")
    add("--overwrite", action="store_true", help="replace an index made from other inputs")
