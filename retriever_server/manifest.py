"""``manifest.json``: what an index was made of. A directory without one is not an index."""

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from retriever_server.encoder_spec import hash_tokenizer, hash_weights
from retriever_server.errors import IndexMismatchError, IndexMissingError
from retriever_server.file_stamp import REMEDY, FileStamp, check_files
from retriever_server.files import write_json as write_json
from retriever_server.inputs import Inputs, inputs_from_json
from retriever_server.layout import MANIFEST, data_files

FORMAT_VERSION = 2
# Version 1 had flat indexes only; everything it says still holds.
_READABLE = (1, FORMAT_VERSION)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recall:
    """What an approximate index finds of what an exact one finds, for queries made of the corpus."""

    num_queries: int
    """Queries asked."""

    at_3: float
    """Share of the exact best 3 among the index's best 3."""

    at_10: float
    """Share of the exact best 10 among the index's best 10."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The whole of ``manifest.json``."""

    format_version: int
    """Version of the directory's layout."""

    inputs: Inputs
    """What the index was made from."""

    metric: str
    """How two vectors are compared: ``inner_product``; ``bm25`` where there are none."""

    index_type: str
    """How passages are found, as `IndexType` has it."""

    count: int
    """Number of passages."""

    files: dict[str, FileStamp]
    """Stamp of each data file."""

    max_norm: float | None = None
    """Length of the longest vector; None of version 1, where it is computed at the start."""

    residual: float = 0.0
    """Longest difference between a vector and what the packed form gives for it."""

    recall: Recall | None = None
    """Of an approximate index; None of an exact one."""

    versions: dict[str, str] | None = None
    """Versions of what it was made with."""

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
            raise IndexMismatchError(f"{path} is not JSON ({error}); {REMEDY}.") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if version not in _READABLE:
            raise IndexMismatchError(
                f"{path} has format version {version}, this program reads 1 and {FORMAT_VERSION}; {REMEDY}."
            )
        try:
            inputs = inputs_from_json(data["inputs"])
            recall = data.get("recall")
            norm = data.get("max_norm")
            return cls(
                format_version=version,
                inputs=inputs,
                metric=str(data["metric"]),
                index_type=inputs.type.value,
                count=int(data["count"]),
                files={name: FileStamp(**data["files"][name]) for name in data_files(inputs)},
                max_norm=None if norm is None else float(norm),
                residual=float(data.get("residual", 0.0)),
                recall=None if recall is None else Recall(**recall),
                versions=data.get("versions"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IndexMismatchError(f"{path} is damaged ({error!r}); {REMEDY}.") from error

    def check_files(self, directory: Path, *, every_byte: bool = False) -> None:
        """Check the data files, as `file_stamp.check_files` does. Raises IndexMismatchError."""
        check_files(directory, self.files, every_byte=every_byte)

    def check_encoder(self, directory: Path) -> None:
        """Check that the encoder in ``directory`` is the one the index was made with.

        Raises:
            IndexMismatchError: Its weights or its vocabulary are different.
            EncoderError: It has no weights or no vocabulary.
        """
        spec = self.inputs.encoder
        assert spec is not None, "an index without vectors has no encoder to check"
        for what, made_with, found in (
            ("weights", spec.weights_sha256, hash_weights(directory)),
            ("tokenizer", spec.tokenizer_sha256, hash_tokenizer(directory)),
        ):
            if found != made_with:
                raise IndexMismatchError(
                    f"the {what} in {directory} (sha256 {found[:12]}) are not those the index was made with "
                    f"({spec.name}, sha256 {made_with[:12]}); give --encoder the right one, or {REMEDY}."
                )
