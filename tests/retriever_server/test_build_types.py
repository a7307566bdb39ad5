"""Every type of index, built and searched."""

import asyncio
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from stub_engine import started

from retriever_server.cli import main
from retriever_server.encoder import Encoder
from retriever_server.engine import Engine
from retriever_server.errors import IndexMismatchError, SettingsError
from retriever_server.index.shard import MappedShard
from retriever_server.layout import ALL_FILES, MANIFEST, data_files
from retriever_server.manifest import Manifest
from retriever_server.precision import Dtype
from retriever_server.settings import IndexType
from retriever_server.shard import Shard
from retriever_server.wire import make_answer

NUM_PASSAGES = 400
Build = Callable[..., Path]
Load = Callable[..., Engine]


def ids(engine: Engine, queries: list[str], k: int = 5) -> list[list[str]]:
    return [[json.loads(hit.document)["id"] for hit in hits] for hits in engine.search(queries, k)]


QUERIES = ["word1 word2 word3", "word199 and nothing else", "", "zzz unknown", "word7 word8"]


@pytest.mark.parametrize("kind", list(IndexType))
@pytest.mark.parametrize("in_memory", [False, True], ids=["mapped", "in-memory"])
def test_every_type_gives_each_passage_once_and_scores_fall(
    build: Build, load: Load, kind: IndexType, in_memory: bool
) -> None:
    out = build(kind)
    inputs = Manifest.load(out).inputs
    assert sorted(path.name for path in out.iterdir()) == sorted([*data_files(inputs), MANIFEST])
    engine = load(out, in_memory=in_memory)
    for k in (1, 7, NUM_PASSAGES, NUM_PASSAGES + 5):
        found = engine.search(QUERIES, k)
        assert [len({hit.document for hit in hits}) for hits in found] == [min(k, NUM_PASSAGES)] * len(QUERIES)
        for hits in found:
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)
            assert all(np.isfinite(scores))
    assert ids(engine, ["x"]) == ids(engine, ["y", "x", "x"])[1:2]


@pytest.mark.parametrize("keep_vectors", [True, False])
@pytest.mark.parametrize("kind", list(IndexType))
async def test_an_answer_does_not_depend_on_the_topk_of_others(
    build: Build, load: Load, kind: IndexType, keep_vectors: bool
) -> None:
    if not keep_vectors and not kind.is_packed:
        pytest.skip("there are no others")
    engine = load(build(kind, keep_vectors=keep_vectors))
    batcher = await started(engine, max_queue=1000, max_topk=200)
    asked = [(f"word{number} word{number * 7 % 200}", topk) for number in range(40) for topk in (1, 3, 17, 120)]
    together = await asyncio.gather(*[batcher.submit([query], topk) for query, topk in asked])
    await batcher.close()
    assert [answers[0] for answers in together] == [make_answer(engine.search([q], k)[0]) for q, k in asked]


@pytest.mark.parametrize("kind", [IndexType.FP16, IndexType.SQ8])
def test_packed_types_with_their_vectors_are_exact(build: Build, load: Load, kind: IndexType) -> None:
    expected = load(build(IndexType.FLAT)).search(QUERIES, 20)
    assert load(build(kind)).search(QUERIES, 20) == expected
    assert Manifest.load(build(kind)).recall is None


@pytest.mark.parametrize("dtype", [Dtype.FP32, Dtype.BF16])
@pytest.mark.parametrize("kind", [IndexType.FLAT, IndexType.FP16, IndexType.SQ8])
def test_two_devices_and_any_dtype_find_the_same(
    build: Build, load: Load, kind: IndexType, dtype: Dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # The same vectors go in, whatever the precision of the encoder.
        one = load(build(kind))
        encoded = one.encode(QUERIES)
        patch.setattr(
            Encoder, "encode_queries", lambda self, texts: np.stack([query.encoded for query in encoded[: len(texts)]])
        )
        two = load(build(kind), device="cpu,cpu", dtype=dtype)
        assert two.search(QUERIES, 9) == one.find(encoded, 9)
    said = capsys.readouterr().err
    assert (said.count("cpu: 200 vectors of 16 in torch.bfloat16: 0.00 GB") == 2) is (dtype is Dtype.BF16)


@pytest.mark.parametrize("kind", [IndexType.FP16, IndexType.SQ8, IndexType.IVF_PQ, IndexType.HNSW])
def test_without_the_vectors_there_is_less_and_its_recall_is_known(build: Build, load: Load, kind: IndexType) -> None:
    out = build(kind, keep_vectors=False)
    manifest = Manifest.load(out)
    assert not (out / "index.faiss").exists()
    assert manifest.recall is not None
    assert manifest.recall.num_queries == 200
    assert manifest.recall.at_10 > (0.3 if kind is IndexType.IVF_PQ else 0.8)
    assert len(ids(load(out), QUERIES, 7)[0]) == 7


@pytest.mark.parametrize("kind", [IndexType.IVF_PQ, IndexType.HNSW])
def test_recall_of_an_approximate_index_is_printed_and_stored(
    build: Build,
    kind: IndexType,
    words_corpus: Path,
    tiny_encoder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = build(kind)
    recall = Manifest.load(out).recall
    assert recall is not None
    assert recall.at_3 > 0.9
    command = ["index", "--corpus", str(words_corpus), "--out", str(out), "--encoder", str(tiny_encoder)]
    assert main([*command, "--pooling", "mean", "--type", kind.value]) == 0
    assert f"@3 {recall.at_3:.3f}, @10 {recall.at_10:.3f}" in capsys.readouterr().out


def test_another_type_replaces_the_files_of_the_first(build: Build, tmp_path: Path) -> None:
    out = build(IndexType.SQ8)
    with pytest.raises(IndexMismatchError, match=r"type \(sq8 -> bm25\)"):
        build(IndexType.BM25, out=out)
    build(IndexType.BM25, out=out, overwrite=True)
    left = {path.name for path in out.iterdir()} & set(ALL_FILES)
    assert left == set(data_files(Manifest.load(out).inputs))


def test_shards_of_an_index_together_hold_it(build: Build, load: Load) -> None:
    for kind in (IndexType.FLAT, IndexType.SQ8, IndexType.BM25):
        out = build(kind)
        whole = load(out).search(QUERIES, 6)
        parts = [load(out, shard=Shard(number, 3)).search(QUERIES, 6) for number in range(3)]
        merged = [sorted(chain(*hits), key=lambda hit: -hit.score)[:6] for hits in zip(*parts, strict=True)]
        assert merged == whole
    for kind in (IndexType.HYBRID, IndexType.HNSW):
        with pytest.raises(SettingsError, match="--shard"):
            load(build(kind), shard=Shard(0, 2))


def test_memory_mapped_vectors_are_not_read_at_the_start(
    build: Build, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = build(IndexType.FLAT)
    monkeypatch.setattr(MappedShard, "_scores", lambda *arguments: pytest.fail("the vectors were read"))
    load(out)
