import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever_server.corpus import Corpus, import_corpus, parse_passage
from retriever_server.errors import CorpusError

GOOD = b'{"id": "a", "contents": "T\\nx"}\n'


def load(source: Path) -> int:
    return import_corpus(source, source.parent / "p.jsonl", source.parent / "o.npy")


@pytest.mark.parametrize(
    ("lines", "line", "says"),
    [
        (GOOD + b"{nope\n", 2, "not valid JSON"),
        (GOOD + b"\n" + GOOD, 2, "blank"),
        (b'["a", "b"]\n', 1, "not a JSON object"),
        (b'{"contents": "x"}\n', 1, '"id" is missing'),
        (b'{"id": "a"}\n', 1, '"contents" is missing'),
        (b'{"id": 7, "contents": "x"}\n', 1, '"id" must be a string, not 7'),
        (b'{"id": "", "contents": "x"}\n', 1, '"id" is empty'),
        (GOOD + b'{"id": "b", "contents": " \\n "}\n', 2, '"contents" is empty'),
        (GOOD + b'{"id": "b", "contents": "x"}\n' + GOOD, 3, '"a" is already on line 1'),
        (b'{"id": "a", "contents": "\xff"}\n', 1, "not valid JSON"),
        (b'{"id": "a", "contents": "\\ud800"}\n', 1, "not valid JSON"),
        (b'\xef\xbb\xbf{"id": "a", "contents": "x"}\n', 1, "not valid JSON"),
    ],
)
def test_a_wrong_line_is_named_with_its_remedy(tmp_path: Path, lines: bytes, line: int, says: str) -> None:
    source = tmp_path / "c.jsonl"
    source.write_bytes(lines)
    with pytest.raises(CorpusError) as raised:
        load(source)
    message = str(raised.value)
    assert message.startswith(f"{source}:{line}: ")
    assert says in message
    assert "run again" in message
    assert sorted(tmp_path.iterdir()) == [source], "nothing half-written may stay"


def test_a_missing_file_and_an_empty_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"gone\.jsonl: cannot be read .*--corpus"):
        load(tmp_path / "gone.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(CorpusError, match="no passages"):
        load(tmp_path / "empty.jsonl")


def test_equal_hashes_of_different_ids_are_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retriever_server.corpus.hash", lambda text: 1, raising=False)
    source = tmp_path / "c.jsonl"
    source.write_bytes(GOOD + b'{"id": "b", "contents": "x"}\n')
    assert load(source) == 2


text = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(text, text), min_size=1, unique_by=lambda passage: passage[0]))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, passages: list[tuple[str, str]]) -> None:
    directory = tmp_path_factory.mktemp("c")
    source = directory / "c.jsonl"
    source.write_text("".join(json.dumps({"id": id, "contents": contents}) + "\n" for id, contents in passages))
    assert load(source) == len(passages)
    corpus = Corpus(directory / "p.jsonl", directory / "o.npy")
    assert len(corpus) == len(passages)
    read = [json.loads(corpus.raw(row)) for row in range(len(corpus))]
    assert [(passage["id"], passage["contents"]) for passage in read] == passages
    assert corpus.contents(0, len(corpus)) == [contents for _, contents in passages]


@given(st.binary())
def test_no_bytes_raise_anything_but_a_corpus_error(line: bytes) -> None:
    with contextlib.suppress(CorpusError):
        parse_passage(line, "c:1")


def test_extra_fields_and_windows_line_ends_are_left_out(tmp_path: Path) -> None:
    source = tmp_path / "c.jsonl"
    source.write_bytes(b'{"title": "t", "contents": "x", "id": "a"}\r\n')
    load(source)
    assert Corpus(tmp_path / "p.jsonl", tmp_path / "o.npy").raw(0) == b'{"id":"a","contents":"x"}'
