"""How much is found in real text: HotpotQA's and 2Wiki's development questions over their passages.

The files are not part of this repository: they are read from ../shared/data, and the tests skip without them.
Each set is searched by itself. The floors of recall@5 lie .02 to .03 below what was measured: .795 and .713
for MiniLM, .762 and .716 for BM25, .810 and .724 for both together.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from retriever_server.build import build_index
from retriever_server.engine import Engine
from retriever_server.manifest import Manifest
from retriever_server.settings import BuildSettings, IndexType, ServeSettings

DATA = Path(__file__).parents[2].parent / "shared" / "data"
HOTPOT = DATA / "hotpotqa" / "hotpotqa_dev_200_with_passages.jsonl"
WIKI = DATA / "2wikimultihopqa" / "2wiki_dev_200_with_passages.jsonl"

pytestmark = pytest.mark.skipif(not HOTPOT.is_file(), reason=f"{DATA} is absent: no real questions and passages")

Question = tuple[str, set[str]]


def read(path: Path) -> tuple[dict[str, str], list[Question]]:
    """The passages by title, and each question with the titles of its gold passages."""
    passages: dict[str, str] = {}
    questions = []
    for line in path.read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        passages.update({title: "".join(sentences) for title, sentences in row.get("context") or []})
        questions.append((row["question"], {title for title, _ in row["supporting_facts"]}))
    return passages, [(question, gold) for question, gold in questions if gold <= passages.keys()]


@pytest.fixture(scope="module", params=[HOTPOT, WIKI], ids=["hotpotqa", "2wiki"])
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[Question]]:
    passages, questions = read(request.param)
    corpus = tmp_path_factory.mktemp("real") / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": title, "contents": f"{title}\n{body}"}) + "\n" for title, body in passages.items())
    )
    build_index(BuildSettings(corpus=corpus, out=corpus.parent / "flat", threads=2))
    return request.param.parts[-2], corpus, questions


def engine_of(corpus: Path, kind: IndexType) -> Engine:
    out = corpus.parent / kind.value
    vectors = corpus.parent / "flat" / "index.faiss" if kind not in (IndexType.FLAT, IndexType.BM25) else None
    build_index(
        BuildSettings(
            corpus=corpus,
            out=out,
            type=kind,
            threads=2,
            vectors=vectors if kind is not IndexType.FLAT else None,
        )
    )
    return Engine.load(ServeSettings(index=out, threads=2), Manifest.load(out))


def titles(engine: Engine, questions: list[Question], k: int) -> list[list[str]]:
    found = engine.search([question for question, _ in questions], k)
    return [[json.loads(hit.document)["id"] for hit in hits] for hits in found]


FLOORS = {
    ("hotpotqa", IndexType.FLAT): 0.77,
    ("hotpotqa", IndexType.BM25): 0.74,
    ("hotpotqa", IndexType.HYBRID): 0.79,
    ("2wikimultihopqa", IndexType.FLAT): 0.69,
    ("2wikimultihopqa", IndexType.BM25): 0.69,
    ("2wikimultihopqa", IndexType.HYBRID): 0.70,
}


@pytest.mark.parametrize("kind", [IndexType.FLAT, IndexType.BM25, IndexType.HYBRID])
def test_gold_passages_are_found(text: tuple[str, Path, list[Question]], kind: IndexType) -> None:
    name, corpus, questions = text
    assert len(questions) > 150
    found = titles(engine_of(corpus, kind), questions, 5)
    recall = sum(len(gold & set(ids)) / len(gold) for ids, (_, gold) in zip(found, questions, strict=True))
    print(f"{name} {kind.value} recall@5 {recall / len(questions):.3f}")
    assert recall / len(questions) >= FLOORS[name, kind]


@pytest.mark.parametrize("kind", list(IndexType))
def test_a_question_finds_the_same_alone_and_in_any_batch(
    text: tuple[str, Path, list[Question]], kind: IndexType
) -> None:
    _, corpus, questions = text
    engine = engine_of(corpus, kind)
    together = titles(engine, questions[:48], 5)
    for size in (1, 7):
        parts = [titles(engine, questions[start : start + size], 5) for start in range(0, 48, size)]
        assert [ids for part in parts for ids in part][:48] == together


@pytest.mark.parametrize("kind", [IndexType.FP16, IndexType.SQ8])
def test_packed_vectors_find_what_the_vectors_find(text: tuple[str, Path, list[Question]], kind: IndexType) -> None:
    _, corpus, questions = text
    assert titles(engine_of(corpus, kind), questions, 10) == titles(engine_of(corpus, IndexType.FLAT), questions, 10)


@pytest.mark.parametrize("kind", [IndexType.IVF_PQ, IndexType.HNSW])
def test_the_recall_of_approximate_indexes_is_measured_and_high(
    text: tuple[str, Path, list[Question]], kind: IndexType
) -> None:
    _, corpus, _ = text
    engine_of(corpus, kind)
    recall = Manifest.load(corpus.parent / kind.value).recall
    assert recall is not None
    print(f"{kind.value} {recall}")
    assert recall.num_queries == 200
    assert recall.at_10 >= 0.85
