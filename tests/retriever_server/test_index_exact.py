"""Exact search against NumPy: every precision, every file, one shard or several, scores apart or close together."""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retriever_server.index import shard as shard_module
from retriever_server.index.flat import FlatIndex, Shard
from retriever_server.index.flat_file import FlatFile, flat_header
from retriever_server.index.packed_file import PackedFile, longest_vector, write_bytes, write_halves
from retriever_server.index.shard import MappedShard, ResidentShard, centre_of

Array = NDArray[np.float32]
Build = Callable[[FlatFile, Path], FlatIndex]


def brute_force(vectors: Array, queries: Array, k: int) -> tuple[Array, NDArray[np.int64]]:
    scores = np.stack([(vectors.astype(np.float64) * query.astype(np.float64)).sum(-1) for query in queries])
    scores = scores.astype(np.float32)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


def stored(path: Path, vectors: Array) -> FlatFile:
    path.write_bytes(flat_header(*vectors.shape) + vectors.tobytes())
    return FlatFile(path, count=len(vectors), dim=vectors.shape[1])


def mapped(vectors: FlatFile, directory: Path) -> FlatIndex:
    return FlatIndex(
        vectors, [MappedShard(vectors, 0, vectors.count, max_norm=longest_vector(vectors), residual=0.0)], vectors.count
    )


def two_shards(dtype: torch.dtype) -> Build:
    def build(vectors: FlatFile, directory: Path) -> FlatIndex:
        half, centre, device = vectors.count // 2, centre_of(vectors), torch.device("cpu")
        ranges = [pair for pair in ((0, half), (half, vectors.count)) if pair[0] < pair[1]]
        shards: list[Shard] = [
            ResidentShard(vectors, *pair, device=device, dtype=dtype, centre=centre, residual=0.0) for pair in ranges
        ]
        return FlatIndex(vectors, shards, vectors.count)

    return build


def halves(vectors: FlatFile, directory: Path) -> FlatIndex:
    residual = write_halves(vectors, directory / "halves.npy")
    packed = PackedFile(directory / "halves.npy", None, count=vectors.count, dim=vectors.dim)
    norm = longest_vector(vectors)
    return FlatIndex(vectors, [MappedShard(packed, 0, vectors.count, max_norm=norm, residual=residual)], vectors.count)


def single_bytes(vectors: FlatFile, directory: Path) -> FlatIndex:
    residual = write_bytes(vectors, directory / "bytes.npy", directory / "scale.npy")
    packed = PackedFile(directory / "bytes.npy", directory / "scale.npy", count=vectors.count, dim=vectors.dim)
    norm = longest_vector(vectors)
    return FlatIndex(vectors, [MappedShard(packed, 0, vectors.count, max_norm=norm, residual=residual)], vectors.count)


BUILDS: dict[str, Build] = {
    "fp32": mapped,
    "fp32-two-shards": two_shards(torch.float32),
    "fp16-two-shards": two_shards(torch.float16),
    "bf16-two-shards": two_shards(torch.bfloat16),
    "fp16-file": halves,
    "sq8-file": single_bytes,
}


@pytest.mark.parametrize("kind", BUILDS)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 90),
    num_queries=st.integers(0, 5),
    k=st.integers(1, 100),
    distinct=st.integers(1, 90),
    block=st.sampled_from([1, 7, 64, 1000]),
)
def test_search_equals_numpy_and_ties_go_to_the_lower_row(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    seed: int,
    count: int,
    num_queries: int,
    k: int,
    distinct: int,
    block: int,
) -> None:
    rng = np.random.default_rng(seed)
    pool = rng.standard_normal((distinct, 24)).astype(np.float32)
    vectors = pool[rng.integers(0, distinct, count)]  # With repeats: ties are the rule.
    queries = rng.standard_normal((num_queries, 24)).astype(np.float32)
    directory = tmp_path_factory.mktemp("i")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_module, "BLOCK_ROWS", block)
        patch.setattr(shard_module, "_CACHED_ROWS", 5)
        patch.setattr(shard_module, "_UNPACK_ROWS", 5)
        found = BUILDS[kind](stored(directory / "v", vectors), directory).search(queries, k)
    assert found.rows.shape == (num_queries, min(k, count))
    if num_queries:
        scores, rows = brute_force(vectors, queries, min(k, count))
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module", params=[0.0, 0.83, 0.91], ids=["apart", "mean-.83", "mean-.91"])
def close(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FlatFile, Array, Array]:
    """Unit vectors whose mean cosine is that of e5's, with 500 of them twice; queries among them."""
    rng = np.random.default_rng(5)
    direction = rng.standard_normal(96)
    direction /= np.linalg.norm(direction)
    noise = rng.standard_normal((20_100, 96)) / np.sqrt(96)
    vectors = np.sqrt(request.param) * direction + np.sqrt(1 - request.param) * noise
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors, queries = vectors[:20_000], vectors[20_000:]
    vectors[1000:1500] = vectors[:500]
    assert abs(float((vectors[:500] @ queries.T).mean()) - request.param) < 0.02
    return stored(tmp_path_factory.mktemp("close") / "v", vectors), vectors, queries


@pytest.mark.parametrize("kind", BUILDS)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_no_precision_changes_an_answer_where_scores_lie_close(
    close: tuple[FlatFile, Array, Array], tmp_path: Path, kind: str, k: int
) -> None:
    file, vectors, queries = close
    found = BUILDS[kind](file, tmp_path).search(queries, k)
    scores, rows = brute_force(vectors, queries, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)


def test_the_product_alone_would_change_answers(close: tuple[FlatFile, Array, Array]) -> None:
    """What the test above is worth: without the second scoring, bfloat16 gets these wrong."""
    _, vectors, queries = close
    rough = torch.from_numpy(queries).bfloat16() @ torch.from_numpy(vectors).bfloat16().T
    assert (rough.topk(10).indices.numpy() != brute_force(vectors, queries, 10)[1]).mean() > 0.1


@pytest.mark.parametrize("kind", BUILDS)
def test_few_rows_are_scored_twice(
    close: tuple[FlatFile, Array, Array], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _, queries = close
    index = BUILDS[kind](file, tmp_path)
    taken: list[int] = []
    rows = FlatFile.rows
    monkeypatch.setattr(FlatFile, "rows", lambda self, chosen: (taken.append(len(chosen)), rows(self, chosen))[1])
    index.search(queries, 10)
    assert np.mean(taken) < {"sq8-file": 1500, "bf16-two-shards": 400}.get(kind, 40)


@pytest.mark.parametrize("kind", BUILDS)
def test_a_query_finds_the_same_alone_and_in_any_batch(
    close: tuple[FlatFile, Array, Array], tmp_path: Path, kind: str
) -> None:
    file, _, queries = close
    index = BUILDS[kind](file, tmp_path)
    together = index.search(queries, 5)
    rng = np.random.default_rng(0)
    for size in (1, 2, 17, 64):
        chosen = rng.permutation(len(queries))[:size]
        part = index.search(queries[chosen], 5)
        np.testing.assert_array_equal(part.rows, together.rows[chosen])
        np.testing.assert_array_equal(part.scores, together.scores[chosen])


def test_agrees_with_faiss_on_the_file_faiss_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((300, 16)).astype(np.float32)
    reference = faiss.IndexFlatIP(16)
    reference.add(vectors)
    faiss.write_index(reference, str(tmp_path / "i.faiss"))
    assert (tmp_path / "i.faiss").read_bytes() == flat_header(300, 16) + vectors.tobytes()
    queries = rng.standard_normal((9, 16)).astype(np.float32)
    found = mapped(FlatFile(tmp_path / "i.faiss", count=300, dim=16), tmp_path).search(queries, 10)
    expected_scores, expected_rows = reference.search(queries, 10)
    np.testing.assert_array_equal(found.rows, expected_rows)
    np.testing.assert_allclose(found.scores, expected_scores, rtol=1e-5)
