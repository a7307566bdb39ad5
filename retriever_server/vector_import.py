"""Take over vectors that exist already, such as Search-R1's ``e5_Flat.index``, instead of encoding."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retriever_server.corpus import Corpus
from retriever_server.encoder import Encoder
from retriever_server.errors import IndexMismatchError
from retriever_server.files import atomic_write
from retriever_server.index.flat_file import HEADER_BYTES, FlatFile, read_flat_header

_COPY_BYTES = 16 << 20
_SAMPLE = 16
# Half precision and other cuts of long passages leave cosines above .99; other models and prefixes do not.
_MIN_COSINE = 0.95


def check_vectors(source: Path, *, count: int, dim: int) -> None:
    """Check that ``source`` is a FAISS flat index of ``count`` vectors of ``dim``.

    Raises:
        IndexMismatchError: It is not.
    """
    found, found_dim = read_flat_header(source)
    if found != count:
        raise IndexMismatchError(
            f"{source} holds {found} vectors, the corpus has {count} passages; "
            "give --vectors and --corpus that belong together."
        )
    if found_dim != dim:
        raise IndexMismatchError(
            f"{source} holds vectors of {found_dim}, the encoder gives {dim}; "
            "give --encoder the encoder that made them."
        )


def copy_vectors(source: Path, target: Path, *, dim: int) -> None:
    """Copy the file, some vectors at a time.

    Raises:
        IndexMismatchError: A vector is not finite, or too long for float32.
        OSError: The file cannot be read or written.
    """
    row, row_bytes = 0, 4 * dim
    with source.open("rb") as file, atomic_write(target) as copy:
        copy.write(file.read(HEADER_BYTES))
        while block := file.read(max(1, _COPY_BYTES // row_bytes) * row_bytes):
            _check_finite(source, row, np.frombuffer(block, dtype=np.float32).reshape(-1, dim))
            copy.write(block)
            row += len(block) // row_bytes


def _check_finite(source: Path, start: int, vectors: NDArray[np.float32]) -> None:
    # One such would make the longest vector's length, by which every search is bounded, no number.
    wrong = np.flatnonzero(~np.isfinite(np.einsum("rd,rd->r", vectors, vectors)))
    if len(wrong):
        raise IndexMismatchError(
            f"{source}: vector {start + wrong[0]} (counted from 0) is not finite, or its length is too large for "
            "float32; make the vectors again, or leave out --vectors to encode the corpus."
        )


def warn_if_foreign(vectors: FlatFile, corpus: Corpus, encoder: Encoder) -> None:
    """Encode a few passages and say so on stderr if the given vectors are not theirs."""
    rows = np.unique(np.linspace(0, len(corpus) - 1, _SAMPLE).astype(np.int64))
    given = vectors.rows(rows)
    made = encoder.encode_passages([corpus.contents(row, row + 1)[0] for row in rows.tolist()])
    lengths = np.linalg.norm(given, axis=1) * np.linalg.norm(made, axis=1)
    cosine = float(np.median((given * made).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)))
    if cosine < _MIN_COSINE:
        print(
            f"retriever-server: warning: of {len(rows)} passages encoded now, the median cosine with --vectors is "
            f"{cosine:.2f}; were they made by another encoder, with other prefixes, or of another corpus?",
            file=sys.stderr,
        )
