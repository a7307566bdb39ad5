"""Vectors, corpora and indexes that others made, and files that are not what they should be."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np
import orjson
import pytest

from retriever_server import vector_import
from retriever_server.build import Outcome, build_index
from retriever_server.cli import main
from retriever_server.engine import Engine
from retriever_server.errors import CorpusError, IndexMismatchError
from retriever_server.layout import MANIFEST, data_files
from retriever_server.manifest import Manifest
from retriever_server.settings import BuildSettings, IndexType, Pooling

NUM_PASSAGES = 400
Build = Callable[..., Path]
Load = Callable[..., Engine]
QUERIES = ["word1 word2 word3", "", "zzz unknown", "word7 word8"]


def test_vectors_of_a_faiss_file_are_taken_as_they_are(
    build: Build, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = build(IndexType.FLAT)
    reference = faiss.read_index(str(made / "index.faiss"))
    given = tmp_path / "e5_Flat.index"
    faiss.write_index(reference, str(given))
    out = build(IndexType.FLAT, out=tmp_path / "imported", vectors=given)
    assert (out / "index.faiss").read_bytes() == given.read_bytes()
    assert load(out).search(QUERIES, 9) == load(made).search(QUERIES, 9)
    assert "warning" not in capsys.readouterr().err
    foreign = faiss.IndexFlatIP(16)
    foreign.add(np.random.default_rng(0).standard_normal((NUM_PASSAGES, 16)).astype(np.float32))
    faiss.write_index(foreign, str(given))
    build(IndexType.FLAT, out=tmp_path / "foreign", vectors=given)
    assert "warning: of 16 passages encoded now, the median cosine" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_a_vector_that_is_no_number_is_refused_by_its_row(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    vectors = np.ones((NUM_PASSAGES, 16), dtype=np.float32)
    vectors[371, 5] = value
    path = tmp_path / "v.index"
    index = faiss.IndexFlatIP(16)
    index.add(vectors)
    faiss.write_index(index, str(path))
    # A block of 7 vectors, so that the row is far into the file.
    monkeypatch.setattr(vector_import, "_COPY_BYTES", 7 * 64)
    with pytest.raises(IndexMismatchError, match=r"v\.index: vector 371 .* is not finite"):
        build(IndexType.FLAT, vectors=path)
    assert not list(tmp_path.rglob("index.faiss*"))


def test_vectors_that_do_not_fit_are_refused(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "v.index"
    for rows, dim, says in (
        (NUM_PASSAGES - 1, 16, "holds 399 vectors, the corpus has 400 passages"),
        (NUM_PASSAGES, 8, "holds vectors of 8, the encoder gives 16"),
    ):
        index = faiss.IndexFlatIP(dim)
        index.add(np.ones((rows, dim), dtype=np.float32))
        faiss.write_index(index, str(path))
        with pytest.raises(IndexMismatchError, match=says):
            build(IndexType.FLAT, vectors=path, out=tmp_path / f"o{rows}")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(IndexMismatchError, match=r"v\.index has .* bytes, 400 vectors of 8 need"):
        build(IndexType.FLAT, vectors=path, out=tmp_path / "short")
    faiss.write_index(faiss.IndexFlatL2(4), str(path))
    with pytest.raises(IndexMismatchError, match=r"v\.index is no FAISS IndexFlatIP"):
        build(IndexType.FLAT, vectors=path, out=tmp_path / "l2")
    with pytest.raises(IndexMismatchError, match=r"gone\.index cannot be read"):
        build(IndexType.FLAT, vectors=tmp_path / "gone.index", out=tmp_path / "gone")


def test_a_dpr_file_is_read_as_it_is(build: Build, tmp_path: Path) -> None:
    source = tmp_path / "psgs_w100.tsv"
    source.write_text('id\ttext\ttitle\n1\t"Aaron is a ""prophet"".\nHe spoke."\t"Aaron, of the Bible"\n2\tplain\tB\n')
    out = build(IndexType.BM25, corpus=source)
    passages = [json.loads(line) for line in (out / "passages.jsonl").read_bytes().splitlines()]
    assert passages == [
        {"id": "1", "contents": 'Aaron, of the Bible\nAaron is a "prophet".\nHe spoke.'},
        {"id": "2", "contents": "B\nplain"},
    ]
    for text, says in (
        ("text\tid\n", "header is not id, text, title"),
        ("id\ttext\ttitle\n1\tx\n", r"c\.tsv:2: 2 columns"),
        ("id\ttext\ttitle\n1\t\xff\tx\n1\ty\tx\n", r'c\.tsv:3: the id "1" is already on line 2'),
    ):
        (tmp_path / "c.tsv").write_text(text)
        with pytest.raises(CorpusError, match=says):
            build(IndexType.BM25, corpus=tmp_path / "c.tsv", out=tmp_path / "wrong")
    (tmp_path / "c.tsv").write_bytes(b"id\ttext\ttitle\n1\t\xff\tx\n")
    with pytest.raises(CorpusError, match="not UTF-8"):
        build(IndexType.BM25, corpus=tmp_path / "c.tsv", out=tmp_path / "wrong")


def test_an_index_of_the_first_format_is_served_and_known(
    build: Build, load: Load, words_corpus: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = build(IndexType.FLAT)
    expected = load(out).search(QUERIES, 4)
    data = asdict(Manifest.load(out))
    for name in ("max_norm", "residual", "recall", "versions"):
        del data[name]
    for name in ("type", "vectors_sha256", "keep_vectors"):
        del data["inputs"][name]
    (out / MANIFEST).write_bytes(orjson.dumps({**data, "format_version": 1, "index_type": "IndexFlatIP"}))
    assert load(out).search(QUERIES, 4) == expected
    given = {"corpus": words_corpus, "out": out, "encoder": str(tiny_encoder), "pooling": Pooling.MEAN}
    assert build_index(BuildSettings(**given)).outcome is Outcome.UP_TO_DATE


@pytest.mark.parametrize("kind", list(IndexType))
def test_files_cut_short_or_swapped_are_refused_by_name(build: Build, tmp_path: Path, kind: IndexType) -> None:
    out, other = build(kind), build(kind, out=tmp_path / "other", query_prefix="q: ", corpus=_other(tmp_path))
    for name in data_files(Manifest.load(out).inputs):
        path, whole = out / name, (out / name).read_bytes()
        for wrong in (whole[: len(whole) // 2], (other / name).read_bytes()):
            if wrong == whole:
                continue
            path.write_bytes(wrong)
            with pytest.raises(IndexMismatchError, match=name):
                Manifest.load(out).check_files(out)
        path.write_bytes(whole)
    Manifest.load(out).check_files(out)
    whole = (out / MANIFEST).read_bytes()
    (out / MANIFEST).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IndexMismatchError, match=MANIFEST):
        Manifest.load(out)
    (out / MANIFEST).write_bytes((other / MANIFEST).read_bytes())
    with pytest.raises(IndexMismatchError, match=r"passages\.jsonl"):
        Manifest.load(out).check_files(out)


def _other(directory: Path) -> Path:
    path = directory / "other.jsonl"
    lines = [json.dumps({"id": f"x{n}", "contents": f"U\nanother {n} text{n % 7}"}) for n in range(NUM_PASSAGES)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_copied_index_is_hashed_once(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    out = build(IndexType.FLAT)
    (out / "index.faiss").touch()
    hashed: list[Path] = []
    from retriever_server import file_stamp

    real = file_stamp.sha256_file
    monkeypatch.setattr(file_stamp, "sha256_file", lambda path: (hashed.append(path), real(path))[1])
    for _ in range(3):
        Manifest.load(out).check_files(out)
    assert [path.name for path in hashed] == ["index.faiss"]
    assert main(["verify", "--index", str(out)]) == 0
    assert len(hashed) == 4
    with (out / "index.faiss").open("r+b") as file:
        file.seek(100)
        file.write(b"!")
    assert main(["verify", "--index", str(out)]) == 1
