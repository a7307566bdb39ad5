"""BM25 by the bm25s package: Lucene's scores, computed when the index is made, read by memory map.

bm25s uses numba when it is installed and needs only NumPy; nothing here needs torch or an encoder. Its own
choice of the best leaves the order of equal scores open, so rows are chosen here.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retriever_server.errors import IndexMismatchError
from retriever_server.index import Found
from retriever_server.layout import BM25

# Where JAX is installed, bm25s runs a product on it when it is imported, and JAX takes three quarters of a GPU's memory
# for that: measured on an H100, 60 GB, which the engine beside it then lacked.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import bm25s

K1, B = 0.9, 0.4
"""Of Yang, Fang and Lin, Anserini (SIGIR 2017), which Search-R1 searches with."""

_NAMES = dict(zip(("data_name", "indices_name", "indptr_name", "vocab_name", "params_name"), BM25, strict=True))

_WORD = re.compile(r"\w\w+")
# Lucene's English stop words (EnglishAnalyzer.ENGLISH_STOP_WORDS_SET).
_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
    "this to was will with"
)
_STOPPED = frozenset(_STOP_WORDS.split())


def words(text: str) -> list[str]:
    """The words of a text that count: in lower case, of two characters or more, no stop words."""
    return [word for word in _WORD.findall(text.lower()) if word not in _STOPPED]


def build_bm25(texts: Iterable[str], directory: Path) -> None:
    """Write the files of a BM25 index of ``texts``. Memory grows with the number of words."""
    vocabulary: dict[str, int] = {}
    ids = [
        np.fromiter((vocabulary.setdefault(word, len(vocabulary)) for word in words(text)), dtype=np.int32)
        for text in texts
    ]
    model = bm25s.BM25(method="lucene", k1=K1, b=B, backend="numpy")
    # A corpus without a single word still has to be an index.
    vocabulary.setdefault("", len(vocabulary))
    # Of texts without a word the mean length is zero, and nothing is divided by it in the end.
    with np.errstate(invalid="ignore"):
        model.index(
            bm25s.tokenization.Tokenized(ids=ids, vocab=vocabulary), create_empty_token=False, show_progress=False
        )
    model.save(str(directory), show_progress=False, **_NAMES)


class Bm25Index:
    """A BM25 index of ``count`` passages, of which ``rows`` are searched. Safe to use from several threads.

    Raises:
        IndexMismatchError: A file is unreadable, or it is not of ``count`` passages.
    """

    def __init__(self, directory: Path, *, count: int, rows: range, in_memory: bool = False) -> None:
        try:
            self._model: Any = bm25s.BM25.load(str(directory), mmap=not in_memory, load_corpus=False, **_NAMES)
            found = int(self._model.scores["num_docs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexMismatchError(
                f"{directory / 'bm25.*'} cannot be read ({error}); build the index again."
            ) from error
        if found != count:
            raise IndexMismatchError(
                f"{directory / 'bm25.*'} holds {found} passages, its manifest says {count}; build the index again."
            )
        self._rows = rows

    def encode(self, queries: Sequence[str]) -> list[list[int]]:
        """The numbers of each query's words, those unknown to the corpus left out."""
        vocabulary = self._model.vocab_dict
        return [[vocabulary[word] for word in words(query) if word in vocabulary] for query in queries]

    def depth(self, k: int) -> int:
        """Every row counts, whatever is wanted."""
        return len(self._rows)

    def search(self, queries: Sequence[list[int]], k: int) -> Found:
        """The ``min(k, len(rows))`` best rows of each query; a row that shares no word with it scores 0."""
        k = min(k, len(self._rows))
        scores = np.zeros((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for number, query in enumerate(queries):
            if query:
                mine = self._model.get_scores_from_ids(query)[self._rows.start : self._rows.stop]
            else:
                mine = np.zeros(len(self._rows), dtype=np.float32)
            best = _best(mine, k)
            scores[number], rows[number] = mine[best], best + self._rows.start
        return Found(scores, rows)


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The rows of the ``k`` largest scores, lower rows first among equals."""
    limit = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > limit)
    ties = np.flatnonzero(scores == limit)[: k - len(above)]
    chosen = np.concatenate([above, ties])
    ordered: NDArray[np.int64] = chosen[np.lexsort((chosen, -scores[chosen]))]
    return ordered
