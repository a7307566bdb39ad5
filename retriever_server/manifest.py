"""``manifest.json``: what an index was made of. A directory without one is not an index."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from retriever_server.encoder_spec import EncoderSpec, hash_tokenizer, hash_weights
from retriever_server.errors import IndexMismatchError, IndexMissingError
from retriever_server.files import atomic_write, sha256_file
from retriever_server.settings import Pooling

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PASSAGES = "passages.jsonl"
OFFSETS = "offsets.npy"
VECTORS = "index.faiss"
DATA_FILES = (PASSAGES, OFFSETS, VECTORS)

_SHA256_DIGITS = 64
_REMEDY = "build the index again with `retriever-server index --overwrite`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What an index is made from. Equal inputs give the same index."""

    corpus_sha256: str
    """SHA-256 of the corpus file as the user gave it."""

    encoder: EncoderSpec
    """The encoder and how it is used."""

    def changes(self, new: "Inputs") -> list[str]:
        """What differs in ``new``, one phrase a difference; empty when the index would be the same."""
        found = []
        if self.corpus_sha256 != new.corpus_sha256:
            found.append(f"corpus (sha256 {self.corpus_sha256[:12]} -> {new.corpus_sha256[:12]})")
        for field in fields(EncoderSpec):
            before, after = getattr(self.encoder, field.name), getattr(new.encoder, field.name)
            if field.name != "name" and before != after:
                found.append(f"encoder {field.name} ({_short(before)} -> {_short(after)})")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStamp:
    """How one file of the index looked when it was written."""

    bytes: int
    """Size."""

    mtime_ns: int
    """Time of the last change."""

    sha256: str
    """Checksum of the contents."""

    @classmethod
    def of(cls, path: Path) -> "FileStamp":
        """Stamp a file. Raises OSError if it cannot be read."""
        stat = path.stat()
        return cls(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256_file(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The whole of ``manifest.json``."""

    format_version: int
    """Version of the directory's layout."""

    inputs: Inputs
    """What the index was made from."""

    metric: str
    """How two vectors are compared: always ``inner_product``."""

    index_type: str
    """The FAISS class in ``index.faiss``: always ``IndexFlatIP``."""

    count: int
    """Number of passages."""

    files: dict[str, FileStamp]
    """Stamp of each data file."""

    def save(self, directory: Path) -> None:
        """Write ``manifest.json``, whole or not at all. Raises OSError if it cannot."""
        write_json(directory / MANIFEST, asdict(self))

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Read the manifest of an index.

        Raises:
            IndexMissingError: There is no finished index in ``directory``.
            IndexMismatchError: The manifest is of another version or not readable.
        """
        path = directory / MANIFEST
        try:
            data = orjson.loads(path.read_bytes())
        except OSError as error:
            raise IndexMissingError(
                f"{directory} holds no finished index ({MANIFEST}: {error.strerror}); "
                "make one with `retriever-server index --corpus passages.jsonl --out DIR`."
            ) from error
        except orjson.JSONDecodeError as error:
            raise IndexMismatchError(f"{path} is not JSON ({error}); {_REMEDY}.") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != FORMAT_VERSION:
            raise IndexMismatchError(
                f"{path} has format version {version}, this program reads {FORMAT_VERSION}; {_REMEDY}."
            )
        try:
            return cls(
                format_version=version,
                inputs=inputs_from_json(data["inputs"]),
                metric=str(data["metric"]),
                index_type=str(data["index_type"]),
                count=int(data["count"]),
                files={name: FileStamp(**data["files"][name]) for name in DATA_FILES},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IndexMismatchError(f"{path} is damaged ({error!r}); {_REMEDY}.") from error

    def check_files(self, directory: Path) -> None:
        """Check that the data files are those the manifest was written for.

        A file of the recorded size and time of change is taken to be the same. One that was copied or
        touched since has another time, so its checksum is computed.

        Raises:
            IndexMismatchError: A file is missing or different.
        """
        for name, stamp in self.files.items():
            path = directory / name
            try:
                stat = path.stat()
            except OSError as error:
                raise IndexMismatchError(f"{path} is missing ({error.strerror}); {_REMEDY}.") from error
            if stat.st_size != stamp.bytes:
                raise IndexMismatchError(
                    f"{path} has {stat.st_size} bytes, not {stamp.bytes}: changed or cut short; {_REMEDY}."
                )
            if stat.st_mtime_ns != stamp.mtime_ns and sha256_file(path) != stamp.sha256:
                raise IndexMismatchError(f"{path} was changed after it was made (sha256 differs); {_REMEDY}.")

    def check_encoder(self, directory: Path) -> None:
        """Check that the encoder in ``directory`` is the one the index was made with.

        Raises:
            IndexMismatchError: Its weights or its vocabulary are different.
            EncoderError: It has no weights or no vocabulary.
        """
        spec = self.inputs.encoder
        for what, made_with, found in (
            ("weights", spec.weights_sha256, hash_weights(directory)),
            ("tokenizer", spec.tokenizer_sha256, hash_tokenizer(directory)),
        ):
            if found != made_with:
                raise IndexMismatchError(
                    f"the {what} in {directory} (sha256 {found[:12]}) are not those the index was made with "
                    f"({spec.name}, sha256 {made_with[:12]}); give --encoder the right one, or {_REMEDY}."
                )


def inputs_from_json(data: dict[str, Any]) -> Inputs:
    """Rebuild Inputs from its JSON form. Raises KeyError, TypeError or ValueError on any other form."""
    encoder = {**data["encoder"], "pooling": Pooling(data["encoder"]["pooling"])}
    return Inputs(corpus_sha256=data["corpus_sha256"], encoder=EncoderSpec(**encoder))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` as indented JSON, whole or not at all. Raises OSError if it cannot."""
    with atomic_write(path) as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _short(value: object) -> str:
    if isinstance(value, Pooling):
        return value.value
    return value[:12] if isinstance(value, str) and len(value) == _SHA256_DIGITS else repr(value)
