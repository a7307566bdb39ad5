"""The corpus command: passages and index from a hub, a directory or a file; stopped at any point it goes on."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from killing import in_a_small_process, killed
from small_sets import FolderHub

from verl_llds.data import corpus as module
from verl_llds.data import disk, join
from verl_llds.data.corpus import Corpus, make_corpus
from verl_llds.data.files import sha256_file
from verl_llds.data.hub import HubFile
from verl_llds.data.index_parts import index_bytes
from verl_llds.data.published import CORPUS_FILE, CORPUS_REPO, INDEX_DIM, INDEX_PARTS, INDEX_REPO, NUM_PASSAGES
from verl_llds.data.settings import CorpusSettings
from verl_llds.errors import ConfigError, DataError, HubError

COUNT = 5
TITLES = ['"Aaron"', '"Café, Ltd"', '"a ""b"""', '"x"', '"y"']
LINES = "".join(
    json.dumps({"id": str(n), "contents": f"{title}\ntext\t{n}"}, ensure_ascii=False) + "\n"
    for n, title in enumerate(TITLES)
).encode()
VECTORS = np.arange(COUNT * INDEX_DIM, dtype=np.float32)
INDEX = struct.pack("<4siqqqBiQ", b"IxFI", INDEX_DIM, COUNT, 1 << 20, 1 << 20, 1, 0, VECTORS.size) + VECTORS.tobytes()
CUT = 2 * len(INDEX) // 3

Run = Callable[..., Corpus]


def fill_hub(hub: FolderHub) -> None:
    for repo, name, content in (
        (CORPUS_REPO, CORPUS_FILE, gzip.compress(LINES)),
        (INDEX_REPO, INDEX_PARTS[0], INDEX[:CUT]),
        (INDEX_REPO, INDEX_PARTS[1], INDEX[CUT:]),
    ):
        (hub.root / repo).mkdir(parents=True, exist_ok=True)
        (hub.root / repo / name).write_bytes(content)


def fill_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "wiki-18.jsonl.gz").write_bytes(gzip.compress(LINES))
    (folder / INDEX_PARTS[0]).write_bytes(INDEX[:CUT])
    (folder / INDEX_PARTS[1]).write_bytes(INDEX[CUT:])
    return folder


@pytest.fixture
def run(tmp_path: Path, hub: FolderHub) -> Run:
    def call(source: Path | None = None, **more: Any) -> Corpus:
        return make_corpus(
            CorpusSettings(**{"out": tmp_path / "out", "allow_partial": True, "source": source, **more}), hub
        )

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != ".lock")


def test_the_published_index_has_the_published_size() -> None:
    assert index_bytes(NUM_PASSAGES, INDEX_DIM) == 64_559_075_373


def test_from_the_hub_to_what_the_retriever_takes(tmp_path: Path, hub: FolderHub, run: Run) -> None:
    # Torch comes with it, which the process that is killed at every line can do without.
    from retriever_server.corpus import read_passages
    from retriever_server.index.flat_file import FlatFile

    fill_hub(hub)
    made = run()
    out = tmp_path / "out"
    assert names(out) == ["e5_Flat.index", "manifest.json", "wiki-18.jsonl"]
    assert (out / "wiki-18.jsonl").read_bytes() == LINES
    assert (out / "e5_Flat.index").read_bytes() == INDEX
    assert len(list(read_passages(out / "wiki-18.jsonl"))) == COUNT
    vectors = FlatFile(out / "e5_Flat.index", count=COUNT, dim=INDEX_DIM)
    assert vectors.rows(np.array([COUNT - 1]))[0, -1] == VECTORS[-1]
    assert made.summary().splitlines()[-1] == (
        f"next: retriever-server index --corpus {out}/wiki-18.jsonl --out DIR "
        f"--vectors {out}/e5_Flat.index --encoder intfloat/e5-base-v2"
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["partial"] is True
    assert manifest["passages"]["sha256"] == sha256_file(out / "wiki-18.jsonl")
    assert set(manifest["fetched"]) == {f"{CORPUS_REPO}/{CORPUS_FILE}", *(f"{INDEX_REPO}/{p}" for p in INDEX_PARTS)}
    # A second call asks for nothing.
    hub.asked.clear()
    assert run().passages == made.passages
    assert hub.asked == []


def test_passages_first_and_the_index_later(tmp_path: Path, hub: FolderHub, run: Run) -> None:
    fill_hub(hub)
    assert run(index=False).summary().endswith("--type bm25")
    assert names(tmp_path / "out") == ["manifest.json", "wiki-18.jsonl"]
    hub.asked.clear()
    assert run().index is not None
    assert all(CORPUS_REPO not in name for name in hub.asked)


@pytest.mark.parametrize("form", ["wiki-18.jsonl.gz", "psgs_w100.tsv", "psgs_w100.tsv.gz"])
def test_every_published_form_of_the_passages_is_converted(form: str, tmp_path: Path, run: Run) -> None:
    rows = [json.loads(line) for line in LINES.splitlines()]
    content = LINES
    if "tsv" in form:
        content = b"id\ttext\ttitle\n"
        for row in rows:
            title, _, text = row["contents"].partition("\n")
            cells = [str(int(row["id"]) + 1), text, title.removeprefix('"').removesuffix('"')]
            quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells[1:]]
            content += "\t".join([cells[0], *quoted]).encode() + b"\n"
    source = tmp_path / form
    source.write_bytes(gzip.compress(content) if form.endswith(".gz") else content)
    made = run(source, index=False)
    assert made.passages.path.read_bytes() == LINES
    assert made.passages.count == COUNT


def test_what_is_whole_is_used_where_it_lies(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "wiki-18.jsonl").write_bytes(LINES)
    (source / "e5_Flat.index").write_bytes(INDEX)
    made = run(source)
    assert made.index is not None
    assert (made.passages.path, made.index.path) == (source / "wiki-18.jsonl", source / "e5_Flat.index")
    assert names(tmp_path / "out") == ["manifest.json"]


def test_given_parts_are_used_up_only_on_demand(tmp_path: Path, run: Run) -> None:
    source = fill_folder(tmp_path / "in")
    with pytest.raises(DataError, match="in place uses them up: add --consume-parts"):
        run(source)
    assert (source / INDEX_PARTS[1]).stat().st_size == len(INDEX) - CUT
    run(source, consume_parts=True)
    assert (tmp_path / "out" / "e5_Flat.index").read_bytes() == INDEX
    assert names(source) == ["wiki-18.jsonl.gz"]
    # And again, with the parts gone.
    run(source, consume_parts=True)


def kill_at_every_seventh_line(folder: Path, kind: str) -> None:
    """Every line of joining is another test's; here every seventh of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "BLOCK_BYTES", 6000)
        line = 1
        while kill_at(folder / str(line), kind, line):
            line += 7
    assert line > 200


def kill_at(folder: Path, kind: str, line: int) -> bool:
    hub = FolderHub(folder / "hub")
    fill_hub(hub)
    source = fill_folder(folder / "in") if kind == "folder" else None
    out = folder / "out"
    settings = CorpusSettings(out=out, source=source, consume_parts=source is not None, allow_partial=True)
    was_killed = killed(lambda: make_corpus(settings, hub), line)
    made = make_corpus(settings, hub)
    assert made.passages.path.read_bytes() == LINES, f"killed at line {line}"
    assert made.index is not None
    assert made.index.path.read_bytes() == INDEX, f"killed at line {line}"
    assert names(out) == ["e5_Flat.index", "manifest.json", "wiki-18.jsonl"], f"killed at line {line}"
    return was_killed


@pytest.mark.parametrize("kind", ["hub", "folder"])
def test_it_goes_on_after_kill_9_at_any_line(kind: str, tmp_path: Path) -> None:
    in_a_small_process("test_data_corpus", f"kill_at_every_seventh_line({tmp_path!r}, {kind!r})")


def damage_gz(source: Path) -> None:
    path = source / "wiki-18.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-9])


def no_gz(source: Path) -> None:
    (source / "wiki-18.jsonl.gz").write_bytes(b"not gzip at all")


def half_a_line(source: Path) -> None:
    (source / "wiki-18.jsonl.gz").write_bytes(gzip.compress(LINES[:-3]))


def other_rows(source: Path) -> None:
    (source / "wiki-18.jsonl.gz").write_bytes(gzip.compress(b'{"title": "x"}\n'))


def fewer(source: Path) -> None:
    (source / "wiki-18.jsonl.gz").write_bytes(gzip.compress(LINES[: LINES.index(b"\n") + 1]))


def cut_part(source: Path) -> None:
    (source / INDEX_PARTS[1]).write_bytes(INDEX[CUT:-1])


def other_kind(source: Path) -> None:
    (source / INDEX_PARTS[0]).write_bytes(b"IwFl" + INDEX[4:CUT])


def other_dim(source: Path) -> None:
    (source / INDEX_PARTS[0]).write_bytes(INDEX[:4] + struct.pack("<i", 384) + INDEX[8:CUT])


def one_part(source: Path) -> None:
    (source / INDEX_PARTS[1]).unlink()


def nothing(source: Path) -> None:
    (source / "wiki-18.jsonl.gz").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damage_gz, "wiki-18.jsonl.gz is damaged or cut short"),
        (no_gz, "wiki-18.jsonl.gz is damaged or cut short"),
        (half_a_line, "wiki-18.jsonl.gz:5: the last line has no end"),
        (other_rows, "wiki-18.jsonl.gz:1: no passage"),
        (fewer, "is of 5 vectors, there are 1 passages"),
        (cut_part, "a part is missing or cut short"),
        (other_kind, "is no FAISS IndexFlatIP"),
        (other_dim, "holds vectors of 384, intfloat/e5-base-v2 gives 768"),
        (one_part, "not all of its parts part_aa, part_ab"),
        (nothing, "no passages there"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_used_up(
    spoil: Callable[[Path], None], said: str, tmp_path: Path, run: Run
) -> None:
    source = fill_folder(tmp_path / "in")
    spoil(source)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(DataError) as caught:
        run(source, consume_parts=True)
    assert said in str(caught.value)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert not list((tmp_path / "out").glob("*.joining*"))


def test_a_wrong_table_is_named_by_line(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "psgs_w100.tsv"
    for content, said in (("a\tb\n", ":1: the header"), ("id\ttext\ttitle\n1\tx\n", ":2: not a number, a text")):
        source.write_text(content)
        with pytest.raises(DataError, match=said):
            run(source, index=False)


def test_another_count_is_refused_unless_partial(hub: FolderHub, run: Run) -> None:
    fill_hub(hub)
    with pytest.raises(DataError, match=r"5 passages, published are 21,015,324"):
        run(allow_partial=False)


def test_too_little_room_is_told_before_anything_is_fetched(
    hub: FolderHub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {CORPUS_FILE: 5_123_307_260, INDEX_PARTS[0]: 42_949_672_960, INDEX_PARTS[1]: 21_609_402_413}

    def look_up(repo: str, name: str) -> HubFile:
        return HubFile(repo=repo, name=name, revision="r", size=sizes[name], sha256=None)

    monkeypatch.setattr(hub, "look_up", look_up)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=79_000_000_000))
    # 15.4 GB for the text, 64.6 for the index whose parts become it: no double.
    with pytest.raises(DataError, match=r"80\.0 GB are needed, 79\.0 GB are free"):
        run(allow_partial=False)
    assert names(tmp_path / "out") == []
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=81_000_000_000))
    with pytest.raises(HubError):
        run(allow_partial=False)


def test_a_part_that_was_damaged_on_its_way_is_fetched_again(
    hub: FolderHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_hub(hub)
    download = hub.download

    def damage(file: HubFile, folder: Path) -> Path:
        path = download(file, folder)
        if file.name == INDEX_PARTS[1]:
            path.write_bytes(b"x" + path.read_bytes()[1:])
        return path

    monkeypatch.setattr(hub, "download", damage)
    with pytest.raises(DataError, match=r"part_ab was damaged on its way .*run again"):
        run()
    monkeypatch.undo()
    index = run().index
    assert index is not None
    assert index.path.read_bytes() == INDEX


def test_parts_of_another_size_are_not_fetched(hub: FolderHub, run: Run) -> None:
    fill_hub(hub)
    (hub.root / INDEX_REPO / INDEX_PARTS[1]).write_bytes(INDEX[CUT:-4])
    with pytest.raises(DataError, match="the hub's parts of the e5 index have"):
        run()


def test_a_corpus_of_another_source_in_out_is_left_alone(tmp_path: Path, hub: FolderHub, run: Run) -> None:
    fill_hub(hub)
    run(index=False)
    with pytest.raises(DataError, match="holds wiki-18 from hub, not wiki-18 from"):
        run(fill_folder(tmp_path / "in"), index=False)


def test_consume_parts_that_would_do_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would do nothing"):
        CorpusSettings(out=tmp_path, consume_parts=True)


def test_the_estimate_of_the_text_covers_wiki_18() -> None:
    # FlashRAG's archive of the same passages has 5,123,307,260 bytes, the text between 13 and 14 GB.
    assert 14.3e9 < module.unpacked(5_123_307_260) < 16e9
