"""BM25 against its formula, fusion against its own, and what neither needs."""

import os
import subprocess
import sys
from collections import Counter
from math import log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever_server.errors import IndexMismatchError
from retriever_server.index import Found
from retriever_server.index.bm25 import K1, B, Bm25Index, build_bm25, words
from retriever_server.index.fusion import RRF_K, fuse

WORDS = ["river", "bridge", "rome", "paris", "the", "a", "x1", "museum"]
texts_of = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), min_size=1, max_size=12)


def formula(texts: list[str], query: str) -> list[float]:
    """Lucene's BM25 (Kamphuis et al., Which BM25 do you mean?, ECIR 2020), without the constant k1 + 1."""
    documents = [words(text) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = [0.0] * len(texts)
    for word in words(query):
        having = sum(word in document for document in documents)
        if not having:
            continue
        idf = log(1 + (len(documents) - having + 0.5) / (having + 0.5))
        for row, document in enumerate(documents):
            count = Counter(document)[word]
            scores[row] += idf * count / (count + K1 * (1 - B + B * len(document) / mean))
    return scores


@given(
    texts=texts_of, query=st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=5).map(" ".join), k=st.integers(1, 14)
)
def test_scores_are_lucenes_and_ties_go_to_the_lower_row(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], query: str, k: int
) -> None:
    directory = tmp_path_factory.mktemp("bm25")
    build_bm25(texts, directory)
    index = Bm25Index(directory, count=len(texts), rows=range(len(texts)))
    found = index.search(index.encode([query]), k)
    expected = np.array(formula(texts, query))
    np.testing.assert_allclose(found.scores[0], -np.sort(-expected)[:k], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(expected[found.rows[0]], found.scores[0], rtol=1e-5, atol=1e-6)
    ranked = list(zip((-found.scores[0]).tolist(), found.rows[0].tolist(), strict=True))
    assert ranked == sorted(ranked)


def test_words_are_lower_case_without_stop_words() -> None:
    assert words("The Río-Grande, a river IN 2 countries!") == ["río", "grande", "river", "countries"]


def test_files_that_are_not_the_index_are_refused(tmp_path: Path) -> None:
    build_bm25(["rome", "paris"], tmp_path)
    with pytest.raises(IndexMismatchError, match="holds 2 passages, its manifest says 3"):
        Bm25Index(tmp_path, count=3, rows=range(3))
    (tmp_path / "bm25.data.npy").write_bytes(b"short")
    with pytest.raises(IndexMismatchError, match=r"bm25\.\* cannot be read"):
        Bm25Index(tmp_path, count=2, rows=range(2))


def test_neither_torch_nor_numba_nor_jax_is_needed(tmp_path: Path) -> None:
    """All of them are made impossible to import; an index is built, served and asked."""
    (tmp_path / "c.jsonl").write_text('{"id": "a", "contents": "T\\nrome"}\n{"id": "b", "contents": "T\\nparis"}\n')
    script = f"""
import sys
for name in ("torch", "transformers", "faiss", "numba", "jax", "scipy", "Stemmer"):
    sys.modules[name] = None
from pathlib import Path
from retriever_server.cli import main
from retriever_server.engine import Engine
from retriever_server.manifest import Manifest
from retriever_server.settings import ServeSettings
out = Path({str(tmp_path / "idx")!r})
assert main(["index", "--type", "bm25", "--corpus", {str(tmp_path / "c.jsonl")!r}, "--out", str(out)]) == 0
engine = Engine.load(ServeSettings(index=out), Manifest.load(out))
print(engine.search(["Paris?"], 1)[0][0].document.decode())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith('{"id":"b","contents":"T\\nparis"}\n'), done.stderr


def found(rows: list[int]) -> Found:
    return Found(np.zeros((1, len(rows)), np.float32), np.array([rows]))


def test_fusion_adds_reciprocal_ranks() -> None:
    fused = fuse([found([4, 7, 9]), found([7, 1, 4])], 4)
    assert fused.rows.tolist() == [[7, 4, 1, 9]]
    expected = [1 / (RRF_K + 2) + 1 / (RRF_K + 1), 1 / (RRF_K + 1) + 1 / (RRF_K + 3), 1 / (RRF_K + 2), 1 / (RRF_K + 3)]
    np.testing.assert_allclose(fused.scores[0], expected, rtol=1e-6)


def test_equal_fused_scores_go_to_the_lower_row() -> None:
    assert fuse([found([5, 2]), found([2, 5])], 2).rows.tolist() == [[2, 5]]


def test_jax_is_kept_off_the_gpu(tmp_path: Path) -> None:
    """bm25s computes with JAX, where it is installed, as soon as it is imported."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").touch()
    (tmp_path / "jax" / "lax.py").write_text(
        "import os\ndef top_k(scores, k):\n    print('JAX on', os.environ.get('JAX_PLATFORMS', 'any'))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"}
    environment["PYTHONPATH"] = str(tmp_path)
    command = [sys.executable, "-c", "import retriever_server.index.bm25"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["JAX on cpu"]
