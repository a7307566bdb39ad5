from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retriever_server import index as index_module
from retriever_server.errors import IndexMismatchError
from retriever_server.index import FlatIndex


def brute_force(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    scores = (queries[:, None].astype(np.float64) * vectors[None].astype(np.float64)).sum(-1)
    scores = scores.astype(np.float32)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    num_queries=st.integers(0, 5),
    k=st.integers(1, 70),
    distinct=st.integers(1, 60),
    block=st.sampled_from([1, 7, 1000]),
)
def test_search_is_exact_and_ties_go_to_the_lower_row(
    seed: int, count: int, num_queries: int, k: int, distinct: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    pool = rng.standard_normal((distinct, 24)).astype(np.float32)
    vectors = pool[rng.integers(0, distinct, count)]  # With repeats: ties are the rule.
    queries = rng.standard_normal((num_queries, 24)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "_BLOCK_ROWS", block)
        scores, rows = FlatIndex(vectors).search(queries, k)
    expected_scores, expected_rows = brute_force(vectors, queries, min(k, count))
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(rows, expected_rows)


def test_the_other_queries_of_a_batch_change_nothing() -> None:
    rng = np.random.default_rng(0)
    index = FlatIndex(rng.standard_normal((500, 32)).astype(np.float32))
    queries = rng.standard_normal((40, 32)).astype(np.float32)
    together = index.search(queries, 5)
    for number in range(len(queries)):
        alone = index.search(queries[number : number + 1], 5)
        np.testing.assert_array_equal(alone[0][0], together[0][number])
        np.testing.assert_array_equal(alone[1][0], together[1][number])


def test_agrees_with_faiss_on_the_file_it_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((300, 16)).astype(np.float32)
    reference = faiss.IndexFlatIP(16)
    reference.add(vectors)
    faiss.write_index(reference, str(tmp_path / "i.faiss"))
    queries = rng.standard_normal((9, 16)).astype(np.float32)
    scores, rows = FlatIndex.read(tmp_path / "i.faiss", count=300, dim=16).search(queries, 10)
    expected_scores, expected_rows = reference.search(queries, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


def test_a_file_that_is_not_the_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.faiss"
    path.write_bytes(b"not faiss at all")
    with pytest.raises(IndexMismatchError, match="cannot be read by faiss"):
        FlatIndex.read(path, count=1, dim=4)
    other = faiss.IndexFlatL2(4)
    other.add(np.zeros((1, 4), dtype=np.float32))
    faiss.write_index(other, str(path))
    with pytest.raises(IndexMismatchError, match="IndexFlatL2"):
        FlatIndex.read(path, count=1, dim=4)
    right = faiss.IndexFlatIP(4)
    right.add(np.zeros((1, 4), dtype=np.float32))
    faiss.write_index(right, str(path))
    with pytest.raises(IndexMismatchError, match="1 vectors of 4, its manifest says 2 of 4"):
        FlatIndex.read(path, count=2, dim=4)
